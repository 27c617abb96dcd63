//! A hierarchical timing wheel with slots of one millisecond. Pure: time is a number that the caller brings.
//!
//! Five levels of 256 slots reach 34 years. An entry is a link in a list, sixteen bytes, found by its id; nothing is
//! allocated to schedule, move or cancel one. Placement is by the highest byte in which the due time differs from now,
//! so an entry moves down at most four times before it fires, exactly at its millisecond.

const BITS: u32 = 8;
const SLOTS: usize = 1 << BITS;
const LEVELS: usize = 5;
/// No entry, no neighbour.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Link {
    /// When it is due, above [`PLACE`] bits in which it says where it is: four links are a line of the cache.
    due_and_place: u64,
    previous: u32,
    next: u32,
}

/// So many bits tell level times 256 plus slot, or that an entry is not scheduled. What is left are 53 bits of milliseconds.
const PLACE: u32 = 11;
const NOWHERE: u64 = (1 << PLACE) - 1;
const LATEST: u64 = u64::MAX >> PLACE;

const LOOSE: Link = Link { due_and_place: NOWHERE, previous: NONE, next: NONE };

impl Link {
    const fn due(self) -> u64 {
        self.due_and_place >> PLACE
    }

    /// Level and slot, while it is scheduled.
    const fn place(self) -> Option<(usize, usize)> {
        let place = self.due_and_place & NOWHERE;
        if place == NOWHERE { None } else { Some((place as usize / SLOTS, place as usize % SLOTS)) }
    }
}

#[derive(Debug)]
struct Level {
    heads: [u32; SLOTS],
    occupied: [u64; SLOTS / 64],
}

impl Level {
    const EMPTY: Self = Self { heads: [NONE; SLOTS], occupied: [0; SLOTS / 64] };

    /// The first occupied slot at or after `from`.
    fn next_occupied(&self, from: usize) -> Option<usize> {
        let mut word = from / 64;
        let mut bits = self.occupied.get(word)? & (u64::MAX << (from % 64));
        loop {
            if bits != 0 {
                return Some(word * 64 + bits.trailing_zeros() as usize);
            }
            word += 1;
            bits = *self.occupied.get(word)?;
        }
    }
}

/// Says which ids are due. Ids are small numbers, each scheduled at most once.
#[derive(Debug)]
pub struct Wheel {
    now: u64,
    levels: Box<[Level; LEVELS]>,
    links: Vec<Link>,
}

impl Wheel {
    /// A wheel that stands at `now`, in milliseconds of whatever clock the caller keeps.
    #[must_use]
    pub fn new(now: u64) -> Self {
        Self { now, levels: Box::new([Level::EMPTY; LEVELS]), links: Vec::new() }
    }

    /// Schedules `id` for `due`, in place of what it was scheduled for. A time that has passed fires at the next advance.
    pub fn schedule(&mut self, id: u32, due: u64) {
        self.cancel(id);
        let at = id as usize;
        if at >= self.links.len() {
            let more = at + 1 - self.links.len();
            if self.links.capacity() - self.links.len() < more {
                // By an eighth: twice as many would be half empty for as long as there are no more.
                self.links.reserve_exact(more.max(self.links.len() / 8));
            }
            self.links.resize(at + 1, LOOSE);
        }
        // What is overdue goes into the next slot: the slot of `now` itself has been emptied already.
        self.insert(id, due.max(self.now + 1).min(LATEST));
    }

    /// Takes `id` off the wheel, if it is on it.
    pub fn cancel(&mut self, id: u32) {
        let Some(link) = self.links.get_mut(id as usize) else { return };
        let Link { previous, next, .. } = *link;
        let Some((level, slot)) = link.place() else { return };
        *link = LOOSE;
        if next != NONE {
            self.links[next as usize].previous = previous;
        }
        if previous != NONE {
            self.links[previous as usize].next = next;
            return;
        }
        self.levels[level].heads[slot] = next;
        if next == NONE {
            self.levels[level].occupied[slot / 64] &= !(1 << (slot % 64));
        }
    }

    fn insert(&mut self, id: u32, due: u64) {
        let differing = (due ^ self.now).max(1);
        let level = (differing.ilog2() / BITS).min(LEVELS as u32 - 1);
        let slot = (due >> (level * BITS)) as usize % SLOTS;
        let level = level as usize;
        let head = self.levels[level].heads[slot];
        let due_and_place = due << PLACE | (level * SLOTS + slot) as u64;
        self.links[id as usize] = Link { due_and_place, previous: NONE, next: head };
        if head != NONE {
            self.links[head as usize].previous = id;
        }
        self.levels[level].heads[slot] = id;
        self.levels[level].occupied[slot / 64] |= 1 << (slot % 64);
    }

    /// The earliest time at which the wheel has something to do: an entry that is due, or one to move down. Never later
    /// than the earliest due time; `None` when the wheel is empty.
    #[must_use]
    pub fn next_turn(&self) -> Option<u64> {
        self.next_occupied().map(|(_, _, time)| time)
    }

    fn next_occupied(&self) -> Option<(usize, usize, u64)> {
        self.levels.iter().enumerate().find_map(|(level, slots)| {
            let shift = level as u32 * BITS;
            // Everything on a level lies ahead of now within the turn of that level, so the first one found is the next.
            let current = (self.now >> shift) as usize % SLOTS;
            let slot = slots.next_occupied(current + 1)?;
            let turn = self.now >> shift >> BITS << BITS;
            Some((level, slot, (turn + slot as u64) << shift))
        })
    }

    /// Moves the wheel to `now` and puts every id that was due by then into `due`, earliest slots first, and of a slot those
    /// first that were scheduled first: who is asked in the same millisecond round after round keeps its place in it.
    pub fn advance(&mut self, now: u64, due: &mut Vec<u32>) {
        while let Some((level, slot, time)) = self.next_occupied() {
            if time > now {
                break;
            }
            self.now = time;
            let from = due.len();
            let mut id = std::mem::replace(&mut self.levels[level].heads[slot], NONE);
            self.levels[level].occupied[slot / 64] &= !(1 << (slot % 64));
            while id != NONE {
                due.push(id);
                id = self.links[id as usize].next;
            }
            // The last that came stood first.
            due[from..].reverse();
            let mut fired = from;
            for at in from..due.len() {
                let id = due[at];
                let link = std::mem::replace(&mut self.links[id as usize], LOOSE);
                if link.due() <= time {
                    due[fired] = id;
                    fired += 1;
                } else {
                    self.insert(id, link.due());
                }
            }
            due.truncate(fired);
        }
        self.now = self.now.max(now);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn fired(wheel: &mut Wheel, now: u64) -> Vec<u32> {
        let mut due = Vec::new();
        wheel.advance(now, &mut due);
        due
    }

    #[test]
    fn an_entry_fires_at_its_millisecond_on_every_level() {
        for start in [0, 1, 255, 256, 65_535, 16_777_210] {
            for delay in [1, 2, 255, 256, 257, 65_535, 65_536, 86_400_000, 5_000_000_000] {
                let mut wheel = Wheel::new(start);
                wheel.schedule(7, start + delay);
                assert!(fired(&mut wheel, start + delay - 1).is_empty(), "{start}+{delay} fired early");
                assert_eq!(fired(&mut wheel, start + delay), [7], "{start}+{delay}");
                assert_eq!(wheel.next_turn(), None);
            }
        }
    }

    #[test]
    fn what_is_overdue_fires_at_the_next_advance() {
        let mut wheel = Wheel::new(1000);
        wheel.schedule(0, 3);
        assert_eq!(wheel.next_turn(), Some(1001));
        assert_eq!(fired(&mut wheel, 1001), [0]);
    }

    #[test]
    fn who_is_due_together_keeps_its_order_from_round_to_round() {
        let mut wheel = Wheel::new(17);
        let mut order: Vec<u32> = vec![3, 1, 4, 0, 2];
        for (round, delay) in [100, 256, 1000, 70_000, 1000].into_iter().enumerate() {
            let at = wheel.now + delay;
            order.iter().for_each(|id| wheel.schedule(*id, at));
            let fired = fired(&mut wheel, at);
            assert_eq!(fired, order, "round {round}");
            order = fired;
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Schedule(u32, u64),
        Cancel(u32),
        Advance(u64),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let delay = prop_oneof![0..300_u64, 0..70_000_u64, 0..100_000_000_u64];
        prop_oneof![
            4 => (0..20_u32, delay.clone()).prop_map(|(id, delay)| Step::Schedule(id, delay)),
            1 => (0..20_u32).prop_map(Step::Cancel),
            4 => delay.prop_map(Step::Advance),
        ]
    }

    proptest! {
        /// Against a sorted map, which is all a wheel pretends to be.
        #[test]
        fn the_wheel_is_a_sorted_map(start in 0..20_000_000_u64, steps in prop::collection::vec(any_step(), 1..80)) {
            let mut wheel = Wheel::new(start);
            let mut model = BTreeMap::new();
            let mut now = start;
            for step in steps {
                match step {
                    Step::Schedule(id, delay) => {
                        wheel.schedule(id, now + delay);
                        model.insert(id, (now + delay).max(now + 1));
                    }
                    Step::Cancel(id) => {
                        wheel.cancel(id);
                        model.remove(&id);
                    }
                    Step::Advance(by) => {
                        now += by;
                        let mut due = fired(&mut wheel, now);
                        due.sort_unstable();
                        let expected: Vec<u32> =
                            model.iter().filter(|(_, at)| **at <= now).map(|(id, _)| *id).collect();
                        model.retain(|_, at| *at > now);
                        prop_assert_eq!(due, expected);
                    }
                }
                let earliest = model.values().min().copied();
                prop_assert_eq!(wheel.next_turn().is_some(), earliest.is_some());
                if let (Some(turn), Some(earliest)) = (wheel.next_turn(), earliest) {
                    prop_assert!(now < turn && turn <= earliest, "turn {} of {}", turn, earliest);
                }
            }
        }
    }
}
