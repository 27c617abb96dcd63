//! A life that begins in the midst of a freeze or a flap hold.

use super::*;

/// What an earlier life said of the gate of `a`, `ago` before the wall clock of this one.
fn status(wall: Timestamp, effective: GateReason, ago: Duration) -> Value {
    let gate = json!({
        "name": "traffic", "effective": effective.as_str(), "desiredReady": 1, "publishedReady": 3, "since": wall - ago,
    });
    json!({"summary": "1/3", "gates": [gate]})
}

/// Hosts of another check, of which it has no gate.
pub(super) fn others() -> Value {
    let targets: Vec<_> =
        (1..=3).map(|n| json!({"name": format!("t{n}"), "host": format!("10.0.1.{n}"), "port": 80})).collect();
    json!({"targets": targets})
}

/// Most endpoints of two checks are down since now, and what an earlier life published are `ready`.
fn cut(said: GateReason, ago: Duration, ready: [bool; 3]) -> World {
    let entries: Vec<_> = (1..).zip(ready).collect();
    let mut world = World::with(vec![left("a", "traffic", &entries)]);
    let status = status(world.wall, said, ago);
    world.found("a", 1, json!({}), spec(3, json!({})), status);
    world.check("b", 1, json!({}), others());
    world.says("b", &[DOWN, DOWN, DOWN]);
    world.says("a", &[DOWN, DOWN, UP]);
    world
}

async fn pass(world: &mut World, time: Duration) {
    tokio::time::advance(time).await;
    world.wall += time;
}

const SECOND: Duration = Duration::from_secs(1);
const ALL: [bool; 3] = [true; 3];

#[tokio::test(start_paused = true)]
async fn a_freeze_goes_on_until_what_was_lost_is_back() {
    let mut world = cut(GateReason::Frozen, SECOND, ALL);
    assert_eq!((world.settle(), world.ready()), (0, ALL.to_vec()));
    assert_eq!(world.reported("a").effective, GateReason::Frozen);
    pass(&mut world, Duration::from_secs(240)).await;
    world.says("a", &[DOWN, DOWN, UP]);
    assert_eq!((world.settle(), world.ready()), (0, ALL.to_vec()), "nothing has returned");
    let message = world.reported("a").message.clone();
    assert!(
        message.contains("until most are back or, if the others stay well, until 2026-01-01T00:05:00Z"),
        "{message}"
    );
    world.says("b", &[UP, UP, UP]);
    world.says("a", &[DOWN, UP, UP]);
    assert_eq!(world.settle(), 0);
    pass(&mut world, 3 * SECOND).await;
    assert_eq!((world.settle(), world.ready()), (1, vec![false, true, true]), "one that has not come back");
    assert_eq!(world.reported("a").effective, GateReason::Enforced);
}

#[tokio::test(start_paused = true)]
async fn a_loss_that_nothing_returns_from_is_believed_when_the_rest_stays_well() {
    let mut world = cut(GateReason::Frozen, SECOND, ALL);
    assert_eq!(world.settle(), 0);
    pass(&mut world, Duration::from_secs(299)).await;
    assert_eq!(world.settle(), 0);
    pass(&mut world, 2 * SECOND).await;
    assert_eq!((world.settle(), world.ready()), (1, vec![false, false, true]));
}

#[tokio::test(start_paused = true)]
async fn without_a_freeze_a_new_life_follows_the_verdicts_at_once() {
    let mut world = cut(GateReason::Enforced, SECOND, ALL);
    assert_eq!((world.settle(), world.ready()), (1, vec![false, false, true]));
}

#[tokio::test(start_paused = true)]
async fn what_was_down_before_the_freeze_keeps_none_up() {
    let mut world = World::with(vec![left("a", "traffic", &[(1, true), (2, true), (3, true)])]);
    let status = status(world.wall, GateReason::Frozen, SECOND);
    world.found("a", 1, json!({}), spec(3, json!({})), status);
    world.check("b", 1, json!({}), others());
    let now = world.wall;
    world.wall = now - Duration::from_secs(600);
    world.says("b", &[DOWN, DOWN, DOWN]);
    world.says("a", &[DOWN, DOWN, UP]);
    world.wall = now;
    assert_eq!(world.settle(), 0, "frozen, until our own probes have told");
    assert!(world.reported("a").message.contains("when this replica took over"), "{:?}", world.reported("a"));
    assert!(world.gates.due.contains_key(&key("a")), "which is waited for");
    pass(&mut world, Duration::from_secs(60)).await;
    assert_eq!((world.settle(), world.ready()), (1, vec![false, false, true]));
}

#[tokio::test(start_paused = true)]
async fn what_waited_for_a_flap_waits_anew_and_no_longer_than_any() {
    for (said, ago, wait) in
        [(GateReason::Held, 25, 40), (GateReason::Held, 86_400, 300), (GateReason::Enforced, 25, 0)]
    {
        let mut world = World::with(vec![left("a", "traffic", &[(1, false), (2, true), (3, true)])]);
        let status = status(world.wall, said, Duration::from_secs(ago));
        world.found("a", 1, json!({}), spec(3, json!({})), status);
        world.says("a", &[UP, UP, UP]);
        if wait > 0 {
            assert_eq!((world.settle(), world.ready()), (0, vec![false, true, true]), "{said:?} since {ago} s");
            let until = world.wall + Duration::from_secs(wait);
            let message = world.reported("a").message.clone();
            assert!(message.contains(&format!("healthy but flapping, held until {until}")), "{message}");
            pass(&mut world, Duration::from_secs(wait - 1)).await;
            assert_eq!(world.settle(), 0, "{said:?} since {ago} s");
            pass(&mut world, SECOND).await;
        }
        assert_eq!((world.settle(), world.ready()), (1, ALL.to_vec()), "{said:?} since {ago} s");
    }
}

#[tokio::test(start_paused = true)]
async fn one_host_of_many_checks_is_one_place() {
    let mut world = World::new();
    world.check("a", 1, json!({}), spec(5, json!({})));
    world.says("a", &[UP; 5]);
    let same = |name: &str| {
        let targets: Vec<_> =
            (1..=2).map(|n| json!({"name": format!("t{n}"), "host": format!("10.0.0.{n}"), "port": 80})).collect();
        (name.to_owned(), json!({"targets": targets}))
    };
    for (name, spec) in ["b", "c", "d"].map(same) {
        world.check(&name, 1, json!({}), spec);
        world.says(&name, &[UP, UP]);
    }
    world.settle();
    for name in ["b", "c", "d"] {
        world.says(name, &[DOWN, DOWN]);
    }
    world.says("a", &[DOWN, DOWN, UP, UP, UP]);
    assert_eq!((world.settle(), world.ready()), (1, vec![false, false, true, true, true]), "two hosts of five");
}
