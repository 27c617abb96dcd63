//! Access logs as APISIX's `http-logger` posts them: JSON objects, alone, in a list (`concat_method: json`) or one a line
//! (`new_line`), each with `upstream` (nginx's `$upstream_addr`) and `response.status`.
//!
//! Where a request went to several upstreams, `upstream` names them all in order, and the status is what the last one said:
//! to those before it the proxy has turned its back, since no answer came that it would take. A log format of one's own may
//! say more: `upstream_status` (nginx's variable of that name) has a status for each, and `upstream_header_time` whether
//! that came from the upstream at all: where it did not, nginx made up the 502 or the 504 itself.
//!
//! When it was: `start_time` and `latency`, in milliseconds, as APISIX writes them; or nginx's `msec`, which is when the
//! request ended, and `request_time`, in seconds.

use std::{borrow::Cow, fmt, net::SocketAddr, sync::Arc, time::Duration};

use jiff::Timestamp;
use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};

use super::{MAX_REPORTS, Read};
use crate::{
    check::Observed,
    engine::{About, Observation, Scope, When},
};

/// So many upstreams of one request are looked at; a proxy tries two or three.
const MAX_UPSTREAMS: usize = 64;

/// One line. What else is in it is passed over.
#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(default, borrow)]
    upstream: Option<Cow<'a, str>>,
    #[serde(default)]
    response: Option<Response<'a>>,
    /// Of a format of one's own, which has no objects within.
    #[serde(default, borrow)]
    status: Scalar<'a>,
    #[serde(default, borrow)]
    upstream_status: Scalar<'a>,
    #[serde(default, borrow)]
    upstream_header_time: Scalar<'a>,
    #[serde(default, borrow)]
    upstream_response_time: Scalar<'a>,
    #[serde(default, borrow)]
    start_time: Scalar<'a>,
    #[serde(default, borrow)]
    latency: Scalar<'a>,
    #[serde(default, borrow)]
    msec: Scalar<'a>,
    #[serde(default, borrow)]
    request_time: Scalar<'a>,
}

#[derive(Deserialize)]
struct Response<'a> {
    #[serde(default, borrow)]
    status: Scalar<'a>,
}

/// What is a number for some and a text for others, as all of nginx's variables are; anything else says nothing.
#[derive(Default)]
enum Scalar<'a> {
    #[default]
    Nothing,
    Number(f64),
    Text(Cow<'a, str>),
}

impl<'de: 'a, 'a> Deserialize<'de> for Scalar<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or a text")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Scalar::Number(number as f64))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Scalar::Number(number as f64))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Scalar::Number(number))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(Scalar::Nothing)
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Scalar::Nothing)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Nothing)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Nothing)
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }
}

/// An entry, or a list of them. Read as it comes: a log has many fields that nobody looks at.
struct Value<'a>(Vec<Entry<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for Value<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor).map(Value)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Vec<Entry<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the entry of a log, or a list of them")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        Entry::deserialize(MapAccessDeserializer::new(map)).map(|entry| vec![entry])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = list.next_element()? {
            // One above tells of too many; what comes after it is passed over and costs no memory.
            if entries.len() > MAX_REPORTS {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                break;
            }
            entries.push(entry);
        }
        Ok(entries)
    }
}

impl Scalar<'_> {
    /// Of each upstream in turn; `None` where it said nothing.
    fn each(&self) -> Vec<Option<f64>> {
        match self {
            Self::Nothing => vec![],
            Self::Number(number) => vec![Some(*number)],
            Self::Text(text) => parts(text).map(|part| part.parse().ok()).collect(),
        }
    }

    /// Of the last upstream.
    fn last(&self) -> Option<f64> {
        self.each().pop().flatten()
    }

    /// A time since 1970, in seconds or in milliseconds: 1973 in the one is the year 5138 in the other.
    fn time(&self) -> Option<Timestamp> {
        let at = self.last().filter(|at| *at >= 0.0)?;
        let millis = if at < 1e11 { at * 1000.0 } else { at };
        // What is too large for a number is too large for a calendar.
        Timestamp::from_millisecond(millis.round() as i64).ok()
    }

    fn duration(&self, millis: f64) -> Duration {
        self.last().and_then(|lasted| Duration::try_from_secs_f64(lasted * millis / 1000.0).ok()).unwrap_or_default()
    }
}

fn status(number: f64) -> Option<u16> {
    (number.fract() == 0.0 && (100.0..600.0).contains(&number)).then_some(number as u16)
}

/// nginx parts servers by commas, and groups of them by colons with a blank at either side.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(" : ").flat_map(|group| group.split(',')).map(str::trim)
}

/// Why a batch cannot be read. Nothing of it is taken.
#[derive(Debug, PartialEq, Eq)]
pub enum Unread {
    /// What is wrong with the JSON, and where.
    Malformed(String),
    /// More lines, or more upstreams in them, than [`MAX_REPORTS`].
    TooMany,
}

/// Reads a batch about endpoints in `scope`.
///
/// # Errors
/// Where it is no log, or too long a one.
pub fn parse(body: &[u8], scope: &Arc<Scope>) -> Result<Read, Unread> {
    let (mut read, mut lines) = (Read::default(), 0);
    for value in serde_json::Deserializer::from_slice(body).into_iter::<Value<'_>>() {
        let Value(entries) = value.map_err(|error| Unread::Malformed(error.to_string()))?;
        lines += entries.len();
        for entry in &entries {
            entry.read(scope, &mut read);
            if lines > MAX_REPORTS || read.reports.len() > MAX_REPORTS {
                return Err(Unread::TooMany);
            }
        }
    }
    Ok(read)
}

impl Entry<'_> {
    fn read(&self, scope: &Arc<Scope>, read: &mut Read) {
        let upstreams: Vec<&str> =
            self.upstream.as_deref().map(parts).into_iter().flatten().take(MAX_UPSTREAMS).collect();
        let told = self.response.as_ref().map_or(&self.status, |response| &response.status);
        let last = told.last().and_then(status);
        // What says nothing of each of them is about something else.
        let each = |scalar: &Scalar<'_>| Some(scalar.each()).filter(|each| each.len() == upstreams.len());
        let statuses = each(&self.upstream_status);
        let times = [each(&self.upstream_header_time), each(&self.upstream_response_time)];
        let when = self.when();
        let mut any = false;
        for (index, upstream) in upstreams.iter().enumerate() {
            // Sockets have no place among endpoints, and a group that had nobody left is named itself.
            let Ok(address) = upstream.parse::<SocketAddr>() else { continue };
            let is_last = index + 1 == upstreams.len();
            let answered = times.iter().flatten().all(|each| each[index].is_some());
            let status = match &statuses {
                Some(each) => each[index].and_then(status),
                None if is_last => last,
                None => None,
            };
            let observed = match status {
                // Nothing came: these are nginx's own words for it.
                Some(504) if !answered => Observed::Timeout,
                Some(502) if !answered => Observed::ConnectFailure,
                Some(status) => Observed::Status(status),
                None if is_last => continue,
                None => Observed::ConnectFailure,
            };
            any = true;
            let about = About::Address { scope: scope.clone(), address };
            read.reports.push(Observation { about, observed, count: 1, when });
        }
        read.unattributed += u64::from(!any);
    }

    fn when(&self) -> Option<When> {
        if let Some(began) = self.start_time.time() {
            return Some(When::lasting(began, self.latency.duration(1.0)));
        }
        let ended = self.msec.time()?;
        let began = ended.checked_sub(self.request_time.duration(1000.0)).unwrap_or(ended);
        Some(When { began, ended })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As APISIX 3 writes them without a format of one's own, all of its fields there.
    const FULL: &str = r#"{"request":{"url":"http://127.0.0.1:9080/hello","uri":"/hello","method":"GET",
        "headers":{"host":"127.0.0.1"},"querystring":{},"size":81},
        "response":{"status":STATUS,"headers":{"content-type":"text/plain","server":"APISIX/3.11.0"},"size":118},
        "server":{"hostname":"gw-1","version":"3.11.0"},"upstream":"UPSTREAM","service_id":"","route_id":"1",
        "consumer":{"username":"jack"},"client_ip":"10.9.8.7","start_time":1704507612177,"latency":3.0,
        "upstream_latency":1,"apisix_latency":2.0}"#;

    fn entry(status: u16, upstream: &str) -> String {
        FULL.replace("STATUS", &status.to_string()).replace("UPSTREAM", upstream)
    }

    fn read(body: &str) -> (Vec<(String, Observed)>, u64) {
        let read = parse(body.as_bytes(), &Arc::new(Scope::All)).unwrap_or_else(|why| panic!("{why:?}: {body}"));
        let one = |report: Observation| match report.about {
            About::Address { address, .. } => (address.to_string(), report.observed),
            About::Endpoint { .. } => panic!("an endpoint"),
        };
        (read.reports.into_iter().map(one).collect(), read.unattributed)
    }

    fn seen(of: &[(&str, Observed)]) -> Vec<(String, Observed)> {
        of.iter().map(|(address, observed)| ((*address).to_owned(), *observed)).collect()
    }

    use Observed::{ConnectFailure, Status as Answer, Timeout};

    #[test]
    fn one_object_a_list_and_lines_say_the_same() {
        let (one, two) = (entry(200, "10.0.0.1:80"), entry(503, "[fd00::1]:80"));
        let both = seen(&[("10.0.0.1:80", Answer(200)), ("[fd00::1]:80", Answer(503))]);
        assert_eq!(read(&format!("[{one},{two}]")), (both.clone(), 0));
        let line = |text: &str| text.replace('\n', " ");
        assert_eq!(read(&format!("{}\n{}\n", line(&one), line(&two))), (both.clone(), 0));
        assert_eq!(read(&one), (both[..1].to_vec(), 0));
        assert_eq!(read(""), (vec![], 0));
    }

    #[test]
    fn upstreams_that_were_left_for_another_gave_no_answer() {
        let body = entry(200, "10.0.0.1:80, 10.0.0.2:80 : 10.0.0.3:80");
        let expected = [("10.0.0.1:80", ConnectFailure), ("10.0.0.2:80", ConnectFailure), ("10.0.0.3:80", Answer(200))];
        assert_eq!(read(&body), (seen(&expected), 0));
    }

    #[test]
    fn a_format_of_ones_own_may_tell_each_status() {
        let body = r#"{"upstream":"10.0.0.1:80, 10.0.0.2:80","upstream_status":"502, 200","status":"200"}"#;
        assert_eq!(read(body), (seen(&[("10.0.0.1:80", Answer(502)), ("10.0.0.2:80", Answer(200))]), 0));
        let body = r#"{"upstream":"10.0.0.1:80","upstream_status":"-"}"#;
        assert_eq!(read(body), (vec![], 1), "the client left before the answer");
        assert_eq!(read(r#"{"upstream":"10.0.0.1:80","status":"204"}"#), (seen(&[("10.0.0.1:80", Answer(204))]), 0));
    }

    #[test]
    fn a_status_that_nginx_made_up_is_what_it_stands_for() {
        let line = |rest: &str| format!(r#"{{"upstream":"10.0.0.1:80, 10.0.0.2:80",{rest}}}"#);
        let both = |first, second| (seen(&[("10.0.0.1:80", first), ("10.0.0.2:80", second)]), 0);
        for (rest, expected) in [
            // Both are the upstreams' own where a header came.
            (r#""upstream_status":"502, 504","upstream_header_time":"0.001, 0.002""#, both(Answer(502), Answer(504))),
            (r#""upstream_status":"502, 504","upstream_header_time":"-, -""#, both(ConnectFailure, Timeout)),
            (r#""upstream_status":"504, 502","upstream_response_time":"-, 0.1""#, both(Timeout, Answer(502))),
            (r#""upstream_status":"503, 200","upstream_header_time":"-, 0.1""#, both(Answer(503), Answer(200))),
            (r#""status":"504","upstream_header_time":"-, -""#, both(ConnectFailure, Timeout)),
            // One of several is nobody's.
            (r#""upstream_status":"502, 504","upstream_header_time":"-""#, both(Answer(502), Answer(504))),
            (r#""upstream_status":"502, 504""#, both(Answer(502), Answer(504))),
        ] {
            assert_eq!(read(&line(rest)), expected, "{rest}");
        }
    }

    #[test]
    fn when_it_was_is_read_in_either_form() {
        let when = |rest: &str| {
            let body = format!(r#"{{"upstream":"10.0.0.1:80","status":200{rest}}}"#);
            let read = parse(body.as_bytes(), &Arc::new(Scope::All)).unwrap_or_else(|why| panic!("{why:?}: {body}"));
            read.reports[0].when.map(|when| (when.began.as_millisecond(), when.ended.as_millisecond()))
        };
        let at = 1_704_507_612_177;
        assert_eq!(when(r#","start_time":1704507612177,"latency":3.0"#), Some((at, at + 3)));
        assert_eq!(when(r#","start_time":1704507612177.0"#), Some((at, at)));
        assert_eq!(when(r#","start_time":"1704507612.177","latency":"3""#), Some((at, at + 3)));
        assert_eq!(when(r#","msec":"1704507612.177","request_time":"1.500""#), Some((at - 1500, at)));
        assert_eq!(when(r#","msec":1704507612.177,"request_time":1.5"#), Some((at - 1500, at)));
        for nothing in [
            "",
            r#","start_time":null"#,
            r#","start_time":true"#,
            r#","start_time":[1],"latency":{"a":[1]}"#,
            r#","start_time":"soon""#,
            r#","start_time":-1"#,
            r#","start_time":1e300"#,
            r#","msec":"1e300","request_time":"-1""#,
            r#","msec":"NaN""#,
            r#","latency":3.0"#,
        ] {
            assert_eq!(when(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn what_names_no_endpoint_is_counted_as_that() {
        let local = entry(404, "").replace(r#""upstream":"","#, "");
        for body in [local.as_str(), &entry(502, "apisix_backend"), &entry(200, "unix:/run/app.sock"), "{}"] {
            assert_eq!(read(body), (vec![], 1), "{body}");
        }
    }

    #[test]
    fn a_log_without_end_is_refused_before_it_costs_memory() {
        let all = Arc::new(Scope::All);
        let list = |lines: usize| format!("[{}{{}}]", "{},".repeat(lines - 1));
        assert_eq!(parse(list(MAX_REPORTS).as_bytes(), &all).map(|read| read.unattributed), Ok(MAX_REPORTS as u64));
        assert_eq!(parse(list(MAX_REPORTS + 1).as_bytes(), &all), Err(Unread::TooMany));
        assert_eq!(parse(list(50 * MAX_REPORTS).as_bytes(), &all), Err(Unread::TooMany));
        assert_eq!(parse("{}\n".repeat(MAX_REPORTS + 1).as_bytes(), &all), Err(Unread::TooMany));
        let many = entry(200, "10.0.0.1:80,".repeat(1000).trim_end_matches(','));
        assert_eq!(read(&many).0.len(), MAX_UPSTREAMS);
    }

    #[test]
    fn what_is_no_log_is_refused() {
        for body in ["nonsense", "[1]", "3", "[{}", r#"{"upstream":5}"#] {
            assert!(parse(body.as_bytes(), &Arc::new(Scope::All)).is_err(), "{body}");
        }
    }
}
