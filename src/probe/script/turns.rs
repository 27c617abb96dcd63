//! Whose script is next: so many at once, so many of one namespace, and nobody before those who have fewer.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

/// Hands out turns.
#[derive(Clone, Debug)]
pub(super) struct Turns(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    free: usize,
    per_namespace: usize,
    running: HashMap<String, usize>,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    namespace: String,
    call: oneshot::Sender<Turn>,
}

/// The right to run one script, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Turns,
    namespace: String,
}

impl Turns {
    pub fn new(at_once: usize, per_namespace: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            free: at_once.max(1),
            per_namespace: per_namespace.max(1),
            running: HashMap::new(),
            waiting: VecDeque::new(),
        })))
    }

    /// A turn for a script of `namespace`, if there is one right now.
    pub fn now(&self, namespace: &str) -> Option<Turn> {
        self.state().start(namespace).then(|| Turn { turns: self.clone(), namespace: namespace.to_owned() })
    }

    /// The next turn for a script of `namespace`. Who drops the future gives up its place.
    pub async fn next(&self, namespace: &str) -> Option<Turn> {
        let called = {
            let mut state = self.state();
            // Between the caller's look and now one may have come free.
            if state.start(namespace) {
                return Some(Turn { turns: self.clone(), namespace: namespace.to_owned() });
            }
            let (call, called) = oneshot::channel();
            state.waiting.push_back(Waiting { namespace: namespace.to_owned(), call });
            called
        };
        called.await.ok()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, namespace: &str) {
        let called = {
            let mut state = self.state();
            state.end(namespace);
            state.call_next()
        };
        if let Some(waiting) = called {
            // Refused where nobody waits any more: then this turn is dropped, here outside the lock, and the next one
            // is called by that.
            let _ = waiting.call.send(Turn { turns: self.clone(), namespace: waiting.namespace });
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.give_back(&self.namespace);
    }
}

impl State {
    fn running(&self, namespace: &str) -> usize {
        self.running.get(namespace).copied().unwrap_or_default()
    }

    fn start(&mut self, namespace: &str) -> bool {
        if self.free == 0 || self.running(namespace) >= self.per_namespace {
            return false;
        }
        self.free -= 1;
        *self.running.entry(namespace.to_owned()).or_default() += 1;
        true
    }

    fn end(&mut self, namespace: &str) {
        self.free += 1;
        if let Some(count) = self.running.get_mut(namespace) {
            *count -= 1;
            if *count == 0 {
                self.running.remove(namespace);
            }
        }
    }

    /// Of those that wait and may run: of the namespace that runs fewest; among those, who came first.
    fn call_next(&mut self) -> Option<Waiting> {
        self.waiting.retain(|waiting| !waiting.call.is_closed());
        let may_run = self.waiting.iter().enumerate().map(|(place, waiting)| (self.running(&waiting.namespace), place));
        let (running, place) = may_run.min()?;
        if running >= self.per_namespace {
            return None;
        }
        let next = self.waiting.remove(place)?;
        self.start(&next.namespace).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn so_many_at_once_and_so_many_of_one_namespace() {
        let turns = Turns::new(3, 2);
        let held = [turns.now("a"), turns.now("a")];
        assert!(held.iter().all(Option::is_some) && turns.now("a").is_none(), "two of a");
        let third = turns.now("b").expect("one is left");
        assert!(turns.now("c").is_none(), "three of all");
        drop(held);
        assert!(turns.now("c").is_some() && turns.now("a").is_some());
        drop(third);
        assert!(turns.state().running.is_empty() && turns.state().free == 3, "{turns:?}");
    }

    #[test]
    fn who_has_fewest_is_next_whoever_waits_longest() {
        let turns = Turns::new(3, 3);
        let mut slow: Vec<_> = (0..3).map(|_| turns.now("slow").expect("a turn")).collect();
        let mut more: Vec<_> = (0..5).map(|_| Box::pin(turns.next("slow"))).collect();
        for waiting in &mut more {
            assert!(waiting.now_or_never().is_none());
        }
        // One that came last, of a namespace that runs nothing, goes first.
        let mut other = Box::pin(turns.next("other"));
        assert!((&mut other).now_or_never().is_none());
        slow.pop();
        let other = other.now_or_never().flatten().expect("its turn");
        assert!(more.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
        drop(other);
        assert!((&mut more[0]).now_or_never().is_some(), "the first of those that are left");
    }

    #[test]
    fn who_gave_up_is_passed_over_and_loses_nobodys_turn() {
        let turns = Turns::new(1, 1);
        let held = turns.now("a").expect("a turn");
        let mut gone = Box::pin(turns.next("b"));
        let mut called = Box::pin(turns.next("b"));
        let mut last = Box::pin(turns.next("a"));
        for waiting in [&mut gone, &mut called, &mut last] {
            assert!(waiting.now_or_never().is_none());
        }
        drop(gone);
        drop(held);
        // It has been called, and goes without having looked.
        drop(called);
        assert!((&mut last).now_or_never().flatten().is_some());
        assert!(turns.state().running.is_empty() && turns.state().free == 1, "{turns:?}");
    }
}
