//! When an endpoint is due. Pure: milliseconds in, milliseconds out.
//!
//! An endpoint's due times lie on a grid, each counted from the one before it and never from when a probe ended. Where in
//! its interval they lie is a stable hash of what is asked, so that the same questions meet; the grid begins with the
//! process, so that replicas do not ask all at the same moment.

use std::hash::{Hash, Hasher};

/// A hash that is the same in every process, on every machine and in every release (FNV-1a, then mixed).
#[must_use]
pub fn stable_hash(parts: &[&str]) -> u64 {
    let mut hash = Fnv::default();
    for part in parts {
        hash.write(part.as_bytes());
        // 0xff is in no UTF-8 text, so ("a", "bc") and ("ab", "c") differ.
        hash.write(&[0xff]);
    }
    hash.finish()
}

/// A hash of `value` that is the same in every process and on every machine of one release.
#[must_use]
pub fn hash_of(value: &impl Hash) -> u64 {
    let mut hash = Fnv::default();
    value.hash(&mut hash);
    hash.finish()
}

/// FNV-1a, then mixed. Numbers are as wide, and as their bytes lie, on every machine.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn write_u16(&mut self, number: u16) {
        self.write(&number.to_le_bytes());
    }

    fn write_u32(&mut self, number: u32) {
        self.write(&number.to_le_bytes());
    }

    fn write_u64(&mut self, number: u64) {
        self.write(&number.to_le_bytes());
    }

    fn write_u128(&mut self, number: u128) {
        self.write(&number.to_le_bytes());
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    fn finish(&self) -> u64 {
        mix(self.0)
    }
}

/// The finalizer of splitmix64: every input bit reaches every output bit.
const fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Rounds begin at multiples of this, in milliseconds. To wake up costs as much as a check or two: the more are begun at
/// once, the less each costs; and the more target hosts, and the network between, are asked at once
/// (`docs/performance.md` has what other steps give).
const STEP: u64 = 2;
/// The same for those that are probed seldom: alone, each of them would be a wake-up of its own.
const LONG_STEP: u64 = 50;
/// Intervals from here on are long, in milliseconds.
const LONG: u64 = 10_000;
/// The same for connections that the fast lane keeps: waking up is most of what they cost, and nobody has to be dialed but
/// who closes them. One for all intervals: equal questions at different ones meet where it divides the shorter one.
const KEPT_STEP: u64 = 25;

/// When an endpoint is due: once in each interval, always at the same place in it.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    interval: u64,
    phase: u64,
}

impl Grid {
    /// The grid of an endpoint that is probed every `interval` milliseconds, with the place that `hash` gives it; whether
    /// its connection is kept from one probe to the next.
    #[must_use]
    pub fn new(interval: u64, hash: u64, kept: bool) -> Self {
        let step = match interval {
            LONG.. => LONG_STEP,
            _ if kept => KEPT_STEP,
            _ => STEP,
        };
        let phase = hash % interval;
        Self { interval, phase: phase - phase % step }
    }

    /// The first time after `now` that lies on it.
    #[must_use]
    pub const fn next(self, now: u64) -> u64 {
        let behind = (now % self.interval + self.interval - self.phase) % self.interval;
        now + self.interval - behind
    }

    /// The slot after `slot`, whichever grid that is on, and how many were passed over: where a pace changes for many at
    /// once, they are spread over all of the interval.
    #[must_use]
    pub fn next_slot(self, slot: u64, now: u64) -> (u64, u64) {
        let next = self.next(now.max(slot));
        (next, ((next - slot) / self.interval).saturating_sub(1))
    }
}

/// The slot after `slot`, and how many slots were passed over because they are not ahead of `now` any more.
#[must_use]
pub fn next_slot(slot: u64, interval: u64, now: u64) -> (u64, u64) {
    let next = slot + interval;
    if next > now {
        return (next, 0);
    }
    let missed = (now - next) / interval + 1;
    (next + missed * interval, missed)
}

/// Where in its slot a probe starts: `slot` moved by a part of `percent` of `interval`, evenly around it. It depends on
/// the slot and the hash alone, and never moves the slots that follow.
#[must_use]
pub fn jittered(slot: u64, interval: u64, percent: u8, hash: u64) -> u64 {
    let span = interval * u64::from(percent) / 100;
    if span == 0 {
        return slot;
    }
    (slot + mix(hash ^ slot) % span).saturating_sub(span / 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_hash_is_the_same_in_every_release() {
        assert_eq!(stable_hash(&["uid", "10.0.0.1:80"]), stable_hash(&["uid", "10.0.0.1:80"]));
        assert_ne!(stable_hash(&["a", "bc"]), stable_hash(&["ab", "c"]));
        assert_eq!(stable_hash(&["shop/orders", "db"]), 9_431_195_186_911_695_367);
    }

    #[test]
    fn phases_spread_evenly() {
        let mut buckets = [0_u32; 20];
        for endpoint in 0..20_000 {
            let hash = stable_hash(&["uid", &format!("10.0.{}.{}:80", endpoint / 250, endpoint % 250)]);
            buckets[(Grid::new(1000, hash, endpoint % 2 == 0).next(0) as usize - 1) / 50] += 1;
        }
        assert!(buckets.iter().all(|count| (850..1150).contains(count)), "{buckets:?}");
    }

    #[test]
    fn kept_connections_are_asked_together_forty_times_a_second() {
        let places = |interval, kept| {
            let places = (0..10_000).map(|n| Grid::new(interval, mix(n), kept).phase);
            places.collect::<std::collections::HashSet<_>>().len()
        };
        assert_eq!((places(1000, true), places(1000, false)), (40, 500));
        assert_eq!((places(100, true), places(100, false)), (4, 50));
        assert_eq!((places(10_000, true), places(10_000, false)), (200, 200));
    }

    proptest! {
        #[test]
        fn the_grid_is_ahead_and_on_phase(now in 0..u64::from(u32::MAX), interval in 100..86_400_000_u64, hash: u64, kept: bool) {
            let grid = Grid::new(interval, hash, kept);
            let next = grid.next(now);
            prop_assert!(next > now && next <= now + interval);
            prop_assert_eq!(next % interval, grid.phase);
        }

        #[test]
        fn slots_stay_on_their_grid_however_late(slot in 0..1_000_000_u64, interval in 100..100_000_u64, late in 0..10_000_000_u64) {
            let now = slot + late;
            let (next, missed) = next_slot(slot, interval, now);
            prop_assert!(next > now && next <= now + interval);
            prop_assert_eq!(next, slot + (missed + 1) * interval);
        }

        #[test]
        fn a_change_of_grid_leaves_no_slot_twice_and_none_out(
            slot in 0..1_000_000_u64, interval in 100..100_000_u64, late in 0..10_000_000_u64, hash: u64, kept: bool,
        ) {
            let now = (slot + late).saturating_sub(5_000);
            let grid = Grid::new(interval, hash, kept);
            let (next, missed) = grid.next_slot(slot, now);
            prop_assert!(next > now && next > slot && next <= now.max(slot) + interval);
            prop_assert_eq!(next % interval, grid.phase);
            let on_grid = grid.next(slot);
            prop_assert!((next - on_grid) / interval >= missed && (next - on_grid) / interval <= missed + 1);
            // On its own grid it is the same as from slot to slot.
            let (next, missed) = grid.next_slot(on_grid, now);
            prop_assert_eq!((next, missed), next_slot(on_grid, interval, now));
        }

        #[test]
        fn jitter_stays_within_its_share(slot in 1_000_000..2_000_000_u64, interval in 100..100_000_u64, percent in 0..=100_u8, hash: u64) {
            let at = jittered(slot, interval, percent, hash);
            prop_assert!(at.abs_diff(slot) * 200 <= interval * u64::from(percent) + 200);
        }
    }

    #[test]
    fn jitter_does_not_drift() {
        let (interval, hash) = (1000, 42);
        let sum: i64 = (1..10_001)
            .map(|round| {
                let slot = round * interval;
                jittered(slot, interval, 100, hash).cast_signed() - slot.cast_signed()
            })
            .sum();
        assert!((sum / 10_000).abs() < 20, "mean offset {} ms", sum / 10_000);
    }
}
