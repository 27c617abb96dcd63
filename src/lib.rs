//! healthcheck-operator: declared health checks, probed in-cluster, with the verdict where traffic can use it.
//!
//! The folder layout is the architecture: `api` (the resource as users write it) → `compile` → `check` (what is
//! asked, free of Kubernetes) → `probe` (one attempt) → `engine` (scheduler, state machine, board) → `gate` (what of it
//! may move traffic) → `server`, `cluster` and `cli`, which read the board; `on_demand` probes when somebody asks. Arrows point one way only.

pub mod api;
pub mod check;
pub mod cli;
#[cfg(feature = "cluster")]
pub mod cluster;
pub mod compile;
pub mod engine;
pub mod gate;
pub mod health_checker;
pub mod on_demand;
pub mod passive;
pub mod probe;
pub mod server;
pub mod source;
pub mod telemetry;
