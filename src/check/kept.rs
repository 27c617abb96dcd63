//! What an attempt leaves for the next one on the same endpoint.

use std::{
    any::Any,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// A place for what a lane keeps of one endpoint between rounds, such as an open connection. Whoever owns the endpoint
/// holds it, and lets go of it when the endpoint goes, rests, or is asked something else: what is kept ends with it.
///
/// Only the lane knows what is in it. An attempt takes it out and puts it back at its end, so that one which is given up
/// leaves nothing.
#[derive(Clone, Default)]
pub struct Kept(Arc<Mutex<Option<Box<dyn Any + Send>>>>);

impl Kept {
    /// Takes out what is there.
    #[must_use]
    pub fn take(&self) -> Option<Box<dyn Any + Send>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Keeps `what` in place of what is there.
    pub fn put(&self, what: Box<dyn Any + Send>) {
        // What was there is dropped behind the lock: it may be a connection that says goodbye.
        let before = self.0.lock().unwrap_or_else(PoisonError::into_inner).replace(what);
        drop(before);
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}
