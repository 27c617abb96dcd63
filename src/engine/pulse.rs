//! How late the runtime comes to what is due: what waits for it on the ordinary lane is as late in every one of its steps.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::{
    sync::Notify,
    time::{Duration, Instant},
};

use super::{scheduler::millis, stall::Stalls};

/// How often the runtime is looked at while something waits for it, in milliseconds.
const BEAT: u64 = 20;
/// A beat that comes so much too late is on time: timers have whole milliseconds.
const ON_TIME: u64 = 2;
/// Nor does it explain anything to be so little later than that on average.
const LITTLE: u64 = 3;
/// What comes later than that is a stall by itself, in milliseconds. What comes less late adds up only where it is often so.
const STALL: u64 = 100;
/// So many times at most a probe waits for the runtime: to have a name looked up, to connect, for each flight of a
/// handshake, for what is said to it; some follow a redirect.
const STEPS: u64 = 16;

/// One for an engine; its task ends with it.
#[derive(Debug)]
pub(super) struct Pulse {
    shared: Arc<Shared>,
    task: tokio::task::AbortHandle,
}

#[derive(Debug)]
struct Shared {
    origin: Instant,
    wanted: Notify,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// So many wait for the runtime.
    watched: usize,
    stalls: Stalls,
    beats: Beats,
}

/// How many there were, and how late they came in all.
#[derive(Clone, Copy, Debug, Default)]
struct Beats {
    count: u64,
    late: u64,
}

/// Somebody waits for the runtime, until this is dropped.
#[derive(Debug)]
pub(super) struct Watched {
    shared: Arc<Shared>,
    since: u64,
    before: Beats,
}

impl Pulse {
    /// On the current runtime. Times are milliseconds since `origin`.
    pub fn start(origin: Instant) -> Self {
        let state = State { watched: 0, stalls: Stalls::new(STALL), beats: Beats::default() };
        let shared = Arc::new(Shared { origin, wanted: Notify::new(), state: Mutex::new(state) });
        let task = tokio::spawn(shared.clone().beat()).abort_handle();
        Self { shared, task }
    }

    /// Somebody begins to wait.
    pub fn watch(&self) -> Watched {
        let since = self.shared.now();
        let mut state = self.shared.lock();
        state.watched += 1;
        if state.watched == 1 {
            state.come(since);
            self.shared.wanted.notify_one();
        }
        Watched { shared: self.shared.clone(), since, before: state.beats }
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watched {
    /// Whether the runtime was so late since this was made that a quarter of `timeout` may have gone by with waiting for it.
    pub fn explains(&self, timeout: u64) -> bool {
        let now = self.shared.now();
        let state = self.shared.lock();
        let beats = state.beats.and(state.stalls.late(now)).since(self.before);
        beats.explain(timeout) || state.stalls.explain(self.since, now, timeout)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.shared.lock().watched -= 1;
    }
}

impl Beats {
    /// With one more.
    fn and(self, late: u64) -> Self {
        Self { count: self.count + 1, late: self.late + late.saturating_sub(ON_TIME) }
    }

    fn since(self, before: Self) -> Self {
        Self { count: self.count - before.count, late: self.late - before.late }
    }

    /// Whether somebody who waits [`STEPS`] times, each as long as a beat on average, waits for a quarter of `timeout`.
    fn explain(self, timeout: u64) -> bool {
        let count = self.count.max(1);
        self.late >= LITTLE * count && STEPS * self.late >= (timeout / 4) * count
    }
}

impl State {
    /// The runtime came, or somebody begins to wait for it.
    fn come(&mut self, now: u64) {
        self.beats = self.beats.and(self.stalls.late(now));
        self.stalls.came(now, now + BEAT);
    }
}

impl Shared {
    async fn beat(self: Arc<Self>) {
        loop {
            match self.come() {
                Some(next) => {
                    tokio::time::sleep_until(self.origin + Duration::from_millis(next)).await;
                    // Whose time has come may be let in before those who wait in the queue, where it is to be seen how long
                    // that is.
                    tokio::task::yield_now().await;
                }
                None => self.wanted.notified().await,
            }
        }
    }

    /// When to come again; `None`: when somebody waits.
    fn come(&self) -> Option<u64> {
        let now = self.now();
        let mut state = self.lock();
        state.come(now);
        if state.watched == 0 {
            state.stalls.rests();
            return None;
        }
        Some(now + BEAT)
    }

    fn now(&self) -> u64 {
        millis(Instant::now().duration_since(self.origin))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A runtime that has one thread, which somebody takes for itself.
    #[tokio::test(start_paused = true)]
    async fn a_runtime_that_stands_still_is_told_of_whoever_waits_for_it_and_of_nobody_else() {
        let pulse = Pulse::start(Instant::now());
        let hog = || tokio::time::advance(Duration::from_millis(200));
        let let_it_come = || tokio::time::sleep(Duration::from_millis(2 * BEAT));
        let_it_come().await;
        hog().await;
        let watched = pulse.watch();
        assert!(!watched.explains(400), "nobody waited");
        hog().await;
        assert!(watched.explains(400), "while it stands still, or after it");
        let_it_come().await;
        assert!(watched.explains(400) && !watched.explains(40_000));
        drop(watched);
        let_it_come().await;
        hog().await;
        let_it_come().await;
        assert!(!pulse.watch().explains(400), "nobody waited any more");
    }

    #[test]
    fn a_little_lateness_at_each_step_explains_a_short_timeout_and_no_long_one() {
        let mut beats = Beats::default();
        let mut late = |each: u64| {
            let before = beats;
            (0..50).for_each(|_| beats = beats.and(each));
            beats.since(before)
        };
        let punctual = late(ON_TIME);
        assert!(!punctual.explain(100) && !punctual.explain(1));
        // Or who hangs would never be told where the scheduler is not the best.
        assert!(!late(4).explain(50));
        let slow = late(12);
        assert!(slow.explain(100) && slow.explain(600) && !slow.explain(1000));
    }
}
