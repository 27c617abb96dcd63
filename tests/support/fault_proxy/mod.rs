//! A proxy between a client and the API server that breaks things on demand.
//!
//! The client's kubeconfig names the proxy by plain http on loopback (see
//! `ControlPlane::kubeconfig`); the proxy speaks TLS to the API server and passes the bearer
//! token on, so the API server sees the client's own identity. Faults are rules that hold while
//! their handle lives; they also seize watches that were open before.

mod forward;
mod rules;
mod watch_stream;

use std::sync::Arc;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

pub use rules::{Fault, Match, Request, Rule};

use super::control_plane::ControlPlane;
use super::door::Door;
use super::targets::loopback;
use forward::Upstream;
use rules::Rules;

/// A running proxy. Dropping it cuts all its connections.
pub struct FaultProxy {
    door: Door,
    rules: Arc<Rules>,
}

impl FaultProxy {
    /// Starts a proxy before a control plane's API server.
    ///
    /// # Errors
    /// When no loopback port can be bound.
    pub async fn start(cluster: &ControlPlane) -> anyhow::Result<Self> {
        let rules = Arc::new(Rules::default());
        let upstream = Arc::new(Upstream::new(cluster.url(), cluster.ca_pem())?);
        let shared = Arc::clone(&rules);
        let door = Door::open(loopback(), move |stream| {
            let (rules, upstream) = (Arc::clone(&shared), Arc::clone(&upstream));
            async move {
                let service = service_fn(|request| forward::answer(request, Arc::clone(&rules), Arc::clone(&upstream)));
                // An error here is a fault at work, or a client that went away.
                let _ = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            }
        })
        .await?;
        Ok(Self { door, rules })
    }

    /// The server URL for a kubeconfig.
    pub fn url(&self) -> String {
        format!("http://{}", self.door.address())
    }

    /// Applies a fault to all matching requests, and to matching watches that are open, until the
    /// handle is lifted or dropped.
    pub fn inject(&self, which: Match, fault: Fault) -> Rule {
        self.rules.add(which, fault, u64::MAX)
    }

    /// Applies a fault `times` times (to requests, or to events for faults of events).
    pub fn inject_times(&self, times: u64, which: Match, fault: Fault) -> Rule {
        self.rules.add(which, fault, times)
    }

    /// Cuts all connections once; new ones are served.
    pub fn cut(&self) {
        self.door.cut();
    }

    /// Stops listening and cuts all connections: the API server's port is closed.
    pub async fn close(&self) {
        self.door.shut().await;
    }

    /// Listens again on the same port.
    ///
    /// # Errors
    /// When somebody else took it.
    pub async fn reopen(&self) -> anyhow::Result<()> {
        Ok(self.door.reopen().await?)
    }

    /// All requests so far, in the order of their arrival, refused ones included.
    pub fn requests(&self) -> Vec<Request> {
        self.rules.requests()
    }

    /// How many requests of a kind there were so far.
    pub fn count(&self, which: &Match) -> usize {
        self.rules.requests().iter().filter(|request| which.holds(request)).count()
    }
}
