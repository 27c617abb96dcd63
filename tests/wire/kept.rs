//! `reuseConnection` on the fast lane beside the ordinary one: both say the same of every round, over as many connections.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use healthcheck_operator::{
    check::{Attempt, HttpProbe, Kept, Outcome, ProbeKind, Reason, Report},
    probe::{DeniedDynamic, EgressGuard, FastLane, KeptConnections, Lane as _, Prober, Settings},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::sleep,
};

use crate::{
    lanes::by,
    reuse::{ANSWER, forgetful, kept, serve_on, server},
    support::{ENOUGH, LOOPBACK, assert_reason, at, attempt, eventually, read_head, run},
};

/// One endpoint that is asked on the fast lane, round after round.
struct Fast {
    lane: FastLane,
    attempt: Attempt,
}

impl Fast {
    fn new(settings: Settings, address: SocketAddr, probe: HttpProbe, timeout: Duration) -> Self {
        let lane = Prober::new(Settings { fast_lane: true, ..settings }).fast().expect("a fast lane on Linux");
        Self { lane, attempt: keeping(address, probe, timeout) }
    }

    async fn next(&mut self) -> Report {
        by(&mut self.lane, &self.attempt).await
    }
}

fn keeping(address: SocketAddr, probe: HttpProbe, timeout: Duration) -> Attempt {
    Attempt { kept: Some(Kept::default()), ..attempt(Some(at(address)), ProbeKind::Http(probe), timeout) }
}

fn counting() -> (Settings, KeptConnections) {
    let connections = KeptConnections::default();
    (Settings { connections: connections.clone(), ..Settings::standalone() }, connections)
}

/// What was said in each round, and over how many connections.
#[derive(Debug, PartialEq)]
struct Told {
    rounds: Vec<(Outcome, Option<u16>)>,
    connections: usize,
}

/// So much between two rounds: whatever a target does after its answer has come by then.
const PAUSE: Duration = Duration::from_millis(20);

/// Four rounds on either lane, each with a server of its own that serves connection `n` by `serve(n, stream)`.
async fn both<F>(
    what: &str,
    probe: HttpProbe,
    timeout: Duration,
    serve: impl Fn(usize, TcpStream) -> F + Clone + Send + 'static,
) -> Told
where
    F: Future<Output = ()> + Send + 'static,
{
    const ROUNDS: usize = 4;
    let said = |report: Report| (report.outcome, report.status);
    let (settings, ordinary) = counting();
    let (address, connections) = server(serve.clone()).await;
    let (prober, attempt) = (Prober::new(settings), keeping(address, probe.clone(), timeout));
    let mut rounds = vec![];
    for _ in 0..ROUNDS {
        rounds.push(said(run(&prober, attempt.clone()).await));
        sleep(PAUSE).await;
    }
    let want = Told { rounds, connections: connections.load(Ordering::SeqCst) };
    let (settings, fast) = counting();
    let (address, connections) = server(serve).await;
    let mut asked = Fast::new(settings, address, probe.clone(), timeout);
    let mut rounds = vec![];
    for _ in 0..ROUNDS {
        rounds.push(said(asked.next().await));
        sleep(PAUSE).await;
    }
    let told = Told { rounds, connections: connections.load(Ordering::SeqCst) };
    assert_eq!(told, want, "{what}");
    asked.lane.poll(&mut vec![]);
    assert!((fast.lost.get() == 0) == (ordinary.lost.get() == 0) || told.connections == ROUNDS, "{what}");
    told
}

impl Told {
    #[track_caller]
    fn passed(&self, connections: usize, what: &str) {
        assert!(self.rounds.iter().all(|(outcome, _)| *outcome == Outcome::Success), "{what}: {self:?}");
        assert_eq!(self.connections, connections, "{what}");
    }
}

/// Answers each request with `answer`, in pieces of so many bytes.
async fn in_pieces(mut stream: TcpStream, answer: &[u8], size: usize) {
    let _ = stream.set_nodelay(true);
    while !read_head(&mut stream).await.is_empty() {
        for piece in answer.chunks(size) {
            if stream.write_all(piece).await.is_err() {
                return;
            }
            sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test]
async fn a_connection_is_kept_where_the_answer_has_an_end_and_only_there() {
    let body = |size: usize| format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n{}", "x".repeat(size));
    let head = HttpProbe { method: "HEAD".into(), ..kept() };
    let options = HttpProbe { method: "OPTIONS".into(), ..kept() };
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;x=y\r\nall u\r\n1\r\np\r\n0\r\n";
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n";
    for (probe, answer, connections) in [
        (kept(), body(2), 1),
        (options, body(2), 1),
        (kept(), body(0), 1),
        (kept(), body(60_000), 1),
        (kept(), body(70_000), 4),
        (kept(), format!("{chunked}\r\n"), 1),
        (kept(), format!("{chunked}x-sum: 1\r\n\r\n"), 1),
        (kept(), format!("{chunked}x sum: 1\r\n\r\n"), 4),
        (kept(), format!("{chunked}\r\nand more"), 4),
        (kept(), format!("{interim}{}", body(2)), 1),
        (kept(), "HTTP/1.1 204 No Content\r\n\r\n".into(), 1),
        (kept(), "HTTP/1.1 304 Not Modified\r\ncontent-length: 10\r\n\r\n".into(), 1),
        (head.clone(), "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n".into(), 1),
        (head, "HTTP/1.1 200 OK\r\n\r\n".into(), 1),
        (kept(), "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok".into(), 4),
        (kept(), "HTTP/1.1 200 OK\r\nconnection: x, Close\r\ncontent-length: 2\r\n\r\nok".into(), 4),
        (kept(), "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok".into(), 4),
        (kept(), format!("{}and more", body(2)), 4),
        (kept(), body(2).repeat(2), 4),
    ] {
        let what: String = format!("{} {answer}", probe.method).chars().take(120).collect();
        let answer: &'static str = answer.leak();
        let told = both(&what, probe.clone(), ENOUGH, move |_, stream| serve_on(stream, answer.as_bytes())).await;
        told.passed(connections, &what);
        for size in [1, 7].into_iter().filter(|size| answer.len() < 200 * size) {
            // What comes too late to be seen before the next request is begun would be taken for its answer.
            if answer.ends_with("more") || what.matches("200 OK").count() > 1 {
                continue;
            }
            let what = format!("{what}, {size} at a time");
            let told =
                both(&what, probe.clone(), ENOUGH, move |_, stream| in_pieces(stream, answer.as_bytes(), size)).await;
            told.passed(connections, &what);
        }
    }
    // A body that ends with its connection, and one whose end does not come: the verdict stands.
    let until_closed = both("until it is closed", kept(), ENOUGH, |_, mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nall is up").await;
    });
    until_closed.await.passed(4, "until it is closed");
    let short = Duration::from_millis(100);
    let without_end = both("a body that is cut short", kept(), short, |_, mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nall").await;
        let _ = stream.read(&mut [0; 16]).await;
    });
    without_end.await.passed(4, "a body that is cut short");
    // HTTP/1.0 is asked anew here, and in the ordinary lane every second time: only the verdict is the same.
    let (address, _) = server(|_, stream| {
        serve_on(stream, b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok")
    })
    .await;
    let mut fast = Fast::new(Settings::standalone(), address, kept(), ENOUGH);
    for _ in 0..4 {
        assert_eq!(fast.next().await.outcome, Outcome::Success);
    }
}

#[tokio::test]
async fn a_connection_that_was_lost_while_idle_is_no_failure_on_either() {
    for (what, last, by_reset) in [
        ("closed", &b""[..], false),
        ("reset", b"", true),
        ("408", b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", false),
        ("out of turn", b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n", false),
    ] {
        let told = both(what, kept(), ENOUGH, move |_, mut stream| async move {
            for _ in 0..2 {
                read_head(&mut stream).await;
                let _ = stream.write_all(ANSWER).await;
            }
            sleep(PAUSE / 2).await;
            let _ = stream.write_all(last).await;
            if by_reset {
                socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("linger");
            }
        });
        told.await.passed(2, what);
    }
}

#[tokio::test]
async fn what_happens_to_the_second_request_is_told_alike() {
    // Every connection answers once; then it does something else.
    let reset = both("reset", kept(), ENOUGH, |_, mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(ANSWER).await;
        read_head(&mut stream).await;
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("linger");
    });
    reset.await.passed(4, "reset");
    for (what, second, want) in [
        ("nothing", "", None),
        ("a time-out", "HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n", None),
        ("half a head", "HTTP/1.1 200 OK\r\nx: ", Some(Reason::ConnectionClosed)),
        ("no head", "SSH-2.0-OpenSSH_9.6\r\n", Some(Reason::MalformedResponse)),
        ("no success", "HTTP/1.1 503 Down\r\ncontent-length: 0\r\n\r\n", Some(Reason::UnexpectedStatus)),
    ] {
        let told = both(what, kept(), ENOUGH, move |_, mut stream| async move {
            read_head(&mut stream).await;
            let _ = stream.write_all(ANSWER).await;
            read_head(&mut stream).await;
            let _ = stream.write_all(second.as_bytes()).await;
        })
        .await;
        let reasons: Vec<_> = told.rounds.iter().map(|(outcome, _)| outcome.reason()).collect();
        assert_eq!((reasons[0], reasons[1]), (None, want), "{what}: {told:?}");
    }
    // Only once, and a fresh connection speaks for the target.
    let told = both("who is gone", kept(), ENOUGH, |number, mut stream| async move {
        read_head(&mut stream).await;
        if number == 0 {
            let _ = stream.write_all(ANSWER).await;
            read_head(&mut stream).await;
        }
    })
    .await;
    for (outcome, _) in &told.rounds[1..] {
        assert_reason(outcome, Reason::ConnectionClosed, "connection closed before an answer");
    }
    assert_eq!(told.connections, 4);
    // A failure that has an end is no reason to hang up.
    let down = b"HTTP/1.1 503 Down\r\ncontent-length: 0\r\n\r\n";
    let told = both("down", kept(), ENOUGH, |_, stream| serve_on(stream, down)).await;
    assert!(told.connections == 1 && told.rounds.iter().all(|(_, status)| *status == Some(503)));
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_waited_for_alike() {
    let timeout = Duration::from_secs(1);
    // A fresh connection is asked beside the old one in half of the time.
    both("forgotten", kept(), timeout, forgetful).await.passed(2, "forgotten");
    // A target that is slow has all of its time, and keeps its connection.
    let told = both("slow", kept(), timeout, |number, mut stream| async move {
        for round in 0.. {
            if number > 0 || read_head(&mut stream).await.is_empty() {
                break;
            }
            if round == 1 {
                sleep(Duration::from_millis(700)).await;
            }
            let _ = stream.write_all(ANSWER).await;
        }
        while let Ok(1..) = stream.read(&mut [0; 1024]).await {}
    });
    told.await.passed(2, "slow");
    // It went away beside it.
    let told = both("away", kept(), timeout, |number, mut stream| async move {
        read_head(&mut stream).await;
        if number > 0 {
            sleep(Duration::from_millis(300)).await;
        }
        let _ = stream.write_all(ANSWER).await;
        if number == 0 {
            read_head(&mut stream).await;
            sleep(Duration::from_millis(600)).await;
        } else {
            serve_on(stream, ANSWER).await;
        }
    });
    told.await.passed(2, "away");
    let told = both("silent", kept(), timeout / 2, |number, mut stream| async move {
        read_head(&mut stream).await;
        if number == 0 {
            let _ = stream.write_all(ANSWER).await;
        }
        while let Ok(1..) = stream.read(&mut [0; 1024]).await {}
    })
    .await;
    for (outcome, _) in &told.rounds[1..] {
        assert_reason(outcome, Reason::TimeoutResponse, "no answer in 500ms (Response)");
    }
    assert_eq!(told.connections, 4);
}

#[tokio::test]
async fn what_is_not_safe_is_sent_once_on_a_connection_of_its_own() {
    for (method, connections) in [("POST", 4), ("PUT", 4), ("GET", 1)] {
        let heads = Arc::new(std::sync::Mutex::new(vec![]));
        let keep = heads.clone();
        let probe = HttpProbe { method: method.into(), ..kept() };
        let told = both(method, probe, ENOUGH, move |_, mut stream| {
            let keep = keep.clone();
            async move {
                loop {
                    let head = read_head(&mut stream).await;
                    if head.is_empty() || stream.write_all(ANSWER).await.is_err() {
                        return;
                    }
                    let text = head.lines().filter(|line| !line.starts_with("Host")).collect::<Vec<_>>().join("\n");
                    keep.lock().expect("no panic").push(text);
                }
            }
        });
        told.await.passed(connections, method);
        let heads = heads.lock().expect("no panic");
        assert!(heads.len() == 8 && heads.iter().all(|head| *head == heads[0]), "{heads:?}");
        assert_eq!(heads[0].contains("Connection: close"), method != "GET", "{heads:?}");
    }
}

/// A server whose open connections are counted.
async fn counted() -> (SocketAddr, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let open = Arc::new(AtomicUsize::new(0));
    let count = open.clone();
    let (address, connections) = server(move |_, stream| {
        let count = count.clone();
        async move {
            count.fetch_add(1, Ordering::SeqCst);
            serve_on(stream, ANSWER).await;
            count.fetch_sub(1, Ordering::SeqCst);
        }
    })
    .await;
    (address, connections, open)
}

#[tokio::test]
async fn as_many_are_kept_as_there_is_room_for_and_they_end_with_who_holds_them() {
    let (address, connections, open) = counted().await;
    let all = KeptConnections { limit: 2, ..KeptConnections::default() };
    let settings = Settings { connections: all.clone(), ..Settings::standalone() };
    let Fast { mut lane, attempt } = Fast::new(settings, address, kept(), ENOUGH);
    let mut endpoints = vec![attempt.clone(); 3];
    for endpoint in &mut endpoints {
        endpoint.kept = Some(Kept::default());
    }
    for _ in 0..3 {
        for endpoint in &endpoints {
            assert_eq!(by(&mut lane, endpoint).await.outcome, Outcome::Success);
        }
    }
    assert_eq!((all.idle.get(), all.lost.get()), (2, 0));
    assert_eq!(connections.load(Ordering::SeqCst), 2 + 3, "the third has one of its own each time");
    eventually("two are open", || open.load(Ordering::SeqCst) == 2).await;
    // What no probe in flight needs is lent, and given back.
    lane.make_room(1);
    for endpoint in &endpoints {
        assert_eq!(by(&mut lane, endpoint).await.outcome, Outcome::Success);
    }
    assert_eq!(all.idle.get(), 3);
    lane.make_room(0);
    assert_eq!((all.idle.get(), all.lost.get()), (2, 0));
    // Who goes makes room for another.
    endpoints.remove(0);
    for endpoint in &endpoints {
        assert_eq!(by(&mut lane, endpoint).await.outcome, Outcome::Success);
    }
    assert_eq!(all.idle.get(), 2);
    // One that is given up leaves nothing.
    let asks = lane.asks(attempt.dial.as_ref(), &attempt.probe, true).expect("the fast lane takes it");
    let question = attempt.dial.as_ref().and_then(|dial| asks.of(dial)).expect("an address");
    let begun = lane.begin(1, &question, &attempt.probe, endpoints[0].kept.as_ref());
    let healthcheck_operator::probe::Begun::Running { number, .. } = begun else { panic!("{begun:?}") };
    lane.give_up(1, number);
    assert_eq!(all.idle.get(), 1);
    drop(endpoints);
    lane.poll(&mut vec![]);
    assert_eq!((all.idle.get(), all.lost.get()), (0, 0));
    eventually("none is open", || open.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn what_led_elsewhere_or_may_not_be_dialed_any_more_is_let_go() {
    let ((here, first, open), (there, second, _)) = (counted().await, counted().await);
    let (settings, all) = counting();
    let mut fast = Fast::new(settings, here, kept(), ENOUGH);
    for (address, of_here, of_there) in [(here, 1, 0), (here, 1, 0), (there, 1, 1), (there, 1, 1), (here, 2, 1)] {
        fast.attempt.dial = Some(at(address));
        assert_eq!(fast.next().await.outcome, Outcome::Success);
        assert_eq!((first.load(Ordering::SeqCst), second.load(Ordering::SeqCst)), (of_here, of_there));
        assert_eq!((all.idle.get(), all.lost.get()), (1, 0));
    }
    drop(fast);
    eventually("none is open", || open.load(Ordering::SeqCst) == 0).await;
    assert_eq!(all.idle.get(), 0, "it ends with the lane");

    let denied = DeniedDynamic::default();
    let allowed = vec![format!("{LOOPBACK}/32").parse().expect("a net")];
    let egress = Arc::new(EgressGuard::cluster(denied, allowed));
    let (settings, all) = counting();
    let mut fast = Fast::new(Settings { egress, ..settings }, here, kept(), ENOUGH);
    assert_eq!((fast.next().await.outcome, all.idle.get()), (Outcome::Success, 1));
    let denied = SocketAddr::new([127, 0, 0, 2].into(), here.port());
    fast.attempt.dial = Some(at(denied));
    assert_reason(&fast.next().await.outcome, Reason::EgressDenied, "--egress-allow");
    fast.lane.poll(&mut vec![]);
    assert_eq!(all.idle.get(), 0);
}

/// Closed while nobody asks: it is closed here, too, and not only when it is asked again.
#[tokio::test]
async fn a_connection_that_the_target_closes_is_closed_at_once() {
    let (address, _) = server(|_, mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(ANSWER).await;
        sleep(PAUSE).await;
    })
    .await;
    let (settings, all) = counting();
    let mut fast = Fast::new(settings, address, kept(), ENOUGH);
    assert_eq!((fast.next().await.outcome, all.idle.get()), (Outcome::Success, 1));
    eventually("it is closed", || {
        fast.lane.poll(&mut vec![]);
        all.idle.get() == 0
    })
    .await;
    assert_eq!(all.lost.get(), 1);
}
