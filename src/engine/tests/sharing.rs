//! Equal questions: asked once, judged by each who asks.

use std::net::IpAddr;

use super::*;
use crate::check::{HeaderSource, HttpHeader, Reference, ReferenceKind, ScriptProbe};

/// A check of one target `a`, and where it is.
fn asks(name: &str, every: u64, at: &str, probe: Arc<Probe>) -> Desired {
    let mut check = check(name, vec![Target { probe, ..target("a") }]);
    check.rhythm.interval = seconds(every);
    check.rhythm.unhealthy_interval = seconds(every);
    check.rhythm.confirm_interval = seconds(every);
    named(check, at)
}

/// Attempts are counted by the names of targets: that of `check` is then its own.
fn named(mut check: Check, at: &str) -> Desired {
    check.targets[0].name = check.key.name.clone();
    let mut desired = desired(&check);
    let host = at.parse::<IpAddr>().map_or_else(|_| Host::Name(at.into()), Host::Address);
    desired.endpoints[0].dial = Some(Dial { host, port: Some(80) });
    desired
}

impl Bench {
    async fn ask(&self, all: impl IntoIterator<Item = Desired>) {
        for desired in all {
            self.engine.upsert(desired).await;
        }
        self.engine.settle().await;
    }

    /// How many attempts began within the next `time`, whosever.
    async fn begun(&self, time: Duration) -> usize {
        let count = || self.lane.0.lock().unwrap().starts.values().map(Vec::len).sum::<usize>();
        let before = count();
        sleep(time).await;
        count() - before
    }

    async fn forget(&self, name: &str) {
        self.engine.remove(ObjectKey::new("shop", name)).await;
        self.engine.settle().await;
    }
}

fn tcp_within(timeout: Duration) -> Arc<Probe> {
    Arc::new(Probe { timeout, ..(*tcp()).clone() })
}

#[tokio::test(start_paused = true)]
async fn the_same_question_is_asked_once_at_the_shortest_interval_and_judged_by_each() {
    let bench = Bench::new();
    let mut patient = asks("patient", 1, "10.0.0.1", tcp());
    Arc::make_mut(&mut patient.check).thresholds.failure = Some(9);
    bench.ask([asks("one", 1, "10.0.0.1", tcp()), patient, asks("seldom", 5, "10.0.0.1", tcp())]).await;
    sleep(seconds(10)).await;
    let shared = bench.metrics.shared_rounds.get();
    let begun = bench.begun(seconds(100)).await;
    assert!((99..=101).contains(&begun), "{begun}");
    let shared = bench.metrics.shared_rounds.get() - shared;
    assert!((119..=121).contains(&shared), "a hundred rounds of one and twenty of the other: {shared}");
    for name in ["one", "patient", "seldom"] {
        assert_eq!(bench.health(name), (Health::Healthy, HealthReason::AllTargetsHealthy), "{name}");
    }
    for name in ["one", "patient", "seldom"] {
        bench.lane.say(name, Answer::Bad(Reason::ConnectionRefused));
    }
    sleep(seconds(6)).await;
    assert_eq!((bench.health("one").0, bench.health("patient").0), (Health::Unhealthy, Health::Healthy));
    sleep(seconds(14)).await;
    for name in ["one", "patient", "seldom"] {
        assert_eq!(bench.health(name).0, Health::Unhealthy, "{name}");
        assert_eq!(bench.view(name).message, format!("{name}: as told"));
    }
}

#[tokio::test(start_paused = true)]
async fn what_differs_in_anything_that_is_sent_or_judged_is_asked_alone() {
    let header = |source| HttpHeader { name: "x-key".into(), source, append: false };
    let with = |header| HttpProbe { headers: vec![header], ..HttpProbe::default() };
    let probe = |kind| Arc::new(Probe { timeout: Duration::from_secs(1), kind });
    let script = || probe(ProbeKind::Script(ScriptProbe { command: vec!["true".into()], source: None, env: vec![] }));
    let key = || HeaderSource::Secret(Reference { kind: ReferenceKind::Secret, name: "s".into(), key: "k".into() });
    let pairs: Vec<(&str, Desired, Desired)> = vec![
        ("addresses", asks("a", 1, "10.0.0.1", tcp()), asks("b", 1, "10.0.0.2", tcp())),
        ("kinds", asks("a", 1, "10.0.0.1", tcp()), asks("b", 1, "10.0.0.1", http())),
        ("timeouts", asks("a", 1, "10.0.0.1", tcp()), asks("b", 1, "10.0.0.1", tcp_within(seconds(2)))),
        (
            "headers",
            asks("a", 1, "10.0.0.1", http()),
            asks("b", 1, "10.0.0.1", probe(ProbeKind::Http(with(header(HeaderSource::Value("v".into())))))),
        ),
        ("scripts", asks("a", 1, "10.0.0.1", script()), asks("b", 1, "10.0.0.1", script())),
        ("Secrets of two namespaces", asks("a", 1, "10.0.0.1", probe(ProbeKind::Http(with(header(key()))))), {
            let mut other = asks("b", 1, "10.0.0.1", probe(ProbeKind::Http(with(header(key())))));
            let key = ObjectKey::new("else", &other.check.key.name);
            Arc::make_mut(&mut other.check).key = key;
            other
        }),
    ];
    for (what, one, other) in pairs {
        let bench = Bench::new();
        bench.ask([one, other]).await;
        sleep(seconds(2)).await;
        let begun = bench.begun(seconds(20)).await;
        assert!((38..=42).contains(&begun), "{what}: {begun}");
        assert_eq!(bench.metrics.shared_rounds.get(), 0, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn two_namespaces_share_what_refers_to_nothing_of_theirs() {
    let bench = Bench::new();
    let mut other = asks("b", 1, "10.0.0.1", http());
    let key = ObjectKey::new("else", &other.check.key.name);
    Arc::make_mut(&mut other.check).key = key;
    bench.ask([asks("a", 1, "10.0.0.1", http()), other]).await;
    sleep(seconds(2)).await;
    let begun = bench.begun(seconds(20)).await;
    assert!((19..=21).contains(&begun), "{begun}");
}

/// Whoever leads is removed, suspended, asked something else or given another timeout while its probe is under way, or while it waits.
#[tokio::test(start_paused = true)]
async fn whoever_leads_may_leave_and_the_others_get_an_answer() {
    for permits in [1, 10] {
        for how in ["removed", "suspended", "moved", "patient"] {
            let bench = Bench::limited(Limits { in_flight: permits, per_host: 10 });
            let names = ["a", "b", "c"];
            // Asked together, each could lead.
            bench.ask(names.map(|name| asks(name, 10, "10.0.0.1", tcp_within(seconds(5))))).await;
            sleep(seconds(12)).await;
            let slow = Answer::Late(seconds(2));
            names.iter().for_each(|name| bench.lane.say(name, slow.clone()));
            if permits == 1 {
                bench.lane.say("hog", Answer::Late(seconds(12)));
                bench.ask([asks("hog", 3600, "10.0.0.9", tcp_within(seconds(20)))]).await;
            }
            let running = bench.lane.0.lock().unwrap().running;
            let before: Vec<_> = names.iter().map(|name| bench.lane.hits(name)).collect();
            let shared = bench.metrics.shared_rounds.get();
            while bench.metrics.shared_rounds.get() < shared + 2 {
                sleep(Duration::from_millis(10)).await;
            }
            let led = names.iter().zip(&before).find(|(name, before)| bench.lane.hits(name) > **before);
            // Where all wait, it is one of them: each has its turn.
            let leavers: &[&str] = led.map_or(&names[..2], |(name, _)| std::slice::from_ref(name));
            assert_eq!((led.is_some(), running <= 1), (permits == 10, true), "{how}");
            for leaver in leavers {
                let mut desired = asks(leaver, 10, "10.0.0.1", tcp_within(seconds(5)));
                match how {
                    "removed" => {
                        bench.forget(leaver).await;
                        continue;
                    }
                    "suspended" => Arc::make_mut(&mut desired.check).suspend = true,
                    "moved" => desired = asks(leaver, 10, "10.0.0.7", tcp_within(seconds(5))),
                    _ => desired = asks(leaver, 10, "10.0.0.1", tcp_within(seconds(9))),
                }
                bench.ask([desired]).await;
            }
            let stayed: Vec<_> = names.iter().filter(|name| !leavers.contains(name)).collect();
            stayed.iter().for_each(|name| bench.lane.say(name, Answer::Bad(Reason::ConnectionRefused)));
            sleep(seconds(40)).await;
            for name in &stayed {
                assert_eq!(bench.health(name).0, Health::Unhealthy, "{how} {permits} {name}");
            }
            // What is left goes on as one.
            let running = bench.lane.0.lock().unwrap().running;
            let begun = stayed.iter().map(|name| bench.lane.hits(name)).sum::<usize>();
            sleep(seconds(100)).await;
            let begun = stayed.iter().map(|name| bench.lane.hits(name)).sum::<usize>() - begun;
            assert!((9..=11).contains(&begun), "{how} {permits}: {begun}, {running} run");
            for name in names {
                bench.forget(name).await;
            }
            bench.forget("hog").await;
            assert_eq!((bench.metrics.in_flight_probes.get(), bench.lane.0.lock().unwrap().running), (0, 0), "{how}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_only_listens_leaves_quietly() {
    let bench = Bench::new();
    let names = ["a", "b"];
    bench.ask(names.map(|name| asks(name, 1, "10.0.0.1", tcp()))).await;
    names.iter().for_each(|name| bench.lane.say(name, Answer::Late(Duration::from_millis(300))));
    sleep(seconds(3)).await;
    let before: Vec<_> = names.iter().map(|name| bench.lane.hits(name)).collect();
    let shared = bench.metrics.shared_rounds.get();
    while bench.metrics.shared_rounds.get() == shared {
        sleep(Duration::from_millis(1)).await;
    }
    let leads = usize::from(bench.lane.hits("b") > before[1]);
    bench.forget(names[1 - leads]).await;
    sleep(Duration::from_millis(400)).await;
    assert_eq!(bench.lane.hits(names[leads]), before[leads] + 1, "the probe went on");
    assert_eq!(bench.health(names[leads]).0, Health::Healthy);
}

/// Both hang for as long as their interval: they stay together.
#[tokio::test(start_paused = true)]
async fn those_who_time_out_stay_together() {
    let bench = Bench::new();
    let names = ["a", "b", "c"];
    names.iter().for_each(|name| bench.lane.say(name, Answer::Hang));
    bench.ask(names.map(|name| asks(name, 1, "10.0.0.1", tcp()))).await;
    sleep(seconds(5)).await;
    let begun = bench.begun(seconds(60)).await;
    assert!((58..=61).contains(&begun), "{begun}");
    assert_eq!(bench.lane.0.lock().unwrap().most_running, 1);
    for name in names {
        assert_eq!(bench.health(name).0, Health::Unhealthy);
    }
    assert_eq!(bench.metrics.skipped_rounds.get(), 0);
}

/// A name is asked where it led to before while the name servers are away: who knows that is not answered by who does not.
#[tokio::test(start_paused = true)]
async fn a_name_is_shared_once_both_know_where_it_leads() {
    let bench = Bench::new();
    for name in ["a", "b"] {
        bench.lane.leads(name, &[[10, 0, 0, 1], [10, 0, 0, 2]]);
    }
    bench.ask([asks("a", 1, "db.example", tcp())]).await;
    sleep(seconds(5)).await;
    let begun = bench.lane.hits("a");
    bench.ask([asks("b", 1, "db.example", tcp())]).await;
    sleep(seconds(2)).await;
    assert!(bench.lane.hits("b") >= 1 && bench.lane.hits("a") > begun, "each asks first");
    let begun = bench.begun(seconds(20)).await;
    assert!((19..=21).contains(&begun), "{begun}");
    let rows = bench.view("b").endpoints[0].addresses.clone().expect("it leads somewhere");
    assert_eq!(rows.len(), 2);
}

/// Where a probe keeps its connection, those who share it have one between them.
#[tokio::test(start_paused = true)]
async fn what_is_kept_is_kept_once_and_goes_with_the_last() {
    let bench = Bench::new();
    let keeps = || {
        let kept = HttpProbe { reuse_connection: true, ..HttpProbe::default() };
        Arc::new(Probe { timeout: Duration::from_secs(1), kind: ProbeKind::Http(kept) })
    };
    bench.ask(["a", "b"].map(|name| asks(name, 1, "10.0.0.1", keeps()))).await;
    sleep(seconds(10)).await;
    assert_eq!(bench.lane.kept(), 1);
    bench.forget("a").await;
    sleep(seconds(2)).await;
    assert_eq!(bench.lane.kept(), 1);
    bench.forget("b").await;
    assert_eq!(bench.lane.kept(), 0);
}

#[tokio::test(start_paused = true)]
async fn with_jitter_equal_rhythms_share_and_others_ask_alone() {
    let bench = Bench::new();
    let jittered = |name, every, percent| {
        let mut desired = asks(name, every, "10.0.0.1", tcp());
        Arc::make_mut(&mut desired.check).rhythm.jitter_percent = percent;
        desired
    };
    bench.ask([jittered("a", 10, 50), jittered("b", 10, 50), jittered("c", 10, 20)]).await;
    sleep(seconds(20)).await;
    let begun = bench.begun(seconds(1000)).await;
    // Of the third a few fall together with the others by chance.
    assert!((190..=202).contains(&begun), "{begun}");
}
