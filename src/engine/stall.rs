//! When this process itself stood still. Pure.
//!
//! A process that was stopped, starved or throttled finds its timers overdue and its answers unread; what then looks
//! like a target that did not answer is our own doing. Told of whoever has to come again and again: of the loop to the
//! answers of the fast lane, of the runtime to the tasks of the ordinary one (`pulse.rs`).

use std::collections::VecDeque;

/// So many stalls are remembered each for itself, and all before them as one: seconds of a process that is hardly ever let run.
const REMEMBERED: usize = 128;

/// From when to when, and for how much of that nobody came.
#[derive(Clone, Copy, Debug)]
struct Stalled {
    from: u64,
    to: u64,
    took: u64,
}

impl Stalled {
    /// How much of it was between `started` and `ended`.
    fn within(&self, started: u64, ended: u64) -> u64 {
        let shared = self.to.min(ended).saturating_sub(self.from.max(started));
        shared * self.took / (self.to - self.from).max(1)
    }
}

/// When somebody was waited for.
#[derive(Debug)]
pub(super) struct Stalls {
    /// Coming this much later than asked is a stall, in milliseconds.
    least: u64,
    recent: VecDeque<Stalled>,
    /// Since when it has been waited for it.
    since: Option<u64>,
}

impl Stalls {
    pub fn new(least: u64) -> Self {
        Self { least, recent: VecDeque::new(), since: None }
    }

    /// How late it is, at `now`.
    pub fn late(&self, now: u64) -> u64 {
        self.since.map_or(0, |since| now.saturating_sub(since))
    }

    /// It came at `now`, and is waited for from `next` on.
    pub fn came(&mut self, now: u64, next: u64) {
        if let Some(stalled) = self.lasting(now) {
            self.note(stalled);
        }
        self.since = Some(next);
    }

    /// It is not waited for before `at`.
    pub fn excuse(&mut self, at: u64) {
        self.since = self.since.map(|since| since.max(at));
    }

    /// Nobody waits for it any more.
    pub fn rests(&mut self) {
        self.since = None;
    }

    /// The stall that lasts at `now`.
    fn lasting(&self, now: u64) -> Option<Stalled> {
        let (from, took) = (self.since?, self.late(now));
        (took >= self.least).then_some(Stalled { from, to: now, took })
    }

    fn note(&mut self, stalled: Stalled) {
        if self.recent.len() == REMEMBERED
            && let Some(oldest) = self.recent.pop_front()
            && let Some(next) = self.recent.front_mut()
        {
            (next.from, next.took) = (oldest.from, oldest.took + next.took);
        }
        self.recent.push_back(stalled);
    }

    /// Whether stalls between `started` and `ended` explain that nothing arrived within `timeout`: they took a quarter of
    /// it, or more. One that lasts at `ended` counts.
    pub fn explain(&self, started: u64, ended: u64, timeout: u64) -> bool {
        let lasting = self.lasting(ended);
        let stalled: u64 = self.recent.iter().chain(&lasting).map(|stall| stall.within(started, ended)).sum();
        stalled > 0 && stalled >= timeout / 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_of_the_process_explains_a_timeout() {
        let mut stalls = Stalls::new(20);
        stalls.came(1000, 1100);
        assert!(!stalls.explain(1050, 1110, 40));
        // It was stopped for three seconds, and who tells so may be asked before it comes.
        assert!(stalls.explain(1050, 4000, 1000));
        stalls.came(4000, 4001);
        assert!(stalls.explain(1050, 4000, 1000));
        assert!(!stalls.explain(4001, 4020, 1000), "a probe that started afterwards is not touched by it");
        stalls.rests();
        assert!(!stalls.explain(4001, 9000, 1000), "nobody waits for who rests");
    }

    #[test]
    fn a_long_turn_is_a_stall_unless_the_answers_are_looked_at_meanwhile() {
        let (mut blind, mut busy) = (Stalls::new(20), Stalls::new(20));
        blind.came(1000, 1000);
        for at in (1000..=2000).step_by(10) {
            busy.came(at, at);
        }
        blind.came(2000, 2000);
        assert!(blind.explain(1000, 2000, 1000) && !busy.explain(1000, 2000, 1000));
    }

    #[test]
    fn small_lateness_explains_nothing() {
        let mut stalls = Stalls::new(20);
        for at in (0..1000).step_by(50) {
            stalls.came(at + 10, at + 50);
        }
        assert!(!stalls.explain(0, 1000, 1000));
        stalls.came(1100, 1100);
        assert!(!stalls.explain(200, 1200, 1000), "a tenth of the time is not why nothing came");
        assert!(stalls.explain(1000, 1200, 200));
    }

    #[test]
    fn each_stall_explains_what_fell_into_it_and_nothing_else() {
        let mut stalls = Stalls::new(20);
        for (from, to) in [(0, 20), (950, 1040), (2000, 2500), (2999, 3500)] {
            stalls.came(from, from);
            stalls.came(to, 100_000);
        }
        assert!(stalls.explain(945, 1045, 100), "90 ms of it");
        assert!(!stalls.explain(100, 900, 400) && !stalls.explain(2510, 2990, 400), "nothing stood still");
    }

    #[test]
    fn a_process_that_runs_a_tenth_of_the_time_explains_what_takes_minutes() {
        let mut stalls = Stalls::new(20);
        for at in (0..120_000).step_by(100) {
            stalls.came(at, at + 10);
        }
        assert!(stalls.explain(0, 120_000, 120_000) && stalls.explain(60_000, 61_000, 1000));
        assert!(stalls.recent.len() <= REMEMBERED);
    }
}
