//! Correlated loss: when most of what a prober watches is lost at once, its own side is the likelier cause.
//!
//! The rule: at least 55 % of *all* endpoints a prober watches, more than two of them and of at least two
//! HealthChecks, turn bad inside two of their intervals. Then its gates freeze until things are good: until of those
//! that were lost so few are still bad that it would not be such a loss any more, for two intervals on end (the longest
//! of theirs). One that was bad before does not count. A place that several checks probe is one endpoint here: it must
//! not be told three times that one host is down.
//!
//! A freeze that does not end like that is a loss that is real: thirty intervals on end, and five minutes at least, most
//! of those that were not lost have not failed once, so the way to them, and our own side, is well. Then it ends too.
//! Where nothing is left to tell by, it lasts: nothing could be published instead of what is lost. The count begins anew
//! with each restart, and while our own side is in doubt.
//!
//! Endpoints with a DNS name depend on the resolver together, so they are a population of their own: a loss of as large
//! a share of them freezes them, however many others there are, and a loss that leaves most of the addresses alone does
//! not freeze the addresses.
//!
//! An event costs O(log n) of the endpoints that are bad; the number watched does not matter.

mod population;
#[cfg(test)]
mod tests;

use std::time::Duration;

use population::Suspects;

/// How large a share of the endpoints watched makes a loss correlated, in percent.
const SHARE_PERCENT: usize = 55;
/// It takes more than this many endpoints.
const FEW: usize = 2;
/// For how many intervals the others have to be well before a loss is believed, and within which bounds: a cable that is
/// plugged in again, or a switch that starts, takes less than the least of it.
const STEADY: u32 = 30;
const STEADY_BOUNDS: (Duration, Duration) = (Duration::from_secs(300), Duration::from_secs(3600));

/// By what an endpoint is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Population {
    /// A DNS name.
    Named,
    /// An address.
    Address,
}

/// An endpoint that has turned bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// A hash of the check and the endpoint's identity.
    pub endpoint: u64,
    /// A hash of where it is: the same for all checks that probe it.
    pub place: u64,
    /// A hash of the check.
    pub check: u64,
    pub population: Population,
    /// How often it is probed.
    pub interval: Duration,
}

/// How many places a prober watches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    pub named: usize,
    pub address: usize,
}

/// Which endpoints are frozen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frozen {
    pub named: bool,
    pub address: bool,
}

impl Frozen {
    /// Whether the endpoints of `population` are.
    #[must_use]
    pub const fn of(self, population: Population) -> bool {
        match population {
            Population::Named => self.named,
            Population::Address => self.address,
        }
    }
}

/// Sees correlated losses of one prober.
///
/// What "bad" is, is the caller's: fed with the first failure of what was healthy, it sees a loss before the thresholds
/// are reached, and so before any gate has acted on a part of it; fed with verdicts, after. Only changes are fed: an
/// endpoint turns bad once and is bad until it turns good or is forgotten. Times are of any clock that only goes
/// forward; one that lies before an earlier one counts as that.
#[derive(Debug, Default)]
pub struct Detector {
    now: Duration,
    watched: Watched,
    named: Suspects,
    address: Suspects,
}

impl Detector {
    /// How many endpoints are watched, from `at` on.
    pub fn watch(&mut self, watched: Watched, at: Duration) {
        self.advance(at);
        self.watched = watched;
        self.judge();
    }

    /// An endpoint has turned bad. One that is still remembered as such stays as it was remembered.
    pub fn turned_bad(&mut self, loss: Loss, at: Duration) {
        self.advance(at);
        let now = self.now;
        self.suspects(loss.population).add(&loss, now);
        self.judge();
    }

    /// An endpoint has turned good again, or is watched no more.
    pub fn turned_good(&mut self, endpoint: u64, at: Duration) {
        self.advance(at);
        self.named.remove(endpoint);
        self.address.remove(endpoint);
        self.judge();
    }

    /// What is frozen at `at`.
    pub fn frozen(&mut self, at: Duration) -> Frozen {
        self.advance(at);
        Frozen { named: self.named.is_frozen(), address: self.address.is_frozen() }
    }

    /// When what is frozen may change though nothing happens: when to look again. Only the end of a freeze comes like
    /// that.
    #[must_use]
    pub fn next_change(&self) -> Option<Duration> {
        self.named.ends_at().into_iter().chain(self.address.ends_at()).min()
    }

    /// When the freeze of `population` ends if everything stays as it is. `None` where there is none, or nothing left to
    /// tell by.
    #[must_use]
    pub fn ends_at(&self, population: Population) -> Option<Duration> {
        match population {
            Population::Named => self.named.ends_at(),
            Population::Address => self.address.ends_at(),
        }
    }

    /// At `at` our own side is in doubt: that nothing fails proves nothing.
    pub fn doubt(&mut self, at: Duration) {
        self.advance(at);
        let now = self.now;
        self.named.begin_round(self.watched.named, now);
        self.address.begin_round(self.watched.address, now);
    }

    fn suspects(&mut self, population: Population) -> &mut Suspects {
        match population {
            Population::Named => &mut self.named,
            Population::Address => &mut self.address,
        }
    }

    /// Lets time pass, in the order in which things fall due.
    fn advance(&mut self, to: Duration) {
        let to = to.max(self.now);
        while let Some(due) = self.named.due().into_iter().chain(self.address.due()).min().filter(|due| *due <= to) {
            self.now = self.now.max(due);
            self.named.settle(self.watched.named, self.now);
            self.address.settle(self.watched.address, self.now);
            self.judge();
        }
        self.now = to;
    }

    /// Whether what is lost now is a correlated loss, of each population.
    fn judge(&mut self) {
        let (named, address) = (&self.named, &self.address);
        let lost = named.len() + address.len();
        let all = is_most(lost, self.watched.named + self.watched.address) && several_checks(named, address);
        let own = is_most(named.len(), self.watched.named) && several_checks(named, named);
        let share = |lost: usize, watched: usize| lost * 100 >= watched * SHARE_PERCENT && lost > 0;
        let named_lost = own || (all && share(named.len(), self.watched.named));
        let address_lost = all && share(address.len(), self.watched.address);
        let now = self.now;
        self.named.judge(named_lost, self.watched.named, now);
        self.address.judge(address_lost, self.watched.address, now);
    }
}

fn is_most(lost: usize, watched: usize) -> bool {
    lost > FEW && lost * 100 >= watched * SHARE_PERCENT
}

fn several_checks(one: &Suspects, other: &Suspects) -> bool {
    match (one.only_check(), other.only_check()) {
        (Ok(one), Ok(other)) => one.is_some() && other.is_some() && one != other,
        _ => true,
    }
}
