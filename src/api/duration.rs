//! Gateway API duration strings (GEP-2257): `1h30m`, `500ms`.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Up to four numbers of up to five digits, each with its unit.
const MAX_PARTS: usize = 4;
const MAX_DIGITS: usize = 5;
/// The longest text the pattern lets through: four times five digits and `ms`.
const MAX_LENGTH: u32 = 28;

/// The longest span: as many hours as five digits hold, so that every span can be written in four parts again.
const MAX_MILLIS: u64 = 99_999 * 3_600_000;

/// A span of time, exact to the millisecond, at most 99999 hours.
///
/// A type of our own because `kube::core::Duration` takes the empty string and negative spans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration {
    millis: u64,
}

/// The text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{text}' is not a duration: write numbers with the units h, m, s or ms, such as 10s, 1m30s or 500ms, at most 99999h"
)]
pub struct ParseDurationError {
    text: String,
}

impl Duration {
    /// What the schema asks of the text, as GEP-2257 has it.
    pub const PATTERN: &'static str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";

    /// `millis` thousandths of a second; what is beyond the longest span is cut to it.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self { millis: if millis > MAX_MILLIS { MAX_MILLIS } else { millis } }
    }

    /// `secs` seconds; what is beyond the longest span is cut to it.
    #[must_use]
    pub const fn from_secs(secs: u32) -> Self {
        Self::from_millis(secs as u64 * 1000)
    }

    /// The span in whole milliseconds; nothing is ever lost.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.millis
    }

    /// The same span for the rest of the program.
    #[must_use]
    pub const fn to_std(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.millis)
    }
}

impl From<Duration> for std::time::Duration {
    fn from(duration: Duration) -> Self {
        duration.to_std()
    }
}

impl FromStr for Duration {
    type Err = ParseDurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| ParseDurationError { text: text.chars().take(64).collect() })
    }
}

fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut millis = 0;
    for part in 0.. {
        if rest.is_empty() {
            return (part > 0 && millis <= MAX_MILLIS).then_some(Duration { millis });
        }
        if part == MAX_PARTS {
            return None;
        }
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if !(1..=MAX_DIGITS).contains(&digits) {
            return None;
        }
        let (number, tail) = rest.split_at(digits);
        let (unit, tail) = split_unit(tail)?;
        // At most 99999 × 3 600 000, four times: far inside u64.
        millis += number.parse::<u64>().ok()? * unit;
        rest = tail;
    }
    None
}

/// The milliseconds of the unit in front, and what follows it. `ms` before `m`, or `5ms` would be minutes.
fn split_unit(text: &str) -> Option<(u64, &str)> {
    const UNITS: [(&str, u64); 4] = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];
    UNITS.into_iter().find_map(|(unit, millis)| Some((millis, text.strip_prefix(unit)?)))
}

impl fmt::Display for Duration {
    /// The shortest text that parses to the same span: `90s` is `1m30s`, nothing is `0s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.millis == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.millis;
        for (unit, size) in [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
            if rest >= size {
                write!(f, "{}{unit}", rest / size)?;
                rest %= size;
            }
        }
        Ok(())
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": Self::PATTERN, "maxLength": MAX_LENGTH})
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_exact() {
        for (text, millis) in [
            ("10s", 10_000),
            ("1h30m", 5_400_000),
            ("500ms", 500),
            ("1m30s", 90_000),
            ("30s1m", 90_000),
            ("0s", 0),
            ("1h1m1s1ms", 3_661_001),
            ("00005s", 5000),
            ("99999h", 359_996_400_000),
        ] {
            assert_eq!(text.parse::<Duration>().map(Duration::as_millis), Ok(millis), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in
            ["", "10", "s", "-1s", "1.5s", "1d", "100000s", "1s1s1s1s1s", " 1s", "1s ", "1S", "1h 5m", "99999h1ms"]
        {
            let error = text.parse::<Duration>().expect_err(text);
            assert!(error.to_string().starts_with(&format!("'{text}' is not a duration")), "{error}");
        }
    }

    #[test]
    fn the_shortest_text_is_written() {
        for (millis, text) in [(0, "0s"), (90_000, "1m30s"), (500, "500ms"), (86_400_000, "24h"), (1500, "1s500ms")] {
            assert_eq!(Duration::from_millis(millis).to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(millis in 0..=MAX_MILLIS) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(duration.to_string().parse::<Duration>(), Ok(duration));
        }

        #[test]
        fn every_text_of_the_grammar_is_read_and_means_its_sum(
            parts in prop::collection::vec((0u64..=20_000, 0usize..4), 1..=4)
        ) {
            let units = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
            let text: String = parts.iter().map(|(number, unit)| format!("{number}{}", units[*unit].0)).collect();
            let sum: u64 = parts.iter().map(|(number, unit)| number * units[*unit].1).sum();
            prop_assert_eq!(text.parse::<Duration>().map(Duration::as_millis), Ok(sum));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}") {
            let _ = text.parse::<Duration>();
        }
    }
}
