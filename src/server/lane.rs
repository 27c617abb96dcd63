//! A thread with a runtime of its own, on which nothing runs but the listeners.
//!
//! On a runtime shared with thousands of probes an answer takes its turn behind every probe that is ready, which under
//! overload is for ever. Between threads it is the kernel that divides the core, and it lets whoever slept go first.

use std::{io, thread};

use futures::future::BoxFuture;
use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};

/// The thread's name, as `top -H` and a debugger show it.
const NAME: &str = "listeners";

/// Long documents that are made at once; more of them wait, so that who asks for many costs no memory.
const DOCUMENTS: usize = 4;

/// The thread, waiting for its work. It ends with that, or when this is dropped.
pub struct Lane {
    runtime: Handle,
    work: oneshot::Sender<BoxFuture<'static, ()>>,
    ended: oneshot::Receiver<()>,
}

impl Lane {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the machine has no thread or no descriptor left for it.
    pub fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(DOCUMENTS).build()?;
        let handle = runtime.handle().clone();
        let (work, given) = oneshot::channel::<BoxFuture<'static, ()>>();
        let (ending, ended) = oneshot::channel();
        thread::Builder::new().name(NAME.to_owned()).spawn(move || {
            runtime.block_on(async {
                if let Ok(work) = given.await {
                    work.await;
                }
            });
            // A document may still be in the making for a client that has gone; nobody waits for it.
            runtime.shutdown_background();
            // Dropped without a word where the work panicked.
            let _ = ending.send(());
        })?;
        Ok(Self { runtime: handle, work, ended })
    }

    /// The thread's runtime, for what must be registered with it.
    pub const fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Does `work` there and waits for its end: `false` when it broke down.
    pub async fn run(self, work: impl Future<Output = ()> + Send + 'static) -> bool {
        let Self { work: give, ended, .. } = self;
        give.send(Box::pin(work)).is_ok() && ended.await.is_ok()
    }
}
