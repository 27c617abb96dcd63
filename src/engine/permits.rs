//! How many probes may run at once, in all and on one host. Pure: who may go, and who goes next.

use std::collections::{HashMap, VecDeque, hash_map::Entry};

use foldhash::fast::RandomState;

use crate::check::Host;

/// Room for so many stays where it is not needed.
const ROOM: usize = 256;

/// Waiting for a permit is our lag, never the target's fault.
#[derive(Debug)]
pub(super) struct Permits {
    limit: usize,
    per_host: usize,
    running: usize,
    /// Looked up twice in every round.
    hosts: HashMap<Host, Load, RandomState>,
    /// Those whose host has room, first come, first served.
    ready: VecDeque<Ticket>,
    /// The tickets that are good, and which of them are in `ready`: whoever waits no longer is not searched for, its ticket is
    /// passed over.
    waiting: HashMap<u32, Waiting, RandomState>,
    tickets: u64,
}

/// Who waits; and which time, as one that was withdrawn may wait again.
#[derive(Clone, Copy, Debug)]
struct Ticket {
    id: u32,
    number: u64,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    number: u64,
    /// Its host has room.
    is_ready: bool,
}

#[derive(Debug, Default)]
struct Load {
    /// Running, or in `ready`.
    admitted: usize,
    waiting: VecDeque<Ticket>,
}

impl Permits {
    pub fn new(limit: usize, per_host: usize) -> Self {
        Self {
            limit,
            per_host,
            running: 0,
            hosts: HashMap::default(),
            ready: VecDeque::new(),
            waiting: HashMap::default(),
            tickets: 0,
        }
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
        let load = host.map(|host| self.hosts.entry(host.clone()).or_default());
        let is_ready = load.as_ref().is_none_or(|load| load.admitted < self.per_host);
        if is_ready && self.running < self.limit {
            load.into_iter().for_each(|load| load.admitted += 1);
            self.running += 1;
            return true;
        }
        self.tickets += 1;
        let ticket = Ticket { id, number: self.tickets };
        match load {
            Some(load) if !is_ready => load.waiting.push_back(ticket),
            load => {
                load.into_iter().for_each(|load| load.admitted += 1);
                self.ready.push_back(ticket);
            }
        }
        self.waiting.insert(id, Waiting { number: ticket.number, is_ready });
        false
    }

    /// Gives a permit back. The id that may go in its place, if one waits; it holds the permit already.
    pub fn release(&mut self, host: Option<&Host>) -> Option<u32> {
        self.running -= 1;
        self.leave(host);
        let next = self.grant();
        self.tidy();
        next
    }

    /// When a flood of probes is over, what it took goes with it.
    fn tidy(&mut self) {
        let most = self.hosts.capacity().max(self.waiting.capacity()).max(self.ready.capacity());
        if self.running == 0 && self.waiting.is_empty() && most > 2 * ROOM {
            self.ready.clear();
            self.hosts.shrink_to(ROOM);
            self.ready.shrink_to(ROOM);
            self.waiting.shrink_to(ROOM);
        }
    }

    fn grant(&mut self) -> Option<u32> {
        while self.running < self.limit {
            let ticket = self.ready.pop_front()?;
            if good(&mut self.waiting, ticket).is_some() {
                self.waiting.remove(&ticket.id);
                self.running += 1;
                return Some(ticket.id);
            }
        }
        None
    }

    /// One fewer on `host`; the next that waits for it becomes ready.
    fn leave(&mut self, host: Option<&Host>) {
        let Some(host) = host else { return };
        let Entry::Occupied(mut entry) = self.hosts.entry(host.clone()) else { return };
        let load = entry.get_mut();
        load.admitted -= 1;
        while let Some(ticket) = load.waiting.pop_front() {
            if let Some(waiting) = good(&mut self.waiting, ticket) {
                waiting.is_ready = true;
                load.admitted += 1;
                self.ready.push_back(ticket);
                break;
            }
        }
        if load.admitted == 0 {
            entry.remove();
        }
    }

    /// `id` waits no longer.
    pub fn withdraw(&mut self, id: u32, host: Option<&Host>) {
        let Some(waiting) = self.waiting.remove(&id) else { return };
        if waiting.is_ready {
            self.leave(host);
        }
        // Now and then those that are good no more are cleared away.
        let most = 2 * self.waiting.len() + ROOM;
        let load = host.and_then(|host| self.hosts.get_mut(host));
        for tickets in load.map(|load| &mut load.waiting).into_iter().chain([&mut self.ready]) {
            if tickets.len() > most {
                tickets.retain(|ticket| good(&mut self.waiting, *ticket).is_some());
            }
        }
    }
}

/// The one who waits with `ticket`, if it still does.
fn good(waiting: &mut HashMap<u32, Waiting, RandomState>, ticket: Ticket) -> Option<&mut Waiting> {
    waiting.get_mut(&ticket.id).filter(|waiting| waiting.number == ticket.number)
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

    #[test]
    fn one_that_was_withdrawn_and_waits_again_waits_at_the_end() {
        for host in [None, Some(host(1))] {
            let mut permits = Permits::new(1, 1);
            assert!(permits.request(1, host.as_ref()));
            assert!(!permits.request(2, host.as_ref()) && !permits.request(3, host.as_ref()));
            permits.withdraw(2, host.as_ref());
            assert!(!permits.request(2, host.as_ref()));
            let order = [(); 3].map(|()| permits.release(host.as_ref()));
            assert_eq!(order, [Some(3), Some(2), None], "{host:?}");
            assert!(permits.hosts.is_empty() && permits.waiting.is_empty() && permits.ready.is_empty());
        }
    }

    #[test]
    fn what_a_flood_took_goes_with_it() {
        for host in [None, Some(host(1))] {
            let mut permits = Permits::new(1, 1);
            let granted = (0..100_000).filter(|id| permits.request(*id, host.as_ref())).count();
            assert_eq!(granted, 1);
            while permits.running() > 0 {
                permits.release(host.as_ref());
            }
            let kept = permits.hosts.capacity().max(permits.waiting.capacity()).max(permits.ready.capacity());
            assert!(kept <= 2 * ROOM, "{kept}");
        }
    }

    #[test]
    fn those_that_come_and_go_while_nothing_moves_take_no_room() {
        for host in [None, Some(host(1))] {
            let mut permits = Permits::new(1, 1);
            assert!(permits.request(1, host.as_ref()) && !permits.request(2, host.as_ref()));
            for id in (3..8).cycle().take(100_000) {
                assert!(!permits.request(id, host.as_ref()));
                permits.withdraw(id, host.as_ref());
            }
            let kept = permits.ready.len() + permits.hosts.values().map(|load| load.waiting.len()).sum::<usize>();
            assert!(kept <= ROOM + 8, "{kept}");
            assert_eq!([(); 2].map(|()| permits.release(host.as_ref())), [Some(2), None]);
        }
    }
}
