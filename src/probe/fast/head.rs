//! The head of an HTTP/1.1 answer, read where it lies: nothing is copied and nothing allocated.
//!
//! It takes and refuses what the ordinary lane takes and refuses, for the same reasons: both read by `httparse`, and what
//! follows from length and coding (RFC 9112, 6.3) is decided here as hyper decides it there. `tests/wire/lanes.rs` holds
//! one to the other.

use std::mem::MaybeUninit;

use super::body::Body;
use crate::probe::{
    failure::Failure,
    http::{MAX_HEAD, MAX_HEADERS, MAX_READ, malformed, too_large},
};

/// What the head of an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub status: u16,
    pub body: Body,
    /// Whether another request may follow on the connection, once the body has ended. A server that speaks HTTP/1.0 is never
    /// asked again, whatever it says: hyper would, and in HTTP/1.0, but once.
    pub again: bool,
}

/// What has come of an answer so far.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// What is not decided yet, where one read did not bring all.
    rest: Vec<u8>,
    /// Bytes of the whole connection: interim answers come before the head.
    total: usize,
    /// How much of `rest` was looked at before, without an end of a head in it.
    searched: Option<usize>,
}

impl Heard {
    /// How much may still be read.
    pub fn left(&self) -> usize {
        MAX_READ.saturating_sub(self.total)
    }

    /// Whether anything has come at all.
    pub const fn is_nothing(&self) -> bool {
        self.total == 0
    }

    /// So many bytes came of a body.
    pub const fn pass(&mut self, bytes: usize) {
        self.total += bytes;
    }

    /// Takes in `bytes`, the next that came. Once the whole head of an answer is there that is no interim one: what it says,
    /// and how many of the bytes came after it.
    pub fn take(&mut self, bytes: &[u8], is_head: bool) -> Result<Option<(Head, usize)>, Failure> {
        self.total += bytes.len();
        if self.rest.is_empty() {
            let (head, used) = self.read(bytes, is_head)?;
            if head.is_none() {
                self.rest.extend_from_slice(&bytes[used..]);
            }
            return Ok(head.map(|head| (head, bytes.len() - used)));
        }
        let mut rest = std::mem::take(&mut self.rest);
        rest.extend_from_slice(bytes);
        let (head, used) = self.read(&rest, is_head)?;
        let after = rest.len() - used;
        if head.is_none() {
            rest.drain(..used);
            self.rest = rest;
        }
        Ok(head.map(|head| (head, after)))
    }

    /// What the head says, and how many bytes are done with.
    fn read(&mut self, bytes: &[u8], is_head: bool) -> Result<(Option<Head>, usize), Failure> {
        let mut used = 0;
        loop {
            let open = &bytes[used..];
            if open.is_empty() {
                self.searched = None;
                return Ok((None, used));
            }
            let searched = self.searched.take();
            let answer = match searched {
                Some(before) if !has_end(open, before) => Parsed::Partial,
                _ => parse(open, is_head)?,
            };
            match answer {
                Parsed::Interim(length) => used += length,
                Parsed::Answer(head, length) => return Ok((Some(head), used + length)),
                Parsed::Partial if open.len() >= MAX_HEAD => return Err(too_large()),
                Parsed::Partial => {
                    self.searched = Some(open.len());
                    return Ok((None, used));
                }
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Parsed {
    /// More is needed.
    Partial,
    /// An answer before the answer (RFC 9110, 15.2), so long.
    Interim(usize),
    /// What its head says, and how long that is.
    Answer(Head, usize),
}

/// A line with nothing in it ends a head. What was searched before is not searched again, so that a target which drips
/// costs no more than it sends.
fn has_end(bytes: &[u8], searched: usize) -> bool {
    let tail = &bytes[searched.saturating_sub(3)..];
    tail.windows(4).any(|four| four == b"\r\n\r\n")
        || tail.windows(2).any(|two| two == b"\n\n")
        || tail.windows(3).any(|three| three == b"\n\r\n")
}

/// `is_head`: the request was a HEAD, whose answer has no body whatever it says.
fn parse(bytes: &[u8], is_head: bool) -> Result<Parsed, Failure> {
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut answer = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let length = match config.parse_response_with_uninit_headers(&mut answer, bytes, &mut headers) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(Parsed::Partial),
        Err(httparse::Error::TooManyHeaders) => return Err(too_large()),
        Err(_) => return Err(malformed()),
    };
    if length > MAX_HEAD {
        return Err(too_large());
    }
    let status = answer.code.filter(|code| (100..1000).contains(code)).ok_or_else(malformed)?;
    let named = |name: &'static str| {
        let mine = move |header: &&httparse::Header<'_>| header.name.eq_ignore_ascii_case(name);
        answer.headers.iter().filter(mine).map(|header| header.value)
    };
    let body = match status {
        101 => Body::Unending,
        100..=199 => return Ok(Parsed::Interim(length)),
        204 | 304 => Body::Length(0),
        _ if is_head => Body::Length(0),
        _ => match named("transfer-encoding").next_back() {
            // HTTP/1.0 knows no codings.
            Some(_) if answer.version == Some(0) => return Err(malformed()),
            Some(codings) if is_last(codings, "chunked") => Body::CHUNKED,
            Some(_) => Body::Unending,
            None => match content_length(named("content-length")) {
                Ok(Some(length)) if length > LONGEST => return Err(too_large()),
                Ok(Some(length)) => Body::Length(length),
                Ok(None) => Body::Unending,
                Err(NoLength) => return Err(malformed()),
            },
        },
    };
    let again = answer.version == Some(1) && body != Body::Unending && !named("connection").any(closes);
    Ok(Parsed::Answer(Head { status, body, again }, length))
}

/// Whether a `Connection` header says that the connection ends, or what nobody can tell.
fn closes(value: &[u8]) -> bool {
    !value.is_ascii()
        || value.split(|byte| *byte == b',').any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
}

fn is_last(codings: &[u8], coding: &str) -> bool {
    let last = codings.rsplit(|byte| *byte == b',').next().unwrap_or_default();
    last.trim_ascii().eq_ignore_ascii_case(coding.as_bytes())
}

/// Two above this stand for lengths that are not known.
const LONGEST: u64 = u64::MAX - 2;

#[derive(Debug, PartialEq, Eq)]
struct NoLength;

/// What all of them say alike; `None` where nothing is said.
fn content_length<'a>(values: impl Iterator<Item = &'a [u8]>) -> Result<Option<u64>, NoLength> {
    let mut length = None;
    for value in values {
        for part in value.split(|byte| *byte == b',') {
            let number = part.trim_ascii();
            if number.is_empty() || !number.iter().all(u8::is_ascii_digit) {
                return Err(NoLength);
            }
            // Only digits are left, so what does not parse is too large.
            let number = std::str::from_utf8(number).ok().and_then(|text| text.parse().ok()).ok_or(NoLength)?;
            if length.replace(number).is_some_and(|before: u64| before != number) {
                return Err(NoLength);
            }
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::check::Reason;

    /// All of `answer`, cut at `cuts`.
    fn hear(answer: &[u8], cuts: &[usize]) -> Result<Option<u16>, Reason> {
        let mut heard = Heard::default();
        let mut from = 0;
        for cut in cuts.iter().copied().chain([answer.len()]) {
            let cut = cut.clamp(from, answer.len());
            if cut == from {
                continue;
            }
            match heard.take(&answer[from..cut], false) {
                Ok(None) => from = cut,
                Ok(Some((head, _))) => return Ok(Some(head.status)),
                Err(failure) => return Err(failure.reason),
            }
        }
        Ok(None)
    }

    #[test]
    fn the_status_is_known_when_the_head_ends() {
        use Reason::{HeadersTooLarge, MalformedResponse};
        for (answer, want) in [
            (&b"HTTP/1.1 200 OK\r\n\r\n"[..], Ok(Some(200))),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", Ok(Some(200))),
            (b"HTTP/1.0 404\r\n\r\n", Ok(Some(404))),
            (b"HTTP/1.1 200 OK\r\n", Ok(None)),
            (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 X\r\n\r\n", Ok(Some(503))),
            (b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\n", Ok(None)),
            (b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\n\r\n", Ok(Some(101))),
            (b"HTTP/1.1 099 X\r\n\r\n", Err(MalformedResponse)),
            (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", Err(MalformedResponse)),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n", Ok(Some(200))),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\ncontent-length: 6\r\n\r\n", Err(MalformedResponse)),
            (b"HTTP/1.1 204 X\r\nContent-Length: x\r\n\r\n", Ok(Some(204))),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n", Err(HeadersTooLarge)),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n", Err(MalformedResponse)),
            (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Err(MalformedResponse)),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nContent-Length: x\r\n\r\n", Ok(Some(200))),
            (b"SSH-2.0-OpenSSH_9.6\r\n", Err(MalformedResponse)),
        ] {
            assert_eq!(hear(answer, &[]), want, "{:?}", String::from_utf8_lossy(answer));
        }
    }

    #[test]
    fn a_head_says_where_its_body_ends_and_whether_another_request_may_follow() {
        let end = |head: &str, is_head| {
            let answer = format!("{head}\r\n\r\nok");
            let (head, after) =
                Heard::default().take(answer.as_bytes(), is_head).expect("an answer").expect("all of it");
            assert_eq!(after, 2, "{answer}");
            (head.body, head.again)
        };
        for (head, body, again) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2", Body::Length(2), true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nconnection: keep-alive", Body::Length(2), true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: x, CLOSE ,y", Body::Length(2), false),
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: x\r\nconnection: close", Body::Length(2), false),
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: closed", Body::Length(2), true),
            ("HTTP/1.0 200 OK\r\nContent-Length: 2", Body::Length(2), false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive", Body::Length(2), false),
            ("HTTP/1.1 200 OK", Body::Unending, false),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip , Chunked", Body::CHUNKED, true),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\ntransfer-encoding: chunked", Body::CHUNKED, true),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, gzip\r\ncontent-length: 2", Body::Unending, false),
            ("HTTP/1.1 204 No Content\r\ncontent-length: 5", Body::Length(0), true),
            ("HTTP/1.1 304 Not Modified\r\ntransfer-encoding: chunked", Body::Length(0), true),
            ("HTTP/1.1 101 Switching\r\ncontent-length: 0", Body::Unending, false),
            (
                "HTTP/1.1 100 Continue\r\nconnection: close\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2",
                Body::Length(2),
                true,
            ),
        ] {
            assert_eq!(end(head, false), (body, again), "{head}");
        }
        assert_eq!(end("HTTP/1.1 200 OK\r\ncontent-length: 100", true), (Body::Length(0), true));
        assert_eq!(end("HTTP/1.1 200 OK", true), (Body::Length(0), true));
    }

    proptest! {
        #[test]
        fn however_an_answer_is_cut_its_status_is_the_same(
            status in 200..600_u16, interim in 0..3_usize, headers in 0..70_usize, cuts in prop::collection::vec(0..900_usize, 0..8),
        ) {
            let mut answer = "HTTP/1.1 103 Early\r\nlink: x\r\n\r\n".repeat(interim).into_bytes();
            answer.extend_from_slice(format!("HTTP/1.1 {status} X\r\n").as_bytes());
            for number in 0..headers {
                answer.extend_from_slice(format!("x-{number}: y\r\n").as_bytes());
            }
            answer.extend_from_slice(b"\r\nbody");
            let mut cuts = cuts;
            cuts.sort_unstable();
            let want = if headers > MAX_HEADERS { Err(Reason::HeadersTooLarge) } else { Ok(Some(status)) };
            prop_assert_eq!(hear(&answer, &cuts), want);
        }
    }
}
