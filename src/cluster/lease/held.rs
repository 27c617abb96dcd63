//! Whether the Lease is held, as whoever writes asks.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use crate::cluster::{
    boottime,
    client::{CALL_DEADLINE, CallError},
};

/// Tells, at any moment, whether the Lease is held by the boot clock, and whether the release marker was last seen on
/// it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Held(Arc<HeldState>);

#[derive(Debug, Default)]
struct HeldState {
    /// Boot time in milliseconds.
    until: AtomicU64,
    /// So many milliseconds it is held for at least, as long as it is renewed in time.
    margin: AtomicU64,
    released: AtomicBool,
}

impl Held {
    /// Whether writing is allowed at this very moment.
    #[must_use]
    pub fn now(&self) -> bool {
        boottime::now().as_millis() < u128::from(self.0.until.load(Relaxed))
    }

    /// For how long a call that is made now may take at most, so that it ends under the Lease; `None` where it would not.
    #[must_use]
    pub fn for_a_call(&self) -> Option<Duration> {
        let left = self.left();
        let wanted = millis(CALL_DEADLINE).min(self.0.margin.load(Relaxed));
        (!left.is_zero() && left >= Duration::from_millis(wanted)).then(|| left.min(CALL_DEADLINE))
    }

    /// What `call` comes to, made under the Lease from its first step to its last: before each of them the Lease is looked
    /// at, so that one that was stopped in the midst of it sends nothing when it goes on.
    ///
    /// # Errors
    /// [`CallError::Unreachable`] when the Lease ends first, or would; [`CallError::Timeout`] when the call takes too long
    /// for it.
    pub async fn fenced<T>(&self, call: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
        let ended = || Err(CallError::Unreachable("the lease ends before the call does".to_owned()));
        let Some(deadline) = self.for_a_call() else { return ended() };
        let mut call = pin!(call);
        let steps = poll_fn(|cx| if self.now() { call.as_mut().poll(cx) } else { Poll::Ready(ended()) });
        tokio::time::timeout(deadline, steps).await.unwrap_or(Err(CallError::Timeout))
    }

    /// For how long it is held if it is not renewed.
    fn left(&self) -> Duration {
        Duration::from_millis(self.0.until.load(Relaxed)).saturating_sub(boottime::now())
    }

    /// Whether no gate may act.
    #[must_use]
    pub fn is_released(&self) -> bool {
        self.0.released.load(Relaxed)
    }

    pub(super) fn set_released(&self, released: bool) {
        if self.0.released.swap(released, Relaxed) != released {
            tracing::info!(released, "the release marker on the lease has {}", if released { "come" } else { "gone" });
        }
    }

    pub(super) fn until(&self, end: Duration) {
        self.0.until.store(millis(end), Relaxed);
    }

    /// As long as each renewal gets through it is held for `duration` less `renew` and what the renewal takes.
    pub(super) fn keeps(&self, duration: Duration, renew: Duration) {
        self.0.margin.store(millis(duration.saturating_sub(renew) / 2), Relaxed);
    }

    pub(super) fn end(&self) {
        self.0.until.store(0, Relaxed);
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
