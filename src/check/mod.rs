//! The domain: what a check asks, what one attempt can answer, and the words for health.
//!
//! Plain values with no clock, no I/O and no Kubernetes. `compile` makes them, `probe` and `engine` use them.

mod body;
mod definition;
mod endpoint;
mod gate;
mod gate_reason;
mod health;
mod kept;
mod key;
mod outcome;
mod overrides;
mod passive;
mod probe;
mod reason;
mod selector;
pub mod shared;

pub use body::{BodyRule, Pattern};
pub use definition::{
    Check, Host, InitialState, MinHealthy, Place, PodSelector, PortRef, Resolve, Rhythm, SelectorOperator,
    SelectorRequirement, Target, Thresholds,
};
pub use endpoint::{Attempt, Dial, Endpoint, Family};
pub use gate::{Gate, GateKind, GateLimits, GateMode, GatePolicy};
pub use gate_reason::GateReason;
pub use health::{Counts, EndpointState, Health, HealthReason};
pub use kept::Kept;
pub use key::ObjectKey;
pub use outcome::{Found, Outcome, Report, clean_message};
pub use overrides::{Override, Overrides, Word};
pub use passive::{Judged, Observed, Passive};
pub use probe::{
    ClientCertificate, Connection, GrpcProbe, Handshake, HeaderSource, HttpHeader, HttpProbe, HttpVersion, Kind, Probe,
    ProbeKind, Redirects, Reference, ReferenceKind, Scheme, ScriptProbe, StatusRange, TcpProbe, Tls, TlsMode,
};
pub use reason::{Class, Reason};
pub use selector::SelectorError;
pub use shared::{Labels, Text};
