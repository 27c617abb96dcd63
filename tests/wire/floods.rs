//! HTTP/2 from targets that flood, and that break its rules: frames written by hand.

use std::{net::SocketAddr, time::Duration};

use healthcheck_operator::check::{GrpcProbe, HttpProbe, HttpVersion, Outcome, ProbeKind, Reason};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};

use crate::support::{ENOUGH, SHORT, at, attempt, get, prober, run, target};

/// Types and flags of frames (RFC 9113, 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// `:status: 200`, of HPACK's static table.
const STATUS_200: u8 = 0x88;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a small frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// One header that HPACK does not index.
fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[0], &length(name.len())[..], name, &length(value.len()), value].concat()
}

/// The length of a text that is not packed (RFC 7541, 5.1): in seven bits, or in what follows them.
fn length(length: usize) -> Vec<u8> {
    match length.checked_sub(127) {
        None => vec![length as u8],
        Some(more) if more < 128 => vec![127, more as u8],
        Some(more) => vec![127, (more % 128) as u8 | 128, u8::try_from(more / 128).expect("a short text")],
    }
}

/// A target that sends settings and `start`, and then `again` for as long as it is taken.
pub async fn server(start: Vec<u8>, again: Vec<u8>) -> SocketAddr {
    target(move |stream| {
        let (start, again) = (start.clone(), again.clone());
        async move { serve(stream, &start, &again).await }
    })
    .await
}

async fn serve(stream: TcpStream, start: &[u8], again: &[u8]) {
    let (mut incoming, mut outgoing) = stream.into_split();
    // The preface, so that our answer finds an open request.
    let _ = incoming.read(&mut [0; 4096]).await;
    let reads = tokio::spawn(async move { while let Ok(1..) = incoming.read(&mut [0; 4096]).await {} });
    let mut sent = outgoing.write_all(&frame(SETTINGS, 0, 0, &[])).await;
    sleep(Duration::from_millis(50)).await;
    if sent.is_ok() {
        sent = outgoing.write_all(start).await;
    }
    while sent.is_ok() && !again.is_empty() {
        sent = outgoing.write_all(&again.repeat(16)).await;
    }
    let _ = reads.await;
}

async fn ask(address: SocketAddr, timeout: Duration) -> Outcome {
    let probe = HttpProbe { version: HttpVersion::Http2, ..get() };
    run(&prober(), attempt(Some(at(address)), ProbeKind::Http(probe), timeout)).await.outcome
}

/// Floods that the protocol allows, as nothing in it says how much is too much: we do, long before the deadline.
#[tokio::test]
async fn floods_of_what_is_allowed_end_at_a_limit() {
    for (what, again) in [
        ("settings", frame(SETTINGS, 0, 0, &[])),
        ("settings that change", frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100])),
        ("pings", frame(PING, 0, 0, &[7; 8])),
        ("answers to pings", frame(PING, 1, 0, &[7; 8])),
        ("windows", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ("frames of a kind nobody knows", frame(0xaa, 0, 0, &[0; 64])),
    ] {
        let outcome = ask(server(vec![], again).await, ENOUGH * 3).await;
        assert_eq!(outcome.reason(), Some(Reason::MalformedResponse), "{what}: {outcome:?}");
        assert!(outcome.message().contains("floods the connection"), "{what}: {outcome:?}");
    }
}

/// What breaks the rules is told at once, and not waited out.
#[tokio::test]
async fn what_breaks_the_rules_ends_at_once() {
    let head = frame(HEADERS, 0, 1, &[STATUS_200]);
    let many = field(b"x-name", &[b'y'; 100]);
    let mut wrong = vec![];
    for (what, start, again, reason) in [
        ("a flood of continuations", head.clone(), frame(CONTINUATION, 0, 1, &many), Reason::MalformedResponse),
        ("empty continuations", head.clone(), frame(CONTINUATION, 0, 1, &[]), Reason::MalformedResponse),
        ("a continuation of nothing", frame(CONTINUATION, END_HEADERS, 1, &[]), vec![], Reason::MalformedResponse),
        ("a reset", frame(RST_STREAM, 0, 1, &[0, 0, 0, 2]), vec![], Reason::ConnectionClosed),
        ("resets", vec![], frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]), Reason::ConnectionClosed),
        ("resets of what is not open", vec![], frame(RST_STREAM, 0, 9, &[0, 0, 0, 8]), Reason::MalformedResponse),
        ("a goodbye", frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 11]), vec![], Reason::ConnectionClosed),
        ("a frame that is too long", frame(DATA, 0, 1, &[0; 20_000]), vec![], Reason::MalformedResponse),
        ("data before a head", frame(DATA, 0, 1, b"hello"), vec![], Reason::MalformedResponse),
        (
            "a pushed promise",
            frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2, STATUS_200]),
            vec![],
            Reason::MalformedResponse,
        ),
        ("half a ping", frame(PING, 0, 0, &[0; 4]), vec![], Reason::MalformedResponse),
        ("settings of a stream", frame(SETTINGS, 0, 1, &[]), vec![], Reason::MalformedResponse),
        (
            "a window beyond all bounds",
            frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
            vec![],
            Reason::MalformedResponse,
        ),
        ("headers that are none", frame(HEADERS, END_HEADERS, 1, &[0xff; 40]), vec![], Reason::MalformedResponse),
        (
            "a head without a status",
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &field(b"x", b"y")),
            vec![],
            Reason::MalformedResponse,
        ),
    ] {
        let outcome = ask(server(start, again).await, ENOUGH * 3).await;
        if outcome.reason() != Some(reason) {
            wrong.push(format!("{what}: {outcome:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn heads_are_taken_up_to_their_limits() {
    let head = |count: usize, length: usize| {
        let fields: Vec<u8> = (0..count).flat_map(|_| field(b"x-name", &vec![b'y'; length])).collect();
        let block = [&[STATUS_200], &fields[..]].concat();
        let mut frames: Vec<u8> = vec![];
        let all = block.chunks(16_000).count();
        for (at, part) in block.chunks(16_000).enumerate() {
            let (kind, stream_ends) = if at == 0 { (HEADERS, END_STREAM) } else { (CONTINUATION, 0) };
            let head_ends = if at + 1 == all { END_HEADERS } else { 0 };
            frames.extend(frame(kind, stream_ends | head_ends, 1, part));
        }
        frames
    };
    for (count, length, passes) in
        [(60, 100, true), (65, 1, false), (64, 120, true), (64, 240, true), (70, 240, false), (64, 255, false)]
    {
        let outcome = ask(server(head(count, length), vec![]).await, ENOUGH).await;
        if passes {
            assert_eq!(outcome, Outcome::Success, "{count} of {length}");
        } else {
            assert_eq!(outcome.reason(), Some(Reason::HeadersTooLarge), "{count} of {length}: {outcome:?}");
        }
    }
}

/// Frames of gRPC that are none, in answers that HTTP/2 has nothing against.
#[tokio::test]
async fn grpc_in_broken_frames_is_malformed() {
    let grpc = [&[STATUS_200], &field(b"content-type", b"application/grpc")[..]].concat();
    let trailers = frame(HEADERS, END_HEADERS | END_STREAM, 1, &field(b"grpc-status", b"0"));
    for message in [
        &b""[..],
        b"\0",
        b"\0\0\0\0",
        // Longer or shorter than it says.
        b"\0\0\0\0\x02\x08",
        b"\0\0\0\0\x01\x08\x01",
        b"\0\xff\xff\xff\xff\x08\x01",
        // Compressed, which was not agreed on.
        b"\x01\0\0\0\x02\x08\x01",
        b"\xff\0\0\0\x02\x08\x01",
        // Two of them.
        b"\0\0\0\0\x02\x08\x01\0\0\0\0\x02\x08\x01",
        // No Protobuf: a number without an end, a group, a string longer than the message.
        b"\0\0\0\0\x02\x08\xff",
        b"\0\0\0\0\x01\x0b",
        b"\0\0\0\0\x03\x12\xff\x01",
        b"\0\0\0\0\x0c\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    ] {
        let answer = [frame(HEADERS, END_HEADERS, 1, &grpc), frame(DATA, 0, 1, message), trailers.clone()].concat();
        let kind = ProbeKind::Grpc(GrpcProbe::default());
        let outcome = run(&prober(), attempt(Some(at(server(answer, vec![]).await)), kind, ENOUGH)).await.outcome;
        assert_eq!(outcome.reason(), Some(Reason::MalformedResponse), "{message:?}: {outcome:?}");
    }
    // A message without an end of the stream is waited for, and no longer than there is time.
    let open = [frame(HEADERS, END_HEADERS, 1, &grpc), frame(DATA, 0, 1, b"\0\0\0\0\x02\x08\x01")].concat();
    let kind = ProbeKind::Grpc(GrpcProbe::default());
    let outcome = run(&prober(), attempt(Some(at(server(open, vec![]).await)), kind, SHORT)).await.outcome;
    assert_eq!(outcome.reason(), Some(Reason::TimeoutResponse), "{outcome:?}");
}
