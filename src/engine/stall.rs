//! When this process itself stood still. Pure.
//!
//! A process that was stopped, starved or throttled finds its timers overdue and its answers unread; what then looks
//! like a target that did not answer is our own doing.

use std::collections::VecDeque;

/// Waking up this much later than asked is a stall, in milliseconds.
const STALL: u64 = 20;
/// How many stalls are remembered.
const REMEMBERED: usize = 32;

#[derive(Debug, Default)]
pub(super) struct Stalls {
    recent: VecDeque<(u64, u64)>,
    turned: u64,
}

impl Stalls {
    /// The loop woke at `now`, having asked for `asked` at the latest.
    pub fn woke(&mut self, now: u64, asked: u64) {
        self.note(asked.max(self.turned), now);
        self.turned = now;
    }

    /// At `now` the loop looks whether there are answers, or goes to sleep. Whatever it did since it last did so, if that took
    /// long it is a stall too; one that is busy for seconds, and looks all the while, does not stand still.
    pub fn looked(&mut self, now: u64) {
        self.note(self.turned, now);
        self.turned = now;
    }

    fn note(&mut self, from: u64, to: u64) {
        if to.saturating_sub(from) < STALL {
            return;
        }
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back((from, to));
    }

    /// Whether stalls between `started` and `ended` explain that nothing arrived within `timeout`: they took a quarter of
    /// it, or more.
    pub fn explain(&self, started: u64, ended: u64, timeout: u64) -> bool {
        let within = |(from, to): &(u64, u64)| (*to).min(ended).saturating_sub((*from).max(started));
        let stalled: u64 = self.recent.iter().map(within).sum();
        stalled > 0 && stalled >= timeout / 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_of_the_process_explains_a_timeout() {
        let mut stalls = Stalls::default();
        stalls.woke(1000, 1000);
        stalls.looked(1001);
        // Asked to wake at 1100, stopped for three seconds.
        stalls.woke(4000, 1100);
        assert!(stalls.explain(1050, 4000, 1000));
        assert!(!stalls.explain(4001, 5001, 1000), "a probe that started afterwards is not touched by it");
    }

    #[test]
    fn a_long_turn_is_a_stall_unless_the_answers_are_looked_at_meanwhile() {
        let (mut blind, mut busy) = (Stalls::default(), Stalls::default());
        blind.woke(1000, 1000);
        busy.woke(1000, 1000);
        for at in (1000..=2000).step_by(10) {
            busy.looked(at);
        }
        blind.looked(2000);
        assert!(blind.explain(1000, 2000, 1000) && !busy.explain(1000, 2000, 1000));
    }

    #[test]
    fn small_lateness_explains_nothing() {
        let mut stalls = Stalls::default();
        for at in (0..1000).step_by(50) {
            stalls.woke(at + 10, at);
            stalls.looked(at + 11);
        }
        assert!(!stalls.explain(0, 1000, 1000));
        stalls.woke(1200, 1100);
        assert!(!stalls.explain(200, 1200, 1000), "a tenth of the time is not why nothing came");
        assert!(stalls.explain(1000, 1200, 200));
    }
}
