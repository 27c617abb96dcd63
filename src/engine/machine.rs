//! The state machine of one endpoint. Pure: no clock, no I/O.
//!
//! One success counter, and one counter per failure class. A success clears every failure counter; a failure clears the
//! success counter and keeps the other classes, so that seven mixed failures add up.

use super::view::Counters;
use crate::check::{Class, EndpointState, Thresholds};

/// What an attempt that counts has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    Success,
    Failure(Class),
}

/// State and counters of one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    state: EndpointState,
    counters: Counters,
}

impl Machine {
    /// A machine that takes up where an earlier life left off; its counters start at zero.
    #[must_use]
    pub fn resumed(state: EndpointState) -> Self {
        Self { state, ..Self::default() }
    }

    #[must_use]
    pub const fn state(&self) -> EndpointState {
        self.state
    }

    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// The question changed: counting starts again and the verdict stays, in its plain form.
    pub fn restart(&mut self) {
        *self = Self::resumed(self.state.plain());
    }

    /// Takes in one result. The flip happens at the count that a threshold names.
    pub fn step(&mut self, seen: Seen, thresholds: &Thresholds) {
        self.step_times(seen, 1, thresholds);
    }

    /// Takes in the same result `times` times over, at least once: nothing depends on the steps between.
    pub fn step_times(&mut self, seen: Seen, times: u16, thresholds: &Thresholds) {
        let times = times.max(1);
        match seen {
            Seen::Success => {
                self.counters =
                    Counters { success: self.counters.success.saturating_add(times), ..Counters::default() };
                self.state = self.after_success(thresholds);
            }
            Seen::Failure(class) => {
                self.counters.success = 0;
                let counter = match class {
                    Class::Connect => &mut self.counters.connect,
                    Class::Http => &mut self.counters.http,
                    Class::Timeout => &mut self.counters.timeout,
                };
                *counter = counter.saturating_add(times);
                self.state = self.after_failure(thresholds);
            }
        }
    }

    fn after_success(&self, thresholds: &Thresholds) -> EndpointState {
        match self.state {
            // The first success ever is proof enough: `successThreshold` is about recovery.
            EndpointState::Unknown | EndpointState::Healthy | EndpointState::MostlyHealthy => EndpointState::Healthy,
            EndpointState::Unhealthy | EndpointState::MostlyUnhealthy => {
                if self.counters.success >= u16::from(thresholds.success) {
                    EndpointState::Healthy
                } else {
                    EndpointState::MostlyUnhealthy
                }
            }
        }
    }

    fn after_failure(&self, thresholds: &Thresholds) -> EndpointState {
        match self.state {
            EndpointState::Unhealthy | EndpointState::MostlyUnhealthy => EndpointState::Unhealthy,
            _ if self.limit_reached(thresholds) => EndpointState::Unhealthy,
            EndpointState::Unknown => EndpointState::Unknown,
            EndpointState::Healthy | EndpointState::MostlyHealthy => EndpointState::MostlyHealthy,
        }
    }

    fn limit_reached(&self, thresholds: &Thresholds) -> bool {
        let reached = |count: u32, limit: Option<u8>| limit.is_some_and(|limit| count >= u32::from(limit));
        let [connect, http, timeout] =
            [self.counters.connect, self.counters.http, self.counters.timeout].map(u32::from);
        // In a row, of any class: whatever ends the row clears them all.
        reached(connect + http + timeout, thresholds.failure)
            || reached(connect, thresholds.connect)
            || reached(http, thresholds.http)
            || reached(timeout, thresholds.timeout)
    }

    /// Whether a verdict that was kept over a change of the question has been decided anew: a success confirms Healthy,
    /// as many failures as would have made it confirm Unhealthy.
    #[must_use]
    pub fn is_confirmed(&self, thresholds: &Thresholds) -> bool {
        match self.state {
            EndpointState::Healthy => self.counters.success > 0,
            EndpointState::Unhealthy => self.limit_reached(thresholds),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EVENTS: [Seen; 4] =
        [Seen::Success, Seen::Failure(Class::Connect), Seen::Failure(Class::Http), Seen::Failure(Class::Timeout)];

    /// The rules told another way: from the whole history, with no state carried along. A verdict is what the last
    /// decisive stretch of the history says.
    fn oracle(history: &[Seen], thresholds: &Thresholds) -> EndpointState {
        let mut verdict: Option<bool> = None;
        let mut streak_start = 0;
        for end in 1..=history.len() {
            let good = |event: &Seen| *event == Seen::Success;
            if end > 1 && good(&history[end - 1]) != good(&history[end - 2]) {
                streak_start = end - 1;
            }
            let streak = &history[streak_start..end];
            if good(&history[end - 1]) {
                if verdict != Some(false) || streak.len() >= usize::from(thresholds.success) {
                    verdict = Some(true);
                }
            } else {
                let of = |class| streak.iter().filter(|event| **event == Seen::Failure(class)).count();
                let over = |count: usize, limit: Option<u8>| limit.is_some_and(|limit| count >= limit.into());
                if over(streak.len(), thresholds.failure)
                    || over(of(Class::Connect), thresholds.connect)
                    || over(of(Class::Http), thresholds.http)
                    || over(of(Class::Timeout), thresholds.timeout)
                {
                    verdict = Some(false);
                }
            }
        }
        match (verdict, history.last()) {
            (None, _) | (_, None) => EndpointState::Unknown,
            (Some(true), Some(Seen::Success)) => EndpointState::Healthy,
            (Some(true), Some(Seen::Failure(_))) => EndpointState::MostlyHealthy,
            (Some(false), Some(Seen::Success)) => EndpointState::MostlyUnhealthy,
            (Some(false), Some(Seen::Failure(_))) => EndpointState::Unhealthy,
        }
    }

    fn play(history: &[Seen], thresholds: &Thresholds) -> Machine {
        let mut machine = Machine::default();
        for seen in history {
            machine.step(*seen, thresholds);
        }
        machine
    }

    fn threshold_sets() -> Vec<Thresholds> {
        let plain =
            |success, failure| Thresholds { success, failure: Some(failure), connect: None, http: None, timeout: None };
        vec![
            plain(2, 3),
            plain(1, 1),
            plain(3, 2),
            plain(7, 7),
            Thresholds { connect: Some(1), ..plain(2, 4) },
            Thresholds { connect: Some(2), http: Some(3), timeout: Some(4), ..plain(2, 5) },
            Thresholds { http: Some(1), timeout: Some(2), ..plain(1, 6) },
        ]
    }

    #[test]
    fn every_sequence_up_to_seven_agrees_with_the_oracle() {
        for thresholds in threshold_sets() {
            for length in 0..=7_u32 {
                for number in 0..4_u32.pow(length) {
                    let history: Vec<_> = (0..length).map(|at| EVENTS[(number >> (2 * at)) as usize & 3]).collect();
                    assert_eq!(
                        play(&history, &thresholds).state(),
                        oracle(&history, &thresholds),
                        "{history:?} under {thresholds:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_restart_keeps_the_verdict_and_clears_the_counters() {
        let thresholds = threshold_sets()[0];
        let mut machine = play(&[EVENTS[0], EVENTS[1], EVENTS[2]], &thresholds);
        assert_eq!(machine.state(), EndpointState::MostlyHealthy);
        machine.restart();
        assert_eq!(machine, Machine::resumed(EndpointState::Healthy));
        assert!(!machine.is_confirmed(&thresholds));
        machine.step(Seen::Success, &thresholds);
        assert!(machine.is_confirmed(&thresholds));
    }

    #[test]
    fn an_unhealthy_verdict_is_confirmed_by_as_many_failures_as_make_one() {
        let thresholds = threshold_sets()[0];
        let mut machine = Machine::resumed(EndpointState::Unhealthy);
        for confirmed in [false, false, true] {
            machine.step(EVENTS[1], &thresholds);
            assert_eq!(machine.is_confirmed(&thresholds), confirmed);
        }
    }

    fn any_thresholds() -> impl Strategy<Value = Thresholds> {
        (1..=100_u8, 1..=100_u8).prop_flat_map(|(success, failure)| {
            let limit = || proptest::option::of(1..=failure);
            (limit(), limit(), limit()).prop_map(move |(connect, http, timeout)| Thresholds {
                success,
                failure: Some(failure),
                connect,
                http,
                timeout,
            })
        })
    }

    proptest! {
        #[test]
        fn long_histories_agree_with_the_oracle(
            thresholds in any_thresholds(),
            // Runs of equal results, so that high thresholds are reached too.
            runs in prop::collection::vec((0..4_usize, 1..60_usize), 0..20),
        ) {
            let history: Vec<_> =
                runs.iter().flat_map(|(event, times)| std::iter::repeat_n(EVENTS[*event], *times)).collect();
            prop_assert_eq!(play(&history, &thresholds).state(), oracle(&history, &thresholds));
        }

        #[test]
        fn counters_saturate_and_a_success_clears_every_failure(class in 0..3_usize) {
            let thresholds = threshold_sets()[0];
            let mut machine = play(&vec![EVENTS[class + 1]; 70_000], &thresholds);
            let counters = machine.counters();
            prop_assert_eq!([counters.connect, counters.http, counters.timeout][class], u16::MAX);
            machine.step(Seen::Success, &thresholds);
            prop_assert_eq!(machine.counters(), Counters { success: 1, ..Counters::default() });
        }
    }
}
