//! What a data plane reports, beside probes and in their place.

use jiff::Timestamp;

use super::*;
use crate::{
    check::{Observed, Passive, StatusRange},
    engine::{About, Fate, Observation, Prior, PriorEndpoint, Scope},
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

fn listening(name: &str, unprobed: Option<Duration>) -> Check {
    Check { passive: Some(passive(unprobed)), ..check(name, vec![target("a")]) }
}

impl Bench {
    async fn report(&self, name: &str, observed: Observed, count: u32) -> Fate {
        let check = Arc::new(ObjectKey::new("shop", name));
        let about = About::Endpoint { check, endpoint: "a:80".into() };
        let fates = self.engine.observe(vec![Observation { about, observed, count }]).await.expect("it runs");
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
    assert_eq!((bench.lane.hits("a"), bench.state("web", 0)), (0, Unknown));
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
    // Nobody says anything: then it is not known any more, as ever.
    sleep(seconds(31)).await;
    assert_eq!(bench.health("web"), (Health::Unknown, HealthReason::Stale));
    bench.report("web", Observed::Status(204), 1).await;
    assert_eq!(bench.state("web", 0), Healthy);
    for _ in 0..20 {
        sleep(seconds(3)).await;
        bench.report("web", Observed::Status(200), 1).await;
    }
    assert_eq!(bench.state("web", 0), Healthy, "what is confirmed stays fresh");
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
    assert_eq!(bench.state("web", 0), Unhealthy);
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
async fn who_stops_listening_believes_the_probe_again() {
    let bench = Bench::new();
    bench.run(&listening("web", None)).await;
    sleep(seconds(2)).await;
    bench.report("web", Observed::Timeout, 7).await;
    assert_eq!(bench.state("web", 0), Unhealthy);
    bench.run(&check("web", vec![target("a")])).await;
    assert_eq!((bench.state("web", 0), bench.view("web").endpoints[0].live.traffic()), (Healthy, None));
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
        let reports = vec![Observation { about, observed: Observed::ConnectFailure, count: 2 }];
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
