//! What all shows share: a runtime and the node.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use libtest_mimic::{Failed, Trial};
use tokio::runtime::Runtime;

use crate::node::Node;
use crate::room::Room;

/// No show may take longer, whatever it waits for.
const SHOW_WITHIN: Duration = Duration::from_secs(300);

#[derive(Clone)]
pub struct Suite(Arc<Shared>);

struct Shared {
    /// `None` when the shows are only listed.
    node: Option<Arc<Node>>,
    runtime: Runtime,
}

impl Suite {
    /// # Panics
    /// When the process cannot have threads.
    pub fn new(node: Option<Node>) -> Self {
        // kube, reqwest and ourselves use the same provider; somebody has to say so first.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let runtime = Runtime::new().expect("threads can be started");
        Self(Arc::new(Shared { node: node.map(Arc::new), runtime }))
    }

    /// A show in a room of its own, named after what comes last in `name`. What it leaves in the room is removed.
    pub fn show<F, Fut>(&self, name: &str, show: F) -> Trial
    where
        F: FnOnce(Arc<Room>) -> Fut + Send + 'static,
        Fut: Future<Output = anyhow::Result<()>>,
    {
        let shared = Arc::clone(&self.0);
        let room_name = name.split("::").next().unwrap_or(name).to_owned();
        Trial::test(name, move || {
            let node = shared.node.as_ref().expect("shows run only when there is a node");
            shared.runtime.block_on(in_a_room(node, &room_name, show))
        })
    }

    /// To be called when all shows are over.
    ///
    /// # Errors
    /// What was not as it should be when the node went.
    pub fn end(&self) -> anyhow::Result<()> {
        self.0.node.as_ref().map_or(Ok(()), |node| node.down())
    }
}

async fn in_a_room<F, Fut>(node: &Arc<Node>, name: &str, show: F) -> Result<(), Failed>
where
    F: FnOnce(Arc<Room>) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let failed = |error: anyhow::Error| Failed::from(format!("{error:#}"));
    let begun = Instant::now();
    let room = Arc::new(Room::new(Arc::clone(node), name).await.map_err(failed)?);
    // A panic must not leave an operator behind that plays along in the next show.
    let shown = std::panic::AssertUnwindSafe(show(Arc::clone(&room))).catch_unwind();
    let shown = match tokio::time::timeout(SHOW_WITHIN, shown).await {
        Ok(Ok(shown)) => shown,
        Ok(Err(_)) => Err(anyhow::anyhow!("panicked; what it said is above")),
        Err(_) => Err(anyhow::anyhow!("did not end within {SHOW_WITHIN:?}")),
    };
    if let Err(error) = &shown {
        // At once: the runner says it after the last test, far from what led to it.
        println!("  {error:#}");
        room.keep_traces().await;
    }
    let closed = room.close().await;
    println!("  took {:.0} s", begun.elapsed().as_secs_f64());
    shown.and(closed).map_err(failed)
}
