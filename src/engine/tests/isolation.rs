//! What becomes of verdicts while the prober itself is cut off.

use super::*;

/// `t0` and `t1`, of two checks.
async fn two(bench: &Bench) {
    for name in ["t0", "t1"] {
        bench.run(&check(name, vec![target(name)])).await;
    }
    sleep(seconds(3)).await;
}

fn all_say(bench: &Bench, answer: &Answer) {
    for name in ["t0", "t1"] {
        bench.lane.say(name, answer.clone());
    }
}

#[tokio::test(start_paused = true)]
async fn an_isolated_prober_counts_no_failure_and_says_so() {
    let bench = Bench::new();
    two(&bench).await;
    bench.surroundings.set_api_silent(true);
    all_say(&bench, &Answer::Bad(Reason::HostUnreachable));
    sleep(seconds(10)).await;
    assert!(bench.surroundings.is_isolated());
    assert_eq!(bench.health("t0").0, Health::Healthy, "what is believed may be believed for a while");
    let row = bench.view("t0").endpoints[0].clone();
    assert_eq!((row.state.is_healthy(), row.reason), (true, Some(Reason::ProberIsolated)));
    assert!(row.message.contains("as told"), "{}", row.message);
    sleep(seconds(35)).await;
    assert_eq!(bench.health("t0"), (Health::Unknown, HealthReason::ProberIsolated));
    // The API server answers again: what fails now does so by itself.
    bench.surroundings.set_api_silent(false);
    sleep(seconds(5)).await;
    assert!(!bench.surroundings.is_isolated());
    assert_eq!(bench.health("t0").0, Health::Unhealthy);
}

#[tokio::test(start_paused = true)]
async fn neither_a_silent_api_server_nor_a_total_loss_is_isolation() {
    let bench = Bench::new();
    two(&bench).await;
    bench.surroundings.set_api_silent(true);
    bench.lane.say("t0", Answer::Bad(Reason::ConnectionRefused));
    sleep(seconds(10)).await;
    assert_eq!((bench.health("t0").0, bench.health("t1").0), (Health::Unhealthy, Health::Healthy));
    bench.surroundings.set_api_silent(false);
    all_say(&bench, &Answer::Bad(Reason::ConnectionRefused));
    sleep(seconds(10)).await;
    assert_eq!((bench.health("t0").0, bench.health("t1").0), (Health::Unhealthy, Health::Unhealthy));
    assert!(!bench.surroundings.is_isolated());
}

#[tokio::test(start_paused = true)]
async fn a_loopback_that_fails_is_isolation_by_itself() {
    let bench = Bench::new();
    two(&bench).await;
    bench.surroundings.set_canary_failed(true);
    bench.lane.say("t0", Answer::Bad(Reason::ConnectionRefused));
    sleep(seconds(10)).await;
    assert!(bench.surroundings.is_isolated());
    assert_eq!(bench.health("t0").0, Health::Healthy);
}
