//! What gates do while verdicts are not to be followed.

use super::*;

#[test]
fn what_keeps_changing_waits_until_it_is_let_in_again() {
    let mut world = World::new();
    world.check("a", 1, json!({}), spec(3, json!({})));
    world.says("a", &[UP, UP, UP]);
    world.settle();
    for (state, ready) in [(DOWN, false), (UP, true), (DOWN, false), (UP, false)] {
        world.says("a", &[state, UP, UP]);
        world.settle();
        assert_eq!(world.ready(), [ready, true, true]);
    }
    assert_eq!(world.reported("a").effective, GateReason::Held);
    assert!(world.gates.due.contains_key(&key("a")), "the end of the hold is waited for");
}

#[test]
fn what_was_decided_and_not_written_before_the_prober_was_cut_off_is_never_written() {
    let mut world = World::new();
    world.check("a", 1, json!({}), spec(2, json!({"whenBelow": "FailClosed"})));
    world.says("a", &[UP, UP]);
    world.settle();
    world.says("a", &[DOWN, DOWN]);
    let writes = world.writes();
    let [(slice, Some(write))] = writes.as_slice() else { panic!("{writes:?}") };
    // The API server is as far away as the targets. It is told late.
    world.surroundings.set_api_silent(true);
    assert!(matches!(world.writes().as_slice(), [(taken_back, None)] if taken_back == slice));
    let failed = GateEnded {
        key: GateKey::Slice(slice.clone()),
        write: GateWrite::Slice(write.clone()),
        result: Err(CallError::Timeout),
    };
    world.gates.ended(&failed, scene_of(&world.reconciler, &world.board, world.wall));
    assert_eq!((world.settle(), world.ready()), (0, vec![true, true]));
    // What was only ever ours to lose is found again before verdicts are followed.
    world.surroundings.set_isolated(true);
    assert_eq!(world.settle(), 0);
    assert_eq!(world.reported("a").effective, GateReason::Frozen);
    world.surroundings.set_isolated(false);
    world.surroundings.set_api_silent(false);
    assert_eq!((world.settle(), world.ready()), (0, vec![true, true]));
    assert!(world.gates.due.contains_key(&key("a")), "the end of the doubt is waited for");
    world.says("a", &[UP, UP]);
    assert_eq!(world.settle(), 0);
}

#[test]
fn an_api_server_that_is_away_is_not_told_of_in_the_status() {
    let mut world = World::new();
    world.check("a", 1, json!({}), spec(2, json!({})));
    world.says("a", &[UP, UP]);
    world.settle();
    world.surroundings.set_api_silent(true);
    world.says("a", &[UP, DOWN]);
    assert_eq!(world.settle(), 0);
    assert_eq!(world.reported("a").effective, GateReason::Enforced);
    world.surroundings.set_api_silent(false);
    assert_eq!((world.settle(), world.ready()), (1, vec![true, false]));
}
