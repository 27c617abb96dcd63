//! Checks from files: the same YAML as in a cluster, with no cluster.

mod fault;
mod files;
mod manifest;
mod yaml;

pub use fault::Fault;
pub use files::{Source, gather};
pub use manifest::{Declared, Loaded, load};
