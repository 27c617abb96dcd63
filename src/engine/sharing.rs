//! Equal questions that are due together are asked once, and all who ask take the answer. Pure.
//!
//! Whoever comes first leads: it holds the permit, and its probe goes out. Who comes while that probe waits, or runs and began no
//! earlier than its own round was due, listens. Every flight is entered under the hash of its question, so that nothing
//! has to be known of who asks what while nobody asks.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use foldhash::fast::RandomState;

use super::{phase, record::Record};
use crate::check::{Check, Endpoint, HeaderSource, Probe, ProbeKind};

/// Room for so many stays where it is not needed.
const KEPT: usize = 256;

/// Who asks, and who listens to whom.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    /// The last that began to ask, by the hash of its question.
    asking: HashMap<u64, u32, BuildHasherDefault<Mixed>>,
    /// Those who take the answer of another, by that other. Never empty lists.
    listening: HashMap<u32, Vec<u32>, RandomState>,
}

impl Sharing {
    /// Who asks the question of `hash`, if anybody does. A hash may be that of two questions.
    pub fn asking(&self, hash: u64) -> Option<u32> {
        self.asking.get(&hash).copied()
    }

    /// `id` asks from now on: in place of one that cannot be joined any more, which keeps those who listen to it.
    pub fn lead(&mut self, hash: u64, id: u32) {
        self.asking.insert(hash, id);
    }

    /// `id` takes the answer of `leader`.
    pub fn listen(&mut self, leader: u32, id: u32) {
        self.listening.entry(leader).or_default().push(id);
    }

    /// `id` takes no answer of `leader`.
    pub fn leave(&mut self, leader: u32, id: u32) {
        let Some(listeners) = self.listening.get_mut(&leader) else { return };
        listeners.retain(|listener| *listener != id);
        if listeners.is_empty() {
            self.listening.remove(&leader);
        }
    }

    /// Nobody may join `id` any more. Those who listen to it.
    pub fn end(&mut self, hash: u64, id: u32) -> Vec<u32> {
        if self.asking(hash) == Some(id) {
            self.asking.remove(&hash);
            if self.asking.is_empty() && self.asking.capacity() > KEPT {
                // A flood of probes is over: what it took goes with it.
                self.asking.shrink_to(KEPT);
                self.listening.shrink_to(KEPT);
            }
        }
        self.listening.remove(&id).unwrap_or_default()
    }
}

/// Takes a number as its own hash: it is one.
#[derive(Clone, Copy, Debug, Default)]
struct Mixed(u64);

impl Hasher for Mixed {
    fn write(&mut self, bytes: &[u8]) {
        debug_assert!(false, "only whole hashes are keys, not {bytes:?}");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// What seeds phase and jitter of `endpoint`: its question, so that equal ones fall due together wherever their intervals
/// divide one another, whosever they are; the endpoint itself where its answer is nobody else's.
pub(super) fn seed(check: &Check, endpoint: &Endpoint) -> u64 {
    if !is_shareable(endpoint) {
        return phase::stable_hash(&[&check.uid, &endpoint.target, &endpoint.identity]);
    }
    phase::hash_of(&(namespace(check, &endpoint.probe), &endpoint.dial, &endpoint.probe))
}

/// A script is told whose it is, and does as it likes.
pub(super) fn is_shareable(endpoint: &Endpoint) -> bool {
    !matches!(endpoint.probe.kind, ProbeKind::Script(_))
}

/// Whether the answer to `one`, of `check`, answers `other`, of `others`, too.
pub(super) fn is_same((one, check): (&Record, &Check), (other, others): (&Record, &Check)) -> bool {
    let (a, b) = (&one.endpoint, &other.endpoint);
    is_shareable(a)
        && a.dial == b.dial
        && a.probe == b.probe
        && namespace(check, &a.probe) == namespace(others, &b.probe)
        // Where a name led to before is asked while no name server says anything else.
        && (!a.is_named() || one.belief.addresses() == other.belief.addresses())
}

/// The namespace of whose objects something is sent or trusted; `None`: of none.
fn namespace<'a>(check: &'a Check, probe: &Probe) -> Option<&'a str> {
    let refers = match &probe.kind {
        ProbeKind::Http(http) => {
            http.tls.ca.is_some()
                || http.tls.client.is_some()
                || http.headers.iter().any(|header| matches!(header.source, HeaderSource::Secret(_)))
        }
        ProbeKind::Tcp(tcp) => tcp.tls.as_ref().is_some_and(|tls| tls.ca.is_some() || tls.client.is_some()),
        ProbeKind::Grpc(grpc) => grpc.tls.as_ref().is_some_and(|tls| tls.ca.is_some() || tls.client.is_some()),
        ProbeKind::Script(_) => true,
    };
    refers.then_some(&*check.key.namespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_is_told_once_and_a_new_leader_takes_no_listener_of_the_old_one() {
        let mut sharing = Sharing::default();
        sharing.lead(7, 1);
        sharing.listen(1, 2);
        sharing.listen(1, 3);
        // The probe of 1 goes on, too old to be joined.
        sharing.lead(7, 4);
        sharing.listen(4, 5);
        sharing.leave(1, 3);
        assert_eq!(sharing.end(7, 1), [2]);
        assert_eq!(sharing.asking(7), Some(4), "the end of the old one is not that of the new one");
        assert_eq!(sharing.end(7, 4), [5]);
        assert_eq!((sharing.asking(7), sharing.end(7, 4).len()), (None, 0));
        assert!(sharing.listening.is_empty());
    }

    #[test]
    fn what_a_flood_took_is_given_back() {
        let mut sharing = Sharing::default();
        for id in 0..100_000_u32 {
            sharing.lead(phase::hash_of(&id), id);
        }
        for id in 0..100_000_u32 {
            sharing.end(phase::hash_of(&id), id);
        }
        assert!(sharing.asking.capacity() <= 2 * KEPT, "{}", sharing.asking.capacity());
    }
}
