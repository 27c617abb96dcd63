//! Every kind of probe against targets that answer with changed bytes: whatever comes, an attempt ends by itself, in one
//! of the words there are, and tells none of what it read. `PROPTEST_CASES=100000 cargo test --test wire fuzz` looks longer.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use healthcheck_operator::{
    check::{
        Attempt, BodyRule, GrpcProbe, HttpProbe, HttpVersion, Kept, Outcome, Pattern, ProbeKind, Redirects, Scheme,
        TcpProbe,
    },
    probe::{Prober, ScriptBackend, Settings},
};
use proptest::{prelude::*, test_runner::TestRunner};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
    runtime::Runtime,
};

use crate::{
    lanes::{both, by, lane},
    mutate::{mutated, seeds},
    reuse::{ANSWER, kept, server},
    secured::skip,
    support::{ENOUGH, at, attempt, get, read_head, run, script, target},
};

type Said = Arc<Mutex<Vec<u8>>>;

fn said(bytes: &Said) -> Vec<u8> {
    bytes.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// A target that reads once, says these bytes, and closes.
async fn speaks(bytes: Said) -> SocketAddr {
    target(move |mut stream| {
        let bytes = said(&bytes);
        async move {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
            // Until the other side has read it: with unread bytes a close would be a reset.
            while let Ok(1..) = stream.read(&mut [0; 4096]).await {}
        }
    })
    .await
}

/// Tells every outcome by its kind, to see that the seeds reach more than one.
fn word(outcome: &Outcome) -> String {
    outcome.reason().map_or_else(|| outcome.as_str().to_owned(), |reason| reason.as_str().to_owned())
}

fn is_well_told(outcome: &Outcome) -> bool {
    outcome.message().chars().count() <= 256 && !outcome.message().chars().any(char::is_control)
}

/// Asks by each of `kinds` a target that says changed seeds of `bytes`; twice, over what is kept where something is.
fn fuzz(bytes: &str, kinds: &[ProbeKind]) {
    let runtime = runtime();
    let now = Said::default();
    let address = runtime.block_on(speaks(Arc::clone(&now)));
    let prober = Prober::new(Settings::standalone());
    let ask = |kind: &ProbeKind| {
        let mut attempt = attempt(Some(at(address)), kind.clone(), ENOUGH);
        attempt.kept = attempt.probe.keeps().then(Kept::default);
        let times = 1 + usize::from(attempt.kept.is_some());
        runtime.block_on(async {
            let mut outcome = None;
            for _ in 0..times {
                outcome = Some(run(&prober, attempt.clone()).await.outcome);
            }
            outcome.expect("one attempt at least")
        })
    };
    let mut words = BTreeSet::new();
    for seed in seeds(bytes) {
        *now.lock().unwrap_or_else(PoisonError::into_inner) = seed;
        words.extend(kinds.iter().map(|kind| word(&ask(kind))));
    }
    let several = if bytes == "tls" { 1 } else { 2 };
    assert!(words.len() >= several, "the seeds are all the same to it: {words:?}");
    let check = |changed: Vec<u8>| {
        *now.lock().unwrap_or_else(PoisonError::into_inner) = changed;
        for kind in kinds {
            let outcome = ask(kind);
            prop_assert!(is_well_told(&outcome), "{outcome:?}");
            prop_assert!(!matches!(outcome, Outcome::Local { .. }), "a target is no trouble of ours: {outcome:?}");
        }
        Ok(())
    };
    TestRunner::new(config()).run(&mutated(bytes), check).unwrap_or_else(|error| panic!("{bytes}: {error}"));
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn config() -> ProptestConfig {
    // A case that fails goes into the corpus by hand, with a name.
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

#[test]
fn answers_of_http_1() {
    let body = |rule| HttpProbe { expected_body: Some(rule), ..get() };
    let kinds = [
        body(BodyRule::Contains("up".into())),
        body(BodyRule::Matches(Pattern::new("^all.*up$").expect("a pattern"))),
        body(BodyRule::Json { pointer: "/status".into(), equals: "up".into() }),
        HttpProbe { redirects: Redirects::SameHost, ..get() },
        HttpProbe { reuse_connection: true, ..get() },
    ];
    fuzz("http1", &kinds.map(ProbeKind::Http));
}

/// The first answer of every connection is one, so that it is kept, and the second is changed: both lanes say the same of each
/// round, over as many connections.
#[test]
fn answers_over_a_connection_that_was_kept_are_told_alike() {
    const ROUNDS: usize = 4;
    let runtime = runtime();
    let now = Said::default();
    let bytes = Arc::clone(&now);
    let (address, connections) = runtime.block_on(server(move |_, mut stream| {
        let bytes = said(&bytes);
        async move {
            for answer in [ANSWER, &bytes] {
                read_head(&mut stream).await;
                let _ = stream.write_all(answer).await;
            }
            let _ = stream.shutdown().await;
            while let Ok(1..) = stream.read(&mut [0; 4096]).await {}
        }
    }));
    let prober = both();
    let lane = Mutex::new(runtime.block_on(async { lane(&prober) }));
    let ask = |fast: bool| {
        let asked = attempt(Some(at(address)), ProbeKind::Http(kept()), ENOUGH);
        let asked = Attempt { kept: Some(Kept::default()), ..asked };
        let before = connections.load(Ordering::SeqCst);
        let mut lane = lane.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rounds = vec![];
        for _ in 0..ROUNDS {
            let report = runtime
                .block_on(async { if fast { by(&mut lane, &asked).await } else { run(&prober, asked.clone()).await } });
            rounds.push((report.outcome, report.status));
        }
        (rounds, connections.load(Ordering::SeqCst) - before)
    };
    let check = |changed: Vec<u8>| {
        *now.lock().unwrap_or_else(PoisonError::into_inner) = changed;
        let (ordinary, fast) = (ask(false), ask(true));
        prop_assert_eq!(&ordinary.0[0], &(Outcome::Success, Some(200)));
        prop_assert_eq!(&fast, &ordinary);
        Ok(word(&fast.0[1].0))
    };
    let seeds = seeds("http1").into_iter();
    let words: BTreeSet<_> = seeds.map(|seed| check(seed).unwrap_or_else(|error| panic!("{error}"))).collect();
    assert!(words.len() > 1, "none of the seeds is ever an answer: {words:?}");
    let check = |changed| check(changed).map(drop);
    TestRunner::new(config()).run(&mutated("http1"), check).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn answers_of_http_2() {
    let two = HttpProbe { version: HttpVersion::Http2, ..get() };
    let body = HttpProbe { expected_body: Some(BodyRule::Contains("up".into())), ..two.clone() };
    let kept = HttpProbe { reuse_connection: true, ..two };
    fuzz("http2", &[body, kept].map(ProbeKind::Http));
}

#[test]
fn answers_of_grpc() {
    fuzz("grpc", &[ProbeKind::Grpc(GrpcProbe::default())]);
}

#[test]
fn answers_to_a_greeting_of_tls() {
    let probe = HttpProbe { scheme: Scheme::Https, tls: skip(), ..get() };
    fuzz("tls", &[ProbeKind::Http(probe)]);
}

#[test]
fn what_is_heard() {
    let hears = |blocks: &[&[u8]]| {
        let receive = blocks.iter().map(|block| (*block).into()).collect();
        ProbeKind::Tcp(TcpProbe { send: Some(b"hello"[..].into()), receive, ..TcpProbe::default() })
    };
    fuzz("talk", &[hears(&[b"+PONG"]), hears(&[b"220", b"220 "]), hears(&[&[0], &[255]])]);
}

/// A runner that says what no runner says: that is never the target's fault, unless it says so itself.
#[test]
fn answers_of_a_runner() {
    let runtime = runtime();
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("runner.sock");
    let now = Said::default();
    let bytes = Arc::clone(&now);
    runtime.block_on(async {
        let listener = UnixListener::bind(&socket).expect("a socket");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let bytes = said(&bytes);
                tokio::spawn(async move {
                    let _ = stream.read(&mut [0; 4096]).await;
                    let _ = stream.write_all(&bytes).await;
                });
            }
        });
    });
    let prober = Prober::new(Settings { scripts: ScriptBackend::Runner { socket }, ..Settings::standalone() });
    let asked = attempt(None, ProbeKind::Script(script(&["/bin/true"])), Duration::from_secs(5));
    let check = |changed: Vec<u8>| {
        *now.lock().unwrap_or_else(PoisonError::into_inner) = changed;
        let outcome = runtime.block_on(run(&prober, asked.clone())).outcome;
        prop_assert!(is_well_told(&outcome), "{outcome:?}");
        Ok(())
    };
    TestRunner::new(config()).run(&mutated("runner"), check).unwrap_or_else(|error| panic!("runner: {error}"));
}
