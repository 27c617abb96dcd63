//! What becomes of what no gate wants any more.

use super::*;

#[test]
fn what_no_gate_wants_goes_and_what_nobody_knows_is_asked_about() {
    let mut world = World::with(vec![
        left("a", "traffic", &[(1, true)]),
        left("a", "former", &[(1, true)]),
        left("gone", "traffic", &[(9, true)]),
    ]);
    world.check("a", 1, json!({}), spec(1, json!({})));
    world.says("a", &[UP]);
    let turn = world.turn();
    assert_eq!(turn.owners, [(Text::from(NS), Owner { name: "gone".into(), uid: "gone".into() })]);
    assert_eq!(world.reported("a").effective, GateReason::Conflict, "until it is known whose it is");
    let mut world = World::with(vec![left("a", "traffic", &[(1, true)]), left("a", "former", &[(1, true)])]);
    world.check("a", 1, json!({}), spec(1, json!({})));
    world.says("a", &[UP]);
    let turn = world.turn();
    let deleted: Vec<_> = turn
        .notes
        .iter()
        .filter_map(|note| match note {
            Note::Gate(key, Some(write)) => Some((&*key.object().name, &**write)),
            _ => None,
        })
        .collect();
    assert!(
        matches!(deleted.as_slice(), [("db-a-former", GateWrite::Slice(SliceWrite::Delete { .. }))]),
        "{deleted:?}"
    );
    let mut world = World::with(vec![left("gone", "traffic", &[(9, true)])]);
    world.check("a", 1, json!({}), spec(1, json!({})));
    world.says("a", &[UP]);
    let owner = world.turn().owners[0].1.clone();
    world.gates.judge(&NS.into(), owner.clone(), Some(false), scene_of(&world.reconciler, &world.board, world.wall));
    assert!(world.writes().is_empty(), "it is there, though none of ours");
    world.gates.judge(&NS.into(), owner, Some(true), scene_of(&world.reconciler, &world.board, world.wall));
    assert!(matches!(world.writes().as_slice(), [(_, Some(SliceWrite::Delete { .. }))]));
}

/// What has not been listed, or may not be, looks like what is gone.
#[test]
fn slices_stay_while_nobody_can_tell_whether_their_service_is_there() {
    let slices = || vec![left("a", "traffic", &[(1, true)])];
    for told in [
        vec![Told::Begin, Told::Complete],
        vec![Told::Failed(CallError::Forbidden("services is forbidden".to_owned()))],
    ] {
        let mut world = World::unlisted(slices());
        world.check("a", 1, json!({}), spec(1, json!({})));
        world.says("a", &[UP]);
        world.gates.found(slices());
        assert!(world.writes().is_empty(), "not listed yet");
        let gone = told.len() == 2;
        for told in told {
            world.reconciler.source(SourceChange::Service(scope(SourceKind::Services), told));
        }
        assert_eq!(world.writes().len(), usize::from(gone), "gone: {gone}");
    }
}

#[test]
fn a_slice_that_nobody_watches_goes_once_its_owner_is_known_to_be_gone() {
    let mut world = World::new();
    world.gates.found(vec![left("gone", "traffic", &[(1, true)]), left("there", "traffic", &[(2, true)])]);
    let asked = world.turn().owners;
    assert_eq!(asked.len(), 2, "{asked:?}");
    for (namespace, owner) in asked {
        let gone = Some(&*owner.name == "gone");
        world.gates.judge(&namespace, owner, gone, scene_of(&world.reconciler, &world.board, world.wall));
    }
    let writes = world.writes();
    let [(slice, Some(SliceWrite::Delete { .. }))] = writes.as_slice() else { panic!("{writes:?}") };
    assert_eq!(&*slice.name, "db-gone-traffic");
    assert!(world.writes().is_empty(), "once");
}

#[test]
fn a_check_that_goes_and_a_service_that_is_lost_leave_nothing() {
    let mut world = World::new();
    world.check("a", 1, json!({}), spec(2, json!({})));
    world.says("a", &[UP, UP]);
    world.settle();
    let service = |spec: Value| {
        let object = json!({"metadata": {"name": "db", "namespace": NS}, "spec": spec});
        let facts = ServiceFacts::of(&serde_json::from_value::<Service>(object).expect("readable"));
        SourceChange::Service(scope(SourceKind::Services), Told::Is(facts))
    };
    world.reconciler.source(service(json!({"ports": [{"port": 1}], "selector": {"app": "db"}})));
    assert_eq!((world.settle(), world.published().len()), (1, 0));
    assert_eq!(world.reported("a").effective, GateReason::Conflict);
    world.reconciler.source(service(json!({"ports": [{"port": 1}]})));
    assert_eq!((world.settle(), world.published().len()), (1, 2));
    let mut without = spec(2, json!({}));
    without["gates"] = json!([]);
    world.check("a", 2, json!({}), without);
    assert_eq!((world.settle(), world.published().len()), (1, 0));
}

#[test]
fn while_the_release_marker_stands_nothing_is_done() {
    let mut world = World::new();
    world.check("a", 1, json!({}), spec(2, json!({})));
    world.says("a", &[UP, UP]);
    world.settle();
    world.gates.set_released(true);
    world.says("a", &[UP, DOWN]);
    assert_eq!(world.settle(), 0);
    world.gates.set_released(false);
    assert_eq!((world.settle(), world.ready()), (1, vec![true, false]));
}

#[test]
fn what_the_release_marker_means_is_said_once() {
    let mut world = World::new();
    world.check("a", 1, json!({}), spec(2, json!({})));
    world.says("a", &[UP, UP]);
    world.settle();
    world.gates.set_released(true);
    let told = |turn: Turn| turn.notes.iter().filter(|note| matches!(note, Note::Gates(..))).count();
    assert_eq!((told(world.turn()), told(world.turn())), (1, 0));
    assert_eq!(world.reported("a").effective, GateReason::Released);
    world.gates.set_released(false);
    assert_eq!((told(world.turn()), world.reported("a").effective), (1, GateReason::Enforced));
}

fn fails(world: &mut World, slice: &ObjectKey, write: SliceWrite, error: CallError) {
    let ended = GateEnded { key: GateKey::Slice(slice.clone()), write: GateWrite::Slice(write), result: Err(error) };
    world.gates.ended(&ended, scene_of(&world.reconciler, &world.board, world.wall));
}

#[test]
fn a_write_that_fails_is_told_until_one_succeeds() {
    let mut world = World::new();
    world.check("a", 1, json!({}), spec(2, json!({})));
    world.says("a", &[UP, UP]);
    world.settle();
    world.says("a", &[UP, DOWN]);
    let (slice, write) = world.writes().remove(0);
    fails(&mut world, &slice, write.clone().expect("a write"), CallError::Other("the webhook is gone".to_owned()));
    world.turn();
    let reported = world.reported("a");
    assert_eq!(reported.effective, GateReason::WriteFailed);
    assert!(reported.message.contains("the webhook is gone"), "{}", reported.message);
    world.take(&slice, write.expect("a write"));
    assert_eq!((world.settle(), world.reported("a").effective), (0, GateReason::Enforced));
}

/// What is remembered of a failed write would otherwise be looked at in every turn, for ever.
#[test]
fn of_what_goes_nothing_is_remembered() {
    let later = || Instant::now() + Duration::from_secs(3600);
    let mut world = World::new();
    world.check("a", 1, json!({}), spec(2, json!({})));
    world.says("a", &[UP, UP]);
    let (slice, write) = world.writes().remove(0);
    fails(&mut world, &slice, write.expect("a write"), CallError::Forbidden("the namespace goes".to_owned()));
    assert_eq!(world.gates.book.due(later()).len(), 1);
    let mut without = spec(2, json!({}));
    without["gates"] = json!([]);
    world.check("a", 2, json!({}), without);
    world.turn();
    assert!(world.gates.book.due(later()).is_empty());

    let mut world = World::new();
    world.gates.found(vec![left("gone", "traffic", &[(1, true)])]);
    let (namespace, owner) = world.turn().owners.remove(0);
    world.gates.judge(&namespace, owner, Some(true), scene_of(&world.reconciler, &world.board, world.wall));
    let (slice, write) = world.writes().remove(0);
    fails(&mut world, &slice, write.expect("a write"), CallError::Forbidden("no".to_owned()));
    world.gates.found(vec![]);
    world.turn();
    assert!(world.gates.book.due(later()).is_empty(), "it is not there any more");
}

#[test]
fn a_dry_run_lets_go_of_what_was_withheld_and_then_writes_nothing() {
    let mut world = World::new();
    world.check("a", 1, json!({}), spec(3, json!({})));
    world.says("a", &[UP, DOWN, UP]);
    world.settle();
    assert_eq!(world.ready(), [true, false, true]);
    world.check("a", 2, json!({}), spec(3, json!({"mode": "DryRun"})));
    world.says("a", &[UP, DOWN, UP]);
    assert_eq!((world.settle(), world.ready()), (1, vec![true, true, true]));
    world.says("a", &[UP, DOWN, DOWN]);
    assert_eq!(world.settle(), 0);
}

#[test]
fn a_gate_by_another_name_goes_on_from_what_is_published() {
    let mut world = World::new();
    let fixed = |name: &str| spec(2, json!({"name": name, "whenBelow": "FailStatic"}));
    world.check("a", 1, json!({}), fixed("traffic"));
    world.says("a", &[UP, DOWN]);
    world.settle();
    world.says("a", &[DOWN, DOWN]);
    assert_eq!((world.settle(), world.ready()), (0, vec![true, false]), "held");
    world.check("a", 2, json!({}), fixed("main"));
    world.says("a", &[DOWN, DOWN]);
    let writes = world.writes();
    let [(slice, Some(write @ SliceWrite::Change { gate, .. }))] = writes.as_slice() else { panic!("{writes:?}") };
    assert_eq!(&**gate, "main");
    world.take(slice, write.clone());
    assert_eq!(world.ready(), [true, false], "still held");
}

#[test]
fn a_gate_that_meets_an_obstacle_says_what_stays_published() {
    let mut world = World::new();
    world.check("a", 1, json!({}), spec(3, json!({})));
    world.says("a", &[UP, DOWN, UP]);
    world.settle();
    assert_eq!(world.ready(), [true, false, true]);
    world.check("a", 2, json!({}), spec(3, json!({"endpointSlice": {"service": "db", "port": "oops"}})));
    world.says("a", &[UP, UP, DOWN]);
    assert_eq!((world.settle(), world.ready()), (0, vec![true, false, true]));
    let reported = world.reported("a");
    assert_eq!((reported.effective, reported.published, reported.withheld), (GateReason::NotFound, 2, 1));
    assert!(
        reported.message.starts_with("what is published stays: 2 of 3 ready; withheld: t2; "),
        "{}",
        reported.message
    );
}

#[test]
fn slices_of_a_gate_that_is_switched_off_are_let_go_and_nobody_looks_after_them() {
    let mut world = World::new();
    world.check("a", 1, json!({}), spec(2, json!({})));
    world.says("a", &[UP, DOWN]);
    world.settle();
    world.gates.features.endpoint_slices = false;
    world.check("a", 2, json!({}), spec(2, json!({})));
    world.says("a", &[UP, DOWN]);
    let (slice, write) = world.writes().remove(0);
    let write = write.expect("a write");
    fails(&mut world, &slice, write.clone(), CallError::Forbidden("endpointslices is forbidden".to_owned()));
    world.turn();
    let reported = world.reported("a");
    assert_eq!((reported.effective, reported.published, reported.withheld), (GateReason::Forbidden, 1, 1));
    for part in ["1 of 2 ready; withheld: t2", "switched off", "nor can it be let go: endpointslices is forbidden"] {
        assert!(reported.message.contains(part), "{}", reported.message);
    }
    world.take(&slice, write);
    assert_eq!((world.settle(), world.ready()), (0, vec![true, true]));
    assert!(world.reported("a").message.starts_with("what is published stays: 2 of 2 ready; "));
    world.says("a", &[DOWN, DOWN]);
    assert_eq!((world.settle(), world.ready()), (0, vec![true, true]));
}

/// What a release serves that this one does not is none of ours, and two that publish one Service undo each other.
#[test]
fn a_slice_of_a_check_that_another_release_serves_is_a_strangers() {
    let mut world = World::with(vec![left("theirs", "traffic", &[(9, true)])]);
    world.check("a", 1, json!({}), spec(1, json!({})));
    world.says("a", &[UP]);
    let owner = world.turn().owners.remove(0).1;
    world.gates.judge(&NS.into(), owner, Some(false), scene_of(&world.reconciler, &world.board, world.wall));
    assert!(world.writes().is_empty());
    let reported = world.reported("a");
    assert_eq!(reported.effective, GateReason::Conflict);
    assert!(
        reported.message.contains("belongs to HealthCheck 'theirs', which is not served here"),
        "{}",
        reported.message
    );
}
