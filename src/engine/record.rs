//! One endpoint as the engine keeps it: when it is due, whether a probe of it runs, and what is believed of it.

use std::num::NonZeroU16;

use tokio::task::AbortHandle;

use super::{belief::Belief, group::Row, scheduler::millis};
use crate::{
    check::{Check, Endpoint, Host, InitialState, Kept},
    probe::Asks,
};

#[derive(Debug)]
pub(super) struct Record {
    pub endpoint: Endpoint,
    /// The check it belongs to.
    pub group: u32,
    /// Of what is asked: seeds phase and jitter, and finds who asks the same.
    pub hash: u64,
    /// The next slot on the grid, and when within it the probe starts; `None` while it is not probed.
    pub due: Option<Due>,
    /// The slot of the last round, and when within it the probe was due.
    pub round: Due,
    /// The round after the first goes to the endpoint's own place on the grid.
    pub first: bool,
    pub flight: Flight,
    /// A round whose predecessor still runs; it starts when that ends.
    pub pending: bool,
    /// Counts attempts, so that an answer to an attempt that was given up is told apart.
    pub attempt: u32,
    pub belief: Belief,
    /// What one attempt leaves for the next; `None` where the probe keeps nothing.
    pub kept: Option<Kept>,
    /// It was found out whether the fast lane takes it, which is done once for each question.
    pub prepared: bool,
    /// What the fast lane asks of it; `None` where it takes the ordinary one.
    pub asks: Option<Asks>,
}

/// A slot of the grid, and when in it the probe starts, which is at most a day from it: ten bytes, as each record has two.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    /// The slot, from its lowest bits on; one more in the last, which makes room for `None`.
    slot: ([u16; 2], NonZeroU16),
    /// From the slot, likewise.
    offset: [u16; 2],
}

impl Due {
    pub fn new(slot: u64, at: u64) -> Self {
        let slot = slot.min((1 << 48) - (1 << 32) - 1);
        let offset = at.cast_signed().saturating_sub(slot.cast_signed());
        let offset = i32::try_from(offset).unwrap_or(if offset < 0 { i32::MIN } else { i32::MAX }).cast_unsigned();
        Self {
            slot: ([slot as u16, (slot >> 16) as u16], NonZeroU16::MIN.saturating_add((slot >> 32) as u16)),
            offset: [offset as u16, (offset >> 16) as u16],
        }
    }

    pub fn slot(self) -> u64 {
        let ([low, middle], high) = self.slot;
        u64::from(low) | u64::from(middle) << 16 | (u64::from(high.get()) - 1) << 32
    }

    pub fn at(self) -> u64 {
        let [low, high] = self.offset;
        let offset = (u32::from(low) | u32::from(high) << 16).cast_signed();
        self.slot().saturating_add_signed(offset.into())
    }
}

#[derive(Debug, Default)]
pub(super) enum Flight {
    #[default]
    Idle,
    /// Waiting for a permit.
    Waiting,
    Running {
        on: On,
        started: u64,
    },
    /// Another asks the same just now; its answer is taken.
    Listening {
        leader: u32,
    },
}

/// The lane of a probe in flight.
#[derive(Debug)]
pub(super) enum On {
    Task(AbortHandle),
    /// A line of the fast lane, and when the wheel has to end it.
    Line {
        line: u32,
        deadline: u64,
    },
}

impl Flight {
    /// The line of the fast lane whose deadline comes at `now` or came before.
    pub fn overdue(&self, now: u64) -> Option<u32> {
        match self {
            Self::Running { on: On::Line { line, deadline }, .. } if *deadline <= now => Some(*line),
            _ => None,
        }
    }

    const fn deadline(&self) -> Option<u64> {
        match self {
            Self::Running { on: On::Line { deadline, .. }, .. } => Some(*deadline),
            _ => None,
        }
    }
}

impl Record {
    /// The host whose limit the probe counts under.
    pub fn host(&self) -> Option<&Host> {
        self.endpoint.dial.as_ref().map(|dial| &dial.host)
    }

    /// When the wheel has to look at it next.
    pub fn wake(&self, check: &Check) -> Option<u64> {
        if check.suspend {
            return self.flight.deadline();
        }
        let due = self.due.map(Due::at);
        let expires = self.belief.expires(millis(check.stale_after));
        [due, expires, self.belief.lapses(), self.flight.deadline()].into_iter().flatten().min()
    }

    /// Adds what readers are shown of it.
    pub fn draw(&self, initial: InitialState, rows: &mut Vec<Row>) {
        self.belief.draw(&self.endpoint, initial, rows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_and_its_start_come_back_as_they_went() {
        const DAY: u64 = 86_400_000;
        for slot in [0, 1, 65_535, 65_536, u64::from(u32::MAX), 1 << 40] {
            for at in [slot, slot + 1, slot + DAY, slot.saturating_sub(1), slot.saturating_sub(DAY)] {
                let due = Due::new(slot, at);
                assert_eq!((due.slot(), due.at()), (slot, at));
            }
        }
        assert!(Due::new(u64::MAX, 0).slot() > 1 << 40, "nobody is there to see that");
        assert_eq!(size_of::<Option<Due>>(), 10);
    }
    /// There are a hundred thousand of them: what one gains is told in `docs/performance.md`.
    #[test]
    fn a_record_is_three_and_a_half_lines_of_the_cache() {
        assert!(size_of::<Option<Record>>() <= 224, "{}", size_of::<Option<Record>>());
    }
}
