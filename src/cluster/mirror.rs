//! A standby's board: what the leader wrote, as long as it may be believed.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::Client;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    checks::{Listing, Object, Selection, tell_readiness, watch_checks},
    prior::mirrored,
    watch::Told,
    writer::refresh_period,
};
use crate::{
    api::HealthCheck,
    check::ObjectKey,
    compile::{self, Mode},
    engine::{Board, CheckView},
    server::Readiness,
    telemetry::{Beats, Metrics},
};

/// How often ages are looked at.
const TICK: Duration = Duration::from_secs(2);

/// What a standby works with.
#[derive(Clone)]
pub struct Parts {
    pub client: Client,
    pub board: Arc<Board>,
    pub selection: Selection,
    pub refresh: Duration,
    pub metrics: Metrics,
    pub beats: Beats,
    pub readiness: Readiness,
}

/// What the last status of a check says, and until when.
#[derive(Debug)]
struct Seen {
    view: Arc<CheckView>,
    /// The same, once it is too old.
    stale: Arc<CheckView>,
    observed_at: Option<Timestamp>,
    stale_after: Duration,
    fresh: bool,
}

struct Mirror {
    parts: Parts,
    listing: Listing,
    seen: BTreeMap<ObjectKey, Seen>,
    synced: bool,
}

struct Input(usize, Told<Object>);

/// Mirrors until `stop`.
pub async fn mirror(parts: Parts, stop: CancellationToken) {
    let (sender, mut inbox) = mpsc::channel(1024);
    let _watches = watch_checks(&parts.client, &parts.selection, &parts.metrics, Some, Input, &sender);
    let listing = Listing::new(&parts.selection);
    parts.readiness.not_ready("sync", "HealthChecks are being listed");
    let mut mirror = Mirror { parts, listing, seen: BTreeMap::new(), synced: false };
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut batch = Vec::with_capacity(256);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            count = inbox.recv_many(&mut batch, 256) => {
                if count == 0 { break }
                let now = Timestamp::now();
                let mut views = vec![];
                let mut gone = vec![];
                for Input(watch, told) in batch.drain(..) {
                    tell_readiness(&mirror.parts.readiness, &told);
                    mirror.take(watch, told, now, &mut views, &mut gone);
                }
                mirror.parts.board.publish(views, &gone);
                mirror.finish_sync();
            }
            _ = tick.tick() => mirror.age(Timestamp::now()),
        }
    }
    mirror.parts.readiness.forget("sync");
    mirror.parts.beats.end("mirror");
}

impl Mirror {
    fn take(
        &mut self,
        watch: usize,
        told: Told<Object>,
        now: Timestamp,
        views: &mut Vec<CheckView>,
        gone: &mut Vec<ObjectKey>,
    ) {
        match told {
            Told::Begin => self.listing.begin(watch),
            Told::Is(object) => {
                let Some(seen) = self.read(object, now) else { return };
                let key = seen.view.key.clone();
                self.listing.has(watch, &key);
                views.push(CheckView::clone(if seen.fresh { &seen.view } else { &seen.stale }));
                self.seen.insert(key, seen);
            }
            Told::Gone(object) => {
                let meta = object.metadata;
                if let (Some(namespace), Some(name)) = (meta.namespace, meta.name) {
                    let key = ObjectKey::new(&namespace, &name);
                    self.seen.remove(&key);
                    views.retain(|view| view.key != key);
                    gone.push(key);
                }
            }
            Told::Complete => {
                for key in self.listing.complete(watch, self.seen.keys()) {
                    self.seen.remove(&key);
                    gone.push(key);
                }
            }
            Told::Failed(_) => {}
        }
    }

    /// How long a status may be believed: until it should have been confirmed, and one `staleAfter` more.
    fn believed_for(&self, stale_after: Duration) -> Duration {
        refresh_period(self.parts.refresh, self.seen.len()) + stale_after
    }

    fn read(&self, object: Object, now: Timestamp) -> Option<Seen> {
        let Object { metadata, spec, status } = object;
        metadata.namespace.as_ref()?;
        let spec = match spec {
            Ok(spec) => *spec,
            // Unreadable for us; its leader says so in the status.
            Err(_) => return None,
        };
        let observed_at = status.as_ref().and_then(|status| status.observed_at.as_ref()).map(|time| time.0);
        let object = HealthCheck { metadata, spec, status };
        let check = compile::compile(&object, Mode::Cluster).ok();
        let stale_after = check.as_ref().map_or(Duration::from_secs(30), |check| check.stale_after);
        let always = Duration::from_secs(u64::from(u32::MAX));
        let view = Arc::new(mirrored(&object, check.as_ref(), always, now));
        let stale = Arc::new(mirrored(&object, check.as_ref(), Duration::ZERO, now));
        let mut seen = Seen { view, stale, observed_at, stale_after, fresh: true };
        seen.fresh = self.is_fresh(&seen, now);
        Some(seen)
    }

    fn is_fresh(&self, seen: &Seen, now: Timestamp) -> bool {
        seen.observed_at.is_none_or(|at| now.duration_since(at).unsigned_abs() <= self.believed_for(seen.stale_after))
    }

    fn age(&mut self, now: Timestamp) {
        self.parts.beats.beat("mirror", Duration::from_secs(30));
        self.parts.board.beat();
        let changed: Vec<_> = self
            .seen
            .iter()
            .filter(|(_, seen)| seen.fresh != self.is_fresh(seen, now))
            .map(|(key, _)| key.clone())
            .collect();
        let mut views = vec![];
        for key in changed {
            if let Some(seen) = self.seen.get_mut(&key) {
                seen.fresh = !seen.fresh;
                views.push(CheckView::clone(if seen.fresh { &seen.view } else { &seen.stale }));
            }
        }
        self.parts.board.publish(views, &[]);
    }

    fn finish_sync(&mut self) {
        if self.synced || !self.listing.is_complete() {
            return;
        }
        self.synced = true;
        // What an engine of ours left on the board, and is no longer there.
        let board = &self.parts.board;
        let gone: Vec<_> =
            board.all().iter().map(|view| view.key.clone()).filter(|key| !self.seen.contains_key(key)).collect();
        board.publish(vec![], &gone);
        board.set_synced();
        self.parts.readiness.ready("sync");
    }
}
