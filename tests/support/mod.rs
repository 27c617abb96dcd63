//! What the tests stand on: real programs, real sockets, and the means to break them.
//!
//! Every test binary takes this directory in by `#[path = "../support/mod.rs"] mod support;` (or
//! `mod support;` beside it) and uses its own part of it, hence the `dead_code`. See
//! `tests/README.md` for how the pieces go together.
#![allow(dead_code)]

pub mod cgroup;
pub mod console;
pub mod door;
pub mod name_server;
pub mod netns;
pub mod operator;
pub mod ports;
pub mod process;
pub mod programs;
pub mod run_dir;
pub mod targets;
pub mod wait;

#[cfg(feature = "cluster")]
pub mod audit;
#[cfg(feature = "cluster")]
pub mod control_plane;
#[cfg(feature = "cluster")]
pub mod fault_proxy;
#[cfg(feature = "cluster")]
pub mod identity;
#[cfg(feature = "cluster")]
pub mod objects;
#[cfg(feature = "cluster")]
pub mod pki;
#[cfg(feature = "cluster")]
pub mod recorder;
