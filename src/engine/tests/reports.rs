//! What a data plane reports, beside probes and in their place.

use jiff::Timestamp;

use super::*;
use crate::{
    check::{Observed, Passive, StatusRange},
    engine::{About, Fate, Observation, Prior, PriorEndpoint, Scope, When},
};

fn passive(unprobed: Option<Duration>) -> Passive {
    let range = |first, last| StatusRange { first, last };
    Passive {
        healthy: vec![range(200, 399)],
        unhealthy: vec![range(500, 599)],
        limits: Thresholds { success: 5, failure: None, connect: Some(2), http: Some(5), timeout: Some(7) },
        unprobed,
    }
}

pub(super) fn listening(name: &str, unprobed: Option<Duration>) -> Check {
    Check { passive: Some(Box::new(passive(unprobed))), ..check(name, vec![target("a")]) }
}

impl Bench {
    pub(super) async fn report(&self, name: &str, observed: Observed, count: u32) -> Fate {
        self.report_of(name, observed, count, None).await
    }

    pub(super) async fn report_of(&self, name: &str, observed: Observed, count: u32, when: Option<When>) -> Fate {
        let check = Arc::new(ObjectKey::new("shop", name));
        let about = About::Endpoint { check, endpoint: "a:80".into() };
        let fates = self.engine.observe(vec![Observation { about, observed, count, when }]).await.expect("it runs");
        self.engine.settle().await;
        fates[0]
    }
}

use EndpointState::{Healthy, MostlyUnhealthy, Unhealthy, Unknown};

#[tokio::test(start_paused = true)]
async fn an_ejected_endpoint_returns_by_its_probe_and_is_asked_at_the_pace_of_the_unhealthy() {
    let bench = Bench::new();
    let mut slow = listening("web", None);
    slow.rhythm.interval = seconds(20);
    bench.run(&slow).await;
    sleep(seconds(2)).await;
    assert_eq!(bench.state("web", 0), Healthy);
    let asked = bench.lane.hits("a");
    assert_eq!(bench.report("web", Observed::Status(503), 5).await, Fate::Accepted);
    assert_eq!(bench.state("web", 0), Unhealthy);
    let row = bench.view("web").endpoints[0].clone();
    assert_eq!(row.reason, Some(Reason::PassiveUnexpectedStatus));
    assert_eq!(&*row.message, "5 failures in a row seen in traffic, the last one status '503'");
    assert_eq!(bench.view("web").message, "a: 5 failures in a row seen in traffic, the last one status '503'");
    let ejected = bench.view("web").since;
    // A second later the probe goes well, another one later it has done so often enough.
    while bench.state("web", 0) == Unhealthy {
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!((bench.state("web", 0), bench.lane.hits("a")), (MostlyUnhealthy, asked + 1));
    sleep(seconds(2)).await;
    assert_eq!(bench.state("web", 0), Healthy);
    assert_eq!(bench.lane.hits("a"), asked + 2);
    let row = bench.view("web").endpoints[0].clone();
    assert_eq!((row.reason, &*row.message), (None, ""));
    assert!(bench.view("web").since >= ejected && bench.view("web").transitions[Health::Unhealthy as usize] == 1);
}

#[tokio::test(start_paused = true)]
async fn without_probes_traffic_is_the_verdict_and_an_ejection_ends_by_its_time() {
    let bench = Bench::new();
    bench.run(&listening("web", Some(seconds(50)))).await;
    sleep(seconds(5)).await;
    // Nothing else could ever show what it is worth: it is believed until traffic speaks against it.
    assert_eq!((bench.lane.hits("a"), bench.state("web", 0)), (0, Healthy));
    assert!(bench.view("web").endpoints[0].measured);
    bench.report("web", Observed::Status(200), 1).await;
    assert_eq!(bench.state("web", 0), Healthy);
    bench.report("web", Observed::ConnectFailure, 1).await;
    assert_eq!((bench.state("web", 0), &*bench.view("web").endpoints[0].message), (Healthy, ""));
    bench.report("web", Observed::ConnectFailure, 1).await;
    assert_eq!(bench.state("web", 0), Unhealthy);
    // Longer than a verdict is believed (30 s): an ejection is no guess that goes stale.
    sleep(seconds(49)).await;
    assert_eq!((bench.state("web", 0), bench.lane.hits("a")), (Unhealthy, 0));
    sleep(seconds(2)).await;
    assert_eq!((bench.state("web", 0), &*bench.view("web").endpoints[0].message), (Healthy, ""));
    // A quiet night is no news.
    let before = bench.view("web").since;
    sleep(seconds(8 * 3600)).await;
    assert_eq!(bench.health("web"), (Health::Healthy, HealthReason::AllTargetsHealthy));
    assert_eq!((bench.view("web").since, bench.view("web").transitions[Health::Unknown as usize]), (before, 0));
    // But failures of two nights do not add up.
    bench.report("web", Observed::ConnectFailure, 1).await;
    sleep(seconds(31)).await;
    bench.report("web", Observed::ConnectFailure, 1).await;
    assert_eq!(bench.state("web", 0), Healthy);
    bench.report("web", Observed::ConnectFailure, 1).await;
    assert_eq!(bench.state("web", 0), Unhealthy);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_declared_unhealthy_waits_for_its_first_success_or_as_long_as_an_ejection() {
    for success in [false, true] {
        let bench = Bench::new();
        let declared = Check { initial_state: InitialState::Unhealthy, ..listening("web", Some(seconds(50))) };
        bench.run(&declared).await;
        sleep(seconds(49)).await;
        let row = bench.view("web").endpoints[0].clone();
        assert_eq!((row.state, row.measured), (Unhealthy, false));
        if success {
            bench.report("web", Observed::Status(200), 1).await;
            assert_eq!(bench.state("web", 0), Healthy);
        }
        sleep(seconds(2)).await;
        assert_eq!(bench.state("web", 0), Healthy, "{success}");
        let since = bench.view("web").endpoints[0].since;
        sleep(seconds(100)).await;
        assert_eq!(bench.view("web").endpoints[0].since, since);
    }
}

/// Whatever an earlier life last knew, there is nobody but traffic to ask.
#[tokio::test(start_paused = true)]
async fn without_probes_an_old_verdict_is_no_reason_to_get_no_traffic() {
    let bench = Bench::new();
    let mut wanted = desired(&listening("web", Some(seconds(60))));
    let mut old = prior(Reason::PassiveTimeout, seconds(4000));
    old.observed_at -= seconds(3600);
    wanted.prior = Some(old);
    bench.engine.upsert(wanted).await;
    bench.engine.settle().await;
    let row = bench.view("web").endpoints[0].clone();
    assert_eq!((row.state, row.stale, row.measured), (Healthy, false, true));
}

#[tokio::test(start_paused = true)]
async fn probes_can_be_left_and_taken_up_again_and_the_verdict_goes_over() {
    let bench = Bench::new();
    bench.lane.say("a", Answer::Bad(Reason::ConnectionRefused));
    bench.run(&listening("web", None)).await;
    sleep(seconds(5)).await;
    assert_eq!(bench.state("web", 0), Unhealthy);
    bench.run(&listening("web", Some(seconds(20)))).await;
    let asked = bench.lane.hits("a");
    let row = || bench.view("web").endpoints[0].clone();
    assert_eq!((row().state, row().reason), (Unhealthy, Some(Reason::ConnectionRefused)), "it is told why");
    sleep(seconds(19)).await;
    assert_eq!((bench.state("web", 0), bench.lane.hits("a")), (Unhealthy, asked));
    sleep(seconds(2)).await;
    assert_eq!(bench.state("web", 0), Healthy);
    bench.run(&listening("web", None)).await;
    assert_eq!(bench.state("web", 0), Healthy);
    sleep(seconds(5)).await;
    assert_eq!(bench.state("web", 0), Unhealthy);
    assert!(bench.lane.hits("a") > asked + 2);
}

#[tokio::test(start_paused = true)]
async fn an_ejection_without_probes_is_one_beside_them_once_there_are_some() {
    let bench = Bench::new();
    bench.run(&listening("web", Some(seconds(600)))).await;
    bench.report("web", Observed::ConnectFailure, 2).await;
    let row = || bench.view("web").endpoints[0].clone();
    let since = row().since;
    bench.run(&listening("web", None)).await;
    assert_eq!((row().state, row().reason, row().since), (Unhealthy, Some(Reason::PassiveConnectFailure), since));
    // Its time is over: it returns by two probes that go well.
    sleep(seconds(4)).await;
    assert_eq!((row().state, row().reason), (Healthy, None));
    // Where nobody listens any more, the probe is asked before anything is taken back.
    bench.run(&listening("web", Some(seconds(600)))).await;
    bench.report("web", Observed::ConnectFailure, 2).await;
    bench.run(&check("web", vec![target("a")])).await;
    assert_eq!((row().state, row().reason), (Unhealthy, Some(Reason::PassiveConnectFailure)));
    sleep(seconds(4)).await;
    assert_eq!((row().state, row().reason), (Healthy, None));
}

/// Its answer was on its way when traffic was refused.
#[tokio::test(start_paused = true)]
async fn a_probe_that_began_before_the_ejection_proves_nothing() {
    let bench = Bench::new();
    let mut slow = listening("web", None);
    slow.thresholds.success = 1;
    slow.rhythm.interval = seconds(10);
    slow.rhythm.unhealthy_interval = seconds(10);
    bench.lane.say("a", Answer::Late(Duration::from_millis(800)));
    bench.run(&slow).await;
    let next = async |asked: usize| {
        while bench.lane.hits("a") <= asked {
            sleep(Duration::from_millis(50)).await;
        }
    };
    sleep(seconds(3)).await;
    assert_eq!(bench.state("web", 0), Healthy);
    let asked = bench.lane.hits("a");
    next(asked).await;
    bench.report("web", Observed::ConnectFailure, 2).await;
    sleep(seconds(2)).await;
    assert_eq!(bench.state("web", 0), Unhealthy, "the answer has come, and tells of a time before");
    next(asked + 1).await;
    sleep(seconds(2)).await;
    assert_eq!(bench.state("web", 0), Healthy);
}

/// Nobody could look, and what traffic says is the other thing.
#[tokio::test(start_paused = true)]
async fn what_speaks_against_a_verdict_does_not_keep_it_fresh() {
    for (observed, believed) in
        [(Observed::Status(200), Healthy), (Observed::Status(404), Unknown), (Observed::Status(503), Unknown)]
    {
        let bench = Bench::new();
        let mut deaf = listening("web", None);
        if let Some(passive) = &mut deaf.passive {
            passive.limits.http = None;
        }
        bench.run(&deaf).await;
        sleep(seconds(2)).await;
        bench.lane.say("a", Answer::Bad(Reason::NoDescriptors));
        for _ in 0..20 {
            sleep(seconds(2)).await;
            bench.report("web", observed, 1).await;
        }
        assert_eq!(bench.state("web", 0), believed, "{observed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_stops_listening_believes_the_probe_again() {
    let bench = Bench::new();
    bench.run(&listening("web", None)).await;
    sleep(seconds(2)).await;
    bench.report("web", Observed::Timeout, 7).await;
    assert_eq!(bench.state("web", 0), Unhealthy);
    let ejected = bench.view("web").endpoints[0].since;
    bench.run(&check("web", vec![target("a")])).await;
    assert_eq!((bench.state("web", 0), bench.view("web").endpoints[0].live.traffic()), (Healthy, None));
    assert!(bench.view("web").endpoints[0].since > ejected, "since when it is healthy");
    assert_eq!(bench.report("web", Observed::Timeout, 7).await, Fate::NotPassive);
}

fn prior(reason: Reason, since: Duration) -> Prior {
    let since = Timestamp::now() - since;
    Prior {
        observed_at: Timestamp::now(),
        refresh: seconds(300),
        observed_generation: Some(1),
        health: Health::Unhealthy,
        reason: HealthReason::TargetsUnhealthy,
        message: String::new(),
        since,
        unknown: 0,
        endpoints: vec![PriorEndpoint {
            target: "a".into(),
            label: "a:80".into(),
            state: Unhealthy,
            since,
            reason: Some(reason),
            message: "seen in traffic".to_owned(),
            overridden: false,
            addresses: vec![],
        }],
        outages: vec![],
    }
}

#[tokio::test(start_paused = true)]
async fn an_ejection_outlives_a_restart() {
    for unprobed in [None, Some(seconds(60))] {
        let bench = Bench::new();
        let mut wanted = desired(&listening("web", unprobed));
        wanted.prior = Some(prior(Reason::PassiveTimeout, seconds(40)));
        bench.engine.upsert(wanted).await;
        bench.engine.settle().await;
        let row = bench.view("web").endpoints[0].clone();
        assert_eq!(
            (row.state, row.reason, &*row.message),
            (Unhealthy, Some(Reason::PassiveTimeout), "seen in traffic")
        );
        assert_eq!(bench.view("web").transitions, [0; 4]);
        if unprobed.is_some() {
            // Forty seconds of it are over.
            sleep(seconds(18)).await;
            assert_eq!(bench.state("web", 0), Unhealthy);
        }
        sleep(seconds(4)).await;
        assert_eq!(bench.state("web", 0), Healthy, "{unprobed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn failures_far_apart_do_not_add_up() {
    let bench = Bench::new();
    bench.run(&listening("web", None)).await;
    for _ in 0..10 {
        sleep(seconds(31)).await;
        bench.report("web", Observed::ConnectFailure, 1).await;
        assert_eq!(bench.state("web", 0), Healthy);
    }
    sleep(seconds(29)).await;
    bench.report("web", Observed::ConnectFailure, 1).await;
    assert_eq!(bench.state("web", 0), Unhealthy);
}

/// A proxy knows addresses alone, and one may be an endpoint of several checks.
#[tokio::test(start_paused = true)]
async fn an_address_is_whoever_in_scope_is_there() {
    let bench = Bench::new();
    let address = "10.0.0.1:80";
    for name in ["one", "two", "deaf"] {
        let mut wanted = desired(&listening(name, None));
        if name == "deaf" {
            wanted = desired(&check(name, vec![target("a")]));
        }
        wanted.endpoints[0].label = address.into();
        bench.engine.upsert(wanted).await;
    }
    bench.engine.settle().await;
    sleep(seconds(2)).await;
    let report = async |scope: Scope, at: &str| {
        let about = About::Address { scope: Arc::new(scope), address: at.parse().expect("an address") };
        let reports = vec![Observation { about, observed: Observed::ConnectFailure, count: 2, when: None }];
        let fate = bench.engine.observe(reports).await.expect("it runs")[0];
        bench.engine.settle().await;
        fate
    };
    let states = || ["one", "two", "deaf"].map(|name| bench.state(name, 0));
    assert_eq!(report(Scope::Namespace("other".into()), address).await, Fate::UnknownEndpoint);
    assert_eq!(report(Scope::Check(ObjectKey::new("shop", "deaf")), address).await, Fate::UnknownEndpoint);
    assert_eq!(report(Scope::All, "10.0.0.1:81").await, Fate::UnknownEndpoint);
    assert_eq!(states(), [Healthy; 3]);
    assert_eq!(report(Scope::Check(ObjectKey::new("shop", "two")), address).await, Fate::Accepted);
    assert_eq!(states(), [Healthy, Unhealthy, Healthy]);
    assert_eq!(report(Scope::All, "[::ffff:10.0.0.1]:80").await, Fate::Accepted);
    assert_eq!(states(), [Unhealthy, Unhealthy, Healthy]);
    bench.engine.remove(ObjectKey::new("shop", "one")).await;
    bench.engine.remove(ObjectKey::new("shop", "two")).await;
    assert_eq!(report(Scope::All, address).await, Fate::UnknownEndpoint);
}

/// Where a name leads to is looked up by its probes; a report knows the address alone.
#[tokio::test(start_paused = true)]
async fn an_address_of_a_name_is_found_as_long_as_the_name_leads_there() {
    let bench = Bench::new();
    let mut wanted = desired(&listening("web", None));
    wanted.endpoints[0].dial = Some(Dial { host: Host::Name("web.corp".into()), port: Some(80) });
    wanted.endpoints[0].label = "web.corp:80".into();
    bench.lane.leads("a", &[[10, 0, 0, 1], [10, 0, 0, 2]]);
    bench.engine.upsert(wanted.clone()).await;
    bench.engine.settle().await;
    sleep(seconds(2)).await;
    let at = async |last: u8, observed| {
        let address = ([10, 0, 0, last], 80).into();
        let about = About::Address { scope: Arc::new(Scope::All), address };
        let named = About::Endpoint {
            check: Arc::new(ObjectKey::new("shop", "web")),
            endpoint: format!("10.0.0.{last}:80").into(),
        };
        let report = |about| Observation { about, observed, count: 1, when: None };
        let fates = bench.engine.observe(vec![report(about), report(named)]).await.expect("it runs");
        bench.engine.settle().await;
        assert_eq!(fates[0], fates[1]);
        fates[0]
    };
    assert_eq!(at(1, Observed::ConnectFailure).await, Fate::Accepted);
    assert_eq!(bench.state("web", 0), Healthy, "the other one serves");
    assert_eq!(at(2, Observed::ConnectFailure).await, Fate::Accepted);
    assert_eq!(bench.state("web", 0), Unhealthy);
    assert_eq!(at(3, Observed::ConnectFailure).await, Fate::UnknownEndpoint);
    bench.lane.leads("a", &[[10, 0, 0, 3]]);
    sleep(seconds(2)).await;
    assert_eq!(at(1, Observed::Status(200)).await, Fate::UnknownEndpoint);
    assert_eq!(at(3, Observed::Status(200)).await, Fate::Accepted);
    wanted.check = Arc::new(check("web", vec![target("a")]));
    bench.engine.upsert(wanted.clone()).await;
    let about = About::Address { scope: Arc::new(Scope::All), address: ([10, 0, 0, 3], 80).into() };
    let fates =
        bench.engine.observe(vec![Observation { about, observed: Observed::Timeout, count: 1, when: None }]).await;
    assert_eq!(fates, Some(vec![Fate::UnknownEndpoint]), "nobody listens");
}

#[tokio::test(start_paused = true)]
async fn it_is_told_when_there_is_somebody_to_be_known() {
    let bench = Bench::new();
    let opened = || futures::FutureExt::now_or_never(bench.engine.opened()).is_some();
    bench.engine.upsert(desired(&listening("web", None))).await;
    assert!(!opened());
    bench.engine.settle().await;
    assert!(opened());
}
