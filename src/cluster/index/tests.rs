//! The index against a cluster that is written down.

use std::sync::Arc;

use k8s_openapi::api::{
    core::v1::{Pod, Service},
    discovery::v1::EndpointSlice,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    facts::{PodFacts, ServiceFacts, SliceFacts},
    *,
};
use crate::{
    api,
    check::Endpoint,
    cluster::{client::CallError, watch::Told},
    compile::{Mode, compile},
};

fn check(name: &str, targets: Value) -> Arc<Check> {
    let object = json!({
        "apiVersion": api::API_VERSION, "kind": api::KIND,
        "metadata": {"name": name, "namespace": "shop", "uid": name, "generation": 1},
        "spec": {"targets": targets},
    });
    Arc::new(compile(&serde_json::from_value(object).expect("readable"), Mode::Cluster).expect("no problem"))
}

fn service(name: &str, ports: Value) -> ServiceFacts {
    let object = json!({"metadata": {"name": name, "namespace": "shop"}, "spec": {"ports": ports}});
    ServiceFacts::of(&serde_json::from_value::<Service>(object).expect("readable"))
}

fn slice(name: &str, service: &str, ports: Value, endpoints: Value) -> SliceFacts {
    let object = json!({
        "metadata": {
            "name": name, "namespace": "shop", "resourceVersion": "1",
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
    });
    SliceFacts::of(&serde_json::from_value::<EndpointSlice>(object).expect("readable"))
}

fn backend(address: &str, uid: &str) -> Value {
    json!({"addresses": [address], "targetRef": {"kind": "Pod", "uid": uid, "name": uid}})
}

fn pod(name: &str, app: &str, phase: &str, address: &str) -> PodFacts {
    let object = json!({
        "metadata": {"name": name, "namespace": "shop", "uid": name, "labels": {"app": app}},
        "spec": {"containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}]},
        "status": {"phase": phase, "podIP": address},
    });
    PodFacts::of(&serde_json::from_value::<Pod>(object).expect("readable"))
}

fn scope(kind: SourceKind) -> Scope {
    Scope { kind, namespace: "shop".into() }
}

fn list_services(index: &mut Index, services: Vec<ServiceFacts>) -> BTreeSet<ObjectKey> {
    let told = std::iter::once(Told::Begin).chain(services.into_iter().map(Told::Is)).chain([Told::Complete]);
    told.flat_map(|told| index.apply(SourceChange::Service(scope(SourceKind::Services), told))).collect()
}

fn list_slices(index: &mut Index, slices: Vec<SliceFacts>) -> BTreeSet<ObjectKey> {
    let told = std::iter::once(Told::Begin).chain(slices.into_iter().map(Told::Is)).chain([Told::Complete]);
    told.flat_map(|told| index.apply(SourceChange::Slice(scope(SourceKind::Slices), told))).collect()
}

fn list_pods(index: &mut Index, pods: Vec<PodFacts>) -> BTreeSet<ObjectKey> {
    let told = std::iter::once(Told::Begin).chain(pods.into_iter().map(Told::Is)).chain([Told::Complete]);
    told.flat_map(|told| index.apply(SourceChange::Pod(scope(SourceKind::Pods), told))).collect()
}

fn labels(endpoints: &[Endpoint]) -> Vec<&str> {
    endpoints.iter().map(|endpoint| &*endpoint.label).collect()
}

fn told(index: &Index, check: &Check) -> (Vec<String>, Vec<String>) {
    let resolved = resolve(check, &index.sources);
    (
        labels(&resolved.endpoints).into_iter().map(ToOwned::to_owned).collect(),
        resolved.problems.iter().map(ToString::to_string).collect(),
    )
}

#[test]
fn a_service_target_is_every_endpoint_ready_or_not_but_none_that_terminates() {
    let mut index = Index::default();
    let check = check("db", json!([{"name": "svc", "service": {"name": "db"}, "port": 80}]));
    index.insert(check.clone());
    assert!(!index.is_ready(&check));
    let ports = json!([{"name": "metrics", "port": 9000}, {"name": "http", "port": 80, "targetPort": "web"}]);
    list_services(&mut index, vec![service("db", ports)]);
    assert!(!index.is_ready(&check), "the slices are not known yet");
    let mut not_ready = backend("10.0.0.2", "b");
    not_ready["conditions"] = json!({"ready": false});
    let mut leaving = backend("10.0.0.3", "c");
    leaving["conditions"] = json!({"ready": false, "serving": true, "terminating": true});
    let by_name = json!([{"name": "http", "port": 8080}, {"name": "metrics", "port": 9000}]);
    let slices = vec![
        slice("db-1", "db", by_name, json!([backend("10.0.0.1", "a"), not_ready, leaving])),
        slice("db-2", "db", json!([{"name": "http", "port": 8081}]), json!([backend("10.0.0.4", "d")])),
        slice("other-1", "other", json!([{"name": "http", "port": 1}]), json!([backend("10.0.0.9", "z")])),
    ];
    assert_eq!(list_slices(&mut index, slices), BTreeSet::from([check.key.clone()]));
    assert!(index.is_ready(&check));
    let resolved = resolve(&check, &index.sources);
    assert_eq!(labels(&resolved.endpoints), ["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.4:8081"]);
    assert_eq!(&*resolved.endpoints[0].identity, "pod:a:8080");
    assert_eq!(resolved.problems, []);
}

#[test]
fn the_port_of_a_service_may_be_a_number_a_name_or_left_out() {
    let ports = json!([{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]);
    let mut index = Index::default();
    list_services(
        &mut index,
        vec![service("one", ports), service("two", json!([{"name": "a", "port": 1}, {"name": "b", "port": 2}]))],
    );
    let endpoints = json!([{"addresses": ["10.0.0.1"]}]);
    let slices = ["one", "two"].map(|name| {
        let ports = json!([{"name": "http", "port": 8080}, {"name": "a", "port": 8001}, {"name": "b", "port": 8002}]);
        slice(name, name, ports, endpoints.clone())
    });
    list_slices(&mut index, slices.to_vec());
    let of = |target: Value| told(&index, &check("c", json!([target])));
    let (found, none) =
        (|label: &str| (vec![label.to_owned()], vec![]), |problem: &str| (vec![], vec![problem.to_owned()]));
    assert_eq!(of(json!({"name": "t", "service": {"name": "one"}})), found("10.0.0.1:8080"));
    assert_eq!(of(json!({"name": "t", "service": {"name": "two"}, "port": "b"})), found("10.0.0.1:8002"));
    assert_eq!(of(json!({"name": "t", "service": {"name": "two"}, "port": 1})), found("10.0.0.1:8001"));
    assert_eq!(
        of(json!({"name": "t", "service": {"name": "two"}})),
        none("spec.targets[0].port: Service 'two' has not exactly one TCP port, so say which: it has 1 (a), 2 (b)")
    );
    assert_eq!(
        of(json!({"name": "t", "service": {"name": "two"}, "port": "c"})),
        none("spec.targets[0].port: Service 'two' has no TCP port named 'c'; it has 1 (a), 2 (b)")
    );
    assert_eq!(
        of(json!({"name": "t", "service": {"name": "three"}})),
        none(
            "spec.targets[0].service.name: Service 'three' not found in namespace 'shop'; create it or correct the name"
        )
    );
}

#[test]
fn a_probes_own_port_is_dialed_and_the_traffic_port_shown() {
    let mut index = Index::default();
    list_services(&mut index, vec![service("db", json!([{"port": 5432}]))]);
    list_slices(
        &mut index,
        vec![slice("db-1", "db", json!([{"name": "", "port": 5432}]), json!([backend("10.0.0.1", "a")]))],
    );
    let check = check(
        "c",
        json!([{"name": "t", "service": {"name": "db"}, "probe": {"http": {"port": 8008, "path": "/primary"}}}]),
    );
    let endpoint = resolve(&check, &index.sources).endpoints.remove(0);
    assert_eq!(&*endpoint.label, "10.0.0.1:5432");
    assert_eq!(endpoint.dial.and_then(|dial| dial.port), Some(8008));
}

#[test]
fn what_is_asked_at_one_port_and_serves_at_two_stays_two() {
    let probe = json!({"http": {"port": 8008}});
    let target = |name: &str, port: u16| json!({"name": name, "host": "10.0.0.1", "port": port, "probe": probe});
    let check = check("c", json!([target("a", 5432), target("b", 5433)]));
    let endpoints = resolve(&check, &Index::default().sources).endpoints;
    assert_eq!(labels(&endpoints), ["10.0.0.1:5432", "10.0.0.1:5433"]);
    assert_ne!(endpoints[0].identity, endpoints[1].identity);
    assert!(endpoints.iter().all(|endpoint| endpoint.dial.as_ref().and_then(|dial| dial.port) == Some(8008)));
}

#[test]
fn an_endpoint_that_moves_between_slices_is_one() {
    let mut index = Index::default();
    list_services(&mut index, vec![service("db", json!([{"port": 80}]))]);
    let of = |name: &str| slice(name, "db", json!([{"port": 80}]), json!([backend("10.0.0.1", "a")]));
    list_slices(&mut index, vec![of("db-1"), of("db-2")]);
    let check = check("c", json!([{"name": "t", "service": {"name": "db"}}]));
    assert_eq!(told(&index, &check).0, ["10.0.0.1:80"]);
}

/// A Service of two families has a slice for each, and each pod an address in both.
#[test]
fn a_pod_of_two_families_is_two_endpoints() {
    let mut index = Index::default();
    list_services(&mut index, vec![service("db", json!([{"port": 80}]))]);
    let of = |name: &str, address: &str| slice(name, "db", json!([{"port": 80}]), json!([backend(address, "a")]));
    list_slices(&mut index, vec![of("db-4", "10.0.0.1"), of("db-6", "fd00::1")]);
    let check = check("c", json!([{"name": "t", "service": {"name": "db"}}]));
    let mut endpoints = told(&index, &check).0;
    endpoints.sort();
    assert_eq!(endpoints, ["10.0.0.1:80", "[fd00::1]:80"]);
}

#[test]
fn pods_are_those_that_run_and_match() {
    let mut index = Index::default();
    let by_name =
        check("c", json!([{"name": "t", "pods": {"selector": {"matchLabels": {"app": "web"}}}, "port": "web"}]));
    let by_number =
        check("d", json!([{"name": "t", "pods": {"selector": {"matchLabels": {"app": "web"}}}, "port": 9}]));
    let misnamed =
        check("e", json!([{"name": "t", "pods": {"selector": {"matchLabels": {"app": "web"}}}, "port": "x"}]));
    index.insert(by_name.clone());
    let pods = vec![
        pod("a", "web", "Running", "10.0.0.1"),
        pod("b", "web", "Pending", "10.0.0.2"),
        pod("c", "other", "Running", "10.0.0.3"),
        pod("d", "web", "Running", "fd00::4"),
    ];
    assert_eq!(list_pods(&mut index, pods), BTreeSet::from([by_name.key.clone()]));
    assert_eq!(told(&index, &by_name).0, ["10.0.0.1:8080", "[fd00::4]:8080"]);
    assert_eq!(told(&index, &by_number).0, ["10.0.0.1:9", "[fd00::4]:9"]);
    let problem = "spec.targets[0].port: 2 of 2 matching pods have no container port named 'x'; correct the name, or give the number";
    assert_eq!(told(&index, &misnamed), (vec![], vec![problem.to_owned()]));
    let gone = index.apply(SourceChange::Pod(scope(SourceKind::Pods), Told::Gone(pod("a", "web", "Running", ""))));
    assert_eq!(gone, BTreeSet::from([by_name.key.clone()]));
    assert_eq!(told(&index, &by_name).0, ["[fd00::4]:8080"]);
}

#[test]
fn a_change_of_annotations_alone_concerns_no_check() {
    let mut index = Index::default();
    let check = check("c", json!([{"name": "t", "service": {"name": "db"}}]));
    index.insert(check.clone());
    let mut facts = slice("db-1", "db", json!([{"port": 80}]), json!([backend("10.0.0.1", "a")]));
    list_slices(&mut index, vec![facts.clone()]);
    facts.resource_version = "2".to_owned();
    facts.annotations.insert("c".to_owned(), "{}".to_owned());
    let change = |told| SourceChange::Slice(scope(SourceKind::Slices), told);
    assert!(index.apply(change(Told::Is(facts.clone()))).is_empty());
    facts.endpoints.clear();
    assert_eq!(index.apply(change(Told::Is(facts))).len(), 1);
}

#[test]
fn a_list_that_leaves_something_out_removes_it() {
    let mut index = Index::default();
    let check = check("c", json!([{"name": "t", "service": {"name": "db"}}]));
    index.insert(check.clone());
    list_services(&mut index, vec![service("db", json!([{"port": 80}]))]);
    let of = |name: &str| slice(name, "db", json!([{"port": 80}]), json!([backend("10.0.0.1", name)]));
    list_slices(&mut index, vec![of("db-1"), of("db-2")]);
    assert_eq!(told(&index, &check).0.len(), 2);
    assert!(list_slices(&mut index, vec![of("db-1"), of("db-2")]).is_empty(), "nothing changed");
    assert_eq!(list_slices(&mut index, vec![of("db-2")]).len(), 1);
    assert_eq!(told(&index, &check).0.len(), 1);
}

#[test]
fn where_we_may_not_look_the_check_says_so_until_we_may() {
    let mut index = Index::default();
    let check = check("c", json!([{"name": "t", "pods": {"selector": {"matchLabels": {"app": "web"}}}, "port": 1}]));
    index.insert(check.clone());
    let refused = Told::Failed(CallError::Forbidden("pods is forbidden".to_owned()));
    assert_eq!(index.apply(SourceChange::Pod(scope(SourceKind::Pods), refused)).len(), 1);
    assert!(index.is_ready(&check));
    assert_eq!(told(&index, &check).1, ["spec.targets[0].pods: cannot watch pods: pods is forbidden"]);
    assert_eq!(list_pods(&mut index, vec![]).len(), 1);
    assert!(told(&index, &check).1.is_empty());
}

#[test]
fn only_what_a_check_refers_to_is_watched() {
    let mut index = Index::default();
    assert!(index.scopes().is_empty());
    index.insert(check("a", json!([{"name": "t", "host": "db", "port": 1}])));
    assert!(index.scopes().is_empty());
    index.insert(check("a", json!([{"name": "t", "service": {"name": "db"}}])));
    assert_eq!(index.scopes(), BTreeSet::from([scope(SourceKind::Services), scope(SourceKind::Slices)]));
    index.insert(check("b", json!([{"name": "t", "pods": {"selector": {"matchLabels": {"a": "b"}}}, "port": 1}])));
    assert_eq!(index.scopes().len(), 3);
    index.remove(&ObjectKey::new("shop", "a"));
    assert_eq!(index.scopes(), BTreeSet::from([scope(SourceKind::Pods)]));
}

/// One step of a watch of slices.
#[derive(Clone, Debug)]
enum Step {
    Put { slice: u8, service: u8, endpoints: Vec<u8> },
    Delete(u8),
    List(Vec<(u8, u8, Vec<u8>)>),
}

fn step() -> impl Strategy<Value = Step> {
    let one = (0..4u8, 0..2u8, prop::collection::vec(0..6u8, 0..4));
    prop_oneof![
        one.clone().prop_map(|(slice, service, endpoints)| Step::Put { slice, service, endpoints }),
        (0..4u8).prop_map(Step::Delete),
        prop::collection::vec(one, 0..4).prop_map(Step::List),
    ]
}

fn numbered(name: u8, service: u8, endpoints: &[u8]) -> SliceFacts {
    let endpoints: Vec<_> = endpoints.iter().map(|n| backend(&format!("10.0.0.{n}"), &n.to_string())).collect();
    slice(&format!("s{name}"), &format!("svc{service}"), json!([{"port": 80}]), json!(endpoints))
}

proptest! {
    /// Whatever a watch tells in whatever order: the endpoints are those of the slices that are there now, and a check
    /// whose endpoints changed was named.
    #[test]
    fn the_endpoints_are_those_of_the_slices_that_are_there(steps in prop::collection::vec(step(), 1..20)) {
        let mut index = Index::default();
        let checks = [0, 1].map(|n| check(&format!("c{n}"), json!([{"name": "t", "service": {"name": format!("svc{n}")}}])));
        for check in &checks {
            index.insert(check.clone());
        }
        list_services(&mut index, vec![service("svc0", json!([{"port": 80}])), service("svc1", json!([{"port": 80}]))]);
        let mut model: std::collections::BTreeMap<u8, (u8, Vec<u8>)> = std::collections::BTreeMap::new();
        for step in steps {
            let before: Vec<_> = checks.iter().map(|check| told(&index, check).0).collect();
            let change = |told| SourceChange::Slice(scope(SourceKind::Slices), told);
            let named = match step {
                Step::Put { slice, service, endpoints } => {
                    let named = index.apply(change(Told::Is(numbered(slice, service, &endpoints))));
                    model.insert(slice, (service, endpoints));
                    named
                }
                Step::Delete(slice) => {
                    model.remove(&slice);
                    index.apply(change(Told::Gone(numbered(slice, 0, &[]))))
                }
                Step::List(slices) => {
                    model = slices.iter().cloned().map(|(slice, service, endpoints)| (slice, (service, endpoints))).collect();
                    let listed = model.iter().map(|(slice, (service, endpoints))| numbered(*slice, *service, endpoints));
                    list_slices(&mut index, listed.collect())
                }
            };
            for (n, check) in checks.iter().enumerate() {
                let wanted: BTreeSet<String> = model
                    .values()
                    .filter(|(service, _)| usize::from(*service) == n)
                    .flat_map(|(_, endpoints)| endpoints.iter().map(|e| format!("10.0.0.{e}:80")))
                    .collect();
                let now = told(&index, check).0;
                prop_assert_eq!(now.iter().cloned().collect::<BTreeSet<_>>(), wanted);
                prop_assert_eq!(now.len(), now.iter().collect::<BTreeSet<_>>().len(), "each endpoint once");
                prop_assert!(now == before[n] || named.contains(&check.key));
            }
        }
    }
}

#[test]
fn a_slice_that_loses_its_service_is_gone() {
    let mut sources = super::Sources::default();
    let scope = Scope { kind: SourceKind::Slices, namespace: "shop".into() };
    let ports = json!([{"name": "http", "port": 80}]);
    let of = |service: &str| slice("s", service, ports.clone(), json!([backend("10.0.0.1", "a")]));
    let mut tell = |service: &str| sources.apply(SourceChange::Slice(scope.clone(), Told::Is(of(service)))).services;
    let shop = ObjectKey::new("shop", "web");
    assert_eq!(tell("web"), [shop.clone()].into());
    assert_eq!(tell(""), [shop.clone()].into());
    assert!(!sources.slices.contains_key(&shop) && sources.slice(&ObjectKey::new("shop", "s")).is_none());
}

#[test]
fn a_pod_that_terminates_has_left() {
    let mut index = Index::default();
    let check = check("c", json!([{"name": "t", "pods": {"selector": {"matchLabels": {"app": "web"}}}, "port": 80}]));
    index.insert(check.clone());
    let leaving = |name: &str, address: &str| {
        let object = json!({
            "metadata": {
                "name": name, "namespace": "shop", "uid": name, "labels": {"app": "web"},
                "deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 30,
            },
            "status": {"phase": "Running", "podIP": address},
        });
        PodFacts::of(&serde_json::from_value::<Pod>(object).expect("readable"))
    };
    list_pods(&mut index, vec![pod("a", "web", "Running", "10.0.0.1"), leaving("b", "10.0.0.2")]);
    assert_eq!(told(&index, &check), (vec!["10.0.0.1:80".to_owned()], vec![]));
    // Deleting it marks it long before it is gone.
    let marked = index.apply(SourceChange::Pod(scope(SourceKind::Pods), Told::Is(leaving("a", "10.0.0.1"))));
    assert_eq!(marked, BTreeSet::from([check.key.clone()]));
    assert_eq!(told(&index, &check).0, Vec::<String>::new());
}
