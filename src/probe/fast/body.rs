//! Where the body of an HTTP/1.1 answer ends (RFC 9112, 6.3 and 7.1): what follows belongs to the next answer, or to nobody.
//! What is in a body is not looked at.
//!
//! Chunks are taken and refused as hyper takes and refuses them; but for a trailer that ends with a line feed alone, which
//! hyper takes: such a connection is not kept. Pure.

use crate::probe::http::{MAX_HEAD, MAX_HEADERS};

/// What is still to come of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// So many bytes.
    Length(u64),
    Chunked(Chunks),
    /// It ends with the connection.
    Unending,
}

/// What came of some more bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// There is more to come.
    Open,
    /// It ended, and so many bytes came after it.
    Ended(usize),
    /// It has no end that could be found.
    Endless,
}

/// Where in the chunks of a body one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunks {
    at: At,
    /// Of extensions and trailers, in bytes.
    ornaments: u16,
    trailers: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Before the first digit.
    Start,
    Size(u64),
    /// White space behind a size.
    Space(u64),
    Extension(u64),
    SizeEnd(u64),
    Data(u64),
    DataCr,
    DataLf,
    /// Where the last line begins, or another trailer.
    Line,
    Name,
    Value,
    ValueEnd,
    Last,
}

impl Body {
    pub const CHUNKED: Self = Self::Chunked(Chunks { at: At::Start, ornaments: 0, trailers: 0 });

    /// Takes in `bytes`, the next that came.
    pub fn take(&mut self, bytes: &[u8]) -> Came {
        match self {
            Self::Unending => Came::Endless,
            Self::Length(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= taken as u64;
                if *left == 0 { Came::Ended(bytes.len() - taken) } else { Came::Open }
            }
            Self::Chunked(chunks) => chunks.take(bytes),
        }
    }

    /// How many bytes are still to come at least.
    pub const fn least(&self) -> u64 {
        match self {
            Self::Length(left) => *left,
            Self::Chunked(_) | Self::Unending => 0,
        }
    }
}

impl Chunks {
    fn take(&mut self, mut bytes: &[u8]) -> Came {
        loop {
            if let At::Data(left) = self.at {
                let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                bytes = &bytes[taken..];
                self.at = match left - taken as u64 {
                    0 => At::DataCr,
                    left => At::Data(left),
                };
            }
            let Some((&byte, rest)) = bytes.split_first() else { return Came::Open };
            bytes = rest;
            match self.step(byte) {
                Some(Some(next)) => self.at = next,
                Some(None) => return Came::Ended(bytes.len()),
                None => return Came::Endless,
            }
        }
    }

    /// Where one is behind `byte`; `Some(None)`: at the end. `None`: it may not stand there.
    fn step(&mut self, byte: u8) -> Option<Option<At>> {
        Some(Some(match (self.at, byte) {
            (At::Start, _) => At::Size(digit(byte)?),
            (At::Size(size) | At::Space(size), b' ' | b'\t') => At::Space(size),
            (At::Size(size) | At::Space(size), b';') => At::Extension(size),
            (At::Size(size) | At::Space(size) | At::Extension(size), b'\r') => At::SizeEnd(size),
            (At::Size(size), _) => At::Size(size.checked_mul(16)?.checked_add(digit(byte)?)?),
            (At::Extension(size), _) if byte != b'\n' => {
                self.adorn()?;
                At::Extension(size)
            }
            (At::SizeEnd(0), b'\n') => At::Line,
            (At::SizeEnd(size), b'\n') => At::Data(size),
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => At::Start,
            (At::Line, b'\r') => At::Last,
            (At::Last, b'\n') => return Some(None),
            (At::Line, _) if is_of_a_name(byte) => {
                self.trailers += 1;
                (usize::from(self.trailers) <= MAX_HEADERS).then_some(())?;
                self.adorn()?;
                At::Name
            }
            (At::Name, b':') => At::Value,
            (At::Name, _) if is_of_a_name(byte) => {
                self.adorn()?;
                At::Name
            }
            (At::Value, b'\r') => At::ValueEnd,
            (At::Value, b'\t' | b' '..=b'~' | 0x80..) => {
                self.adorn()?;
                At::Value
            }
            (At::ValueEnd, b'\n') => At::Line,
            _ => return None,
        }))
    }

    fn adorn(&mut self) -> Option<()> {
        self.ornaments += 1;
        (usize::from(self.ornaments) < MAX_HEAD).then_some(())
    }
}

fn digit(byte: u8) -> Option<u64> {
    char::from(byte).to_digit(16).map(u64::from)
}

/// RFC 9110, 5.6.2.
fn is_of_a_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, Empty};
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// All of `bytes`, cut at `cuts`.
    fn take(body: Body, bytes: &[u8], cuts: &[usize]) -> Came {
        let (mut body, mut from) = (body, 0);
        for cut in cuts.iter().copied().chain([bytes.len()]) {
            let cut = cut.clamp(from, bytes.len());
            match body.take(&bytes[from..cut]) {
                Came::Open => from = cut,
                Came::Ended(after) => return Came::Ended(after + bytes.len() - cut),
                Came::Endless => return Came::Endless,
            }
        }
        Came::Open
    }

    #[test]
    fn a_body_ends_where_it_says() {
        for (body, bytes, want) in [
            (Body::Length(0), "", Came::Ended(0)),
            (Body::Length(2), "o", Came::Open),
            (Body::Length(2), "ok", Came::Ended(0)),
            (Body::Length(2), "okHTTP", Came::Ended(4)),
            (Body::Length(u64::MAX), "ok", Came::Open),
            (Body::Unending, "", Came::Endless),
            (Body::CHUNKED, "", Came::Open),
            (Body::CHUNKED, "0\r\n\r\n", Came::Ended(0)),
            (Body::CHUNKED, "0\r\n\r", Came::Open),
            (Body::CHUNKED, "2\r\nok\r\n0\r\n\r\n", Came::Ended(0)),
            (Body::CHUNKED, "002 \t;a=\"b\"\r\nok\r\n0;x\r\n\r\nHTTP", Came::Ended(4)),
            (Body::CHUNKED, "a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n", Came::Ended(0)),
            (Body::CHUNKED, "0\r\nx-sum: 1 \u{fc}\t~\r\ny:\r\n\r\nno", Came::Ended(2)),
            (Body::CHUNKED, "0\r\nx-sum 1\r\n\r\n", Came::Endless),
            (Body::CHUNKED, "0\r\n: 1\r\n\r\n", Came::Endless),
            (Body::CHUNKED, "0\r\n x: 1\r\n\r\n", Came::Endless),
            (Body::CHUNKED, "0\r\nx: \u{1}\r\n\r\n", Came::Endless),
            (Body::CHUNKED, "0\r\n\rx", Came::Endless),
            (Body::CHUNKED, "0\r\nx: 1\r\r", Came::Endless),
            (Body::CHUNKED, "\r\n", Came::Endless),
            (Body::CHUNKED, "g\r\n", Came::Endless),
            (Body::CHUNKED, "-1\r\n", Came::Endless),
            (Body::CHUNKED, "0\n\n", Came::Endless),
            (Body::CHUNKED, "2\rok", Came::Endless),
            (Body::CHUNKED, "2 2\r\n", Came::Endless),
            (Body::CHUNKED, "2;\nok", Came::Endless),
            (Body::CHUNKED, "2\r\nok0\r\n", Came::Endless),
            (Body::CHUNKED, "2\r\nok\r0", Came::Endless),
            (Body::CHUNKED, "ffffffffffffffff\r\n", Came::Open),
            (Body::CHUNKED, "10000000000000000\r\n", Came::Endless),
        ] {
            assert_eq!(take(body, bytes.as_bytes(), &[]), want, "{body:?} {bytes:?}");
        }
    }

    #[test]
    fn ornaments_have_a_bound() {
        for long in [format!("0;{}", "x".repeat(MAX_HEAD)), format!("0\r\nx: {}", "y".repeat(MAX_HEAD))] {
            assert_eq!(take(Body::CHUNKED, long.as_bytes(), &[]), Came::Endless);
        }
        let trailers = |count: usize| format!("0\r\n{}\r\n", "x: y\r\n".repeat(count));
        assert_eq!(take(Body::CHUNKED, trailers(MAX_HEADERS).as_bytes(), &[]), Came::Ended(0));
        assert_eq!(take(Body::CHUNKED, trailers(MAX_HEADERS + 1).as_bytes(), &[]), Came::Endless);
    }

    /// Whether hyper comes to the end of this body in chunks.
    fn ends_for_hyper(chunks: &[u8]) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let (ours, mut theirs) = tokio::io::duplex(1 << 20);
            let io = hyper_util::rt::TokioIo::new(ours);
            let (mut sender, driver) = hyper::client::conn::http1::Builder::new()
                .max_headers(MAX_HEADERS)
                .max_header_size(MAX_HEAD)
                .handshake(io)
                .await
                .expect("a connection");
            tokio::spawn(driver);
            let answer = tokio::spawn(sender.send_request(http::Request::new(Empty::<&[u8]>::new())));
            let mut request = vec![];
            while !request.ends_with(b"\r\n\r\n") {
                request.push(theirs.read_u8().await.expect("a request"));
            }
            let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            theirs.write_all(&[head, chunks].concat()).await.expect("room for it");
            theirs.shutdown().await.expect("an end");
            let answer = answer.await.expect("no panic").expect("a whole head");
            answer.into_body().collect().await.is_ok()
        })
    }

    /// Mostly chunks, and now and then something that does not belong there.
    fn chunks() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            6 => (1..40_usize).prop_map(|size| format!("{size:x}\r\n{}\r\n", "x".repeat(size))),
            2 => (1..20_usize).prop_map(|size| format!("{size:03X} ;a=b\r\n{}\r\n", "\r".repeat(size))),
            3 => Just("0\r\n\r\n".to_owned()),
            2 => Just("0\r\nx-sum: 1\r\ny:\t2 \r\n\r\n".to_owned()),
            1 => "[0-9a-f\r\n:; \tx-]{0,6}",
        ];
        let change = (any::<prop::sample::Index>(), prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'0'), any::<u8>()]);
        (prop::collection::vec(part, 0..6), prop::option::of(change)).prop_map(|(parts, change)| {
            let mut bytes = parts.concat().into_bytes();
            if let Some((at, byte)) = change.filter(|_| !bytes.is_empty()) {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes
        })
    }

    proptest! {
        #[test]
        fn however_a_body_is_cut_it_ends_at_the_same_place(
            bytes in chunks(), cuts in prop::collection::vec(0..200_usize, 0..8), length in 0..100_u64,
        ) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            for body in [Body::CHUNKED, Body::Length(length)] {
                prop_assert_eq!(take(body, &bytes, &cuts), take(body, &bytes, &[]));
            }
        }

        #[test]
        fn a_body_in_chunks_ends_where_it_ends_for_hyper(bytes in chunks()) {
            let whole = match take(Body::CHUNKED, &bytes, &[]) {
                Came::Ended(after) => {
                    let end = bytes.len() - after;
                    prop_assert!(!ends_for_hyper(&bytes[..end - 1]), "not before it");
                    true
                }
                Came::Open | Came::Endless => false,
            };
            let lone = |at: usize| bytes[at] == b'\n' && (at == 0 || bytes[at - 1] != b'\r');
            let is_stricter = !whole && (0..bytes.len()).any(lone);
            prop_assert!(is_stricter || ends_for_hyper(&bytes) == whole);
        }
    }
}
