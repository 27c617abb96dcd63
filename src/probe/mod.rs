//! One attempt of one kind: a value in, an outcome out.

use std::future::Future;

use crate::check::{Attempt, Report};

/// Makes attempts. The scheduler knows no more of probing than this, so a faster lane can stand beside the ordinary one.
pub trait Lane: Send + Sync + 'static {
    /// Makes one attempt within the probe's own timeout. Never panics; cancelling (dropping the future) frees everything
    /// at once.
    fn attempt(&self, attempt: Attempt) -> impl Future<Output = Report> + Send;
}
