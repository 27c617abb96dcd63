//! Messages of a gRPC stream, cut out of the body they come in.

use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Body;

/// The longest message, in bytes. Envoy sends what it has once that is 16 KiB, unless it is told otherwise.
pub const MAX_MESSAGE: usize = 1024 * 1024;
/// Whether the message is compressed, and its length.
const HEAD: usize = 5;

/// The body of a call, read message by message.
#[derive(Debug)]
pub struct Frames<B> {
    body: B,
    buffer: BytesMut,
}

/// Why no message can be read any more.
#[derive(Debug, PartialEq, Eq)]
pub enum Broken {
    /// The connection or the stream ended within a message.
    Off(String),
    /// Compression that was never offered.
    Compressed,
    TooLong(usize),
}

impl<B> Frames<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    pub fn new(body: B) -> Self {
        Self { body, buffer: BytesMut::new() }
    }

    /// The next message; `None` at the end.
    ///
    /// # Errors
    /// What is wrong with the stream: it is of no use any more.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        loop {
            if let Some(message) = self.cut()? {
                return Ok(Some(message));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(Broken::Off(error.to_string())),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(Broken::Off("the stream ended within a message".to_owned())),
            }
        }
    }

    fn cut(&mut self) -> Result<Option<Bytes>, Broken> {
        let Some((head, _)) = self.buffer.split_first_chunk::<HEAD>() else { return Ok(None) };
        if head[0] != 0 {
            return Err(Broken::Compressed);
        }
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if length > MAX_MESSAGE {
            return Err(Broken::TooLong(length));
        }
        if self.buffer.len() < HEAD + length {
            return Ok(None);
        }
        self.buffer.advance(HEAD);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::StreamBody;
    use hyper::body::Frame;

    use super::*;

    fn frames(pieces: &[&[u8]]) -> Frames<impl Body<Data = Bytes, Error = std::io::Error> + Unpin + use<>> {
        let pieces: Vec<_> = pieces.iter().map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece)))).collect();
        Frames::new(StreamBody::new(futures::stream::iter(pieces)))
    }

    #[tokio::test]
    async fn messages_are_found_however_they_are_cut() {
        let whole = b"\0\0\0\0\x02ab\0\0\0\0\0\0\0\0\0\x01c";
        for size in 1..=whole.len() {
            let mut frames = frames(&whole.chunks(size).collect::<Vec<_>>());
            for expected in [b"ab".as_slice(), b"", b"c"] {
                assert_eq!(frames.next().await, Ok(Some(Bytes::from_static(expected))), "{size}");
            }
            assert_eq!(frames.next().await, Ok(None));
        }
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_told_apart() {
        assert!(matches!(frames(&[b"\0\0\0\0\x02a"]).next().await, Err(Broken::Off(_))));
        assert!(matches!(frames(&[b"\0\0"]).next().await, Err(Broken::Off(_))));
        assert_eq!(frames(&[b"\x01\0\0\0\0"]).next().await, Err(Broken::Compressed));
        assert_eq!(frames(&[b"\0\x7f\0\0\0"]).next().await, Err(Broken::TooLong(0x7f00_0000)));
        assert_eq!(frames(&[b"\0\0\x10\0\x01"]).next().await, Err(Broken::TooLong(MAX_MESSAGE + 1)));
    }
}
