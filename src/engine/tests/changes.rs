//! What becomes of a verdict when the check, its endpoints, its members or the time change.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_edit_keeps_what_it_does_not_change() {
    let bench = Bench::new();
    bench.run(&check("web", vec![target("a"), target("b")])).await;
    sleep(seconds(5)).await;
    let success = |at: usize| bench.view("web").endpoints[at].live.counters().success;
    let (a, since) = (success(0), bench.view("web").since);

    let mut edited = check("web", vec![target("a"), Target { probe: http(), ..target("b") }]);
    edited.rhythm.interval = seconds(2);
    bench.run(&edited).await;
    assert_eq!(success(0), a, "an edit of interval and of another target keeps the counters");
    assert_eq!(success(1), 0, "another question starts the counters again");
    assert_eq!(bench.health("web").0, Health::Healthy, "and keeps the verdict");
    assert!(bench.view("web").endpoints[1].message.contains("before the probe was changed"));
    sleep(seconds(2)).await;
    assert_eq!(&*bench.view("web").endpoints[1].message, "");
    assert_eq!(bench.view("web").since, since);
    assert_eq!(bench.view("web").transitions, [1, 0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_returns_in_time_keeps_its_state() {
    let bench = Bench::new();
    bench.lane.say("b", Answer::Bad(Reason::UnexpectedStatus));
    let both = check("web", vec![target("a"), target("b")]);
    let one = check("web", vec![target("a")]);
    bench.run(&both).await;
    sleep(seconds(5)).await;
    assert_eq!(bench.state("web", 1), EndpointState::Unhealthy);
    bench.run(&one).await;
    assert_eq!(bench.health("web").0, Health::Healthy);
    sleep(seconds(8)).await;
    bench.run(&both).await;
    assert_eq!(bench.state("web", 1), EndpointState::Unhealthy, "back within ten seconds");
    bench.run(&one).await;
    sleep(seconds(12)).await;
    bench.run(&both).await;
    assert_eq!(bench.state("web", 1), EndpointState::Unknown, "back too late: nothing is known");
    assert_eq!(bench.health("web").0, Health::Healthy, "a newcomer does not unsettle the check");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_returns_to_another_question_keeps_its_verdict_until_decided_anew() {
    let bench = Bench::new();
    let both = check("web", vec![target("a"), target("b")]);
    bench.run(&both).await;
    sleep(seconds(5)).await;
    bench.run(&check("web", vec![target("a")])).await;
    sleep(seconds(2)).await;
    bench.run(&check("web", vec![target("a"), Target { probe: http(), ..target("b") }])).await;
    let row = bench.view("web").endpoints[1].clone();
    assert_eq!((row.state, row.live.counters().success), (EndpointState::Healthy, 0));
    assert!(row.message.contains("before the probe was changed"), "{}", row.message);
}

/// A pod whose sandbox is made anew has its identity, and another address.
#[tokio::test(start_paused = true)]
async fn an_endpoint_at_another_address_is_asked_soon_and_decided_anew() {
    let bench = Bench::new();
    let mut check = check("web", vec![target("a")]);
    check.rhythm.interval = seconds(600);
    check.stale_after = seconds(2000);
    bench.run(&check).await;
    sleep(seconds(5)).await;
    assert_eq!((bench.lane.hits("a"), bench.state("web", 0)), (1, EndpointState::Healthy));
    let mut moved = desired(&check);
    moved.endpoints[0].dial = Some(Dial { host: Host::Address([10, 0, 0, 2].into()), port: Some(80) });
    bench.engine.upsert(moved).await;
    bench.engine.settle().await;
    let row = bench.view("web").endpoints[0].clone();
    assert_eq!((row.state, row.live.counters().success), (EndpointState::Healthy, 0));
    assert!(row.message.contains("before the probe was changed"), "{}", row.message);
    sleep(seconds(2)).await;
    assert_eq!((bench.lane.hits("a"), &*bench.view("web").endpoints[0].message), (2, ""));
}

#[tokio::test(start_paused = true)]
async fn an_edit_of_the_interval_takes_effect_at_once() {
    let bench = Bench::new();
    let mut slow = check("web", vec![target("a")]);
    slow.rhythm.interval = seconds(3600);
    slow.stale_after = seconds(20_000);
    bench.run(&slow).await;
    sleep(seconds(30)).await;
    let hits = bench.lane.hits("a");
    bench.run(&check("web", vec![target("a")])).await;
    sleep(seconds(5)).await;
    assert!(bench.lane.hits("a") >= hits + 4, "{} and then {}", hits, bench.lane.hits("a"));
    bench.run(&slow).await;
    let hits = bench.lane.hits("a");
    sleep(seconds(60)).await;
    assert!(bench.lane.hits("a") <= hits + 1, "{} and then {}", hits, bench.lane.hits("a"));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_seen_any_more_goes_stale_and_recovers() {
    let bench = Bench::new();
    bench.run(&check("web", vec![target("a")])).await;
    sleep(seconds(3)).await;
    bench.lane.say("a", Answer::Bad(Reason::NoDescriptors));
    sleep(seconds(28)).await;
    assert_eq!(bench.health("web").0, Health::Healthy, "our own trouble is not the target's");
    sleep(seconds(3)).await;
    assert_eq!(bench.health("web"), (Health::Unknown, HealthReason::Stale));
    bench.lane.say("a", Answer::Good);
    sleep(seconds(2)).await;
    assert_eq!(bench.health("web").0, Health::Healthy);
}

#[tokio::test(start_paused = true)]
async fn a_check_that_never_could_look_says_so() {
    let bench = Bench::new();
    bench.lane.say("a", Answer::Bad(Reason::EgressDenied));
    bench.run(&check("web", vec![target("a")])).await;
    sleep(seconds(2)).await;
    assert_eq!(bench.health("web"), (Health::Unknown, HealthReason::ProbeError));
    assert!(bench.view("web").outages.is_empty());
}

#[tokio::test(start_paused = true)]
async fn suspending_stops_the_probes_and_resuming_starts_them() {
    let bench = Bench::new();
    let running = check("web", vec![target("a")]);
    let suspended = Check { suspend: true, ..running.clone() };
    bench.run(&running).await;
    sleep(seconds(3)).await;
    bench.run(&suspended).await;
    assert_eq!(bench.health("web"), (Health::Unknown, HealthReason::Suspended));
    assert_eq!(bench.board.totals().suspended, 1);
    let hits = bench.lane.hits("a");
    sleep(seconds(20)).await;
    assert_eq!(bench.lane.hits("a"), hits);
    bench.run(&running).await;
    assert_eq!(bench.health("web").0, Health::Healthy, "the verdict is still fresh");
    sleep(seconds(2)).await;
    assert!(bench.lane.hits("a") > hits);
}

#[tokio::test(start_paused = true)]
async fn composites_follow_their_members_and_a_missing_one_is_unknown() {
    let bench = Bench::new();
    bench.run(&check("all", vec![member("front", "web"), member("back", "db")])).await;
    bench.run(&check("top", vec![member("all", "all")])).await;
    bench.run(&check("web", vec![target("a")])).await;
    sleep(seconds(2)).await;
    assert_eq!(bench.health("all").0, Health::Unknown);
    assert!(bench.view("all").message.contains("back: no such HealthCheck"), "{}", bench.view("all").message);
    bench.run(&check("db", vec![target("b")])).await;
    sleep(seconds(2)).await;
    assert_eq!(bench.health("top").0, Health::Healthy);
    bench.lane.say("b", Answer::Bad(Reason::ConnectionRefused));
    sleep(seconds(4)).await;
    assert_eq!(bench.health("all").0, Health::Unhealthy);
    assert_eq!(bench.health("top").0, Health::Unhealthy, "two steps up");
    bench.engine.remove(ObjectKey::new("shop", "db")).await;
    bench.engine.settle().await;
    assert_eq!(bench.health("all").0, Health::Unknown);
}

#[tokio::test(start_paused = true)]
async fn checks_that_name_each_other_do_not_hang_the_engine() {
    let bench = Bench::new();
    bench.run(&check("one", vec![member("m", "two")])).await;
    bench.run(&check("two", vec![member("m", "one")])).await;
    bench.run(&check("web", vec![target("a")])).await;
    sleep(seconds(3)).await;
    assert_eq!(bench.health("web").0, Health::Healthy);
    assert_eq!(bench.health("one").0, Health::Unknown);
}

#[tokio::test(start_paused = true)]
async fn an_object_made_again_under_its_name_starts_anew() {
    let bench = Bench::new();
    bench.run(&check("web", vec![target("a")])).await;
    sleep(seconds(3)).await;
    let again = Check { uid: "another".into(), ..check("web", vec![target("a")]) };
    bench.run(&again).await;
    assert_eq!(bench.health("web"), (Health::Unknown, HealthReason::Pending));
    assert_eq!(&*bench.view("web").uid, "another");
    assert_eq!(bench.board.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_named_twice_is_one_and_leaves_as_one() {
    let bench = Bench::new();
    let mut wanted = desired(&check("web", vec![target("a")]));
    wanted.endpoints.push(wanted.endpoints[0].clone());
    for _ in 0..2 {
        bench.engine.upsert(wanted.clone()).await;
        bench.engine.settle().await;
        assert_eq!(bench.view("web").endpoints.len(), 1);
    }
    bench.engine.remove(ObjectKey::new("shop", "web")).await;
    bench.engine.settle().await;
    let hits = bench.lane.hits("a");
    sleep(seconds(5)).await;
    assert_eq!(bench.lane.hits("a"), hits);
}

#[tokio::test(start_paused = true)]
async fn an_initial_state_ends_where_nothing_can_be_looked_at() {
    let bench = Bench::new();
    bench.lane.say("a", Answer::Bad(Reason::SecretMissing));
    let check = Check { initial_state: InitialState::Healthy, ..check("web", vec![target("a")]) };
    bench.run(&check).await;
    sleep(seconds(20)).await;
    assert_eq!(bench.health("web").0, Health::Healthy, "as declared, for as long as a verdict would be believed");
    sleep(seconds(15)).await;
    assert_eq!(bench.health("web"), (Health::Unknown, HealthReason::ProbeError));
}

#[tokio::test(start_paused = true)]
async fn a_member_that_nothing_can_decide_is_not_left_out_of_a_composite() {
    let bench = Bench::new();
    bench.run(&check("web", vec![target("a")])).await;
    bench.run(&check("all", vec![member("web", "web")])).await;
    sleep(seconds(2)).await;
    assert_eq!(bench.health("all").0, Health::Healthy);
    let empty = Desired { endpoints: vec![], ..desired(&check("empty", vec![target("none")])) };
    bench.engine.upsert(empty).await;
    bench.run(&check("all", vec![member("web", "web"), member("empty", "empty")])).await;
    assert_eq!(bench.health("empty"), (Health::Unknown, HealthReason::NoTargets));
    assert_eq!(bench.health("all").0, Health::Unknown);
}

#[tokio::test(start_paused = true)]
async fn replacing_the_only_sick_target_is_no_recovery_before_it_was_probed() {
    let bench = Bench::new();
    bench.lane.say("db", Answer::Bad(Reason::ConnectionRefused));
    bench.lane.say("new", Answer::Hang);
    let optional = Target { optional: true, ..target("dr") };
    bench.run(&check("db", vec![target("db"), optional.clone()])).await;
    sleep(seconds(5)).await;
    assert_eq!(bench.health("db").0, Health::Unhealthy);
    bench.run(&check("db", vec![target("new"), optional])).await;
    assert_eq!(bench.health("db"), (Health::Unknown, HealthReason::Pending));
}

/// A status has room for so many names; that there are more, the rows tell.
#[tokio::test(start_paused = true)]
async fn an_outage_names_the_first_eight_targets_each_once() {
    let bench = Bench::new();
    let names: Vec<String> = (0..20).map(|n| format!("t{n}")).collect();
    let mut wide = check("wide", names.iter().map(|name| target(name)).collect());
    // Lost only when the last but one is.
    wide.min_healthy = MinHealthy::Count(2);
    let mut wanted = desired(&wide);
    // A target with two endpoints is one name.
    wanted.endpoints.push(Endpoint { identity: "second".into(), ..wanted.endpoints[1].clone() });
    bench.engine.upsert(wanted).await;
    bench.engine.settle().await;
    sleep(seconds(3)).await;
    for name in &names[1..] {
        bench.lane.say(name, Answer::Bad(Reason::ConnectionRefused));
    }
    sleep(seconds(5)).await;
    let view = bench.view("wide");
    assert_eq!((view.health, view.outages.len()), (Health::Unhealthy, 1));
    assert_eq!(view.outages[0].targets.len(), OUTAGE_TARGETS);
    let distinct: std::collections::HashSet<_> = view.outages[0].targets.iter().collect();
    assert_eq!(distinct.len(), OUTAGE_TARGETS);
    assert!(distinct.iter().all(|name| *name != "t0" && names.contains(name)));
}

/// What one attempt leaves for the next (an open connection) is the endpoint's, and of what it is asked.
#[tokio::test(start_paused = true)]
async fn what_is_kept_ends_with_the_endpoint_the_question_and_the_probing() {
    let bench = Bench::new();
    let asks = |path: &str| {
        let http = HttpProbe { path: path.into(), reuse_connection: true, ..HttpProbe::default() };
        let probe = Probe { timeout: seconds(1), kind: ProbeKind::Http(http) };
        Target { probe: Arc::new(probe), ..target("a") }
    };
    bench.run(&check("web", vec![asks("/"), Target { probe: http(), ..target("b") }])).await;
    sleep(seconds(4)).await;
    assert_eq!((bench.lane.handed_on("a"), bench.lane.handed_on("b")), (3, 0));
    assert_eq!(bench.lane.kept(), 1, "where nothing is to be kept nothing is");

    let mut edited = check("web", vec![asks("/")]);
    edited.rhythm.interval = seconds(2);
    bench.run(&edited).await;
    sleep(seconds(4)).await;
    assert_eq!(bench.lane.handed_on("a"), 5, "an edit of what is not asked changes nothing");

    edited.targets = vec![asks("/other")];
    bench.run(&edited).await;
    assert_eq!(bench.lane.kept(), 0, "another question");
    sleep(seconds(4)).await;
    assert!(bench.lane.kept() == 1 && bench.lane.handed_on("a") < 5);

    edited.suspend = true;
    bench.run(&edited).await;
    assert_eq!(bench.lane.kept(), 0, "nobody asks");
    edited.suspend = false;
    bench.run(&edited).await;
    sleep(seconds(4)).await;
    assert_eq!(bench.lane.kept(), 1);

    bench.engine.remove(ObjectKey::new("shop", "web")).await;
    bench.engine.settle().await;
    assert_eq!(bench.lane.kept(), 0, "the check is gone");
}

#[tokio::test(start_paused = true)]
async fn rows_stand_in_declared_order_wherever_a_member_is_a_check() {
    let bench = Bench::new();
    bench.run(&check("db", vec![target("x")])).await;
    let names = |declared: &[&str]| {
        let targets = declared.iter().map(|name| if *name < "m" { target(name) } else { member(name, "db") });
        targets.collect::<Vec<_>>()
    };
    for declared in [&["n", "a", "o", "p", "b", "c", "q"][..], &["c", "a", "n", "b"], &["n"], &["a"], &[]] {
        bench.run(&check("web", names(declared))).await;
        let rows: Vec<_> = bench.view("web").endpoints.iter().map(|row| row.target.to_string()).collect();
        assert_eq!(rows, declared);
    }
}
