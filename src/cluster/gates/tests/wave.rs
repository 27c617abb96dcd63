//! When flips are written.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_wave_of_flips_is_gathered_and_nothing_else_waits() {
    let mut world = World::new();
    world.gates.pace = Pace::default();
    world.check("a", 1, json!({}), spec(20, json!({})));
    world.says("a", &[UP; 20]);
    assert_eq!(world.settle(), 1, "a slice is made at once");
    let pass = |millis| tokio::time::advance(Duration::from_millis(millis));
    pass(1000).await;
    let mut states = [UP; 20];
    states[19] = DOWN;
    world.says("a", &states);
    assert_eq!((world.settle(), world.gates.next_write().is_some()), (0, true));
    pass(20).await;
    assert_eq!((world.settle(), world.gates.next_write()), (1, None), "a lone one hardly waits");
    pass(1000).await;
    let mut written = 0;
    for at in 0..15 {
        states[at] = DOWN;
        world.says("a", &states);
        written += world.settle();
        pass(20).await;
    }
    assert_eq!(written, 1, "the first of many that die wait no longer, and the others go together");
    pass(1000).await;
    assert_eq!((world.settle(), world.ready().iter().filter(|ready| !**ready).count()), (1, 16));
    pass(1000).await;
    for at in 0..15 {
        states[at] = UP;
        world.says("a", &states);
        assert_eq!(world.settle(), 0, "returns wait for each other");
        pass(20).await;
    }
    pass(1000).await;
    assert_eq!((world.settle(), world.ready().iter().filter(|ready| !**ready).count()), (1, 1));
    // What is back before it was written is nothing to be written.
    pass(1000).await;
    for state in [DOWN, UP] {
        states[16] = state;
        world.says("a", &states);
        assert_eq!(world.settle(), 0);
    }
    pass(1000).await;
    assert_eq!(world.settle(), 0);
    world.gates.changed(GatesTouched { checks: [key("a")].into(), ..GatesTouched::default() });
    assert_eq!((world.settle(), world.gates.next_write()), (0, None));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_told_as_done_that_is_not() {
    let mut world = World::new();
    world.gates.pace = Pace::default();
    world.check("a", 1, json!({}), spec(3, json!({})));
    world.says("a", &[UP; 3]);
    world.settle();
    let pass = |millis| tokio::time::advance(Duration::from_millis(millis));
    pass(1000).await;
    world.says("a", &[UP, UP, DOWN]);
    let told = |turn: Turn| turn.notes.iter().any(|note| matches!(note, Note::Gates(..)));
    let turn = world.turn();
    assert!(!told(turn), "it is told when it is written");
    pass(20).await;
    assert_eq!((world.settle(), world.reported("a").published), (1, 2));
    pass(1000).await;
    world.says("a", &[UP, DOWN, DOWN]);
    world.turn();
    pass(20).await;
    assert_eq!(world.writes().len(), 1);
    assert_eq!(world.reported("a").published, 2, "no answer");
    pass(1000).await;
    let turn = world.turn();
    assert!(told(turn), "no status waits for ever");
    let report = world.reported("a");
    assert!(report.message.starts_with("being written, 2 of 3 published so far; "), "{}", report.message);
    assert_eq!((report.published, report.withheld), (2, 1));
}
