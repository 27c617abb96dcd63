//! What is found at each address of a name.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use healthcheck_operator::{
    api::HealthCheck,
    check::{Attempt, Family, Health, Outcome, ProbeKind, Reason, Report, ScriptProbe, TcpProbe},
    compile::{Mode, compile},
    engine::{self, Board, Desired, Limits, Parts, Surroundings},
    on_demand::{EndpointAnswer, OnDemand, Question},
    probe::{DeniedDynamic, EgressGuard, NameServers, Prober, Settings},
    telemetry::{Beats, Metrics},
};
use hickory_resolver::proto::{op::ResponseCode, rr::RecordType};
use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::CancellationToken;

use crate::{
    names::{listen, name_server, prober},
    support::{Deaf, ENOUGH, SHORT, assert_reason, attempt, get, named, read_head, run},
};

/// What each address said, of those that were asked.
pub fn each(report: &Report) -> Vec<(IpAddr, Option<Reason>)> {
    let found = report.found.as_ref().expect("what was found");
    found.reports.iter().map(|(ip, report)| (*ip, report.outcome.reason())).collect()
}

pub async fn found(prober: &Prober, name: &str, port: u16) -> Report {
    run(prober, attempt(Some(named(name, port)), ProbeKind::Tcp(TcpProbe::default()), SHORT)).await
}

#[tokio::test]
async fn what_each_address_said_is_told() {
    let (_listener, port) = listen();
    let _deaf = Deaf::at((Ipv4Addr::new(127, 0, 0, 3), port).into());
    let (server, _) = name_server(|_, kind| match kind {
        RecordType::A => Some(Ok([3, 1, 2].map(|last| [127, 0, 0, last].into()).to_vec())),
        _ => Some(Ok(vec![])),
    })
    .await;
    let report = found(&prober(server, &[]), "three.example", port).await;
    assert_eq!(report.outcome, Outcome::Success);
    assert!(report.latency < SHORT, "the time of the one that answered: {:?}", report.latency);
    let at = |last| IpAddr::from([127, 0, 0, last]);
    let refused = Some(Reason::ConnectionRefused);
    assert_eq!(each(&report), [(at(1), None), (at(2), refused), (at(3), Some(Reason::TimeoutConnect))]);
    assert_eq!(report.found.expect("found").unheard, None);
}

#[tokio::test]
async fn a_family_of_which_nobody_spoke_is_told_apart_from_one_that_is_not_there() {
    let (_listener, port) = listen();
    let (server, _) = name_server(|name, kind| match (name, kind) {
        (_, RecordType::A) => Some(Ok(vec![Ipv4Addr::LOCALHOST.into()])),
        ("mute.example.", _) => None,
        ("sick.example.", _) => Some(Err(ResponseCode::ServFail)),
        _ => Some(Ok(vec![])),
    })
    .await;
    let prober = prober(server, &[]);
    for (name, unheard) in
        [("mute.example", Some(Family::V6)), ("sick.example", Some(Family::V6)), ("v4.example", None)]
    {
        let report = found(&prober, name, port).await;
        assert_eq!((&report.outcome, each(&report).len()), (&Outcome::Success, 1), "{name}");
        assert_eq!(report.found.expect("found").unheard, unheard, "{name}");
    }
}

#[tokio::test]
async fn of_very_many_addresses_always_the_same_ones_are_asked() {
    let (server, _) = name_server(|_, kind| match kind {
        // Each time in another order, as round-robin servers do.
        RecordType::A => {
            static TURN: AtomicUsize = AtomicUsize::new(0);
            let turn = TURN.fetch_add(7, Ordering::Relaxed);
            Some(Ok((0..30).map(|n| [127, 9, 0, ((n + turn) % 30) as u8].into()).collect()))
        }
        _ => Some(Ok((0..40_u16).map(|n| [0, 0, 0, 0, 0, 0xffff, 0x7f09, n].into()).collect())),
    })
    .await;
    let prober = prober(server, &[]);
    let asked: Vec<_> = each(&found(&prober, "many.example", 9).await).into_iter().map(|(ip, _)| ip).collect();
    assert_eq!(asked.len(), 64);
    assert!(asked.is_sorted());
    assert!(asked[..30].iter().all(IpAddr::is_ipv4));
}

#[tokio::test]
async fn an_address_that_may_not_be_dialed_is_left_out() {
    let (server, _) = name_server(|_, kind| match kind {
        RecordType::A => Some(Ok(vec![[127, 0, 0, 1].into(), [127, 0, 0, 2].into()])),
        _ => Some(Ok(vec![])),
    })
    .await;
    let (_listener, port) = listen();
    let name_servers = NameServers::Given { servers: vec![server], search: vec![] };
    let allow = vec!["127.0.0.1/32".parse().expect("a range")];
    let egress = Arc::new(EgressGuard::cluster(DeniedDynamic::default(), allow));
    let prober = Prober::new(Settings { name_servers, egress, ..Settings::standalone() });
    let report = found(&prober, "two.example", port).await;
    assert_eq!(each(&report), [([127, 0, 0, 1].into(), None)]);
}

/// A script is run once for each address, and told which.
#[tokio::test]
async fn a_script_is_run_for_each_address() {
    let (server, _) = name_server(|_, kind| match kind {
        RecordType::A => Some(Ok(vec![[10, 0, 0, 1].into(), [10, 0, 0, 2].into()])),
        _ => Some(Ok(vec![])),
    })
    .await;
    let script = "test $HEALTHCHECK_TARGET_ADDRESS = 10.0.0.2 && test $HEALTHCHECK_TARGET_HOST = two.example";
    let script = ScriptProbe {
        command: ["/bin/sh", "-c", script].iter().map(|word| (*word).into()).collect(),
        source: None,
        env: [].into(),
    };
    let attempt = attempt(Some(named("two.example", 80)), ProbeKind::Script(script), ENOUGH);
    let report = run(&prober(server, &[]), attempt).await;
    assert_eq!(report.outcome, Outcome::Success);
    assert_eq!(each(&report), [([10, 0, 0, 1].into(), Some(Reason::ExitCode)), ([10, 0, 0, 2].into(), None)]);
}

/// The name servers are away, and the target is not: it is asked where it was.
#[tokio::test]
async fn while_no_name_server_answers_the_known_addresses_are_asked() {
    let (_listener, port) = listen();
    let (silent, _) = name_server(|_, _| None).await;
    let (sick, _) = name_server(|_, _| Some(Err(ResponseCode::ServFail))).await;
    let (wrong, _) = name_server(|_, _| Some(Err(ResponseCode::NXDomain))).await;
    let (half, _) = name_server(|_, kind| match kind {
        RecordType::A => Some(Ok(vec![Ipv4Addr::LOCALHOST.into()])),
        _ => None,
    })
    .await;
    let known: Vec<IpAddr> = vec![[127, 0, 0, 1].into(), [127, 0, 0, 2].into(), "::1".parse().expect("an address")];
    let ask = async |server: SocketAddr| {
        let attempt = attempt(Some(named("db.example", port)), ProbeKind::Tcp(TcpProbe::default()), SHORT * 4);
        run(&prober(server, &[]), Attempt { known: known.clone(), ..attempt }).await
    };
    for server in [silent, sick] {
        let report = ask(server).await;
        assert_eq!(report.outcome, Outcome::Success);
        let asked: Vec<_> = each(&report).into_iter().map(|(ip, reason)| (ip, reason.is_none())).collect();
        assert_eq!(asked[..2], [(known[0], true), (known[1], false)]);
        assert_eq!(asked.len(), 3);
    }
    // One that says that there is no such name is believed, and one that speaks of one family is asked no more of it.
    let report = ask(wrong).await;
    assert_reason(&report.outcome, Reason::NameNotFound, "no such name");
    assert!(report.found.is_none());
    let asked: Vec<_> = each(&ask(half).await).into_iter().map(|(ip, _)| ip).collect();
    assert_eq!(asked, [known[0], known[2]], "of IPv6 nobody said anything");
}

/// Forty addresses behind one port: how many of them were being asked at once at the most.
async fn crowd(answers: bool) -> (u16, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let told = most.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (now, most) = (now.clone(), most.clone());
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::spawn(async move {
                read_head(&mut stream).await;
                if answers {
                    // Long enough for the others to come, if they may.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    now.fetch_sub(1, Ordering::SeqCst);
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                } else {
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    (port, told)
}

#[tokio::test]
async fn further_addresses_take_no_more_than_is_spared_for_them() {
    let (server, _) = name_server(|_, kind| match kind {
        RecordType::A => Some(Ok((1..=40).map(|last| [127, 0, 3, last].into()).collect())),
        _ => Some(Ok(vec![])),
    })
    .await;
    let name_servers = NameServers::Given { servers: vec![server], search: vec![] };
    let prober = Prober::new(Settings { name_servers, spare: 3, ..Settings::standalone() });
    let ask = async |port, timeout| {
        run(&prober, attempt(Some(named("many.example", port)), ProbeKind::Http(get()), timeout)).await
    };
    let (port, most) = crowd(true).await;
    let report = ask(port, ENOUGH).await;
    assert!(each(&report).iter().all(|(_, reason)| reason.is_none()), "{report:?}");
    assert_eq!(each(&report).len(), 40);
    assert!(most.load(Ordering::SeqCst) <= 4, "one that goes with the attempt, and three");
    // Where no turn comes in time that is our fault.
    let (port, _) = crowd(false).await;
    let told = each(&ask(port, SHORT).await);
    let late = |reason| told.iter().filter(|(_, told)| *told == Some(reason)).count();
    assert_eq!((late(Reason::TimeoutResponse), late(Reason::ProberOverloaded)), (4, 36), "{told:?}");
}

/// Of three addresses one answers: with `resolve: All` the board says so of each, and whoever has it probed now hears the same.
#[tokio::test]
async fn what_is_probed_on_demand_is_judged_by_address_where_the_board_is() {
    let (_listener, port) = listen();
    let (server, _) = name_server(|_, kind| match kind {
        RecordType::A => Some(Ok((1..=3).map(|last| [127, 0, 0, last].into()).collect())),
        _ => Some(Ok(vec![])),
    })
    .await;
    let (board, stop, lane) = (Arc::new(Board::new()), CancellationToken::new(), Arc::new(prober(server, &[])));
    let parts = Parts {
        lane: lane.clone(),
        board: board.clone(),
        limits: Limits { in_flight: 10, per_host: 10 },
        surroundings: Surroundings::default(),
        metrics: Metrics::default(),
        beats: Beats::default(),
    };
    let (engine, _) = engine::start(parts, stop.clone());
    let _stop = stop.drop_guard();
    let on_demand = OnDemand::new();
    on_demand.begin(lane, engine.clone());
    for (resolve, health, total, exit) in [("Any", Health::Healthy, 1, true), ("All", Health::Unhealthy, 3, false)] {
        let object = serde_json::json!({
            "apiVersion": "healthcheck-operator.dev/v1alpha1", "kind": "HealthCheck",
            "metadata": {"name": resolve.to_lowercase(), "namespace": "shop"},
            "spec": {
                "interval": "1s", "failureThreshold": 1, "minHealthy": "50%",
                "targets": [{"name": "db", "host": "db.example", "port": port, "resolve": resolve}],
            },
        });
        let object: HealthCheck = serde_json::from_value(object).expect("a HealthCheck");
        let check = Arc::new(compile(&object, Mode::Standalone).expect("a check"));
        let key = check.key.clone();
        let endpoints = check.targets.iter().filter_map(|target| target.own_endpoint()).collect();
        engine.upsert(Desired { check, endpoints, prior: None }).await;
        // Nothing is published before the first time.
        engine.settle().await;
        let decided = async {
            loop {
                if let Some(view) = board.get(&key).filter(|view| view.endpoints.iter().all(|row| row.measured)) {
                    break view;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let view = tokio::time::timeout(ENOUGH, decided).await;
        let view = view.unwrap_or_else(|_| panic!("{resolve} is not decided: {:?}", board.get(&key)));
        assert_eq!((view.health, view.endpoints.len()), (health, total), "{resolve}");
        let boarded: Vec<_> =
            view.endpoints.iter().map(|row| (row.label.to_string(), row.state.is_healthy())).collect();
        let rows = |answers: &[EndpointAnswer]| -> Vec<_> {
            answers.iter().map(|row| (row.endpoint.clone(), row.healthy == Some(true))).collect()
        };
        let fresh = on_demand.fresh(vec![key.clone()], None).await.0.expect("an answer");
        let fresh = &fresh[&key];
        assert_eq!((fresh.health, fresh.counts, rows(&fresh.endpoints)), (view.health, view.counts, boarded.clone()));
        let answer = on_demand.probe(key, Question::default()).await.0.expect("an answer");
        assert_eq!((answer.healthy, rows(&answer.endpoints)), (Some(exit), boarded), "{resolve}");
    }
}
