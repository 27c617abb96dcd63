//! An EndpointSlice of ours: what it says, as values, and as the API has it. Pure.

use std::net::IpAddr;

use k8s_openapi::{
    api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::ResourceExt;

use crate::{
    api::{API_VERSION, GROUP, KIND},
    check::{Family, ObjectKey, Text},
    cluster::index::facts::SERVICE_NAME,
};

/// The label by which a slice says who makes it.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// What ours say there.
pub const MANAGER: &str = GROUP;

/// The label by which a slice of ours says for which gate of its owner it is.
#[must_use]
pub fn gate_label() -> String {
    format!("{GROUP}/gate")
}

/// The HealthCheck that a slice goes with.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    pub name: Text,
    pub uid: Text,
}

/// One endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Entry {
    pub address: IpAddr,
    pub ready: bool,
    pub zone: Option<Text>,
    /// The target that it is an address of, where that is a DNS name: so that the addresses are known again after a
    /// restart, even while no name server answers.
    pub name_of: Option<Text>,
}

/// What a slice says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Body {
    pub family: Family,
    /// The name of the Service's port; empty where a lone port has none.
    pub port_name: Text,
    /// The port of the endpoints.
    pub port: u16,
    /// Sorted by address.
    pub entries: Vec<Entry>,
}

/// A slice of ours as the server has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    pub uid: Text,
    /// `None`: somebody took its owner away.
    pub owner: Option<Owner>,
    pub gate: Text,
    /// What it says, as far as that can be read; `None` where it is not even for one port.
    pub body: Option<Body>,
    /// The field in which it says what we would never write.
    pub strange: Option<&'static str>,
}

impl Owned {
    /// `None` for a slice that somebody else makes.
    #[must_use]
    pub fn of(slice: &EndpointSlice) -> Option<Self> {
        if slice.labels().get(MANAGED_BY).map(String::as_str) != Some(MANAGER) {
            return None;
        }
        let body = Body::read(slice);
        Some(Self {
            strange: body.as_ref().map_or(Some("ports"), |body| body.strange(slice)),
            uid: slice.uid().unwrap_or_default().into(),
            owner: slice
                .owner_references()
                .iter()
                .find(|owner| owner.kind == KIND && owner.api_version.split('/').next() == Some(GROUP))
                .map(|owner| Owner { name: owner.name.as_str().into(), uid: owner.uid.as_str().into() }),
            gate: slice.labels().get(&gate_label()).map(String::as_str).unwrap_or_default().into(),
            body,
        })
    }
}

impl Body {
    /// What a proxy would read of it, whoever wrote it.
    fn read(slice: &EndpointSlice) -> Option<Self> {
        let port = slice.ports.as_deref()?.first()?;
        Some(Self {
            family: Family::parse(&slice.address_type)?,
            port_name: port.name.as_deref().unwrap_or_default().into(),
            port: u16::try_from(port.port?).ok()?,
            entries: slice.endpoints.iter().flat_map(Entry::read).collect(),
        })
    }

    /// The field of `slice` that would be another if this were written to it.
    fn strange(&self, slice: &EndpointSlice) -> Option<&'static str> {
        let endpoints = (self.endpoints() != slice.endpoints).then_some("endpoints");
        endpoints.or_else(|| (Some(self.ports()) != slice.ports).then_some("ports"))
    }

    #[must_use]
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.entries.iter().map(Entry::write).collect()
    }

    #[must_use]
    pub fn ports(&self) -> Vec<EndpointPort> {
        vec![EndpointPort {
            name: Some(self.port_name.to_string()),
            port: Some(self.port.into()),
            protocol: Some("TCP".to_owned()),
            app_protocol: None,
        }]
    }

    /// The whole object.
    #[must_use]
    pub fn object(&self, slice: &ObjectKey, service: &str, gate: &str, owner: &Owner) -> EndpointSlice {
        EndpointSlice {
            metadata: ObjectMeta {
                name: Some(slice.name.to_string()),
                namespace: Some(slice.namespace.to_string()),
                labels: Some(
                    [
                        (SERVICE_NAME.to_owned(), service.to_owned()),
                        (MANAGED_BY.to_owned(), MANAGER.to_owned()),
                        (gate_label(), gate.to_owned()),
                    ]
                    .into(),
                ),
                owner_references: Some(vec![OwnerReference {
                    api_version: API_VERSION.to_owned(),
                    kind: KIND.to_owned(),
                    name: owner.name.to_string(),
                    uid: owner.uid.to_string(),
                    controller: Some(true),
                    // Left out: it would need a permission on finalizers, and nothing waits for the slices.
                    block_owner_deletion: None,
                }]),
                ..ObjectMeta::default()
            },
            address_type: self.family.as_str().to_owned(),
            endpoints: self.endpoints(),
            ports: Some(self.ports()),
        }
    }
}

impl Entry {
    /// One for each address: we write one alone.
    fn read(endpoint: &Endpoint) -> impl Iterator<Item = Self> {
        // Without a word it counts as ready.
        let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true);
        endpoint.addresses.iter().filter_map(move |address| {
            Some(Self {
                address: address.parse().ok()?,
                ready,
                zone: endpoint.zone.as_deref().map(Into::into),
                name_of: endpoint.hostname.as_deref().map(Into::into),
            })
        })
    }

    fn write(&self) -> Endpoint {
        Endpoint {
            addresses: vec![self.address.to_string()],
            conditions: Some(EndpointConditions {
                ready: Some(self.ready),
                serving: Some(self.ready),
                terminating: Some(false),
            }),
            zone: self.zone.as_deref().map(ToOwned::to_owned),
            hostname: self.name_of.as_deref().map(ToOwned::to_owned),
            ..Endpoint::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object() -> EndpointSlice {
        let entry = |last: u8, ready| Entry {
            address: [10, 0, 0, last].into(),
            ready,
            zone: (last == 1).then(|| "a".into()),
            name_of: (last == 2).then(|| "dr".into()),
        };
        let body = Body {
            family: Family::V4,
            port_name: "pg".into(),
            port: 5432,
            entries: vec![entry(1, true), entry(2, false)],
        };
        let owner = Owner { name: "orders-db".into(), uid: "u".into() };
        body.object(&ObjectKey::new("shop", "orders-db-1"), "orders-db", "traffic", &owner)
    }

    #[test]
    fn a_slice_reads_back_as_it_was_written() {
        let owned = Owned::of(&object()).expect("ours");
        let body = owned.body.clone().expect("as we write it");
        assert_eq!((body.endpoints(), Some(body.ports())), (object().endpoints, object().ports));
        assert_eq!(owned.owner, Some(Owner { name: "orders-db".into(), uid: "u".into() }));
        assert_eq!(
            (&*owned.gate, body.entries[1].ready, body.entries[1].name_of.as_deref()),
            ("traffic", false, Some("dr"))
        );
        let mut foreign = object();
        foreign.labels_mut().insert(MANAGED_BY.to_owned(), "endpointslice-controller.k8s.io".to_owned());
        assert_eq!(Owned::of(&foreign), None);
    }

    #[test]
    fn what_somebody_edited_is_not_taken_for_ours_and_read_all_the_same() {
        let mut slice = object();
        slice.endpoints[1].node_name = Some("n".to_owned());
        let (is, was) = (Owned::of(&slice).expect("ours"), Owned::of(&object()).expect("ours"));
        assert_eq!((is.strange, was.strange, is.body), (Some("endpoints"), None, was.body));
        let edits: [fn(&mut EndpointSlice); 6] = [
            |slice| slice.endpoints[0].conditions = None,
            |slice| slice.endpoints[0].node_name = Some("n".to_owned()),
            |slice| slice.endpoints[0].addresses.push("10.0.0.9".to_owned()),
            |slice| slice.endpoints[0].conditions.as_mut().expect("set").serving = Some(false),
            |slice| slice.ports = None,
            |slice| slice.ports.as_mut().expect("set")[0].protocol = Some("UDP".to_owned()),
        ];
        for (index, edit) in edits.into_iter().enumerate() {
            let mut slice = object();
            edit(&mut slice);
            assert!(Owned::of(&slice).expect("still ours").strange.is_some(), "{index}");
        }
        let mut slice = object();
        slice.metadata.owner_references = None;
        assert_eq!(Owned::of(&slice).expect("still ours").owner, None);
    }
}
