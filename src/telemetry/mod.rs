//! Metrics, logs, and the beats of our own loops.

mod beats;
pub mod logs;
pub mod metrics;
pub mod process;

pub use beats::{Beat, Beats};
pub use logs::LogArgs;
pub use metrics::Metrics;
