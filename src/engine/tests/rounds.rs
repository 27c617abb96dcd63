//! When endpoints are asked, and how many at once.

use tokio::time::advance;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_new_check_is_probed_within_a_second_and_flips_at_its_thresholds() {
    let bench = Bench::new();
    bench.run(&check("web", vec![target("a")])).await;
    assert_eq!(bench.health("web"), (Health::Unknown, HealthReason::Pending));
    sleep(seconds(1) + Duration::from_millis(10)).await;
    assert!(bench.lane.hits("a") >= 1);
    assert_eq!(bench.health("web"), (Health::Healthy, HealthReason::AllTargetsHealthy));

    bench.lane.say("a", Answer::Bad(Reason::ConnectionRefused));
    let before = bench.lane.hits("a");
    while bench.lane.hits("a") < before + 2 {
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(bench.health("web").0, Health::Healthy, "two failures decide nothing");
    sleep(Duration::from_millis(1010)).await;
    assert_eq!(bench.health("web"), (Health::Unhealthy, HealthReason::TargetsUnhealthy));
    assert_eq!(bench.view("web").message, "a: as told");
    assert_eq!(bench.view("web").endpoints[0].live.counters().connect, 3);

    bench.lane.say("a", Answer::Good);
    sleep(Duration::from_millis(1010)).await;
    assert_eq!(bench.state("web", 0), EndpointState::MostlyUnhealthy);
    sleep(Duration::from_millis(1010)).await;
    assert_eq!(bench.health("web").0, Health::Healthy);
    let view = bench.view("web");
    assert_eq!(view.transitions, [2, 0, 1, 0]);
    assert_eq!(view.outages.len(), 1);
    assert!(view.outages[0].end.is_some() && view.outages[0].reason == "ConnectionRefused");
}

#[tokio::test(start_paused = true)]
async fn rounds_lie_on_a_grid_however_long_the_answers_take() {
    let bench = Bench::new();
    bench.lane.say("slow", Answer::Late(Duration::from_millis(700)));
    bench.run(&check("web", vec![target("slow"), target("quick")])).await;
    sleep(seconds(120)).await;
    for name in ["slow", "quick"] {
        // The first round comes soon, the others on the grid.
        let starts = bench.lane.starts(name)[1..].to_vec();
        assert!((118..=121).contains(&starts.len()), "{name}: {}", starts.len());
        for pair in starts.windows(2) {
            let gap = (pair[1] - pair[0]).as_millis();
            assert!((998..=1002).contains(&gap), "{name}: {gap} ms");
        }
    }
    assert_eq!(bench.metrics.skipped_rounds.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_hangs_for_its_whole_timeout_is_still_asked_every_round() {
    let bench = Bench::new();
    bench.lane.say("a", Answer::Hang);
    bench.run(&check("web", vec![target("a")])).await;
    sleep(seconds(60)).await;
    assert!(bench.lane.hits("a") >= 58, "{} rounds", bench.lane.hits("a"));
    assert_eq!(bench.metrics.skipped_rounds.get(), 0);
    assert_eq!(bench.lane.0.lock().unwrap().most_running, 1, "probes of one endpoint never overlap");
}

#[tokio::test(start_paused = true)]
async fn overdue_rounds_are_skipped_and_counted_and_never_queued() {
    let bench = Bench::new();
    bench.lane.say("a", Answer::Late(Duration::from_millis(3_500)));
    bench.run(&check("web", vec![target("a"), target("b")])).await;
    sleep(seconds(70)).await;
    let hits = bench.lane.hits("a");
    assert!((18..=21).contains(&hits), "{hits}");
    let skipped = bench.metrics.skipped_rounds.get();
    assert!((44..=54).contains(&skipped), "{skipped}");
    assert!(bench.lane.hits("b") >= 69, "the neighbour keeps its rhythm");
}

#[tokio::test(start_paused = true)]
async fn confirm_and_unhealthy_intervals_take_effect_from_the_round_that_brings_them() {
    let bench = Bench::new();
    let mut check = check("web", vec![target("a")]);
    check.rhythm.interval = seconds(60);
    check.rhythm.confirm_interval = seconds(1);
    check.rhythm.unhealthy_interval = seconds(5);
    check.stale_after = seconds(200);
    bench.run(&check).await;
    sleep(seconds(2)).await;
    bench.lane.say("a", Answer::Bad(Reason::ConnectionRefused));
    let hits = bench.lane.hits("a");
    while bench.lane.hits("a") == hits {
        sleep(Duration::from_millis(10)).await;
    }
    sleep(Duration::from_millis(2_050)).await;
    assert_eq!(bench.health("web").0, Health::Unhealthy, "confirmed by two more, a second apart");
    let hits = bench.lane.hits("a");
    sleep(seconds(20)).await;
    assert_eq!(bench.lane.hits("a") - hits, 4);
}

/// Intervals that do not divide each other: their grids have hardly a slot in common.
#[tokio::test(start_paused = true)]
async fn a_failure_is_confirmed_one_confirm_interval_after_it_and_a_recovery_looked_for_likewise() {
    let bench = Bench::new();
    let mut check = check("web", vec![target("a")]);
    check.rhythm.interval = seconds(60);
    check.rhythm.confirm_interval = seconds(7);
    check.rhythm.unhealthy_interval = seconds(11);
    check.stale_after = seconds(1000);
    bench.run(&check).await;
    sleep(seconds(2)).await;
    bench.lane.say("a", Answer::Bad(Reason::ConnectionRefused));
    sleep(seconds(130)).await;
    let starts = bench.lane.starts("a");
    // The second is the first that fails.
    let gaps: Vec<_> = starts[1..].windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64().round()).collect();
    assert!(gaps.len() > 4 && gaps[..2] == [7.0, 7.0] && gaps[2..].iter().all(|gap| *gap == 11.0), "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_endpoints_are_spread_and_none_is_skipped() {
    let bench = Bench::limited(Limits { in_flight: 20_000, per_host: 20_000 });
    for group in 0..100 {
        let targets = (0..100).map(|n| target(&format!("t{group}-{n}"))).collect();
        let mut desired = desired(&check(&format!("c{group}"), targets));
        for (n, endpoint) in (0..).zip(&mut desired.endpoints) {
            endpoint.dial = Some(Dial { host: Host::Address([10, 0, group, n].into()), port: Some(80) });
        }
        bench.engine.upsert(desired).await;
    }
    bench.engine.settle().await;
    sleep(seconds(2)).await;
    let before = bench.lane.0.lock().unwrap().starts.values().map(Vec::len).sum::<usize>();
    advance(Duration::ZERO).await;
    sleep(seconds(10)).await;
    let after = bench.lane.0.lock().unwrap().starts.values().map(Vec::len).sum::<usize>();
    assert!((99_000..=101_000).contains(&(after - before)), "{}", after - before);
    assert_eq!(bench.metrics.skipped_rounds.get(), 0);
    assert_eq!(bench.board.totals().count(Health::Healthy), 100);
}

#[tokio::test(start_paused = true)]
async fn a_full_house_is_lag_and_never_a_failure() {
    let bench = Bench::limited(Limits { in_flight: 2, per_host: 2 });
    let names: Vec<String> = (0..6).map(|n| format!("t{n}")).collect();
    for name in &names {
        bench.lane.say(name, Answer::Late(Duration::from_millis(200)));
    }
    bench.run(&check("web", names.iter().map(|name| target(name)).collect())).await;
    sleep(seconds(30)).await;
    assert_eq!(bench.lane.0.lock().unwrap().most_running, 2);
    assert_eq!(bench.health("web").0, Health::Healthy);
    assert!(names.iter().all(|name| bench.lane.hits(name) >= 27), "six of 200 ms fit into a second on two permits");
}

#[tokio::test(start_paused = true)]
async fn removing_a_check_frees_its_probes_and_its_permits() {
    let bench = Bench::limited(Limits { in_flight: 1, per_host: 1 });
    bench.lane.say("a", Answer::Late(seconds(1000)));
    bench.lane.say("b", Answer::Late(seconds(1000)));
    bench.run(&check("stuck", vec![target("a"), target("b")])).await;
    sleep(seconds(3)).await;
    bench.engine.remove(ObjectKey::new("shop", "stuck")).await;
    bench.run(&check("web", vec![target("c")])).await;
    sleep(seconds(2)).await;
    assert!(bench.board.get(&ObjectKey::new("shop", "stuck")).is_none());
    assert_eq!(bench.lane.0.lock().unwrap().running, 0);
    assert_eq!(bench.health("web").0, Health::Healthy);
}

/// No permit comes within the interval: that round is skipped, nothing is known, and nobody is blamed.
#[tokio::test(start_paused = true)]
async fn what_finds_no_permit_is_skipped_and_goes_stale_and_is_never_unhealthy() {
    for limits in [Limits { in_flight: 1, per_host: 1000 }, Limits { in_flight: 1000, per_host: 1 }] {
        let bench = Bench::limited(limits);
        bench.lane.say("hog", Answer::Late(seconds(10_000)));
        bench.run(&check("web", vec![target("a")])).await;
        sleep(seconds(3)).await;
        assert_eq!(bench.health("web").0, Health::Healthy);
        bench.run(&check("hog", vec![target("hog")])).await;
        while bench.lane.hits("hog") == 0 {
            sleep(Duration::from_millis(10)).await;
        }
        let (hits, skipped) = (bench.lane.hits("a"), bench.metrics.skipped_rounds.get());
        let mut seen = vec![];
        for _ in 0..60 {
            sleep(seconds(1)).await;
            seen.push(bench.health("web"));
            let counters = bench.view("web").endpoints[0].live.counters();
            assert_eq!((counters.connect, counters.http, counters.timeout), (0, 0, 0), "{limits:?}");
        }
        assert_eq!(bench.lane.hits("a"), hits, "{limits:?}: the one permit is taken");
        // One round waits for the permit all the while; the hog skips its own rounds, too.
        let skipped = bench.metrics.skipped_rounds.get() - skipped;
        assert!((115..=121).contains(&skipped), "{limits:?}: {skipped} rounds of two endpoints in a minute");
        seen.dedup();
        let (healthy, stale) = (HealthReason::AllTargetsHealthy, HealthReason::Stale);
        assert_eq!(seen, [(Health::Healthy, healthy), (Health::Unknown, stale)], "{limits:?}");
        assert!(bench.view("web").outages.is_empty());

        bench.engine.remove(ObjectKey::new("shop", "hog")).await;
        sleep(seconds(2)).await;
        assert_eq!(bench.health("web").0, Health::Healthy, "{limits:?}: the permit is free again");
    }
}

/// Ten times as much as there are turns for, some of it asked more often: nobody starves, and it is told how often each is asked.
#[tokio::test(start_paused = true)]
async fn a_tenfold_overload_gives_every_endpoint_its_turn_and_says_by_how_much_intervals_are_longer() {
    // Four at once for a tenth of a second each are 40 a second; 400 are wanted.
    let bench = Bench::limited(Limits { in_flight: 4, per_host: 4 });
    let (quick, slow): (Vec<_>, Vec<_>) = (0..200).map(|n| format!("t{n}")).partition(|name| name.ends_with('0'));
    for name in quick.iter().chain(&slow) {
        bench.lane.say(name, Answer::Late(Duration::from_millis(100)));
    }
    let mut often = check("often", quick.iter().map(|name| target(name)).collect());
    often.rhythm.interval = Duration::from_millis(91);
    often.stale_after = seconds(60);
    let mut seldom = check("seldom", slow.iter().map(|name| target(name)).collect());
    seldom.stale_after = seconds(60);
    bench.run(&often).await;
    bench.run(&seldom).await;
    sleep(seconds(60)).await;
    let hits = || quick.iter().chain(&slow).map(|name| bench.lane.hits(name)).collect::<Vec<_>>();
    let before = hits();
    sleep(seconds(100)).await;
    let rounds: Vec<_> = hits().iter().zip(before).map(|(after, before)| after - before).collect();
    // Two hundred on forty a second: each five seconds, whatever it wanted. Who wants more gets no more than others.
    assert!(rounds.iter().all(|rounds| (19..=21).contains(rounds)), "{rounds:?}");
    for (name, want) in [("often", 5.0), ("seldom", 5.0)] {
        let view = bench.view(name);
        assert_eq!(view.health, Health::Healthy, "{name}");
        let effective = view.interval.as_secs_f64() * view.live.stretch();
        assert!((effective - want).abs() < 0.5, "{name}: {effective} s");
    }
    let times = bench.metrics.interval_stretch.get();
    assert!((8.0..12.0).contains(&times), "{times}");

    // Half of them go, and the others answer at once: all is as declared.
    bench.engine.remove(ObjectKey::new("shop", "often")).await;
    slow.iter().for_each(|name| bench.lane.say(name, Answer::Good));
    sleep(seconds(25)).await;
    assert_eq!((bench.metrics.interval_stretch.get(), bench.view("seldom").live.stretch()), (1.0, 1.0));
}
