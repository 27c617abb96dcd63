//! The built binary under stress: stopped, starved, flooded, asked for more than it can, beside targets that do their worst.
//!
//! Its targets are threads of this process and, wherever that will do, the kernel alone: what is late must be the prober. Nothing is
//! asserted of time but wide bounds; figures are printed, with two spaces before them.

#[path = "../support/mod.rs"]
mod support;

mod clock;
mod confined;
mod crowd;
mod harness;
mod hostile;
mod ordinary;
mod resolver;
#[cfg(target_os = "linux")]
mod sandbox;
mod stalls;
