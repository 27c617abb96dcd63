//! Metrics, logs, and the beats of our own loops.

mod beats;
mod gates;
pub mod logs;
pub mod metrics;
mod observations;
pub mod process;

pub use beats::{Beat, Beats, MIRROR};
pub use gates::{GateGauges, GateSeries};
pub use logs::LogArgs;
pub use metrics::{Metrics, ProbeMeter};
pub use observations::{ObservationLabels, ObservationMetrics, Source};
