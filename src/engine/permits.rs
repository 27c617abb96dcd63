//! How many probes may run at once, in all and on one host. Pure: who may go, and who goes next.

use std::collections::{HashMap, VecDeque, hash_map::Entry};

use foldhash::fast::RandomState;

use crate::check::Host;

/// Room for so many stays where it is not needed.
const KEPT: usize = 256;

/// Waiting for a permit is our lag, never the target's fault.
#[derive(Debug)]
pub(super) struct Permits {
    limit: usize,
    per_host: usize,
    running: usize,
    /// Looked up twice in every round.
    hosts: HashMap<Host, Load, RandomState>,
    /// Those whose host has room, first come, first served.
    ready: VecDeque<u32>,
}

#[derive(Debug, Default)]
struct Load {
    /// Running, or in `ready`.
    admitted: usize,
    waiting: VecDeque<u32>,
}

impl Permits {
    pub fn new(limit: usize, per_host: usize) -> Self {
        Self { limit, per_host, running: 0, hosts: HashMap::default(), ready: VecDeque::new() }
    }

    pub const fn running(&self) -> usize {
        self.running
    }

    /// How many more may run.
    pub const fn left(&self) -> usize {
        self.limit.saturating_sub(self.running)
    }

    /// Asks for a permit for `id`. `false`: it waits, and [`Self::release`] will name it.
    pub fn request(&mut self, id: u32, host: Option<&Host>) -> bool {
        if let Some(host) = host {
            let load = self.hosts.entry(host.clone()).or_default();
            if load.admitted >= self.per_host {
                load.waiting.push_back(id);
                return false;
            }
            load.admitted += 1;
        }
        if self.running >= self.limit {
            self.ready.push_back(id);
            return false;
        }
        self.running += 1;
        true
    }

    /// Gives a permit back. The id that may go in its place, if one waits; it holds the permit already.
    pub fn release(&mut self, host: Option<&Host>) -> Option<u32> {
        self.running -= 1;
        self.leave(host);
        self.grant()
    }

    fn grant(&mut self) -> Option<u32> {
        if self.running >= self.limit {
            return None;
        }
        let id = self.ready.pop_front()?;
        self.running += 1;
        Some(id)
    }

    /// One fewer on `host`; the next that waits for it becomes ready.
    fn leave(&mut self, host: Option<&Host>) {
        let Some(host) = host else { return };
        let Entry::Occupied(mut entry) = self.hosts.entry(host.clone()) else { return };
        let load = entry.get_mut();
        load.admitted -= 1;
        if let Some(id) = load.waiting.pop_front() {
            load.admitted += 1;
            self.ready.push_back(id);
        } else if load.admitted == 0 {
            entry.remove();
        }
        if self.running == 0 && self.ready.is_empty() && self.hosts.capacity() > KEPT {
            // A flood of probes is over: what it took goes with it.
            self.hosts.shrink_to(KEPT);
            self.ready.shrink_to(KEPT);
        }
    }

    /// `id` waits no longer.
    pub fn withdraw(&mut self, id: u32, host: Option<&Host>) {
        if let Some(at) = self.ready.iter().position(|waiting| *waiting == id) {
            self.ready.remove(at);
            self.leave(host);
        } else if let Some(load) = host.and_then(|host| self.hosts.get_mut(host)) {
            load.waiting.retain(|waiting| *waiting != id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(last: u8) -> Host {
        Host::Address([10, 0, 0, last].into())
    }

    #[test]
    fn a_busy_host_does_not_hold_up_its_neighbours() {
        let mut permits = Permits::new(10, 2);
        assert!(permits.request(1, Some(&host(1))) && permits.request(2, Some(&host(1))));
        assert!(!permits.request(3, Some(&host(1))));
        assert!(permits.request(4, Some(&host(2))), "another host has room");
        assert_eq!(permits.release(Some(&host(1))), Some(3));
        assert_eq!(permits.release(Some(&host(1))), None);
        assert_eq!(permits.running(), 2);
    }

    #[test]
    fn the_whole_is_bounded_and_served_in_order() {
        let mut permits = Permits::new(1, 5);
        assert!(permits.request(1, None));
        assert!(!permits.request(2, Some(&host(1))) && !permits.request(3, Some(&host(2))));
        permits.withdraw(2, Some(&host(1)));
        assert_eq!(permits.release(None), Some(3));
        assert_eq!(permits.release(Some(&host(2))), None);
        assert!(permits.hosts.is_empty() && permits.running() == 0, "nothing is left behind");
    }

    #[test]
    fn one_that_is_withdrawn_from_a_host_queue_is_never_named() {
        let mut permits = Permits::new(10, 1);
        assert!(permits.request(1, Some(&host(1))));
        assert!(!permits.request(2, Some(&host(1))));
        permits.withdraw(2, Some(&host(1)));
        assert_eq!(permits.release(Some(&host(1))), None);
    }
}
