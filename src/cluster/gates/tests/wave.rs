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
    for at in 0..15 {
        states[at] = DOWN;
        world.says("a", &states);
        assert_eq!(world.settle(), 0);
        pass(20).await;
    }
    pass(1000).await;
    assert_eq!((world.settle(), world.ready().iter().filter(|ready| !**ready).count()), (1, 16));
    // What is back before it was written is nothing to be written.
    pass(1000).await;
    for state in [UP, DOWN] {
        states[0] = state;
        world.says("a", &states);
        assert_eq!(world.settle(), 0);
    }
    pass(1000).await;
    assert_eq!(world.settle(), 0);
    world.gates.changed(GatesTouched { checks: [key("a")].into(), ..GatesTouched::default() });
    assert_eq!((world.settle(), world.gates.next_write()), (0, None));
}
