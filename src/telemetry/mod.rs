//! Metrics, logs, and the beats of our own loops.

mod beats;
pub mod metrics;

pub use beats::{Beat, Beats};
pub use metrics::Metrics;
