//! Tells people the times of the gates' own clock.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// The wall clock may be put right by so much before what was told is told anew.
const DRIFT: SignedDuration = SignedDuration::from_secs(2);

/// A moment of the gates' clock, and what the wall clock said then. The same moment is told the same way each time, or
/// every look at a gate would write its status.
#[derive(Clone, Copy, Debug)]
pub struct Calendar {
    anchor: (Duration, Timestamp),
}

impl Calendar {
    #[must_use]
    pub const fn new(clock: Duration, wall: Timestamp) -> Self {
        Self { anchor: (clock, wall) }
    }

    /// Both clocks say this now.
    pub fn look(&mut self, clock: Duration, wall: Timestamp) {
        if wall.duration_since(self.at(clock)).abs() > DRIFT {
            self.anchor = (clock, wall);
        }
    }

    /// What the wall clock says at `moment`, if nobody sets it.
    #[must_use]
    pub fn at(&self, moment: Duration) -> Timestamp {
        let (clock, wall) = self.anchor;
        let apart = |span| SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX);
        wall.saturating_add(apart(moment.saturating_sub(clock)))
            .and_then(|at| at.saturating_sub(apart(clock.saturating_sub(moment))))
            .unwrap_or(wall)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_told_the_same_way_until_the_wall_clock_is_set() {
        let second = |at: i64| Timestamp::from_second(at).expect("in range");
        let mut calendar = Calendar::new(Duration::from_secs(10), second(1000));
        let told = |calendar: &Calendar| (calendar.at(Duration::from_secs(40)), calendar.at(Duration::from_secs(4)));
        assert_eq!(told(&calendar), (second(1030), second(994)));
        calendar.look(Duration::from_secs(20), second(1011));
        assert_eq!(told(&calendar), (second(1030), second(994)), "clocks are never quite alike");
        calendar.look(Duration::from_secs(20), second(5010));
        assert_eq!(told(&calendar), (second(5030), second(4994)));
    }
}
