//! The listener for Envoy's access logs, spoken to as gRPC is: HTTP/2 frames by hand.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use futures::future::BoxFuture;
use healthcheck_operator::{
    engine::Board,
    passive::{
        Intake,
        envoy::{
            Address, Common, Entries, HttpEntries, HttpEntry, Identifier, LogsMessage, Number, Response, SocketAddress,
            Span,
        },
    },
    server::{Access, AccessRequest, Authorizer, Decision},
    telemetry::Metrics,
};
use prost::Message as _;
use tokio::net::TcpStream;

use crate::{
    passive::Bench,
    support::{Fixture, LONG, config},
};

const PATH: &str = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs";

/// What came of a call.
#[derive(Debug, PartialEq, Eq)]
struct End {
    status: u16,
    message: String,
    /// Of the body.
    bytes: usize,
}

fn text(headers: &http::HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().expect("ASCII").replace("%20", " ").replace("%2A", "*").replace("%2F", "/"))
}

/// How a call goes on when all is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Ends,
    /// Until the server ends it.
    Stays,
    /// Until the server has ended the whole connection.
    Gone,
}

/// One call with these pieces of messages, on a connection of its own.
async fn call(to: SocketAddr, path: &str, token: &str, frames: &[Vec<u8>], then: Then) -> End {
    tokio::time::timeout(LONG, async {
        let stream = TcpStream::connect(to).await.expect("a connection");
        let (mut send, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        let connection = tokio::spawn(connection);
        let request = http::Request::post(format!("http://{to}{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", format!("Bearer {token}"))
            .body(())
            .expect("a request");
        let (answer, mut body) = send.send_request(request, false).expect("sent");
        for frame in frames {
            // A stream that was refused takes no more.
            let _ = body.send_data(Bytes::from(frame.clone()), false);
        }
        if then == Then::Ends {
            let _ = body.send_data(Bytes::new(), true);
        }
        let (head, mut rest) = answer.await.expect("an answer").into_parts();
        assert_eq!(head.status, 200);
        let mut bytes = 0;
        while let Some(data) = rest.data().await {
            bytes += data.expect("data").len();
        }
        let trailers = rest.trailers().await.expect("an end").unwrap_or_default();
        let status = text(&head.headers, "grpc-status").or(text(&trailers, "grpc-status")).expect("a status");
        let message = text(&head.headers, "grpc-message").unwrap_or_default();
        drop((body, rest));
        if then == Then::Gone {
            // It ends by the server's doing: the client holds on to it.
            let _ = connection.await.expect("no panic");
        }
        drop(send);
        End { status: status.parse().expect("a number"), message, bytes }
    })
    .await
    .expect("an answer in time")
}

fn frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("short").to_be_bytes();
    [&[0], length.as_slice(), message].concat()
}

fn message(log_name: Option<&str>, codes: &[u32]) -> Vec<u8> {
    message_of(log_name, codes, 0)
}

/// Of requests that began so many seconds ago.
fn message_of(log_name: Option<&str>, codes: &[u32], age: i64) -> Vec<u8> {
    let now = jiff::Timestamp::now();
    let start_time = Some(Span { seconds: now.as_second() - age, nanos: now.subsec_nanosecond() });
    let entry = |code: &u32| {
        let socket_address = SocketAddress { address: "10.0.0.1".to_owned(), port: 80 };
        HttpEntry {
            common: Some(Common {
                start_time,
                upstream_remote_address: Some(Address { socket_address: Some(socket_address) }),
                ..Common::default()
            }),
            response: Some(Response { code: Some(Number { value: *code }), code_details: "via_upstream".to_owned() }),
        }
    };
    let entries = Entries::Http(HttpEntries { entries: codes.iter().map(entry).collect() });
    let identifier = log_name.map(|name| Identifier { log_name: name.to_owned() });
    frame(&LogsMessage { identifier, entries: Some(entries) }.encode_to_vec())
}

fn envoy(bench: &Bench) -> SocketAddr {
    bench.fixture.envoy.expect("--envoy-listen")
}

#[tokio::test]
async fn a_stream_is_judged_message_by_message_and_ends_well() {
    let bench = Bench::listening(Access::Open, &["--envoy-listen", "127.0.0.1:0"]).await;
    // The name stands in the first message alone; frames are cut anywhere.
    let both = [message(Some("shop/*"), &[200, 503, 503]), message(None, &[503, 503, 503])].concat();
    let pieces: Vec<_> = both.chunks(7).map(<[u8]>::to_vec).collect();
    let end = call(envoy(&bench), PATH, "good", &pieces, Then::Ends).await;
    assert_eq!(end, End { status: 0, message: String::new(), bytes: 5 });
    bench.wait("web", "a", "Unhealthy").await;
    assert_eq!((bench.observed("envoy", "accepted").await, bench.batches("envoy", "accepted").await), (6, 2));
}

#[tokio::test]
async fn entries_of_long_ago_are_counted_as_late() {
    let bench = Bench::listening(Access::Open, &["--envoy-listen", "127.0.0.1:0"]).await;
    let pieces = [message_of(Some("shop/web"), &[503; 9], 60), message(None, &[503, 503])];
    assert_eq!(call(envoy(&bench), PATH, "good", &pieces, Then::Ends).await.status, 0);
    assert_eq!((bench.observed("envoy", "accepted").await, bench.observed("envoy", "late").await), (2, 9));
    bench.wait("web", "a", "Healthy").await;
}

#[tokio::test]
async fn what_is_no_access_log_ends_with_its_status() {
    let bench = Bench::listening(Access::Open, &["--envoy-listen", "127.0.0.1:0"]).await;
    let log = |name| vec![message(Some(name), &[200])];
    // Two bytes each on the wire, and much more than that in memory.
    let empty = HttpEntries { entries: vec![HttpEntry::default(); 20_000] };
    let identifier = Some(Identifier { log_name: "*".to_owned() });
    let flood = LogsMessage { identifier, entries: Some(Entries::Http(empty)) }.encode_to_vec();
    for (path, frames, status, part) in [
        ("/grpc.health.v1.Health/Check", log("*"), 12, "only"),
        (PATH, log("access"), 3, "NAMESPACE/NAME"),
        (PATH, vec![message(None, &[200])], 3, "no identifier"),
        (PATH, vec![frame(b"\xff\xff\xff")], 3, "not a StreamAccessLogsMessage"),
        (PATH, vec![b"\x01\0\0\0\0".to_vec()], 12, "compressed"),
        (PATH, vec![b"\0\x7f\0\0\0".to_vec()], 8, "buffer_size_bytes"),
        (PATH, vec![frame(&flood)], 8, "20000 entries"),
    ] {
        let end = call(envoy(&bench), path, "good", &frames, Then::Stays).await;
        assert!(end.status == status && end.message.contains(part), "{part}: {end:?}");
    }
    assert_eq!((bench.batches("envoy", "malformed").await, bench.batches("envoy", "too_large").await), (4, 2));
    assert_eq!(bench.observed("envoy", "dropped").await, 20_002, "and two whose scope nobody could read");
    assert_eq!(bench.observed("envoy", "accepted").await, 0);
    // Cut off in the middle.
    let end = call(envoy(&bench), PATH, "good", &[b"\0\0\0\0\x09abc".to_vec()], Then::Ends).await;
    assert_eq!(end.status, 14, "{end:?}");
}

/// Envoy would go on streaming to whoever takes it: who does not judge lets go of the whole connection.
#[tokio::test]
async fn a_replica_that_does_not_judge_lets_the_connection_go() {
    let bench = Bench::listening(Access::Open, &["--envoy-listen", "127.0.0.1:0"]).await;
    bench.intake.end();
    let end = call(envoy(&bench), PATH, "good", &[message(Some("*"), &[200, 200])], Then::Gone).await;
    assert!(end.status == 14 && end.message.contains("does not judge"), "{end:?}");
    assert_eq!((bench.observed("envoy", "dropped").await, bench.batches("envoy", "not_judging").await), (2, 1));
}

#[derive(Debug)]
struct Web;

impl Authorizer for Web {
    fn authorize<'a>(&'a self, token: &'a str, request: AccessRequest<'a>) -> BoxFuture<'a, Decision> {
        let AccessRequest { verb, namespace, name, subresource } = request;
        let decision = match token {
            "good" if subresource.is_empty() => Decision::Allowed(None),
            "good" if (verb, namespace, name, subresource) == ("create", "shop", "web", "report") => {
                Decision::Allowed(Some("gateway".into()))
            }
            "good" => Decision::Forbidden("may not report here".to_owned()),
            "late" => Decision::Unavailable("nobody could be asked".to_owned()),
            _ => Decision::Unauthenticated,
        };
        Box::pin(async move { decision })
    }
}

#[tokio::test]
async fn a_stream_needs_a_token_that_may_report_about_what_its_log_is_named_for() {
    let bench = Bench::listening(Access::Cluster(Arc::new(Web)), &["--envoy-listen", "127.0.0.1:0"]).await;
    for (token, name, status) in [
        ("good", "shop/web", 0),
        ("good", "shop/*", 7),
        ("good", "*", 7),
        ("bad", "shop/web", 16),
        ("late", "shop/web", 14),
    ] {
        let end = call(envoy(&bench), PATH, token, &[message(Some(name), &[200])], Then::Ends).await;
        assert_eq!(end.status, status, "{token} {name}: {end:?}");
    }
    assert_eq!((bench.observed("envoy", "accepted").await, bench.observed("envoy", "dropped").await), (1, 4));
}

#[tokio::test]
async fn without_the_flag_there_is_no_such_listener() {
    let fixture = Fixture::reporting(
        Arc::new(Board::new()),
        &config(&[]),
        Access::Open,
        None,
        Intake::default(),
        Metrics::default(),
    )
    .await;
    assert_eq!(fixture.envoy, None);
}
