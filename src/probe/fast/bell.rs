//! Wakes the thread that sleeps in an epoll set.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Wake,
};

use rustix::event::{EventfdFlags, eventfd};

/// Rings at most once until it is heard, however many pull it.
#[derive(Debug)]
pub(super) struct Bell {
    eventfd: OwnedFd,
    rung: AtomicBool,
}

impl Bell {
    pub fn new() -> io::Result<Arc<Self>> {
        let eventfd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Arc::new(Self { eventfd, rung: AtomicBool::new(false) }))
    }

    /// It has been heard. What it rang for must be looked for after this, so that whoever brings more rings again.
    pub fn hear(&self) {
        // Never read: watched for its edges, every write tells anew, and it counts to 2^64.
        self.rung.store(false, Ordering::SeqCst);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.rung.swap(true, Ordering::SeqCst) {
            // It can only be too full to count on, and then it rings.
            let _ = rustix::io::write(&self.eventfd, &1_u64.to_ne_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use crate::probe::{KeptConnections, Settings, fast::FastLane};

    /// For what must end well before it.
    const ENOUGH: Duration = Duration::from_secs(20);

    #[test]
    fn whoever_rings_ends_a_wait_before_its_time_and_only_one() {
        let mut lane =
            FastLane::new(Settings::standalone().egress, KeptConnections::default()).expect("a fast lane on Linux");
        let (bell, mut ended) = (lane.bell(), vec![]);
        let ringer = std::thread::spawn({
            let bell = bell.clone();
            move || bell.wake()
        });
        let begun = Instant::now();
        lane.wait(begun + 2 * ENOUGH, &mut ended);
        ringer.join().expect("no panic");
        // Rung while nobody slept, and twice.
        bell.wake_by_ref();
        bell.wake_by_ref();
        lane.wait(begun + 2 * ENOUGH, &mut ended);
        assert!(begun.elapsed() < ENOUGH, "it slept on");
        let until = Instant::now() + Duration::from_millis(20);
        lane.wait(until, &mut ended);
        assert!(Instant::now() >= until && ended.is_empty(), "nobody rang");
    }
}
