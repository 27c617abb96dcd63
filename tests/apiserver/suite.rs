//! What all trials of this binary share: a runtime and a cluster.

use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

use crate::support::control_plane::ControlPlane;
use crate::support::programs::Programs;

/// No trial may take longer, whatever it waits for.
const TRIAL_WITHIN: Duration = Duration::from_secs(300);

/// A handle to what is shared; the cluster goes with the last one.
#[derive(Clone)]
pub struct Suite(Arc<Shared>);

struct Shared {
    /// `None` when the trials are only listed.
    programs: Option<Programs>,
    cluster: OnceCell<Result<Arc<ControlPlane>, String>>,
    runtime: Runtime,
}

impl Suite {
    /// # Panics
    /// When the process cannot have threads.
    pub fn new(programs: Option<Programs>) -> Self {
        // kube, reqwest and ourselves use the same provider; somebody has to say so first.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let runtime = Runtime::new().expect("threads can be started");
        Self(Arc::new(Shared { programs, cluster: OnceCell::new(), runtime }))
    }

    /// A trial on the cluster that all share. It must stay in namespaces of its own, and leave the
    /// control plane alone.
    pub fn trial<F, Fut>(&self, name: &str, test: F) -> Trial
    where
        F: FnOnce(Arc<ControlPlane>) -> Fut + Send + 'static,
        Fut: Future<Output = anyhow::Result<()>>,
    {
        let suite = self.clone();
        Trial::test(name, move || suite.run(async { test(suite.cluster().await?).await }))
    }

    /// A trial on a cluster of its own, which it may freeze and kill; with kube-controller-manager
    /// when `controllers`. Costs some ten seconds of two cores: use it for nothing else.
    pub fn trial_alone<F, Fut>(&self, name: &str, controllers: bool, test: F) -> Trial
    where
        F: FnOnce(Arc<ControlPlane>) -> Fut + Send + 'static,
        Fut: Future<Output = anyhow::Result<()>>,
    {
        let suite = self.clone();
        Trial::test(name, move || {
            suite.run(async { test(Arc::new(ControlPlane::start(suite.programs(), controllers).await?)).await })
        })
    }

    /// A trial that needs no cluster.
    pub fn trial_without<F, Fut>(&self, name: &str, test: F) -> Trial
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = anyhow::Result<()>>,
    {
        let suite = self.clone();
        Trial::test(name, move || suite.run(async { test().await }))
    }

    fn run(&self, test: impl Future<Output = anyhow::Result<()>>) -> Result<(), Failed> {
        let bounded = async { tokio::time::timeout(TRIAL_WITHIN, test).await };
        match self.0.runtime.block_on(bounded) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Failed::from(format!("{error:#}"))),
            Err(_) => Err(Failed::from(format!("did not end within {TRIAL_WITHIN:?}"))),
        }
    }

    fn programs(&self) -> &Programs {
        self.0.programs.as_ref().expect("trials run only when the programs were found")
    }

    /// The shared cluster, started by whoever asks first.
    async fn cluster(&self) -> anyhow::Result<Arc<ControlPlane>> {
        let start = || async {
            let cluster = ControlPlane::start(self.programs(), true).await.map_err(|error| format!("{error:#}"))?;
            println!("cluster ready after {:.1} s", cluster.ready_after().as_secs_f32());
            Ok(Arc::new(cluster))
        };
        self.0.cluster.get_or_init(start).await.clone().map_err(anyhow::Error::msg)
    }
}
