//! A time of the engine's clock in six bytes, for what there are a hundred thousand of.

use std::num::NonZeroU16;

/// Milliseconds of the engine's clock, from their lowest bits on; the last part has one more, which makes room for `None`. What is
/// beyond eight thousand years is kept as their end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tick([u16; 2], NonZeroU16);

impl Tick {
    const LATEST: u64 = (1 << 48) - (1 << 32) - 1;

    pub fn millis(self) -> u64 {
        let Self([low, middle], high) = self;
        u64::from(low) | u64::from(middle) << 16 | (u64::from(high.get()) - 1) << 32
    }
}

impl From<u64> for Tick {
    fn from(millis: u64) -> Self {
        let millis = millis.min(Self::LATEST);
        Self([millis as u16, (millis >> 16) as u16], NonZeroU16::MIN.saturating_add((millis >> 32) as u16))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_anybody_lives_to_see_comes_back_as_it_went() {
        for millis in [0, 1, 65_535, 65_536, u64::from(u32::MAX), 1 << 40, Tick::LATEST] {
            assert_eq!(Tick::from(millis).millis(), millis);
        }
        assert_eq!(Tick::from(u64::MAX).millis(), Tick::LATEST);
        assert_eq!(size_of::<Option<Tick>>(), 6);
    }
}
