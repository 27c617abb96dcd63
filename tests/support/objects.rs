//! The Kubernetes objects that tests need around the operator's own.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::control_plane::{ControlPlane, NODE};
use super::identity::Credentials;
use super::wait::wait_until;

impl ControlPlane {
    /// Makes a ServiceAccount and returns the credentials of a real token for it. It may do
    /// nothing until something is granted to it.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn service_account(&self, namespace: &str, name: &str) -> anyhow::Result<Credentials> {
        let api: Api<ServiceAccount> = Api::namespaced(self.client(), namespace);
        let account = serde_json::from_value(json!({ "metadata": { "name": name } }))?;
        api.create(&PostParams::default(), &account).await?;
        self.token(namespace, name).await
    }

    /// A token for a ServiceAccount that exists, valid for an hour.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn token(&self, namespace: &str, name: &str) -> anyhow::Result<Credentials> {
        let api: Api<ServiceAccount> = Api::namespaced(self.client(), namespace);
        let spec = TokenRequestSpec { expiration_seconds: Some(3600), ..Default::default() };
        let request = TokenRequest { spec, ..Default::default() };
        let answer = api.create_token_request(name, &PostParams::default(), &request).await?;
        let status = answer.status.context("a TokenRequest was answered without a status")?;
        Ok(Credentials::Token(status.token))
    }

    /// Lets a ServiceAccount do what `rules` say in the whole cluster, by a ClusterRole of its
    /// own. Dies with the cluster.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn grant(&self, namespace: &str, account: &str, rules: Vec<PolicyRule>) -> anyhow::Result<()> {
        let name = format!("{namespace}-{account}");
        let role: ClusterRole = serde_json::from_value(json!({ "metadata": { "name": name }, "rules": rules }))?;
        Api::all(self.client()).create(&PostParams::default(), &role).await?;
        self.bind(namespace, account, &name).await
    }

    /// Binds a ServiceAccount to a ClusterRole that exists, such as `cluster-admin`.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn bind(&self, namespace: &str, account: &str, role: &str) -> anyhow::Result<()> {
        let binding: ClusterRoleBinding = serde_json::from_value(json!({
            "metadata": { "name": format!("{namespace}-{account}-{role}") },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
            "subjects": [{ "kind": "ServiceAccount", "namespace": namespace, "name": account }],
        }))?;
        Api::all(self.client()).create(&PostParams::default(), &binding).await?;
        Ok(())
    }

    /// Makes a Service with the selector `app: NAME` and one port.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn service(&self, namespace: &str, name: &str, port: Value) -> anyhow::Result<Service> {
        let service = serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": { "selector": { "app": name }, "ports": [port] },
        }))?;
        let api = Api::namespaced(self.client(), namespace);
        Ok(api.create(&PostParams::default(), &service).await?)
    }

    /// Makes a pod with the label `app: APP`, running at `ip` on the test's node, as if a kubelet
    /// had said so. The address may not be a loopback one, see [`super::netns`].
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn pod(&self, namespace: &str, name: &str, app: &str, ip: IpAddr, ready: bool) -> anyhow::Result<Pod> {
        let pod = serde_json::from_value(json!({
            "metadata": { "name": name, "labels": { "app": app } },
            "spec": {
                "nodeName": NODE,
                "terminationGracePeriodSeconds": 0,
                "containers": [{ "name": "app", "image": "none.invalid/app" }],
            },
        }))?;
        let api: Api<Pod> = Api::namespaced(self.client(), namespace);
        api.create(&PostParams::default(), &pod).await?;
        self.pod_status(
            namespace,
            name,
            json!({
                "phase": "Running",
                "podIP": ip,
                "podIPs": [{ "ip": ip }],
                "conditions": conditions(ready),
            }),
        )
        .await
    }

    /// Sets a pod's Ready condition, as a kubelet does.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn set_pod_ready(&self, namespace: &str, name: &str, ready: bool) -> anyhow::Result<Pod> {
        self.pod_status(namespace, name, json!({ "conditions": conditions(ready) })).await
    }

    /// Patches a pod's status (strategic merge: conditions are merged by type).
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn pod_status(&self, namespace: &str, name: &str, status: Value) -> anyhow::Result<Pod> {
        let api: Api<Pod> = Api::namespaced(self.client(), namespace);
        let patch = Patch::Strategic(json!({ "status": status }));
        Ok(api.patch_status(name, &PatchParams::default(), &patch).await?)
    }

    /// Deletes a pod at once: no kubelet is there to end it gently.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn delete_pod(&self, namespace: &str, name: &str) -> anyhow::Result<()> {
        let api: Api<Pod> = Api::namespaced(self.client(), namespace);
        api.delete(name, &DeleteParams { grace_period_seconds: Some(0), ..Default::default() }).await?;
        Ok(())
    }

    /// The EndpointSlices of a Service as they are now.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn slices(&self, namespace: &str, service: &str) -> anyhow::Result<Vec<EndpointSlice>> {
        let api: Api<EndpointSlice> = Api::namespaced(self.client(), namespace);
        let selector = format!("kubernetes.io/service-name={service}");
        Ok(api.list(&ListParams::default().labels(&selector)).await?.items)
    }

    /// Waits until the real controller has put exactly these addresses, with this readiness, into
    /// the Service's slices.
    ///
    /// # Errors
    /// After 30 s, with what is there instead.
    pub async fn wait_endpoints(
        &self,
        namespace: &str,
        service: &str,
        expected: &[(IpAddr, bool)],
    ) -> anyhow::Result<Vec<EndpointSlice>> {
        let expected: BTreeMap<String, bool> = expected.iter().map(|(ip, ready)| (ip.to_string(), *ready)).collect();
        wait_until("the Service's endpoints", Duration::from_secs(30), || async {
            let slices = self.slices(namespace, service).await?;
            let found = readiness(&slices);
            ensure!(found == expected, "{found:?}, wanted {expected:?}");
            Ok(slices)
        })
        .await
    }
}

/// Each address of some slices, and whether its `ready` is true.
pub fn readiness(slices: &[EndpointSlice]) -> BTreeMap<String, bool> {
    let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    endpoints
        .flat_map(|endpoint| {
            let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready);
            endpoint.addresses.iter().map(move |address| (address.clone(), ready == Some(true)))
        })
        .collect()
}

fn conditions(ready: bool) -> Value {
    let status = if ready { "True" } else { "False" };
    json!([
        { "type": "Ready", "status": status },
        { "type": "ContainersReady", "status": status },
        { "type": "Initialized", "status": "True" },
        { "type": "PodScheduled", "status": "True" },
    ])
}
