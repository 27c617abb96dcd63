//! A time of the calendar in one word.

use jiff::Timestamp;

/// Nanoseconds since the epoch: as exact as a [`Timestamp`], in half of its room. What is before 1677 or after 2262 is kept as
/// the first or the last of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(i64);

impl Moment {
    /// As the calendar has it.
    #[must_use]
    pub fn time(self) -> Timestamp {
        // Every one of them is in a calendar of twenty thousand years.
        Timestamp::from_nanosecond(self.0.into()).unwrap_or_default()
    }
}

impl From<Timestamp> for Moment {
    fn from(at: Timestamp) -> Self {
        let nanoseconds = at.as_nanosecond();
        Self(i64::try_from(nanoseconds).unwrap_or(if nanoseconds < 0 { i64::MIN } else { i64::MAX }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_anybody_lives_to_see_comes_back_exactly() {
        for text in ["1970-01-01T00:00:00Z", "2026-11-22T17:40:00.123456789Z", "1969-12-31T23:59:59.999999999Z"] {
            let at: Timestamp = text.parse().expect(text);
            assert_eq!(Moment::from(at).time(), at);
        }
        let far = Moment::from(Timestamp::MAX).time();
        assert_eq!(far.strftime("%Y").to_string(), "2262");
    }
}
