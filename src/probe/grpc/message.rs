//! The two messages of `grpc.health.v1.Health/Check`, each in its frame: one byte that says it is not compressed, four for
//! its length, big-endian, and the Protobuf encoding of one field.

use bytes::{BufMut, Bytes, BytesMut};

/// What a server says of a service (`grpc.health.v1.HealthCheckResponse.ServingStatus`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Unknown,
    Serving,
    NotServing,
    ServiceUnknown,
    /// A number that the protocol did not have when this was written.
    Other(u64),
}

impl Status {
    /// As the protocol spells it.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Unknown => "UNKNOWN".into(),
            Self::Serving => "SERVING".into(),
            Self::NotServing => "NOT_SERVING".into(),
            Self::ServiceUnknown => "SERVICE_UNKNOWN".into(),
            Self::Other(number) => number.to_string(),
        }
    }
}

/// The question whether `service` serves; "" is the server as a whole.
#[must_use]
pub fn question(service: &str) -> Bytes {
    let mut message = BytesMut::with_capacity(service.len() + 4);
    if !service.is_empty() {
        // Field 1, a string.
        message.put_u8(0x0a);
        put_varint(&mut message, service.len() as u64);
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    // A service's name is bounded far below 4 GiB.
    frame.put_u32(message.len() as u32);
    frame.put(message);
    frame.freeze()
}

fn put_varint(to: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        to.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    to.put_u8(value as u8);
}

/// What the answer says; `None` of bytes that are no such answer.
#[must_use]
pub fn answer(frame: &[u8]) -> Option<Status> {
    let (head, message) = frame.split_at_checked(5)?;
    let length = u32::from_be_bytes(head[1..].try_into().ok()?);
    if head[0] != 0 || message.len() as u64 != u64::from(length) {
        return None;
    }
    // A field with its default is not sent.
    let mut status = 0;
    let mut rest = message;
    while !rest.is_empty() {
        let (key, after) = varint(rest)?;
        let (number, kind) = (key >> 3, key & 7);
        rest = match kind {
            0 => {
                let (value, after) = varint(after)?;
                if number == 1 {
                    status = value;
                }
                after
            }
            1 => after.get(8..)?,
            2 => {
                let (length, after) = varint(after)?;
                after.get(usize::try_from(length).ok()?..)?
            }
            5 => after.get(4..)?,
            _ => return None,
        };
    }
    Some(match status {
        0 => Status::Unknown,
        1 => Status::Serving,
        2 => Status::NotServing,
        3 => Status::ServiceUnknown,
        other => Status::Other(other),
    })
}

/// A number and what follows it.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_question_names_its_service() {
        assert_eq!(&question("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&question("db")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'd', b'b']);
        let long = question(&"x".repeat(200));
        assert_eq!(long[..8], [0, 0, 0, 0, 203, 0x0a, 0xc8, 1]);
    }

    #[test]
    fn an_answer_says_one_word() {
        for (frame, says) in [
            (&[0, 0, 0, 0, 2, 8, 1][..], Some(Status::Serving)),
            (&[0, 0, 0, 0, 2, 8, 2], Some(Status::NotServing)),
            (&[0, 0, 0, 0, 2, 8, 3], Some(Status::ServiceUnknown)),
            (&[0, 0, 0, 0, 0], Some(Status::Unknown)),
            (&[0, 0, 0, 0, 3, 8, 0xc8, 1], Some(Status::Other(200))),
            // Fields that later versions may add, of every kind there is.
            (&[0, 0, 0, 0, 7, 0x12, 1, 9, 0x18, 5, 8, 1], Some(Status::Serving)),
            (&[0, 0, 0, 0, 7, 0x25, 1, 2, 3, 4, 8, 1], Some(Status::Serving)),
            (&[0, 0, 0, 0, 11, 0x21, 1, 2, 3, 4, 5, 6, 7, 8, 8, 1], Some(Status::Serving)),
            (&[], None),
            (&[0, 0, 0, 0, 2, 8], None),
            (&[0, 0, 0, 0, 1, 8, 1], None),
            (&[1, 0, 0, 0, 2, 8, 1], None),
            (&[0, 0, 0, 0, 2, 0x0b, 1], None),
            (&[0, 0, 0, 0, 3, 0x12, 200, 1], None),
        ] {
            assert_eq!(answer(frame), says, "{frame:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = answer(&bytes);
            let framed: Vec<u8> = [0, 0, 0, 0, bytes.len() as u8].into_iter().chain(bytes).collect();
            let _ = answer(&framed);
        }
    }
}
