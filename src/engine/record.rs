//! One endpoint as the engine keeps it: when it is due, whether a probe of it runs, and what is believed of it.

use tokio::task::AbortHandle;

use super::{belief::Belief, group::Row, phase::Grid, scheduler::millis, tick::Tick};
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
    /// What the fast lane asks of it; `None` where it takes the ordinary one.
    pub asks: Option<Asks>,
}

/// A slot of the grid, and when in it the probe starts, which is at most a day from it: ten bytes, as each record has two.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    slot: Tick,
    /// From the slot on, its lower half first.
    offset: [u16; 2],
}

impl Due {
    pub fn new(slot: u64, at: u64) -> Self {
        let slot = Tick::from(slot);
        let offset = at.cast_signed().saturating_sub(slot.millis().cast_signed());
        let offset = i32::try_from(offset).unwrap_or(if offset < 0 { i32::MIN } else { i32::MAX }).cast_unsigned();
        Self { slot, offset: [offset as u16, (offset >> 16) as u16] }
    }

    pub fn slot(self) -> u64 {
        self.slot.millis()
    }

    pub fn at(self) -> u64 {
        let [low, high] = self.offset;
        let offset = (u32::from(low) | u32::from(high) << 16).cast_signed();
        self.slot().saturating_add_signed(offset.into())
    }
}

/// A task may come back so much later than its time is over, in milliseconds.
const LATE: u64 = 50;

#[derive(Debug, Default)]
pub(super) enum Flight {
    #[default]
    Idle,
    /// Waiting for a permit.
    Waiting,
    /// A probe runs on the ordinary lane.
    Task { handle: AbortHandle, started: Tick },
    /// A probe runs on the fast lane, on this line, and the wheel has to look at it so many milliseconds after it began.
    Line { line: u32, lasts: u32, started: Tick },
    /// Another asks the same just now; its answer is taken.
    Listening { leader: u32 },
}

impl Flight {
    /// On a line of the fast lane since `started`, to be looked at when it is `look`.
    pub fn on_line(line: u32, started: u64, look: u64) -> Self {
        // Nothing is waited for as long as that.
        let lasts = u32::try_from(look.saturating_sub(started)).unwrap_or(u32::MAX);
        Self::Line { line, lasts, started: started.into() }
    }

    /// When the probe began that runs, if one does.
    pub fn started(&self) -> Option<u64> {
        match self {
            Self::Task { started, .. } | Self::Line { started, .. } => Some(started.millis()),
            Self::Idle | Self::Waiting | Self::Listening { .. } => None,
        }
    }

    /// Whether it is a task that should long have ended, within `timeout`.
    pub fn is_late(&self, now: u64, timeout: u64) -> bool {
        matches!(self, Self::Task { started, .. } if now > started.millis() + timeout + LATE)
    }

    /// The line of the fast lane that is to be looked at, `now` or since a while.
    pub fn overdue(&self, now: u64) -> Option<u32> {
        match self {
            Self::Line { line, .. } if self.look().is_some_and(|at| at <= now) => Some(*line),
            _ => None,
        }
    }

    /// When the wheel has to look at it.
    fn look(&self) -> Option<u64> {
        match self {
            Self::Line { lasts, started, .. } => Some(started.millis() + u64::from(*lasts)),
            _ => None,
        }
    }
}

impl Record {
    /// The host whose limit the probe counts under.
    pub fn host(&self) -> Option<&Host> {
        self.endpoint.dial.as_ref().map(|dial| &dial.host)
    }

    /// When it is due, probed every `cadence` milliseconds.
    pub fn grid(&self, cadence: u64) -> Grid {
        Grid::new(cadence, self.hash, self.kept.is_some() && self.asks.is_some())
    }

    /// When the wheel has to look at it next.
    pub fn wake(&self, check: &Check) -> Option<u64> {
        if check.suspend {
            return self.flight.look();
        }
        let due = self.due.map(Due::at);
        let expires = self.belief.expires(millis(check.stale_after));
        [due, expires, self.belief.lapses(), self.flight.look()].into_iter().flatten().min()
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
        assert_eq!(size_of::<Flight>(), 16);
    }
    /// There are a hundred thousand of them: what one gains is told in `docs/performance.md`.
    #[test]
    fn a_record_stays_as_small_as_it_is() {
        assert!(size_of::<Option<Record>>() <= 216, "{}", size_of::<Option<Record>>());
    }
}
