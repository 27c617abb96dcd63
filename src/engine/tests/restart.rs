//! What an earlier life left in the status: what of it is believed, and what it must not change.

use jiff::Timestamp;

use super::*;
use crate::engine::{Prior, PriorAddress, PriorEndpoint};

fn prior(age: Duration, state: EndpointState, health: Health) -> Prior {
    let reason =
        if health == Health::Healthy { HealthReason::AllTargetsHealthy } else { HealthReason::TargetsUnhealthy };
    let since = Timestamp::from_second(1_000_000_000).unwrap();
    Prior {
        observed_at: Timestamp::now() - age,
        refresh: seconds(300),
        observed_generation: Some(1),
        health,
        reason,
        message: String::new(),
        since,
        unknown: 0,
        endpoints: vec![PriorEndpoint {
            target: "a".into(),
            label: "a:80".into(),
            state,
            since,
            reason: None,
            message: String::new(),
            overridden: false,
            addresses: vec![],
        }],
        outages: vec![],
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_by_itself_is_no_transition() {
    for (state, health, answer) in [
        (EndpointState::Healthy, Health::Healthy, Answer::Good),
        (EndpointState::Unhealthy, Health::Unhealthy, Answer::Bad(Reason::ConnectionRefused)),
    ] {
        let bench = Bench::new();
        bench.lane.say("a", answer);
        let mut wanted = desired(&check("web", vec![target("a")]));
        wanted.prior = Some(prior(seconds(120), state, health));
        let mut subscription = bench.board.subscribe();
        bench.engine.upsert(wanted).await;
        bench.engine.settle().await;
        assert_eq!(bench.health("web").0, health);
        sleep(seconds(10)).await;
        let view = bench.view("web");
        assert_eq!((view.health, view.transitions), (health, [0; 4]));
        assert_eq!(view.since.as_second(), 1_000_000_000);
        assert_eq!(view.endpoints[0].since.time().as_second(), 1_000_000_000);
        assert_eq!(subscription.changed().await, [ObjectKey::new("shop", "web")]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_status_that_is_too_old_is_not_believed() {
    let bench = Bench::new();
    bench.lane.say("a", Answer::Bad(Reason::NoDescriptors));
    let mut wanted = desired(&check("web", vec![target("a")]));
    wanted.prior = Some(prior(seconds(331), EndpointState::Healthy, Health::Healthy));
    bench.engine.upsert(wanted).await;
    bench.engine.settle().await;
    assert_eq!(bench.health("web"), (Health::Unknown, HealthReason::Stale));
}

#[tokio::test(start_paused = true)]
async fn a_restart_is_no_transition_for_a_composite_that_comes_before_its_members() {
    let bench = Bench::new();
    let mut composite = desired(&check("all", vec![member("m", "web")]));
    composite.prior = Some(Prior { endpoints: vec![], ..prior(seconds(60), EndpointState::Healthy, Health::Healthy) });
    let mut single = desired(&check("web", vec![target("a")]));
    single.prior = Some(prior(seconds(60), EndpointState::Healthy, Health::Healthy));
    bench.engine.upsert(composite).await;
    sleep(seconds(2)).await;
    assert!(bench.board.is_empty(), "nothing is published before everything is there");
    bench.engine.upsert(single).await;
    bench.engine.settle().await;
    let view = bench.view("all");
    assert_eq!((view.health, view.transitions), (Health::Healthy, [0; 4]));
}

#[tokio::test(start_paused = true)]
async fn a_probe_edited_while_we_were_away_marks_the_verdict() {
    let bench = Bench::new();
    let mut wanted = desired(&check("web", vec![target("a")]));
    wanted.prior =
        Some(Prior { observed_generation: Some(0), ..prior(seconds(60), EndpointState::Healthy, Health::Healthy) });
    bench.engine.upsert(wanted).await;
    bench.engine.settle().await;
    assert_eq!(bench.health("web").0, Health::Healthy);
    assert!(bench.view("web").endpoints[0].message.contains("before the probe was changed"));
}

#[tokio::test(start_paused = true)]
async fn a_verdict_that_was_suspended_over_a_restart_is_not_believed_when_probing_resumes() {
    let bench = Bench::new();
    bench.lane.say("a", Answer::Hang);
    let running = check("web", vec![target("a")]);
    let suspended = Check { suspend: true, ..running.clone() };
    let mut wanted = desired(&suspended);
    let prior =
        Prior { reason: HealthReason::Suspended, ..prior(seconds(60), EndpointState::Healthy, Health::Unknown) };
    wanted.prior = Some(prior);
    bench.engine.upsert(wanted).await;
    bench.engine.settle().await;
    assert_eq!(bench.state("web", 0), EndpointState::Healthy, "a restart alone changes no row");
    bench.run(&running).await;
    assert_eq!(bench.health("web"), (Health::Unknown, HealthReason::Stale));
}

fn row(name: &str, state: EndpointState) -> PriorEndpoint {
    let since = Timestamp::from_second(1_000_000_000).unwrap();
    PriorEndpoint {
        target: name.into(),
        label: format!("{name}:80"),
        state,
        since,
        reason: None,
        message: String::new(),
        overridden: false,
        addresses: vec![],
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_keeps_a_stale_check_stale() {
    let bench = Bench::new();
    bench.lane.say("b", Answer::Bad(Reason::NoDescriptors));
    let mut wanted = desired(&check("web", vec![target("a"), target("b")]));
    wanted.prior = Some(Prior {
        reason: HealthReason::Stale,
        unknown: 1,
        endpoints: vec![row("a", EndpointState::Healthy), row("b", EndpointState::Unknown)],
        ..prior(seconds(60), EndpointState::Healthy, Health::Unknown)
    });
    bench.engine.upsert(wanted).await;
    bench.engine.settle().await;
    sleep(seconds(60)).await;
    assert_eq!(bench.health("web"), (Health::Unknown, HealthReason::Stale));
    assert_eq!(bench.view("web").transitions, [0; 4]);
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_a_check_with_more_rows_than_the_status_holds_is_no_transition() {
    let bench = Bench::new();
    let names: Vec<String> = (0..250).map(|n| format!("t{n}")).collect();
    for name in &names[..101] {
        bench.lane.say(name, Answer::Bad(Reason::ConnectionRefused));
    }
    let mut wide = check("wide", names.iter().map(|name| target(name)).collect());
    wide.min_healthy = MinHealthy::Percent(50);
    let mut wanted = desired(&wide);
    wanted.prior = Some(Prior {
        reason: HealthReason::MinimumMet,
        endpoints: names[..100].iter().map(|name| row(name, EndpointState::Unhealthy)).collect(),
        ..prior(seconds(60), EndpointState::Healthy, Health::Degraded)
    });
    bench.engine.upsert(wanted).await;
    bench.engine.settle().await;
    sleep(seconds(10)).await;
    assert_eq!(bench.health("wide"), (Health::Degraded, HealthReason::MinimumMet));
    assert_eq!(bench.view("wide").transitions, [0; 4]);
    assert_eq!(bench.view("wide").counts.summary(), "149/250");
}

/// A hundred endpoints that are asked once a minute; confirmed so long ago in an earlier life, or new.
fn a_hundred(prior_age: Option<Duration>) -> (Vec<String>, Desired) {
    let names: Vec<String> = (0..100).map(|n| format!("t{n}")).collect();
    let mut check = check("wide", names.iter().map(|name| target(name)).collect());
    let minute = seconds(60);
    check.rhythm = Rhythm {
        interval: minute,
        unhealthy_interval: minute,
        confirm_interval: minute,
        no_traffic_interval: None,
        jitter_percent: 0,
    };
    check.stale_after = seconds(200);
    let mut wanted = desired(&check);
    wanted.prior = prior_age.map(|age| Prior {
        endpoints: names.iter().map(|name| row(name, EndpointState::Healthy)).collect(),
        ..prior(age, EndpointState::Healthy, Health::Healthy)
    });
    (names, wanted)
}

/// After a restart, and when another replica takes over: the targets must not notice.
#[tokio::test(start_paused = true)]
async fn first_probes_after_a_restart_are_spread_over_one_interval() {
    let bench = Bench::new();
    let (names, wanted) = a_hundred(Some(seconds(30)));
    let started = Instant::now();
    bench.engine.upsert(wanted).await;
    bench.engine.settle().await;
    sleep(seconds(61)).await;
    let mut tenths = [0; 7];
    for name in &names {
        let after = bench.lane.starts(name).first().expect("asked within an interval").duration_since(started);
        tenths[usize::try_from(after.as_secs() / 10).expect("a minute")] += 1;
    }
    assert!(tenths[..6].iter().all(|count| (5..=30).contains(count)), "by tens of seconds: {tenths:?}");
    let first_second = |name: &&String| bench.lane.starts(name)[0].duration_since(started) < seconds(1);
    let soon = names.iter().filter(first_second).count();
    assert!(soon < 10, "{soon} of 100 in the first second");
    assert_eq!(bench.health("wide").0, Health::Healthy);
    assert_eq!(bench.view("wide").transitions, [0; 4]);
}

#[tokio::test(start_paused = true)]
async fn first_probes_of_what_is_new_all_come_within_a_second() {
    let bench = Bench::new();
    let (names, wanted) = a_hundred(None);
    bench.engine.upsert(wanted).await;
    bench.engine.settle().await;
    sleep(seconds(1) + Duration::from_millis(10)).await;
    assert!(names.iter().all(|name| bench.lane.hits(name) == 1));
}

/// A name that was judged as a whole goes on with what was known of each of its addresses, and a restart alone moves none.
#[tokio::test(start_paused = true)]
async fn a_restart_keeps_what_was_known_of_the_addresses_of_a_name() {
    let check = check("web", vec![target("a")]);
    let since = Timestamp::now() - Duration::from_secs(600);
    let address = |last: u8, state| PriorAddress { ip: [10, 0, 0, last].into(), state, since };
    let known = vec![address(1, EndpointState::Healthy), address(2, EndpointState::Unhealthy)];
    let prior = Prior {
        observed_at: Timestamp::now(),
        refresh: seconds(300),
        observed_generation: Some(1),
        health: Health::Healthy,
        reason: HealthReason::AllTargetsHealthy,
        message: String::new(),
        since,
        unknown: 0,
        endpoints: vec![PriorEndpoint { addresses: known, ..row("a", EndpointState::Healthy) }],
        outages: vec![],
    };
    let mut wanted = desired(&check);
    wanted.endpoints[0].dial = Some(Dial { host: Host::Name("a.example".into()), port: Some(80) });
    let bench = Bench::new();
    bench.engine.upsert(Desired { prior: Some(prior), ..wanted }).await;
    bench.engine.settle().await;
    let view = bench.view("web");
    let seen: Vec<_> =
        view.endpoints[0].places().map(|row| (&*row.label, row.state, row.measured, row.since.time())).collect();
    let of = |label, state| (label, state, true, since);
    assert_eq!(seen, [of("10.0.0.1:80", EndpointState::Healthy), of("10.0.0.2:80", EndpointState::Unhealthy)]);
    assert_eq!(bench.health("web").0, Health::Healthy);
}
