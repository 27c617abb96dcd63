//! Work that many ask for at once, done once.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared, WeakShared},
};

/// Lets those who ask for the same thing at the same time share one run and its result. Whoever asks after a run has
/// ended starts a new one: nothing is ever remembered.
///
/// A run has no task of its own: it goes on for as long as anybody waits for it, and is dropped with the last one who
/// does. That the first one leaves is nothing to the others.
pub struct SingleFlight<K, V> {
    flights: Arc<Mutex<Flights<K, V>>>,
}

/// A place in a run; to be waited for.
#[derive(Debug)]
pub struct Boarded<V: Clone> {
    flight: Flight<V>,
    /// Somebody else had started the run.
    pub joined: bool,
}

impl<V: Clone> Boarded<V> {
    /// Waits for the end of the run.
    pub async fn result(self) -> V {
        self.flight.await
    }
}

type Flight<V> = Shared<BoxFuture<'static, V>>;

struct Flights<K, V> {
    /// How many were ever started.
    started: u64,
    now: HashMap<K, (u64, WeakShared<BoxFuture<'static, V>>)>,
}

impl<K, V> Default for SingleFlight<K, V> {
    fn default() -> Self {
        Self { flights: Arc::new(Mutex::new(Flights { started: 0, now: HashMap::new() })) }
    }
}

impl<K, V> fmt::Debug for SingleFlight<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SingleFlight").field("flying", &self.flying()).finish()
    }
}

impl<K, V> SingleFlight<K, V> {
    /// How many runs there are now.
    #[must_use]
    pub fn flying(&self) -> usize {
        lock(&self.flights).now.len()
    }
}

impl<K, V> SingleFlight<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Takes part in the run for `key` that is under way, or in the one that `work` begins now. `work` is called under a
    /// lock: it makes the future, and leaves everything else to it.
    pub fn board<F>(&self, key: K, work: impl FnOnce() -> F) -> Boarded<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut flights = lock(&self.flights);
        // One that nobody waits for any more cannot be taken up again, even before it has left the map.
        if let Some(flight) = flights.now.get(&key).and_then(|(_, flight)| flight.upgrade()) {
            return Boarded { flight, joined: true };
        }
        flights.started += 1;
        let id = flights.started;
        let landing = Landing { flights: Arc::clone(&self.flights), key: key.clone(), id };
        let work = work();
        let flight = async move {
            // Dropped with the result at hand and told to nobody yet: who comes from now on gets a run of his own.
            let _landing = landing;
            work.await
        };
        let flight = flight.boxed().shared();
        // There is always one: it has not been polled.
        if let Some(weak) = flight.downgrade() {
            flights.now.insert(key, (id, weak));
        }
        Boarded { flight, joined: false }
    }
}

/// Takes a run out of the map when it ends, or when the last one who waited for it has left.
struct Landing<K: Eq + Hash, V> {
    flights: Arc<Mutex<Flights<K, V>>>,
    key: K,
    id: u64,
}

impl<K: Eq + Hash, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        let mut flights = lock(&self.flights);
        // Another may have taken its place in the moment since it was left.
        if flights.now.get(&self.key).is_some_and(|(id, _)| *id == self.id) {
            flights.now.remove(&self.key);
        }
    }
}

fn lock<K, V>(flights: &Mutex<Flights<K, V>>) -> MutexGuard<'_, Flights<K, V>> {
    flights.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use futures::{
        future::{join_all, poll_immediate},
        pin_mut,
    };
    use tokio::sync::Semaphore;

    use super::*;

    /// Runs that are counted, and end when they are let.
    struct Runs {
        flights: SingleFlight<&'static str, usize>,
        begun: Arc<AtomicUsize>,
        ended: Arc<AtomicUsize>,
        gate: Arc<Semaphore>,
    }

    impl Runs {
        fn new() -> Self {
            let gate = Arc::new(Semaphore::new(0));
            Self { flights: SingleFlight::default(), begun: Arc::default(), ended: Arc::default(), gate }
        }

        /// Its number is its result.
        async fn ask(&self, key: &'static str) -> (usize, bool) {
            let (begun, ended, gate) = (self.begun.clone(), self.ended.clone(), self.gate.clone());
            let work = || async move {
                let number = begun.fetch_add(1, Relaxed) + 1;
                gate.acquire().await.expect("never closed").forget();
                ended.fetch_add(1, Relaxed);
                number
            };
            let boarded = self.flights.board(key, work);
            let joined = boarded.joined;
            (boarded.result().await, joined)
        }

        fn counts(&self) -> (usize, usize) {
            (self.begun.load(Relaxed), self.ended.load(Relaxed))
        }
    }

    #[tokio::test]
    async fn those_who_ask_at_once_share_a_run_and_the_next_one_starts_another() {
        let runs = Runs::new();
        for round in 1..=3 {
            let asked = join_all((0..10).map(|_| runs.ask("a")));
            pin_mut!(asked);
            assert_eq!(poll_immediate(asked.as_mut()).await, None, "the run has not been let");
            assert_eq!(runs.counts(), (round, round - 1));
            runs.gate.add_permits(1);
            let told = asked.await;
            assert!(told.iter().all(|(number, _)| *number == round), "{told:?}");
            assert_eq!(told.iter().filter(|(_, joined)| !joined).count(), 1, "{told:?}");
            assert_eq!(runs.counts(), (round, round));
        }
        assert_eq!(runs.flights.flying(), 0);
    }

    #[tokio::test]
    async fn keys_fly_apart() {
        let runs = Runs::new();
        runs.gate.add_permits(2);
        let (one, other) = tokio::join!(runs.ask("a"), runs.ask("b"));
        assert_eq!((one.1, other.1, runs.counts()), (false, false, (2, 2)));
    }

    #[tokio::test]
    async fn the_first_may_leave_and_the_others_get_the_result() {
        let runs = Arc::new(Runs::new());
        let mut first = Box::pin(runs.ask("a"));
        assert_eq!(poll_immediate(&mut first).await, None);
        let others: Vec<_> = (0..3)
            .map(|_| {
                let runs = Arc::clone(&runs);
                tokio::spawn(async move { runs.ask("a").await })
            })
            .collect();
        tokio::task::yield_now().await;
        drop(first);
        runs.gate.add_permits(1);
        for other in others {
            assert_eq!(other.await.expect("no panic"), (1, true));
        }
        assert_eq!(runs.counts(), (1, 1));
    }

    #[tokio::test]
    async fn a_run_that_nobody_waits_for_is_dropped_and_the_next_one_starts_anew() {
        let runs = Runs::new();
        {
            let (one, other) = (runs.ask("a"), runs.ask("a"));
            pin_mut!(one, other);
            assert_eq!((poll_immediate(&mut one).await, poll_immediate(&mut other).await), (None, None));
            assert_eq!((runs.flights.flying(), runs.counts()), (1, (1, 0)));
        }
        assert_eq!(runs.flights.flying(), 0, "the run has gone with the last one who waited");
        runs.gate.add_permits(1);
        assert_eq!(runs.ask("a").await, (2, false));
        assert_eq!(runs.counts(), (2, 1));
    }

    /// The result is there, and another who waits for it has not looked yet.
    #[tokio::test]
    async fn who_comes_after_the_end_gets_a_run_of_his_own() {
        let runs = Runs::new();
        let (one, late) = (runs.ask("a"), runs.ask("a"));
        pin_mut!(one, late);
        assert_eq!((poll_immediate(&mut one).await, poll_immediate(&mut late).await), (None, None));
        runs.gate.add_permits(2);
        assert_eq!(one.await, (1, false));
        assert_eq!(runs.ask("a").await, (2, false));
        assert_eq!(late.await, (1, true));
    }

    #[tokio::test]
    async fn a_run_that_panics_is_not_taken_up_again() {
        let flights: Arc<SingleFlight<(), usize>> = Arc::default();
        let panicking = Arc::clone(&flights);
        let work = || async { [7_usize][std::hint::black_box(1)] };
        let ended = tokio::spawn(async move { panicking.board((), work).result().await }).await;
        assert!(ended.is_err_and(|error| error.is_panic()));
        assert_eq!(flights.flying(), 0);
        assert_eq!(flights.board((), || async { 7 }).result().await, 7);
    }
}
