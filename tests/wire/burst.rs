//! A thousand hostile targets at once: what they cost, and whom they hold up.
//!
//! The targets live in this process and the prober in one of its own, so that only its memory is measured.

use std::{
    net::SocketAddr,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use healthcheck_operator::{
    check::{Attempt, BodyRule, Class, GrpcProbe, HttpProbe, HttpVersion, Outcome, ProbeKind, Scheme, TcpProbe},
    probe::Prober,
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
/// Of those that pour: most are cut off before it.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Of those that hang: long enough to have all of them open, their buffers filled, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(10);
/// What one in a hundred may be late by, beside targets that hang: those given up, and a neighbour that is asked. An idle
/// machine needs a few milliseconds, which are printed; this one runs other tests beside it, and what is tested was not
/// built for speed.
const LATE: Duration = Duration::from_secs(2);
/// The same beside targets that pour, which are in this machine as well and take all of its cores.
const LATE_IN_A_FLOOD: Duration = Duration::from_secs(10);
/// What a thousand that pour may add, in KiB.
const MEMORY: u64 = 64 * 1024;
/// The same where all of them have filled what is read of them, which grew by doubling.
const MEMORY_OF_FULL: u64 = 128 * 1024;
/// Where the targets are: the neighbour that behaves, and then one of each kind.
const PLACES: &str = "HEALTHCHECK_TEST_HOSTILE";
/// Whether they hang.
const HANG: &str = "HEALTHCHECK_TEST_HANG";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_hostile_targets_cost_little_and_hold_nobody_up() {
    probe_apart(&pouring().await, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_that_hang_at_once_are_given_up_in_time_and_hold_nobody_up() {
    let full = Arc::new(Full::default());
    probe_apart(&hanging(&full).await, true).await;
    assert_eq!(full.most.load(Ordering::SeqCst), TARGETS, "hung at once");
}

/// Has a process of its own probe a thousand of `hostile`, and a neighbour that behaves.
async fn probe_apart(hostile: &[SocketAddr], hang: bool) {
    let neighbour = target(|mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    })
    .await;
    let places: Vec<_> = [&neighbour].into_iter().chain(hostile).map(ToString::to_string).collect();
    let test = std::env::current_exe().expect("this program");
    let child = tokio::task::spawn_blocking(move || {
        Command::new(test)
            .args(["--exact", "burst::probed_alone", "--ignored", "--nocapture"])
            .env(PLACES, places.join(","))
            .env(HANG, hang.to_string())
            .output()
    });
    let output = child.await.expect("no panic").expect("it runs");
    let out = String::from_utf8_lossy(&output.stdout);
    println!("{out}");
    assert!(output.status.success() && out.contains("1 passed"), "{out}{}", String::from_utf8_lossy(&output.stderr));
}

/// How many targets have filled a buffer and hang.
#[derive(Default)]
struct Full {
    now: AtomicUsize,
    most: AtomicUsize,
}

/// A target that begins an answer, and never ends it.
async fn hangs(full: &Arc<Full>, start: Vec<u8>) -> SocketAddr {
    let full = Arc::clone(full);
    target(move |mut stream| {
        let (full, start) = (Arc::clone(&full), start.clone());
        async move {
            let _ = stream.read(&mut [0; 4096]).await;
            if stream.write_all(&start).await.is_ok() {
                full.most.fetch_max(full.now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                while let Ok(1..) = stream.read(&mut [0; 4096]).await {}
                full.now.fetch_sub(1, Ordering::SeqCst);
            }
        }
    })
    .await
}

/// One target of each kind, in the order of [`kinds`]: each says as much as is read of it, but for a little.
async fn hanging(full: &Arc<Full>) -> Vec<SocketAddr> {
    let text = |start: &str, size: usize| [start.as_bytes(), &vec![b'y'; size]].concat();
    let hint = "HTTP/1.1 103 Early Hints\r\nlink: </0123456789abcdef0123456789abcdef>\r\n\r\n";
    // A frame that lacks its last byte.
    let mut framed = [frame(4, 0, 0, &[]), frame(1, 0, 1, &[0x88; 16 * 1024])].concat();
    framed.pop();
    let record = |size| [&b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc"[..], &vec![3; size]].concat();
    let starts = [
        vec![],
        text("HTTP/1.1 200 OK\r\nx: ", 15_000),
        text("HTTP/1.1 200 OK\r\ncontent-length: 65536\r\n\r\n", 65_535),
        text("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffff\r\n", 65_534),
        hint.repeat(60_000 / hint.len()).into_bytes(),
        text("", 60_000),
        framed.clone(),
        framed,
        record(0),
        record(0x3ff0),
    ];
    let mut places = vec![];
    for start in starts {
        places.push(hangs(full, start).await);
    }
    places
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
async fn pouring() -> Vec<SocketAddr> {
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

/// Allows this process as many descriptors as it may have.
fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("its own limit");
}

/// The median of `times`, and what one in a hundred is beyond.
fn shares(times: &mut [Duration]) -> (Duration, Duration) {
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

/// A neighbour that behaves, asked again and again.
struct Neighbour {
    rounds: Arc<AtomicUsize>,
    done: Arc<AtomicBool>,
    asking: tokio::task::JoinHandle<Vec<Duration>>,
}

impl Neighbour {
    fn ask(prober: &Arc<Prober>, place: SocketAddr) -> Self {
        let (rounds, done) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let asking = tokio::spawn({
            let (prober, rounds, done) = (Arc::clone(prober), Arc::clone(&rounds), Arc::clone(&done));
            let good = attempt(Some(at(place)), ProbeKind::Http(get()), ENOUGH * 3);
            async move {
                let mut times = vec![];
                while !done.load(Ordering::Relaxed) {
                    let report = run(&prober, good.clone()).await;
                    assert_eq!(report.outcome, Outcome::Success, "the neighbour");
                    times.push(report.latency);
                    rounds.store(times.len(), Ordering::SeqCst);
                    sleep(Duration::from_millis(20)).await;
                }
                times
            }
        });
        Self { rounds, done, asking }
    }

    async fn latencies(self) -> Vec<Duration> {
        self.done.store(true, Ordering::Relaxed);
        self.asking.await.expect("it answers")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the tests above, in a process of its own"]
async fn probed_alone() {
    raise_descriptors();
    let places = std::env::var(PLACES).expect("where the targets are");
    let places: Vec<SocketAddr> = places.split(',').map(|place| place.parse().expect("an address")).collect();
    let hang = std::env::var(HANG).is_ok_and(|hang| hang == "true");
    let (neighbour, places) = places.split_first().expect("a neighbour");
    let probes = |timeout| -> Vec<Attempt> {
        places.iter().zip(kinds()).map(|(place, kind)| attempt(Some(at(*place)), kind, timeout)).collect()
    };
    let (timeout, bound, memory) =
        if hang { (PATIENCE, LATE, MEMORY_OF_FULL) } else { (TIMEOUT, LATE_IN_A_FLOOD, MEMORY) };
    let hostile = probes(timeout);
    assert_eq!(hostile.len(), kinds().len());
    let prober = Arc::new(prober());
    // Once each, so that what is loaded once is loaded.
    futures::future::join_all(probes(TIMEOUT).iter().map(|one| run(&prober, one.clone()))).await;
    let before = peak();

    let neighbour = Neighbour::ask(&prober, *neighbour);
    let first = Arc::new(AtomicUsize::new(usize::MAX));
    let attempts = (0..TARGETS).map(|number| {
        let (prober, one) = (Arc::clone(&prober), hostile[number % hostile.len()].clone());
        let (rounds, first) = (Arc::clone(&neighbour.rounds), Arc::clone(&first));
        tokio::spawn(async move {
            let begun = Instant::now();
            let report = run(&prober, one).await;
            first.fetch_min(rounds.load(Ordering::SeqCst), Ordering::SeqCst);
            (begun.elapsed(), report.outcome)
        })
    });
    let attempts: Vec<_> = attempts.collect();
    let mut late = vec![];
    let mut timeouts = 0;
    for (number, attempt) in attempts.into_iter().enumerate() {
        let (took, outcome) = attempt.await.expect("no panic");
        assert!(matches!(outcome, Outcome::Failure { .. }), "{}: {outcome:?}", number % hostile.len());
        timeouts += usize::from(outcome.reason().and_then(|reason| reason.class()) == Some(Class::Timeout));
        late.push(took.saturating_sub(timeout));
    }
    let mut times = neighbour.latencies().await;
    let added = peak() - before;
    let ((late_mostly, late_at_worst), (waits_mostly, waits_at_worst)) = (shares(&mut late), shares(&mut times));
    println!(
        "{TARGETS} hostile targets, {timeouts} to the deadline: {added} KiB more, late by {late_mostly:?} (p50) and \
         {late_at_worst:?} (p99); a neighbour {} times in {waits_mostly:?} (p50) and {waits_at_worst:?} (p99)",
        times.len()
    );
    assert!(late_at_worst <= bound, "given up {late_at_worst:?} after the deadline");
    assert!(waits_at_worst <= bound, "the neighbour was answered in {waits_at_worst:?}");
    assert!(added <= memory, "{added} KiB for {TARGETS} targets");
    if hang {
        assert_eq!(timeouts, TARGETS, "all have hung to their deadline");
        let meanwhile = first.load(Ordering::SeqCst);
        assert!(meanwhile >= 10, "the neighbour was asked {meanwhile} times while all of them hung");
    }
}
