//! A thousand hostile targets at once: what they cost, and whom they hold up.
//!
//! The targets live in this process and the prober in one of its own, so that only its memory is measured.

use std::{
    net::SocketAddr,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use healthcheck_operator::check::{
    Attempt, BodyRule, GrpcProbe, HttpProbe, HttpVersion, Outcome, ProbeKind, Scheme, TcpProbe,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::sleep,
};

use crate::{
    floods::{self, frame},
    secured::skip,
    support::{ENOUGH, at, attempt, get, prober, read_head, run, target},
};

const TARGETS: usize = 1_000;
const TIMEOUT: Duration = Duration::from_secs(2);
/// Beyond the deadline. An idle machine needs a few milliseconds; this one runs other tests beside it, and what is tested
/// was not built for speed.
const LATE: Duration = Duration::from_secs(10);
/// What a thousand of them may add, in KiB.
const MEMORY: u64 = 64 * 1024;
/// Where the targets are: the neighbour that behaves, and then one of each kind.
const PLACES: &str = "HEALTHCHECK_TEST_HOSTILE";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_hostile_targets_cost_little_and_hold_nobody_up() {
    let neighbour = target(|mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    })
    .await;
    let mut places = vec![neighbour];
    places.extend(hostile().await);
    let places: Vec<_> = places.iter().map(ToString::to_string).collect();
    let test = std::env::current_exe().expect("this program");
    let child = tokio::task::spawn_blocking(move || {
        Command::new(test)
            .args(["--exact", "burst::probed_alone", "--ignored", "--nocapture"])
            .env(PLACES, places.join(","))
            .output()
    });
    let output = child.await.expect("no panic").expect("it runs");
    let out = String::from_utf8_lossy(&output.stdout);
    println!("{out}");
    assert!(output.status.success() && out.contains("1 passed"), "{out}{}", String::from_utf8_lossy(&output.stderr));
}

/// A target that answers whatever comes first with `start`, and goes on with `again` while it is taken.
async fn pours(start: &'static [u8], again: &'static [u8]) -> SocketAddr {
    target(move |mut stream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        let mut sent = stream.write_all(start).await;
        while sent.is_ok() && !again.is_empty() {
            sent = stream.write_all(&again.repeat(64)).await;
            // A thousand of them share two cores with who is measured.
            sleep(Duration::from_millis(1)).await;
        }
        while let Ok(1..) = stream.read(&mut [0; 4096]).await {}
    })
    .await
}

/// One target of each kind, in the order of [`kinds`].
async fn hostile() -> Vec<SocketAddr> {
    vec![
        pours(b"", b"").await,
        pours(b"HTTP/1.1 200 OK\r\nx: ", b"yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy").await,
        pours(b"HTTP/1.1 200 OK\r\n\r\n", b"a body without an end and without a word ").await,
        pours(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"40\r\n0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\r\n").await,
        pours(b"", b"HTTP/1.1 103 Early Hints\r\nlink: </0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef>\r\n\r\n").await,
        pours(b"", b"noise ").await,
        floods::server(vec![], frame(6, 0, 0, &[7; 8])).await,
        floods::server(frame(1, 0, 1, &[0x88]), frame(9, 0, 1, b"\0\x01x\x01y")).await,
        pours(b"\x16\x03\x03\x00\x40\x02", b"").await,
        pours(b"", b"\x14\x03\x03\x00\x01\x01").await,
    ]
}

fn kinds() -> Vec<ProbeKind> {
    let body = HttpProbe { expected_body: Some(BodyRule::Contains("never".into())), ..get() };
    let two = HttpProbe { version: HttpVersion::Http2, ..get() };
    let tls = HttpProbe { scheme: Scheme::Https, tls: skip(), ..get() };
    let hears = TcpProbe { send: Some(b"hello"[..].into()), receive: vec![b"never"[..].into()], ..TcpProbe::default() };
    vec![
        ProbeKind::Http(get()),
        ProbeKind::Http(get()),
        ProbeKind::Http(body.clone()),
        ProbeKind::Http(body),
        ProbeKind::Http(get()),
        ProbeKind::Tcp(hears),
        ProbeKind::Http(two),
        ProbeKind::Grpc(GrpcProbe::default()),
        ProbeKind::Http(tls.clone()),
        ProbeKind::Http(tls),
    ]
}

/// The most memory this process has had so far, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by a_thousand_hostile_targets_cost_little_and_hold_nobody_up, in a process of its own"]
async fn probed_alone() {
    let places = std::env::var(PLACES).expect("where the targets are");
    let places: Vec<SocketAddr> = places.split(',').map(|place| place.parse().expect("an address")).collect();
    let (neighbour, places) = places.split_first().expect("a neighbour");
    let hostile: Vec<Attempt> =
        places.iter().zip(kinds()).map(|(place, kind)| attempt(Some(at(*place)), kind, TIMEOUT)).collect();
    assert_eq!(hostile.len(), kinds().len());
    let prober = Arc::new(prober());
    // Once each, so that what is loaded once is loaded.
    futures::future::join_all(hostile.iter().map(|one| run(&prober, one.clone()))).await;
    let before = peak();

    let done = Arc::new(AtomicBool::new(false));
    let beside = tokio::spawn({
        let (prober, done) = (Arc::clone(&prober), Arc::clone(&done));
        let good = attempt(Some(at(*neighbour)), ProbeKind::Http(get()), ENOUGH);
        async move {
            let mut worst = Duration::ZERO;
            let mut rounds = 0;
            while !done.load(Ordering::Relaxed) {
                let report = run(&prober, good.clone()).await;
                assert_eq!(report.outcome, Outcome::Success, "the neighbour");
                worst = worst.max(report.latency);
                rounds += 1;
                sleep(Duration::from_millis(20)).await;
            }
            (rounds, worst)
        }
    });
    let attempts = (0..TARGETS).map(|number| {
        let (prober, one) = (Arc::clone(&prober), hostile[number % hostile.len()].clone());
        tokio::spawn(async move {
            let begun = Instant::now();
            let report = run(&prober, one).await;
            (begun.elapsed(), report.outcome)
        })
    });
    let attempts: Vec<_> = attempts.collect();
    let mut latest = Duration::ZERO;
    for (number, attempt) in attempts.into_iter().enumerate() {
        let (took, outcome) = attempt.await.expect("no panic");
        assert!(matches!(outcome, Outcome::Failure { .. }), "{}: {outcome:?}", number % hostile.len());
        latest = latest.max(took);
    }
    done.store(true, Ordering::Relaxed);
    let (rounds, worst) = beside.await.expect("the neighbour answers");
    let added = peak() - before;
    println!(
        "{TARGETS} hostile targets: {added} KiB more, the last after {latest:?}; a neighbour {rounds} times, {worst:?} at worst"
    );
    assert!(latest <= TIMEOUT + LATE, "given up {latest:?} after its beginning");
    assert!(rounds > 0 && worst < LATE, "the neighbour was asked {rounds} times and answered in {worst:?}");
    assert!(added <= MEMORY, "{added} KiB for {TARGETS} targets");
}
