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
