//! A standby's board: what the leader wrote, as long as it may be believed.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::Client;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    checks::{Complaints, Listing, Object, Selection, tell_readiness, watch_checks},
    prior::mirrored,
    watch::Told,
    writer::confirmed_within,
};
use crate::{
    api::{HealthCheck, HealthCheckSpec},
    check::{Counts, Health, HealthReason, ObjectKey},
    compile::{self, Mode},
    engine::{Board, CheckView},
    server::Readiness,
    telemetry::{Beats, MIRROR, Metrics},
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
    pub complaints: Complaints,
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
    let _watches =
        watch_checks(&parts.client, &parts.selection, &parts.metrics, &parts.complaints, Some, Input, &sender);
    let listing = Listing::new(&parts.selection);
    super::begin_sync(&parts.readiness, &parts.board);
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
    mirror.parts.beats.end(MIRROR);
}

/// The spec that stands in for one that cannot be read. Never `None`: it is a constant.
fn nothing_asked() -> Option<HealthCheckSpec> {
    serde_json::from_value(serde_json::json!({"targets": []})).ok()
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
                // Made again in the batch that took it away.
                gone.retain(|other| *other != key);
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
        confirmed_within(self.parts.refresh, self.seen.len()) + stale_after
    }

    fn read(&self, object: Object, now: Timestamp) -> Option<Seen> {
        let Object { metadata, spec, status } = object;
        metadata.namespace.as_ref()?;
        let (spec, unreadable) = match spec {
            Ok(spec) => (*spec, None),
            // It stays on the board, as on its leader's, so that nobody takes its absence for health.
            Err(problem) => (nothing_asked()?, Some(problem)),
        };
        let observed_at = status.as_ref().and_then(|status| status.observed_at.as_ref()).map(|time| time.0);
        let object = HealthCheck { metadata, spec, status };
        let check = compile::compile(&object, Mode::Cluster).ok();
        let stale_after = check.as_ref().map_or(Duration::from_secs(30), |check| check.stale_after);
        let always = Duration::from_secs(u64::from(u32::MAX));
        let mut view = mirrored(&object, check.as_ref(), always, now);
        if let Some(problem) = unreadable {
            let message = format!("{}: {}", problem.field_path, problem.message);
            let (counts, endpoints) = (Counts::default(), Arc::from([]));
            view = CheckView {
                health: Health::Unknown,
                reason: HealthReason::ProbeError,
                message,
                counts,
                unlisted: Health::Unknown,
                endpoints,
                ..view
            };
            let view = Arc::new(view);
            return Some(Seen { stale: view.clone(), view, observed_at: None, stale_after, fresh: true });
        }
        let view = Arc::new(view);
        let stale = Arc::new(mirrored(&object, check.as_ref(), Duration::ZERO, now));
        let mut seen = Seen { view, stale, observed_at, stale_after, fresh: true };
        seen.fresh = self.is_fresh(&seen, now);
        Some(seen)
    }

    fn is_fresh(&self, seen: &Seen, now: Timestamp) -> bool {
        seen.observed_at.is_none_or(|at| now.duration_since(at).unsigned_abs() <= self.believed_for(seen.stale_after))
    }

    fn age(&mut self, now: Timestamp) {
        self.parts.beats.beat(MIRROR, Duration::from_secs(30));
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::telemetry::{Beats, Metrics};

    fn mirror() -> Mirror {
        let service = tower::service_fn(|_: http::Request<kube::client::Body>| {
            std::future::pending::<Result<http::Response<kube::client::Body>, tower::BoxError>>()
        });
        let parts = Parts {
            client: Client::new(service, "default"),
            board: Arc::new(Board::new()),
            selection: Selection::default(),
            refresh: Duration::from_secs(60),
            metrics: Metrics::default(),
            beats: Beats::default(),
            readiness: Readiness::default(),
            complaints: Complaints::default(),
        };
        let listing = Listing::new(&parts.selection);
        Mirror { parts, listing, seen: BTreeMap::new(), synced: false }
    }

    #[tokio::test]
    async fn what_is_made_again_at_once_is_there() {
        let mut mirror = mirror();
        let object = |uid: &str| -> Object {
            serde_json::from_value(json!({
                "metadata": {"name": "a", "namespace": "shop", "uid": uid, "generation": 1},
                "spec": {"targets": [{"name": "t", "host": "10.0.0.1", "port": 80}]},
            }))
            .expect("readable")
        };
        let (mut views, mut gone) = (vec![], vec![]);
        for told in [Told::Is(object("1")), Told::Gone(object("1")), Told::Is(object("2"))] {
            mirror.take(0, told, Timestamp::now(), &mut views, &mut gone);
        }
        mirror.parts.board.publish(views, &gone);
        let view = mirror.parts.board.get(&ObjectKey::new("shop", "a")).expect("on the board");
        assert_eq!(&*view.uid, "2");
    }

    #[tokio::test]
    async fn a_spec_that_cannot_be_read_is_unknown_and_not_absent() {
        let mut mirror = mirror();
        let object: Object = serde_json::from_value(json!({
            "metadata": {"name": "odd", "namespace": "shop", "uid": "u", "generation": 3},
            "spec": {"interval": {"of": "another version"}},
            "status": {"health": "Healthy", "observedAt": "2026-01-01T00:00:00Z",
                "counts": {"total": 1, "healthy": 1, "unhealthy": 0, "unknown": 0}},
        }))
        .expect("readable but for its spec");
        let (mut views, mut gone) = (vec![], vec![]);
        let now = "2026-01-01T00:00:01Z".parse().expect("a time");
        for told in [Told::Begin, Told::Is(object), Told::Complete] {
            mirror.take(0, told, now, &mut views, &mut gone);
        }
        assert!(gone.is_empty());
        let view = views.first().expect("on the board");
        assert_eq!((view.health, view.reason, view.generation), (Health::Unknown, HealthReason::ProbeError, 3));
        assert!(view.message.starts_with("spec.interval"), "{}", view.message);
    }
}
