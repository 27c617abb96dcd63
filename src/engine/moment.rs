//! A time of the calendar in one word.

use jiff::Timestamp;

/// Nanoseconds since the epoch: as exact as a [`Timestamp`], in half of its room. What is before 1677 or after 2262 is kept as
/// the first or the last of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment(i64);

impl From<Timestamp> for Moment {
    fn from(at: Timestamp) -> Self {
        let nanoseconds = at.as_nanosecond();
        Self(i64::try_from(nanoseconds).unwrap_or(if nanoseconds < 0 { i64::MIN } else { i64::MAX }))
    }
}

impl From<Moment> for Timestamp {
    fn from(at: Moment) -> Self {
        // Every one of them is in a calendar of twenty thousand years.
        Self::from_nanosecond(at.0.into()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_anybody_lives_to_see_comes_back_exactly() {
        for text in ["1970-01-01T00:00:00Z", "2026-11-22T17:40:00.123456789Z", "1969-12-31T23:59:59.999999999Z"] {
            let at: Timestamp = text.parse().expect(text);
            assert_eq!(Timestamp::from(Moment::from(at)), at);
        }
        let far = Timestamp::from(Moment::from(Timestamp::MAX));
        assert_eq!(far.strftime("%Y").to_string(), "2262");
    }
}
