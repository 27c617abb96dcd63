//! What is kept of the objects that targets refer to: as little as resolving needs.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::api::{
    core::v1::{Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::ResourceExt;

use crate::{
    api::{GROUP, rules::CONDITION_TYPE_PREFIX},
    check::{ObjectKey, Text},
    cluster::gates::slice::{self, Owned},
};

/// The label by which an EndpointSlice says whose it is.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A Service, as far as its ports matter, and who makes its EndpointSlices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceFacts {
    pub key: ObjectKey,
    pub uid: Text,
    /// Its slices are made by the cluster, from pods.
    pub selector: bool,
    pub external_name: bool,
    pub ports: Vec<ServicePort>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Empty where a lone port has no name.
    pub name: Text,
    pub number: u16,
}

/// An EndpointSlice of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceFacts {
    pub key: ObjectKey,
    /// Name of its Service, in the same namespace; empty where it belongs to none.
    pub service: Text,
    pub resource_version: String,
    /// Our own annotations, by the name of the check.
    pub annotations: BTreeMap<String, String>,
    /// Who makes it; empty where it does not say.
    pub managed_by: Text,
    /// What a gate of ours has written, where it is ours.
    pub owned: Option<Box<Owned>>,
    /// Number by name; the name is empty where a lone port has none.
    pub ports: Vec<(Text, u16)>,
    pub endpoints: Vec<EndpointFacts>,
}

/// One endpoint that is not terminating.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointFacts {
    pub address: IpAddr,
    /// The pod behind it.
    pub pod_uid: Option<Text>,
}

/// A pod, running or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFacts {
    pub key: ObjectKey,
    pub uid: Text,
    pub labels: BTreeMap<String, String>,
    /// The pod's first address, while it runs and is not terminating.
    pub running_at: Option<IpAddr>,
    /// Its containers' declared ports that have a name.
    pub named_ports: Vec<(Text, u16)>,
    /// It terminates, or has run to its end.
    pub ends: bool,
    /// What it says of readiness gates of ours; `None` where it has nothing to do with them.
    pub readiness: Option<Box<ReadinessFacts>>,
}

/// What a pod says of readiness gates whose condition type is one of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadinessFacts {
    pub resource_version: String,
    /// The types that its spec waits for.
    pub gates: Vec<Text>,
    pub conditions: Vec<ReadinessCondition>,
}

/// One condition of ours on a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadinessCondition {
    pub kind: Text,
    /// `None`: neither True nor False.
    pub status: Option<bool>,
    pub reason: String,
    pub message: String,
}

fn key(object: &impl ResourceExt) -> ObjectKey {
    ObjectKey::new(&object.namespace().unwrap_or_default(), &object.name_any())
}

fn port(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|number| *number > 0)
}

impl ServiceFacts {
    #[must_use]
    pub fn of(service: &Service) -> Self {
        let spec = service.spec.as_ref();
        let ports = spec.and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
        Self {
            key: key(service),
            uid: service.uid().unwrap_or_default().into(),
            selector: spec.and_then(|spec| spec.selector.as_ref()).is_some_and(|selector| !selector.is_empty()),
            external_name: spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName"),
            ports: ports
                .iter()
                .filter(|port| port.protocol.as_deref().unwrap_or("TCP") == "TCP")
                .filter_map(|each| {
                    Some(ServicePort {
                        name: each.name.as_deref().unwrap_or_default().into(),
                        number: port(each.port)?,
                    })
                })
                .collect(),
        }
    }
}

impl SliceFacts {
    #[must_use]
    pub fn of(slice: &EndpointSlice) -> Self {
        let label = |name: &str| slice.labels().get(name).map(String::as_str).unwrap_or_default();
        let service = label(SERVICE_NAME);
        let prefix = format!("{GROUP}/");
        let annotations = slice.annotations().iter();
        let ports = slice.ports.as_deref().unwrap_or_default();
        Self {
            key: key(slice),
            service: service.into(),
            resource_version: slice.resource_version().unwrap_or_default(),
            managed_by: label(slice::MANAGED_BY).into(),
            owned: Owned::of(slice).map(Box::new),
            annotations: annotations
                .filter_map(|(name, value)| Some((name.strip_prefix(&prefix)?.to_owned(), value.clone())))
                .collect(),
            ports: ports
                .iter()
                .filter(|port| port.protocol.as_deref().unwrap_or("TCP") == "TCP")
                .filter_map(|each| Some((each.name.as_deref().unwrap_or_default().into(), port(each.port?)?)))
                .collect(),
            endpoints: slice.endpoints.iter().filter_map(EndpointFacts::of).collect(),
        }
    }
}

impl EndpointFacts {
    /// `None` for one that terminates, and for one whose address is a name.
    fn of(endpoint: &k8s_openapi::api::discovery::v1::Endpoint) -> Option<Self> {
        let conditions = endpoint.conditions.as_ref();
        if conditions.and_then(|conditions| conditions.terminating) == Some(true) {
            return None;
        }
        // All addresses of one endpoint reach the same; like kube-proxy we take the first.
        let address = endpoint.addresses.first()?.parse().ok()?;
        let pod = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
        Some(Self { address, pod_uid: pod.and_then(|pod| pod.uid.as_deref()).map(Into::into) })
    }
}

impl PodFacts {
    #[must_use]
    pub fn of(pod: &Pod) -> Self {
        let status = pod.status.as_ref();
        let phase = status.and_then(|status| status.phase.as_deref());
        let running = phase == Some("Running") && pod.metadata.deletion_timestamp.is_none();
        let address = status.and_then(|status| status.pod_ip.as_deref()).and_then(|ip| ip.parse().ok());
        let spec = pod.spec.as_ref();
        // An init container that restarts always is a sidecar and may be listening.
        let sidecars = spec
            .and_then(|spec| spec.init_containers.as_deref())
            .unwrap_or_default()
            .iter()
            .filter(|container| container.restart_policy.as_deref() == Some("Always"));
        let containers = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default().iter().chain(sidecars);
        Self {
            key: key(pod),
            uid: pod.uid().unwrap_or_default().into(),
            labels: pod.labels().clone(),
            running_at: address.filter(|_| running),
            named_ports: containers
                .flat_map(|container| container.ports.iter().flatten())
                .filter_map(|each| Some((each.name.as_deref()?.into(), port(each.container_port)?)))
                .collect(),
            ends: pod.metadata.deletion_timestamp.is_some() || matches!(phase, Some("Succeeded" | "Failed")),
            readiness: ReadinessFacts::of(pod).map(Box::new),
        }
    }

    /// Whether nothing has changed but what readiness gates are about.
    #[must_use]
    pub fn is_same_but_readiness(&self, other: &Self) -> bool {
        self.uid == other.uid
            && self.labels == other.labels
            && self.running_at == other.running_at
            && self.named_ports == other.named_ports
            && self.ends == other.ends
    }

    /// The condition of this type, where there is one.
    #[must_use]
    pub fn condition(&self, kind: &str) -> Option<&ReadinessCondition> {
        self.readiness.as_ref()?.conditions.iter().find(|condition| &*condition.kind == kind)
    }

    /// Whether its spec waits for a condition of this type.
    #[must_use]
    pub fn waits_for(&self, kind: &str) -> bool {
        self.readiness.as_ref().is_some_and(|readiness| readiness.gates.iter().any(|gate| &**gate == kind))
    }
}

impl ReadinessFacts {
    fn of(pod: &Pod) -> Option<Self> {
        let ours = |kind: &str| kind.starts_with(CONDITION_TYPE_PREFIX);
        let gates = pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
        let gates: Vec<Text> =
            gates.filter(|gate| ours(&gate.condition_type)).map(|gate| gate.condition_type.as_str().into()).collect();
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let conditions: Vec<_> = conditions
            .filter(|condition| ours(&condition.type_))
            .map(|condition| ReadinessCondition {
                kind: condition.type_.as_str().into(),
                status: match condition.status.as_str() {
                    "True" => Some(true),
                    "False" => Some(false),
                    _ => None,
                },
                reason: condition.reason.clone().unwrap_or_default(),
                message: condition.message.clone().unwrap_or_default(),
            })
            .collect();
        (!gates.is_empty() || !conditions.is_empty()).then(|| Self {
            resource_version: pod.resource_version().unwrap_or_default(),
            gates,
            conditions,
        })
    }
}
