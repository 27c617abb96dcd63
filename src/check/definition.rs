//! What a check asks: the compiled form of one HealthCheck.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use super::{Gate, Labels, ObjectKey, Overrides, Passive, Probe, Text, shared};

/// One HealthCheck, with every default filled in and every rule checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub key: ObjectKey,
    /// Seeds the phase of every endpoint, so it must be stable over restarts. Without a cluster: `namespace/name`.
    pub uid: Text,
    /// `metadata.generation`; 0 without a cluster.
    pub generation: i64,
    pub labels: Labels,
    pub suspend: bool,
    pub rhythm: Rhythm,
    pub thresholds: Thresholds,
    pub initial_state: InitialState,
    /// Older verdicts read as Unknown.
    pub stale_after: Duration,
    pub min_healthy: MinHealthy,
    /// Whether EndpointSlices of `service` targets are annotated.
    pub annotations: bool,
    pub targets: Vec<Target>,
    /// How a data plane's reports are judged; `None`: they are not taken. In a box: few checks take any.
    pub passive: Option<Box<Passive>>,
    /// What may move traffic by the verdicts; without a cluster, nothing does.
    pub gates: Vec<Gate>,
    /// What an operator says by hand, in place of verdicts.
    pub overrides: Overrides,
}

impl Check {
    /// The names of its targets, in declared order.
    #[must_use]
    pub fn target_names(&self) -> Arc<[Text]> {
        shared::names(self.targets.iter().map(|target| target.name.clone()).collect())
    }

    /// Whether its endpoints are probed, and not judged by a data plane's reports alone.
    #[must_use]
    pub fn is_probed(&self) -> bool {
        self.passive.as_ref().is_none_or(|passive| passive.unprobed.is_none())
    }

    /// `"http,tcp"`: the kinds of probe this check uses, sorted.
    #[must_use]
    pub fn probe_kinds(&self) -> Text {
        let mut kinds: Vec<_> = self
            .targets
            .iter()
            .filter(|target| !matches!(target.place, Place::Check { .. }))
            .map(|target| target.probe.kind_name())
            .collect();
        kinds.sort_unstable();
        kinds.dedup();
        shared::text(&kinds.join(","))
    }
}

/// How often, start to start, an endpoint is probed in which state. All between 100 ms and 24 h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rhythm {
    pub interval: Duration,
    /// While Unhealthy or MostlyUnhealthy.
    pub unhealthy_interval: Duration,
    /// While MostlyHealthy.
    pub confirm_interval: Duration,
    /// While Healthy, where no traffic was reported for as long; at least `interval`. `None`: traffic makes no difference.
    pub no_traffic_interval: Option<Duration>,
    /// Share of the interval, 0–100, within which each probe is moved around its own slot.
    pub jitter_percent: u8,
}

impl Rhythm {
    /// The longest of those that have to do with a verdict that changes.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.interval.max(self.unhealthy_interval).max(self.confirm_interval)
    }

    /// The longest that an endpoint goes unasked.
    #[must_use]
    pub fn rarest(&self) -> Duration {
        self.longest().max(self.idle())
    }

    /// The longest that a healthy endpoint goes unasked.
    #[must_use]
    pub fn idle(&self) -> Duration {
        self.no_traffic_interval.map_or(self.interval, |idle| idle.max(self.interval))
    }

    #[must_use]
    pub fn shortest(&self) -> Duration {
        self.interval.min(self.unhealthy_interval).min(self.confirm_interval)
    }
}

/// Consecutive results that flip a verdict, each 1–100. The flip happens at that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    pub success: u8,
    /// Failures in a row of any class; `None`: only those of one class count together.
    pub failure: Option<u8>,
    pub connect: Option<u8>,
    pub http: Option<u8>,
    pub timeout: Option<u8>,
}

/// What is shown until the first verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InitialState {
    #[default]
    Unknown,
    Healthy,
    Unhealthy,
}

/// How many non-optional members must be healthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MinHealthy {
    Count(u32),
    /// 0–100, of the non-optional members, rounded up.
    Percent(u8),
}

impl MinHealthy {
    /// The number that must be healthy of `total` members.
    #[must_use]
    pub const fn of(self, total: u32) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => (total as u64 * percent as u64).div_ceil(100) as u32,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Unique in the check.
    pub name: Text,
    pub place: Place,
    /// What is judged where the place is a name.
    pub resolve: Resolve,
    /// The traffic port.
    pub port: Option<PortRef>,
    /// Reported, but never makes the check Unhealthy.
    pub optional: bool,
    /// The zone that is published for its endpoints.
    pub zone: Option<Text>,
    pub probe: Arc<Probe>,
}

/// Where a target is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Host(Host),
    /// Every endpoint of a Service of the same namespace.
    Service {
        name: Text,
    },
    /// Every running pod of the same namespace that matches.
    Pods {
        /// In a box: few targets have one, and a check may have many targets.
        selector: Box<PodSelector>,
    },
    /// Another check of the same namespace: its verdict is this member's.
    Check {
        name: Text,
    },
    /// Nowhere: a script that needs no place.
    Nowhere,
}

/// A Kubernetes label selector, without Kubernetes: all of it must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodSelector {
    pub match_labels: BTreeMap<String, String>,
    pub match_expressions: Vec<SelectorRequirement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectorRequirement {
    pub key: String,
    pub operator: SelectorOperator,
    pub values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelectorOperator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl PodSelector {
    /// Whether `labels` match: every label and every expression.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|requirement| requirement.matches(labels))
    }
}

impl SelectorRequirement {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        let listed = value.is_some_and(|value| self.values.contains(value));
        match self.operator {
            SelectorOperator::In => listed,
            // As in the Kubernetes API: a missing label is "not in" any set.
            SelectorOperator::NotIn => !listed,
            SelectorOperator::Exists => value.is_some(),
            SelectorOperator::DoesNotExist => value.is_none(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    Address(IpAddr),
    /// A DNS name, resolved at every attempt within its timeout.
    Name(Text),
}

/// What is judged of a host given by name. All its addresses are tried at once, in either case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resolve {
    /// The name: one address that answers is enough.
    #[default]
    Any,
    /// Every address alone.
    All,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortRef {
    Number(u16),
    Name(Text),
}
