//! Gates of checks that nothing probes: by what a real engine says of them.

use std::future::pending;

use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    check::{Attempt, Observed, Report},
    cluster::index::facts::PodFacts,
    engine::{About, Engine, Limits, Observation, Parts, start},
    probe::Lane,
    telemetry::{Beats, Metrics},
};

struct Nobody;

impl Lane for Nobody {
    async fn attempt(&self, _: Attempt) -> Report {
        pending().await
    }
}

/// What the engine of these tests says is carried over to the board of the gates by hand.
struct Judge {
    engine: Engine,
    board: Arc<Board>,
    stop: CancellationToken,
}

impl Judge {
    async fn of(world: &World) -> Self {
        let (board, stop) = (Arc::new(Board::new()), CancellationToken::new());
        let parts = Parts {
            lane: Arc::new(Nobody),
            board: board.clone(),
            limits: Limits { in_flight: 10, per_host: 10 },
            surroundings: Surroundings::default(),
            metrics: Metrics::default(),
            beats: Beats::default(),
        };
        let (engine, _) = start(parts, stop.clone());
        let judge = Self { engine, board, stop };
        judge.run(world).await;
        judge
    }

    async fn run(&self, world: &World) {
        for desired in world.wanted.clone() {
            self.engine.upsert(desired).await;
        }
        self.engine.settle().await;
    }

    async fn report(&self, endpoint: &str, observed: Observed, count: u32) {
        let about = About::Endpoint { check: Arc::new(key("a")), endpoint: endpoint.into() };
        self.engine.observe(vec![Observation { about, observed, count, when: None }]).await.expect("it runs");
        self.engine.settle().await;
    }

    /// Which are published once the gates have heard of `count` such reports.
    async fn published(&self, world: &mut World, endpoint: &str, observed: Observed, count: u32) -> Vec<bool> {
        self.report(endpoint, observed, count).await;
        self.tell(world);
        world.settle();
        world.ready()
    }

    fn tell(&self, world: &mut World) {
        let view = self.board.get(&key("a")).expect("on the board");
        world.board.publish(vec![(*view).clone()], &[]);
        let scene = Scene { reconciler: &world.reconciler, board: &world.board, wall: world.wall };
        world.gates.verdict_changed(&key("a"), scene);
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn unprobed(mut spec: Value, initial: &str) -> Value {
    spec["passive"] = json!({"activeProbes": "Off", "ejectionTime": "20s"});
    spec["initialState"] = json!(initial);
    spec["minHealthy"] = json!(1);
    spec
}

/// It gets traffic, as nothing else could ever show what it is worth.
#[tokio::test(start_paused = true)]
async fn a_new_endpoint_that_nothing_probes_is_published_beside_one_that_was_reported() {
    let mut world = World::new();
    world.check("a", 1, json!({}), unprobed(spec(1, json!({})), "Unknown"));
    let judge = Judge::of(&world).await;
    assert_eq!(judge.published(&mut world, "10.0.0.1:80", Observed::Status(200), 3).await, [true]);
    // A scale-up.
    world.check("a", 2, json!({}), unprobed(spec(2, json!({})), "Unknown"));
    judge.run(&world).await;
    judge.tell(&mut world);
    world.settle();
    assert_eq!(world.ready(), [true, true]);
    // Traffic speaks against it, and in its time it gets some again.
    assert_eq!(judge.published(&mut world, "10.0.0.2:80", Observed::ConnectFailure, 2).await, [true, false]);
    tokio::time::sleep(Duration::from_secs(21)).await;
    judge.engine.settle().await;
    judge.tell(&mut world);
    assert!(world.board.get(&key("a")).expect("there").endpoints[1].state.is_healthy());
}

#[tokio::test(start_paused = true)]
async fn one_that_is_declared_unhealthy_waits_as_long_as_an_ejection_and_no_longer() {
    let mut world = World::new();
    world.check("a", 1, json!({}), unprobed(spec(2, json!({})), "Unhealthy"));
    let judge = Judge::of(&world).await;
    assert_eq!(judge.published(&mut world, "10.0.0.1:80", Observed::Status(200), 1).await, [true, false]);
    tokio::time::sleep(Duration::from_secs(21)).await;
    judge.engine.settle().await;
    judge.tell(&mut world);
    world.settle();
    assert_eq!(world.ready(), [true, true]);
}

fn pod(last: u8) -> PodFacts {
    let object = json!({
        "metadata": {
            "name": format!("pod-{last}"), "namespace": NS, "uid": format!("pod-{last}"), "resourceVersion": "1",
            "labels": {"app": "web"},
        },
        "spec": {
            "containers": [{"name": "web"}], "readinessGates": [{"conditionType": "healthcheck-operator.dev/ready"}],
        },
        "status": {"phase": "Running", "podIP": format!("10.0.0.{last}"), "podIPs": [{"ip": format!("10.0.0.{last}")}]},
    });
    PodFacts::of(&serde_json::from_value::<Pod>(object).expect("readable"))
}

#[tokio::test(start_paused = true)]
async fn a_new_pod_that_nothing_probes_becomes_ready_so_that_a_rollout_goes_on() {
    let mut world = World::new();
    let targets = json!([{"name": "web", "pods": {"selector": {"matchLabels": {"app": "web"}}}, "port": 80}]);
    let gates = json!([{"name": "g", "podReadiness": {"conditionType": "healthcheck-operator.dev/ready"}}]);
    let pods = [Told::Begin, Told::Is(pod(1)), Told::Is(pod(2)), Told::Complete];
    for told in pods {
        world.reconciler.source(SourceChange::Pod(scope(SourceKind::Pods), told));
    }
    world.check("a", 1, json!({}), unprobed(json!({"targets": targets, "gates": gates}), "Unknown"));
    let judge = Judge::of(&world).await;
    judge.report("10.0.0.1:80", Observed::Status(200), 3).await;
    judge.tell(&mut world);
    let notes = world.turn().notes;
    let admitted: Vec<_> = notes
        .iter()
        .filter_map(|note| match note {
            Note::Gate(GateKey::Pod(..), Some(write)) => Some(format!("{write:?}").contains("Admitted")),
            _ => None,
        })
        .collect();
    assert_eq!(admitted, [true, true]);
}
