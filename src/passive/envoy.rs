//! Access logs as Envoy streams them: the part of `envoy.service.accesslog.v3` and `envoy.data.accesslog.v3` that says how an
//! upstream fared. Everything else is passed over unread.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Buf as _;
use jiff::Timestamp;
use prost::{
    DecodeError,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};

use super::{MAX_REPORTS, Read};
use crate::{
    check::Observed,
    engine::{About, Observation, Scope, When},
};

/// How Envoy says that a status is the upstream's own, and not one it made itself (`%RESPONSE_CODE_DETAILS%`).
const FROM_UPSTREAM: &str = "via_upstream";

/// The most entries of one message. Envoy sends what it has once that is 16 KiB, unless it is told otherwise: some dozens.
pub const MAX_ENTRIES: usize = MAX_REPORTS;

/// `StreamAccessLogsMessage`, but for its entries: read while it is not known yet whether the stream may speak.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Opening {
    /// Only in the first message of a stream.
    #[prost(message, optional, tag = "1")]
    pub identifier: Option<Identifier>,
}

/// `StreamAccessLogsMessage`
#[derive(Clone, PartialEq, prost::Message)]
pub struct LogsMessage {
    /// Only in the first message of a stream.
    #[prost(message, optional, tag = "1")]
    pub identifier: Option<Identifier>,
    #[prost(oneof = "Entries", tags = "2, 3")]
    pub entries: Option<Entries>,
}

/// How many entries a `StreamAccessLogsMessage` has, without making them: an empty one is two bytes on the wire and a
/// hundred in memory.
///
/// # Errors
/// When it is no such message.
pub fn count_entries(mut message: &[u8]) -> Result<usize, DecodeError> {
    let mut count = 0;
    while message.has_remaining() {
        let (tag, wire) = decode_key(&mut message)?;
        if wire == WireType::LengthDelimited && (tag == 2 || tag == 3) {
            let length = usize::try_from(decode_varint(&mut message)?).unwrap_or(usize::MAX);
            let Some((mut entries, rest)) = message.split_at_checked(length) else {
                // Too short: said by who reads it whole.
                return Ok(count);
            };
            while entries.has_remaining() {
                let (tag, wire) = decode_key(&mut entries)?;
                count += usize::from(tag == 1);
                skip_field(wire, tag, &mut entries, DecodeContext::default())?;
            }
            message = rest;
        } else {
            skip_field(wire, tag, &mut message, DecodeContext::default())?;
        }
    }
    Ok(count)
}

/// `StreamAccessLogsMessage.Identifier`, without the node.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Identifier {
    #[prost(string, tag = "2")]
    pub log_name: String,
}

/// The entries of one message are all of one kind.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Entries {
    #[prost(message, tag = "2")]
    Http(HttpEntries),
    #[prost(message, tag = "3")]
    Tcp(TcpEntries),
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct HttpEntries {
    #[prost(message, repeated, tag = "1")]
    pub entries: Vec<HttpEntry>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct TcpEntries {
    #[prost(message, repeated, tag = "1")]
    pub entries: Vec<TcpEntry>,
}

/// `HTTPAccessLogEntry`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct HttpEntry {
    #[prost(message, optional, tag = "1")]
    pub common: Option<Common>,
    #[prost(message, optional, tag = "4")]
    pub response: Option<Response>,
}

/// `TCPAccessLogEntry`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct TcpEntry {
    #[prost(message, optional, tag = "1")]
    pub common: Option<Common>,
}

/// `AccessLogCommon`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Common {
    #[prost(message, optional, tag = "5")]
    pub start_time: Option<Span>,
    #[prost(message, optional, tag = "13")]
    pub upstream_remote_address: Option<Address>,
    #[prost(message, optional, tag = "16")]
    pub response_flags: Option<Flags>,
    /// From `start_time` to the end of the stream.
    #[prost(message, optional, tag = "23")]
    pub duration: Option<Span>,
    /// Not the last entry of its stream.
    #[prost(bool, tag = "27")]
    pub intermediate: bool,
}

/// `google.protobuf.Timestamp`, since 1970, and `google.protobuf.Duration`: they are alike.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Span {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// `envoy.config.core.v3.Address`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Address {
    #[prost(message, optional, tag = "1")]
    pub socket_address: Option<SocketAddress>,
}

/// `envoy.config.core.v3.SocketAddress`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SocketAddress {
    #[prost(string, tag = "2")]
    pub address: String,
    #[prost(uint32, tag = "3")]
    pub port: u32,
}

/// `ResponseFlags`: those that speak of the upstream.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Flags {
    #[prost(bool, tag = "3")]
    pub upstream_request_timeout: bool,
    #[prost(bool, tag = "5")]
    pub upstream_remote_reset: bool,
    #[prost(bool, tag = "6")]
    pub upstream_connection_failure: bool,
    #[prost(bool, tag = "7")]
    pub upstream_connection_termination: bool,
    #[prost(bool, tag = "20")]
    pub upstream_max_stream_duration_reached: bool,
    #[prost(bool, tag = "24")]
    pub upstream_protocol_error: bool,
}

/// `HTTPResponseProperties`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Response {
    #[prost(message, optional, tag = "1")]
    pub code: Option<Number>,
    #[prost(string, tag = "6")]
    pub code_details: String,
}

/// `google.protobuf.UInt32Value`
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Number {
    #[prost(uint32, tag = "1")]
    pub value: u32,
}

impl Entries {
    /// What these say of endpoints in `scope`.
    #[must_use]
    pub fn read(&self, scope: &Arc<Scope>) -> Read {
        let mut read = Read::default();
        let mut note = |common: Option<&Common>, outcome: Option<Observed>| {
            let address = common.filter(|common| !common.intermediate).and_then(Common::upstream);
            match address.zip(outcome) {
                Some((address, observed)) => {
                    let about = About::Address { scope: scope.clone(), address };
                    let when = common.and_then(Common::when);
                    read.reports.push(Observation { about, observed, count: 1, when });
                }
                None => read.unattributed += 1,
            }
        };
        match self {
            Self::Http(http) => http.entries.iter().for_each(|entry| note(entry.common.as_ref(), entry.outcome())),
            Self::Tcp(tcp) => tcp.entries.iter().for_each(|entry| note(entry.common.as_ref(), entry.outcome())),
        }
        read
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Http(http) => http.entries.len(),
            Self::Tcp(tcp) => tcp.entries.len(),
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Common {
    fn upstream(&self) -> Option<SocketAddr> {
        let address = self.upstream_remote_address.as_ref()?.socket_address.as_ref()?;
        Some(SocketAddr::new(address.address.parse().ok()?, u16::try_from(address.port).ok()?))
    }

    fn when(&self) -> Option<When> {
        let start = self.start_time?;
        let began = Timestamp::new(start.seconds, start.nanos).ok()?;
        let lasted = self.duration.map_or(Duration::ZERO, |lasted| {
            Duration::new(u64::try_from(lasted.seconds).unwrap_or(0), u32::try_from(lasted.nanos).unwrap_or(0))
        });
        Some(When::lasting(began, lasted))
    }

    /// A failure that no status tells.
    fn failure(&self) -> Option<Observed> {
        let flags = self.response_flags.as_ref()?;
        if flags.upstream_request_timeout || flags.upstream_max_stream_duration_reached {
            return Some(Observed::Timeout);
        }
        let broken = flags.upstream_connection_failure
            || flags.upstream_connection_termination
            || flags.upstream_remote_reset
            || flags.upstream_protocol_error;
        broken.then_some(Observed::ConnectFailure)
    }
}

impl HttpEntry {
    /// `None` where the upstream has no part in the end: the client left, or Envoy answered by itself.
    fn outcome(&self) -> Option<Observed> {
        if let Some(failure) = self.common.as_ref().and_then(Common::failure) {
            return Some(failure);
        }
        let response = self.response.as_ref()?;
        let own = response.code_details.is_empty() || response.code_details == FROM_UPSTREAM;
        let status = u16::try_from(response.code?.value).ok()?;
        (own && (100..600).contains(&status)).then_some(Observed::Status(status))
    }
}

impl TcpEntry {
    fn outcome(&self) -> Option<Observed> {
        let common = self.common.as_ref()?;
        Some(common.failure().unwrap_or(Observed::Connected))
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    fn common(flags: Flags) -> Option<Common> {
        let socket_address = SocketAddress { address: "10.0.0.1".to_owned(), port: 80 };
        Some(Common {
            upstream_remote_address: Some(Address { socket_address: Some(socket_address) }),
            response_flags: Some(flags),
            ..Common::default()
        })
    }

    fn http(flags: Flags, code: u32, details: &str) -> HttpEntry {
        let response = Response { code: Some(Number { value: code }), code_details: details.to_owned() };
        HttpEntry { common: common(flags), response: Some(response) }
    }

    fn seen(entries: Entries) -> (Vec<Observed>, u64) {
        let read = entries.read(&Arc::new(Scope::All));
        (read.reports.iter().map(|report| report.observed).collect(), read.unattributed)
    }

    #[test]
    fn flags_come_before_the_status_that_envoy_makes_of_them() {
        let none = Flags::default();
        let flag = |set: fn(&mut Flags)| {
            let mut flags = Flags::default();
            set(&mut flags);
            flags
        };
        let refused = flag(|flags| flags.upstream_connection_failure = true);
        let late = flag(|flags| flags.upstream_request_timeout = true);
        let broken = flag(|flags| flags.upstream_connection_termination = true);
        let entries = vec![
            http(none, 200, "via_upstream"),
            http(none, 503, "via_upstream"),
            http(refused, 503, "upstream_reset_before_response_started{remote_connection_failure}"),
            http(late, 504, "response_timeout"),
            http(broken, 200, "via_upstream"),
            http(none, 404, ""),
            http(none, 429, "request_rate_limited"),
            http(none, 0, "downstream_remote_disconnect"),
        ];
        use Observed::{ConnectFailure, Status, Timeout};
        let expected = vec![Status(200), Status(503), ConnectFailure, Timeout, ConnectFailure, Status(404)];
        assert_eq!(seen(Entries::Http(HttpEntries { entries })), (expected, 2));
    }

    #[test]
    fn a_connection_that_was_served_is_a_success() {
        let failed = Flags { upstream_connection_failure: true, ..Flags::default() };
        let mut between = TcpEntry { common: common(Flags::default()) };
        between.common.as_mut().expect("there").intermediate = true;
        let entries = vec![
            TcpEntry { common: common(Flags::default()) },
            TcpEntry { common: common(failed) },
            between,
            TcpEntry { common: Some(Common::default()) },
        ];
        let expected = vec![Observed::Connected, Observed::ConnectFailure];
        assert_eq!(seen(Entries::Tcp(TcpEntries { entries })), (expected, 2));
    }

    #[test]
    fn entries_are_counted_before_they_are_made() {
        let entries = |count: usize| {
            let common = Common { intermediate: true, ..Common::default() };
            let mut entries = vec![HttpEntry::default(); count];
            entries.extend((count > 0).then_some(HttpEntry { common: Some(common), response: None }));
            LogsMessage { identifier: None, entries: Some(Entries::Http(HttpEntries { entries })) }.encode_to_vec()
        };
        for count in [0, 1, 5000] {
            assert_eq!(count_entries(&entries(count)), Ok(if count == 0 { 0 } else { count + 1 }));
        }
        // A message may come in pieces that are put together.
        assert_eq!(count_entries(&[entries(2), entries(3)].concat()), Ok(7));
        let tcp = LogsMessage {
            identifier: None,
            entries: Some(Entries::Tcp(TcpEntries { entries: vec![TcpEntry::default(); 3] })),
        };
        assert_eq!(count_entries(&tcp.encode_to_vec()), Ok(3));
        assert!(count_entries(b"\xff").is_err());
    }

    /// Field numbers as `envoy/data/accesslog/v3/accesslog.proto` has them: the one thing that no type checks.
    #[test]
    fn what_stands_on_the_wire_is_found() {
        let field = |tag: u32, wire: u32, body: &[u8]| {
            let mut bytes = vec![];
            prost::encoding::encode_varint(u64::from(tag << 3 | wire), &mut bytes);
            if wire == 2 {
                prost::encoding::encode_varint(body.len() as u64, &mut bytes);
            }
            [bytes, body.to_vec()].concat()
        };
        let text = |tag, text: &str| field(tag, 2, text.as_bytes());
        let message = |tag, parts: &[Vec<u8>]| field(tag, 2, &parts.concat());
        let address = message(1, &[text(2, "fd00::1"), field(3, 0, &[0xf9, 0x3f])]);
        // A field nobody reads here: the cluster's name.
        let common = message(
            1,
            &[
                text(15, "backend"),
                message(13, &[address]),
                message(16, &[field(6, 0, &[1])]),
                message(5, &[field(1, 0, &[0xe8, 0x07])]),
                message(23, &[field(1, 0, &[2]), field(2, 0, &[0x80, 0xca, 0xb5, 0xee, 0x01])]),
            ],
        );
        let response = message(4, &[message(1, &[field(1, 0, &[0xf7, 0x03])]), text(6, "via_upstream")]);
        let identifier = message(1, &[message(1, &[text(1, "node")]), text(2, "shop/web")]);
        let bytes = [identifier, message(2, &[message(1, &[common, response])])].concat();
        let logs = LogsMessage::decode(bytes.as_slice()).expect("a message");
        let opening = Opening::decode(bytes.as_slice()).expect("a message");
        assert_eq!(opening.identifier.expect("there").log_name, "shop/web");
        assert_eq!(count_entries(&bytes), Ok(1));
        let Some(Entries::Http(http)) = logs.entries else { panic!("no HTTP entries") };
        let entry = &http.entries[0];
        assert_eq!(entry.common.as_ref().and_then(Common::upstream), "[fd00::1]:8185".parse().ok());
        assert_eq!(entry.outcome(), Some(Observed::ConnectFailure));
        let when = entry.common.as_ref().and_then(Common::when).expect("a time");
        assert_eq!((when.began.as_millisecond(), when.ended.as_millisecond()), (1_000_000, 1_002_500));
        assert_eq!(entry.response.as_ref().and_then(|response| response.code).map(|code| code.value), Some(503));
    }
}
