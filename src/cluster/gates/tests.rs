//! Gates against a cluster that is written down, and a server that takes what it is sent.

mod doubt;
mod letting_go;
mod names;
mod passive;
mod takeover;
mod wave;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use serde_json::{Value, json};

use super::{
    pace::Spans,
    slice::Body,
    write::{GateWrite, SliceWrite, Written},
    *,
};
use crate::{
    api,
    check::{Counts, EndpointState, Health, HealthReason, Target},
    cluster::{
        checks::{Object, Selection, facts},
        client::CallError,
        index::{
            Scope, SourceChange, SourceKind,
            facts::{ServiceFacts, SliceFacts},
        },
        reconcile::Action,
        watch::Told,
    },
    engine::{CheckView, Desired, EndpointView, Live, Remarks},
};

const NS: &str = "shop";

struct World {
    reconciler: Reconciler,
    board: Board,
    gates: Gates,
    wall: Timestamp,
    versions: u32,
    surroundings: Surroundings,
    /// What an engine would have been told to run.
    wanted: Vec<Desired>,
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new(NS, name)
}

fn scope(kind: SourceKind) -> Scope {
    Scope { kind, namespace: NS.into() }
}

/// Hosts 10.0.0.1… on port 80, and a gate on the Service `db`.
fn spec(hosts: usize, more: Value) -> Value {
    let targets: Vec<_> =
        (1..=hosts).map(|n| json!({"name": format!("t{n}"), "host": format!("10.0.0.{n}"), "port": 80})).collect();
    let mut gate = json!({"name": "traffic", "endpointSlice": {"service": "db"}});
    gate.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    json!({"targets": targets, "gates": [gate]})
}

impl World {
    fn new() -> Self {
        Self::with(vec![])
    }

    /// A Service `db`, and slices left by an earlier life.
    fn with(slices: Vec<SliceFacts>) -> Self {
        Self::made(slices, true)
    }

    /// The slices alone: Services have not been listed yet.
    fn unlisted(slices: Vec<SliceFacts>) -> Self {
        Self::made(slices, false)
    }

    fn slices(&mut self, slices: Vec<SliceFacts>) {
        for told in [Told::Begin].into_iter().chain(slices.into_iter().map(Told::Is)).chain([Told::Complete]) {
            self.reconciler.source(SourceChange::Slice(scope(SourceKind::Slices), told));
        }
    }

    fn made(slices: Vec<SliceFacts>, listed: bool) -> Self {
        let surroundings = Surroundings::default();
        let none = Duration::ZERO;
        let mut world = Self {
            reconciler: Reconciler::new(&Selection::default(), false, Duration::from_secs(300)),
            board: Board::new(),
            gates: Gates::new(
                Features { endpoint_slices: true, pod_readiness: true },
                GateGauges::default(),
                surroundings.clone(),
            ),
            wall: "2026-01-01T00:00:00Z".parse().expect("a time"),
            versions: 100,
            surroundings,
            wanted: vec![],
        };
        // What is looked at here is what is written, not when.
        world.gates.pace = Pace::new(Spans { lone: none, several: none, many: none, rest: none, members: none });
        world.reconciler.check(0, Told::Begin);
        world.reconciler.check(0, Told::Complete);
        if !listed {
            world.slices(slices);
            return world;
        }
        let service = json!({"metadata": {"name": "db", "namespace": NS}, "spec": {"ports": [{"port": 5432}]}});
        let service = ServiceFacts::of(&serde_json::from_value::<Service>(service).expect("readable"));
        for told in [Told::Begin, Told::Is(service), Told::Complete] {
            world.reconciler.source(SourceChange::Service(scope(SourceKind::Services), told));
        }
        world.slices(slices);
        world
    }

    fn check(&mut self, name: &str, generation: i64, annotations: Value, spec: Value) {
        self.found(name, generation, annotations, spec, json!(null));
    }

    /// One whose status an earlier life has written.
    fn found(&mut self, name: &str, generation: i64, annotations: Value, spec: Value, status: Value) {
        let object = json!({
            "apiVersion": api::API_VERSION, "kind": api::KIND,
            "metadata": {
                "name": name, "namespace": NS, "uid": name, "generation": generation, "annotations": annotations,
                "creationTimestamp": "2025-01-01T00:00:00Z",
            },
            "spec": spec, "status": status,
        });
        let object = facts(serde_json::from_value::<Object>(object).expect("an object")).expect("with a name");
        self.reconciler.check(0, Told::Is(object));
        self.wanted.extend(self.reconciler.settle().into_iter().filter_map(|action| match action {
            Action::Upsert(desired) => Some(*desired),
            _ => None,
        }));
    }

    /// The board comes to say this of the endpoints of `name`, in order: `None` is not measured yet.
    fn says(&mut self, name: &str, states: &[Option<EndpointState>]) {
        let check = self.reconciler.accepted(&key(name)).expect("accepted").clone();
        let rows = check.targets.iter().zip(states).map(|(target, state)| self.row(target, *state)).collect();
        self.shows(name, rows);
    }

    fn row(&self, target: &Target, state: Option<EndpointState>) -> EndpointView {
        let endpoint = target.own_endpoint().expect("a host");
        EndpointView {
            target: target.name.clone(),
            label: endpoint.label.clone(),
            identity: endpoint.identity.clone(),
            kind: crate::check::Kind::Tcp,
            optional: false,
            state: state.unwrap_or(EndpointState::Unknown),
            stale: state == Some(EndpointState::Unknown),
            measured: state.is_some(),
            since: self.wall.into(),
            remarks: None,
            named: endpoint.is_named(),
            live: Live::default(),
        }
    }

    /// The board comes to have these rows of `name`.
    fn shows(&mut self, name: &str, rows: Vec<EndpointView>) {
        let check = self.reconciler.accepted(&key(name)).expect("accepted").clone();
        let early = rows.iter().any(|row| !row.measured);
        let view = CheckView {
            key: key(name),
            uid: check.uid.clone(),
            generation: check.generation,
            labels: Arc::default(),
            suspended: check.suspend,
            health: Health::Unknown,
            reason: if early { HealthReason::Pending } else { HealthReason::TargetsUnhealthy },
            message: String::new(),
            since: self.wall,
            counts: Counts::default(),
            targets: check.target_names(),
            unlisted: Health::Unknown,
            endpoints: rows.into(),
            outages: Arc::from([]),
            probes: "tcp".into(),
            interval: Duration::from_secs(1),
            idle_interval: Duration::from_secs(1),
            transitions: [0; 4],
            live: Arc::default(),
        };
        self.board.publish(vec![view], &[]);
        let scene = Scene { reconciler: &self.reconciler, board: &self.board, wall: self.wall };
        self.gates.verdict_changed(&key(name), scene);
    }

    fn turn(&mut self) -> Turn {
        let touched = self.reconciler.index.take_gated();
        self.gates.changed(touched);
        self.gates.turn(Scene { reconciler: &self.reconciler, board: &self.board, wall: self.wall })
    }

    /// A turn, of which only the writes are looked at.
    fn writes(&mut self) -> Vec<(ObjectKey, Option<SliceWrite>)> {
        let of = |note| match note {
            Note::Gate(GateKey::Slice(key), None) => Some((key, None)),
            Note::Gate(GateKey::Slice(key), Some(write)) => {
                let GateWrite::Slice(write) = *write else { panic!("{write:?}") };
                Some((key, Some(write)))
            }
            _ => None,
        };
        self.turn().notes.into_iter().filter_map(of).collect()
    }

    /// The server takes a write.
    fn take(&mut self, key: &ObjectKey, write: SliceWrite) {
        self.versions += 1;
        let known = self.reconciler.index.sources.slice(key).cloned();
        let (base, now_there) = match &write {
            SliceWrite::Create(object) => {
                let mut object = (**object).clone();
                object.metadata.uid = Some(format!("slice-{}", self.versions));
                object.metadata.resource_version = Some(self.versions.to_string());
                (None, Some(SliceFacts::of(&object)))
            }
            SliceWrite::Change { resource_version, body, .. } => {
                let mut facts = known.expect("there");
                facts.resource_version = self.versions.to_string();
                let owned = facts.owned.as_mut().expect("ours");
                (owned.body, owned.strange) = (Some(body.clone()), None);
                (Some(resource_version.clone()), Some(facts))
            }
            SliceWrite::Delete { resource_version, .. } => (Some(resource_version.clone()), None),
        };
        self.reconciler.wrote(key, base.as_deref(), now_there.clone());
        let ended = GateEnded {
            key: GateKey::Slice(key.clone()),
            write: GateWrite::Slice(write),
            result: Ok(Written::Slice(now_there.map(Box::new))),
        };
        self.gates.ended(&ended, Scene { reconciler: &self.reconciler, board: &self.board, wall: self.wall });
    }

    /// Turns until nothing is left to be written. How many writes there were.
    fn settle(&mut self) -> usize {
        let mut count = 0;
        loop {
            let writes = self.writes();
            if writes.is_empty() {
                return count;
            }
            for (key, write) in writes {
                count += 1;
                self.take(&key, write.expect("nothing is taken back"));
            }
        }
    }

    fn published(&self) -> BTreeMap<IpAddr, bool> {
        let slices = self.reconciler.index.sources.slices.get(&key("db"));
        let bodies =
            slices.into_iter().flat_map(BTreeMap::values).filter_map(|facts| facts.owned.as_ref()?.body.as_ref());
        bodies.flat_map(|body| &body.entries).map(|entry| (entry.address, entry.ready)).collect()
    }

    fn ready(&self) -> Vec<bool> {
        self.published().into_values().collect()
    }

    /// What was last reported of the first gate of `name`.
    fn reported(&self, name: &str) -> &GateReport {
        &self.gates.known[&key(name)].reported.as_ref().expect("reported").gates[0]
    }
}

const UP: Option<EndpointState> = Some(EndpointState::Healthy);
const DOWN: Option<EndpointState> = Some(EndpointState::Unhealthy);
const STALE: Option<EndpointState> = Some(EndpointState::Unknown);

fn scene_of<'a>(reconciler: &'a Reconciler, board: &'a Board, wall: Timestamp) -> Scene<'a> {
    Scene { reconciler, board, wall }
}

/// A slice of the check `name` as an earlier life left it.
fn left(name: &str, gate: &str, entries: &[(u8, bool)]) -> SliceFacts {
    let entries = entries
        .iter()
        .map(|(last, ready)| slice::Entry {
            address: [10, 0, 0, *last].into(),
            ready: *ready,
            zone: None,
            name_of: None,
        })
        .collect();
    let body = Body { family: crate::check::Family::V4, port_name: "".into(), port: 80, entries };
    let owner = Owner { name: name.into(), uid: name.into() };
    let mut object: EndpointSlice = body.object(&key(&format!("db-{name}-{gate}")), "db", gate, &owner);
    object.metadata.uid = Some(format!("slice-{name}"));
    object.metadata.resource_version = Some("7".to_owned());
    SliceFacts::of(&object)
}

#[test]
fn slices_follow_the_verdicts_and_only_what_changed_is_written() {
    let mut world = World::new();
    world.check("a", 1, json!({}), spec(3, json!({})));
    assert_eq!(world.settle(), 0, "the engine has not said anything yet");
    world.says("a", &[None, None, None]);
    assert_eq!(world.settle(), 1);
    assert_eq!(world.ready(), [true, true, true], "nothing else is published");
    let early = world.reported("a");
    assert_eq!(early.effective, GateReason::Pending, "that there is no verdict yet is nothing to be alarmed at");
    assert!(early.message.starts_with("not all are probed yet, so FailOpen: 3 of 3 published"), "{}", early.message);
    world.says("a", &[UP, None, UP]);
    assert_eq!((world.settle(), world.ready()), (1, vec![true, false, true]));
    world.says("a", &[UP, UP, UP]);
    assert_eq!((world.settle(), world.ready()), (1, vec![true, true, true]));
    assert_eq!(world.reported("a").effective, GateReason::Enforced);
    world.says("a", &[UP, UP, UP]);
    assert_eq!(world.settle(), 0);
    world.says("a", &[DOWN, DOWN, DOWN]);
    assert_eq!((world.settle(), world.reported("a").effective), (0, GateReason::FailOpen));
}

#[test]
fn a_write_that_waits_is_taken_back_when_it_is_not_wanted_any_more() {
    let mut world = World::new();
    world.check("a", 1, json!({}), spec(2, json!({})));
    world.says("a", &[UP, UP]);
    world.settle();
    world.says("a", &[UP, DOWN]);
    let writes = world.writes();
    let [(key, Some(write))] = writes.as_slice() else { panic!("{writes:?}") };
    assert!(world.writes().is_empty(), "it is on its way");
    world.says("a", &[UP, UP]);
    let taken_back = world.writes();
    assert!(matches!(taken_back.as_slice(), [(other, None)] if other == key), "{taken_back:?}");
    // Too late: it had been sent.
    world.take(key, write.clone());
    assert_eq!((world.settle(), world.ready()), (1, vec![true, true]));
}

#[test]
fn a_write_that_met_anothers_waits_for_what_is_there_now() {
    let mut world = World::new();
    world.check("a", 1, json!({}), spec(2, json!({})));
    world.says("a", &[UP, UP]);
    world.settle();
    world.says("a", &[UP, DOWN]);
    let (key, write) = world.writes().remove(0);
    let ended = GateEnded {
        key: GateKey::Slice(key.clone()),
        write: GateWrite::Slice(write.expect("a write")),
        result: Err(CallError::Conflict("changed".into())),
    };
    world.gates.ended(&ended, Scene { reconciler: &world.reconciler, board: &world.board, wall: world.wall });
    assert!(world.writes().is_empty(), "the same would only fail again");
    let mut facts = world.reconciler.index.sources.slice(&key).expect("there").clone();
    facts.resource_version = "another".to_owned();
    world.reconciler.source(SourceChange::Slice(scope(SourceKind::Slices), Told::Is(facts)));
    assert_eq!((world.settle(), world.ready()), (1, vec![true, false]));
}

#[test]
fn a_new_life_goes_on_from_what_is_published() {
    let mut world = World::with(vec![left("a", "traffic", &[(1, true), (2, false), (3, true)])]);
    world.check("a", 1, json!({}), spec(3, json!({})));
    world.says("a", &[None, None, None]);
    assert_eq!((world.settle(), world.ready()), (0, vec![true, false, true]));
    assert_eq!(world.reported("a").effective, GateReason::FailStatic);
    world.says("a", &[None, UP, None]);
    assert_eq!((world.settle(), world.ready()), (1, vec![true, true, true]));
    world.says("a", &[UP, STALE, DOWN]);
    assert_eq!((world.settle(), world.ready()), (1, vec![true, true, false]));
}

#[test]
fn an_edit_by_hand_is_put_right() {
    let mut world = World::new();
    world.check("a", 1, json!({}), spec(2, json!({})));
    world.says("a", &[UP, DOWN]);
    world.settle();
    let mut edited = world.reconciler.index.sources.slices[&key("db")].values().next().expect("one").clone();
    edited.resource_version = "edited".to_owned();
    edited.owned.as_mut().expect("ours").body.as_mut().expect("readable").entries[1].ready = true;
    world.reconciler.source(SourceChange::Slice(scope(SourceKind::Slices), Told::Is(edited)));
    assert_eq!((world.settle(), world.ready()), (1, vec![true, false]));
}

#[test]
fn an_override_acts_and_ends_and_one_that_cannot_be_read_is_told() {
    let mut world = World::new();
    let annotation = |text: &str| json!({"healthcheck-operator.dev/override": text});
    world.check("a", 1, json!({}), spec(2, json!({})));
    world.says("a", &[UP, UP]);
    world.settle();
    world.check("a", 1, annotation("t2=Unhealthy until 2026-01-01T00:01:00Z; t1=Sick"), spec(2, json!({})));
    assert_eq!((world.settle(), world.ready()), (1, vec![true, false]));
    assert_eq!(world.reported("a").effective, GateReason::Held);
    let message = &world.reported("a").message;
    assert!(
        message.contains("t2 (overridden as Unhealthy until 2026-01-01T00:01:00Z)")
            || message.contains("10.0.0.2:80 (overridden as Unhealthy until 2026-01-01T00:01:00Z)"),
        "{message}"
    );
    let problems = &world.reconciler.accepted(&key("a")).expect("accepted").overrides.problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(world.gates.due.contains_key(&key("a")), "its end is waited for");
    world.wall = "2026-01-01T00:01:00Z".parse().expect("a time");
    world.gates.due.insert(key("a"), Instant::now());
    assert_eq!((world.settle(), world.ready()), (1, vec![true, true]));
}

#[test]
fn what_a_dry_run_would_have_held_is_not_taken_out_when_it_is_enforced() {
    let mut world = World::with(vec![left("a", "traffic", &[(1, true), (2, true)])]);
    world.check("a", 1, json!({}), spec(2, json!({"mode": "DryRun"})));
    for state in [UP, DOWN, UP, DOWN, UP] {
        world.says("a", &[UP, state]);
        assert_eq!(world.settle(), 0);
    }
    let message = &world.reported("a").message;
    assert!(message.contains("healthy but flapping, held until 2026-01-01T00:00:"), "{message}");
    world.check("a", 2, json!({}), spec(2, json!({})));
    world.says("a", &[UP, UP]);
    assert_eq!((world.settle(), world.ready()), (0, vec![true, true]), "it was never out");
}

#[test]
fn a_correlated_loss_changes_nothing_and_a_lone_one_does() {
    let mut world = World::new();
    world.check("a", 1, json!({}), spec(3, json!({})));
    world.check("b", 1, json!({}), takeover::others());
    world.says("a", &[UP, UP, UP]);
    world.says("b", &[UP, UP, UP]);
    world.settle();
    world.says("a", &[UP, UP, DOWN]);
    assert_eq!((world.settle(), world.ready()), (1, vec![true, true, false]));
    world.says("a", &[UP, UP, UP]);
    world.settle();
    // The first failures of most: before any threshold is reached.
    let trembling = Some(EndpointState::MostlyHealthy);
    world.says("a", &[trembling, trembling, UP]);
    world.says("b", &[trembling, trembling, UP]);
    world.says("a", &[DOWN, DOWN, UP]);
    assert_eq!((world.settle(), world.ready()), (0, vec![true, true, true]));
    assert_eq!(world.reported("a").effective, GateReason::Frozen);
}

#[test]
fn one_check_holds_a_service_and_a_dry_run_holds_none() {
    let mut world = World::new();
    world.check("b", 1, json!({}), spec(1, json!({})));
    world.says("b", &[UP]);
    assert_eq!(world.settle(), 1);
    // As old, and of a lower UID: it would come first.
    world.check("a", 1, json!({}), spec(2, json!({"mode": "DryRun"})));
    world.says("a", &[UP, UP]);
    assert_eq!(world.settle(), 0);
    assert_eq!(
        (world.reported("a").effective, world.reported("b").effective),
        (GateReason::Conflict, GateReason::Enforced)
    );
    world.check("a", 2, json!({}), spec(2, json!({})));
    world.says("a", &[UP, UP]);
    let writes = world.writes();
    assert!(
        matches!(writes.as_slice(), [(_, Some(SliceWrite::Create(_))), (_, Some(SliceWrite::Delete { .. }))]),
        "there before the other goes: {writes:?}"
    );
    for (key, write) in writes {
        world.take(&key, write.expect("nothing is taken back"));
    }
    world.settle();
    assert_eq!(
        (world.reported("a").effective, world.reported("b").effective),
        (GateReason::Enforced, GateReason::Conflict)
    );
}
