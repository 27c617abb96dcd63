//! What is shown while an operator speaks in place of a verdict, and what is left when that is over.

use jiff::Timestamp;

use super::*;
use crate::{
    check::Overrides,
    engine::{Prior, PriorEndpoint},
};

fn says(check: &Check, text: &str) -> Check {
    let overrides = Overrides::parse(text, &check.target_names());
    assert_eq!(overrides.problems, Vec::<String>::new());
    Check { overrides, ..check.clone() }
}

#[tokio::test(start_paused = true)]
async fn a_word_is_shown_in_place_of_the_verdict_which_is_told_beside_it() {
    let bench = Bench::new();
    let plain = check("web", vec![target("a"), target("b")]);
    bench.run(&plain).await;
    sleep(seconds(5)).await;
    bench.run(&says(&plain, "a=Unhealthy until 2100-01-01T00:00:00Z")).await;
    let view = bench.view("web");
    assert_eq!((view.health, view.reason, view.counts.healthy), (Health::Unhealthy, HealthReason::TargetsUnhealthy, 1));
    let row = &view.endpoints[0];
    assert_eq!((row.state, row.verdict()), (EndpointState::Unhealthy, EndpointState::Healthy));
    assert_eq!((row.reason_word(), row.measured), (Some("Overridden"), true));
    assert_eq!(&*row.message, "overridden as Unhealthy until 2100-01-01T00:00:00Z; measured: Healthy");
    assert_eq!(view.message, format!("a: {}", row.message));
    assert_eq!((view.outages.len(), &*view.outages[0].reason), (1, "Overridden"));

    // It is measured on, and told.
    bench.lane.say("a", Answer::Bad(Reason::ConnectionRefused));
    sleep(seconds(5)).await;
    let row = bench.view("web").endpoints[0].clone();
    assert_eq!(row.verdict(), EndpointState::Unhealthy);
    assert!(row.message.ends_with("measured: Unhealthy: as told"), "{}", row.message);

    bench.run(&says(&plain, "*=Healthy until 2100-01-01T00:00:00Z")).await;
    let view = bench.view("web");
    assert_eq!((view.health, view.endpoints[0].state), (Health::Healthy, EndpointState::Healthy));
    assert!(view.message.starts_with("a: overridden as Healthy until"), "{}", view.message);
    assert_eq!(view.endpoints[0].live.counters().connect, 0, "another word is the end of the one before");
    assert_eq!(view.transitions, [2, 0, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn what_was_counted_meanwhile_decides_nothing_when_it_ends() {
    let bench = Bench::new();
    let plain = check("web", vec![target("a")]);
    bench.run(&plain).await;
    sleep(seconds(5)).await;
    let until = Timestamp::now() + Duration::from_millis(300);
    bench.run(&says(&plain, &format!("a=Healthy until {until}"))).await;
    bench.lane.say("a", Answer::Bad(Reason::ConnectionRefused));
    // The wall clock goes on by itself while the engine's is wound forward.
    let mut turns = 0;
    while bench.view("web").endpoints[0].overridden.is_some() {
        turns += 1;
        assert!(turns < 1_000_000, "it never ends");
        sleep(Duration::from_millis(10)).await;
    }
    assert!(Timestamp::now() >= until, "not before its time");
    let row = bench.view("web").endpoints[0].clone();
    assert_eq!(row.state, EndpointState::Unhealthy, "what was measured meanwhile");
    assert!(row.live.counters().connect < 4, "{:?}", row.live.counters());
    bench.lane.say("a", Answer::Good);
    sleep(seconds(5)).await;
    assert_eq!(bench.health("web").0, Health::Healthy);
}

#[tokio::test(start_paused = true)]
async fn a_restart_takes_no_operators_word_for_a_probe() {
    let plain = check("web", vec![target("a")]);
    let since = Timestamp::now() - Duration::from_secs(60);
    let prior = || Prior {
        observed_at: Timestamp::now(),
        refresh: seconds(300),
        observed_generation: Some(1),
        health: Health::Unhealthy,
        reason: HealthReason::TargetsUnhealthy,
        message: String::new(),
        since,
        unknown: 0,
        endpoints: vec![PriorEndpoint {
            target: "a".to_owned(),
            label: "a:80".to_owned(),
            state: EndpointState::Unhealthy,
            since,
            reason: None,
            message: "overridden".to_owned(),
            overridden: true,
            addresses: vec![],
        }],
        outages: vec![],
    };
    let bench = Bench::new();
    let spoken = says(&plain, "a=Unhealthy until 2100-01-01T00:00:00Z");
    bench.engine.upsert(Desired { prior: Some(prior()), ..desired(&spoken) }).await;
    bench.engine.settle().await;
    let view = bench.view("web");
    assert_eq!((view.health, view.since, view.transitions), (Health::Unhealthy, since, [0; 4]));
    assert_eq!((view.endpoints[0].since, view.endpoints[0].measured), (since.into(), false));
    sleep(seconds(3)).await;
    bench.run(&plain).await;
    assert_eq!(bench.health("web").0, Health::Healthy, "one success is enough where nothing was measured before");
    // One that has ended while nobody led is no probe's word either.
    let bench = Bench::new();
    bench.engine.upsert(Desired { prior: Some(prior()), ..desired(&plain) }).await;
    bench.engine.settle().await;
    assert!(!bench.view("web").endpoints[0].measured);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_a_check_can_be_spoken_for_too() {
    let bench = Bench::new();
    bench.lane.say("a", Answer::Bad(Reason::ConnectionRefused));
    let whole = says(&check("whole", vec![member("m", "web")]), "m=Healthy until 2100-01-01T00:00:00Z");
    bench.engine.upsert(desired(&check("web", vec![target("a")]))).await;
    bench.run(&whole).await;
    sleep(seconds(5)).await;
    assert_eq!((bench.health("web").0, bench.health("whole").0), (Health::Unhealthy, Health::Healthy));
}
