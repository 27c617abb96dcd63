//! Checks from files: the same YAML as in a cluster, with no cluster.

mod desired;
mod fault;
mod files;
mod manifest;
mod watch;
mod yaml;

pub use desired::desired;
pub use fault::Fault;
pub use files::{Source, gather};
pub use manifest::{Declared, Loaded, load};
pub use watch::Watch;
