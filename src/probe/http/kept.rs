//! Connections that are kept between the rounds of one endpoint (`reuseConnection`).

use std::{
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use http::HeaderMap;
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use tokio::time::Instant;

use super::{exchange::One, request::Plan};
use crate::{
    check::Kept,
    probe::{http2, tls},
};

/// A connection is asked no longer than this: a certificate is shown when a connection begins, and whoever shares out
/// connections behind an address does so then, too.
pub(in crate::probe) const MAX_AGE: Duration = Duration::from_secs(3600);

/// How many idle connections are kept, counted over all endpoints; cheap to clone.
#[derive(Clone, Debug)]
pub struct KeptConnections {
    /// The most there may be; beyond it the next attempt opens one of its own, as without `reuseConnection`.
    pub limit: usize,
    /// How many there are.
    pub idle: Gauge,
    /// Of those that an attempt found gone, because the target or somebody on the way had closed them.
    pub lost: Counter,
}

impl Default for KeptConnections {
    /// As many as an eighth of the smallest of ordinary limits on descriptors (1024).
    fn default() -> Self {
        Self { limit: 128, idle: Gauge::default(), lost: Counter::default() }
    }
}

impl KeptConnections {
    fn admit(&self) -> Option<Place> {
        self.admit_within(self.limit)
    }

    /// A place for one more, if there are fewer than `limit`.
    pub(in crate::probe) fn admit_within(&self, limit: usize) -> Option<Place> {
        let place = Place(self.idle.clone());
        let before = self.idle.inc();
        // Dropped where there is no room, which takes it off the count.
        usize::try_from(before).is_ok_and(|before| before < limit).then_some(place)
    }
}

/// One idle connection's place in the count.
pub(in crate::probe) struct Place(Gauge);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// An open connection over which one may ask again.
pub(super) enum Line {
    One(Box<One>),
    Two(Box<http2::Line>),
}

/// A connection, and what its beginning told.
pub(super) struct Shelved {
    pub line: Line,
    pub opened: Instant,
    /// Of the certificate that was shown, in seconds since the epoch.
    pub certificate_expires: Option<i64>,
}

/// What a connection was opened with, or asked over it, that comes from references: with another value it is not used.
#[derive(PartialEq, Eq)]
struct Credentials {
    /// `None` where no header comes from a Secret: then they are the probe's own, and change only with it.
    headers: Option<HeaderMap>,
    tls: Option<tls::Setting>,
}

/// What is left for the next attempt.
struct Left {
    credentials: Credentials,
    lines: Vec<(SocketAddr, Shelved, Place)>,
}

/// The connections of one endpoint while an attempt is made on it. Dropped without [`Self::close`], it keeps none.
pub(in crate::probe) struct Shelf<'a> {
    /// `None`: nothing is kept.
    kept: Option<&'a Kept>,
    all: &'a KeptConnections,
    lines: Mutex<Lines>,
}

#[derive(Default)]
struct Lines {
    before: Vec<(SocketAddr, Shelved)>,
    now: Vec<(SocketAddr, Shelved)>,
}

impl<'a> Shelf<'a> {
    /// Takes out what the attempt before left in `kept`.
    pub fn open(kept: Option<&'a Kept>, all: &'a KeptConnections, plan: &Plan) -> Self {
        let left = kept.and_then(Kept::take).and_then(|left| left.downcast::<Left>().ok());
        let left = left.filter(|left| left.credentials == credentials(plan));
        let before = left.map_or_else(Vec::new, |left| {
            left.lines.into_iter().map(|(address, shelved, _)| (address, shelved)).collect()
        });
        Self { kept, all, lines: Mutex::new(Lines { before, now: vec![] }) }
    }

    /// Whether connections are kept at all.
    pub fn keeps(&self) -> bool {
        self.kept.is_some()
    }

    /// The connection to `address`, if there is one that is not too old.
    pub(super) fn take(&self, address: SocketAddr) -> Option<Shelved> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let Lines { before, now } = &mut *lines;
        [now, before].into_iter().find_map(|lines| {
            let at = lines.iter().position(|(to, _)| *to == address)?;
            let (_, shelved) = lines.swap_remove(at);
            (shelved.opened.elapsed() < MAX_AGE).then_some(shelved)
        })
    }

    pub(super) fn put(&self, address: SocketAddr, shelved: Shelved) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).now.push((address, shelved));
    }

    /// A connection was no longer there when it was wanted.
    pub(super) fn lost(&self) {
        self.all.lost.inc();
    }

    /// Leaves to the next attempt what this one put here. What it did not ask is let go: the name leads there no more, or
    /// nobody may dial it.
    pub fn close(self, plan: &Plan) {
        let Some(kept) = self.kept else { return };
        let now = self.lines.into_inner().unwrap_or_else(PoisonError::into_inner).now;
        let admitted = now.into_iter().filter_map(|(address, shelved)| Some((address, shelved, self.all.admit()?)));
        let lines: Vec<_> = admitted.collect();
        if !lines.is_empty() {
            kept.put(Box::new(Left { credentials: credentials(plan), lines }));
        }
    }
}

fn credentials(plan: &Plan) -> Credentials {
    let headers = plan.headers.values().any(http::HeaderValue::is_sensitive).then(|| plan.headers.clone());
    Credentials { headers, tls: plan.tls.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_kept_than_there_is_room_for() {
        let all = KeptConnections { limit: 2, ..KeptConnections::default() };
        let (first, second) = (all.admit(), all.admit());
        assert!(first.is_some() && second.is_some() && all.admit().is_none());
        assert_eq!(all.idle.get(), 2, "who is turned away is not counted");
        drop(first);
        assert!(all.admit().is_some());
        drop(second);
        assert_eq!(all.idle.get(), 0);
    }
}
