//! How many attempts are made at once for all who ask. Waiting for a turn takes nothing of a probe's timeout.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use crate::check::{Outcome, Reason, Report};

/// See the module's own words.
pub(super) struct Turns {
    free: Semaphore,
    patience: Duration,
}

impl Turns {
    pub fn new(attempts: usize, patience: Duration) -> Self {
        Self { free: Semaphore::new(attempts.max(1)), patience }
    }

    /// How long anybody waits.
    pub const fn patience(&self) -> Duration {
        self.patience
    }

    /// Makes `attempt` when its turn comes. One that has to wait past `until` is not made: nobody could look.
    pub async fn take(self: Arc<Self>, attempt: BoxFuture<'static, Report>, until: Instant) -> Report {
        let Ok(_turn) = timeout_at(until, self.free.acquire()).await else {
            let why = format!("others are probed on demand, and no turn was free in {:?}", self.patience);
            return Report::new(Outcome::from_reason(Reason::ProberOverloaded, why), Duration::ZERO);
        };
        attempt.await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use futures::{FutureExt as _, future::join_all};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_more_are_made_at_once_than_there_are_turns_and_none_that_came_too_late() {
        const SECOND: Duration = Duration::from_secs(1);
        let turns = Arc::new(Turns::new(3, SECOND * 10));
        let (now, most, made) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let counts = Arc::new((now, most, made));
        let attempt = || {
            let counts = counts.clone();
            async move {
                made_one(&counts).await;
                Report::new(Outcome::Success, SECOND)
            }
            .boxed()
        };
        async fn made_one((now, most, made): &(AtomicUsize, AtomicUsize, AtomicUsize)) {
            most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
            tokio::time::sleep(Duration::from_secs(4)).await;
            now.fetch_sub(1, SeqCst);
            made.fetch_add(1, SeqCst);
        }
        let until = Instant::now() + turns.patience();
        let reports = join_all((0..20).map(|_| turns.clone().take(attempt(), until))).await;
        // At 0, 4 and 8 s.
        let well = reports.iter().filter(|report| report.outcome == Outcome::Success).count();
        let local = reports.iter().filter(|report| report.outcome.reason() == Some(Reason::ProberOverloaded)).count();
        assert_eq!((counts.1.load(SeqCst), counts.2.load(SeqCst), well, local), (3, 9, 9, 11));
    }
}
