//! The API of the admin listener: whoever may read HealthChecks in the cluster may read them there, and nobody else.

use std::sync::Arc;

use anyhow::{Context, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::stage::{SOON, Stage, fast, target};
use crate::suite::Suite;
use crate::support::control_plane::ControlPlane;
use crate::support::identity::Credentials;
use crate::support::netns::fresh_address;
use crate::support::operator::Operator;
use crate::support::targets::HttpTarget;
use crate::support::wait::wait_until;

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.trial("access::the_admin_api_follows_the_clusters_rbac", rbac),
        suite.trial("access::a_probe_on_demand_follows_the_clusters_rbac", on_demand),
    ]
}

/// Somebody who asks the operator.
struct Reader<'a> {
    operator: &'a Operator,
    token: Option<String>,
    http: reqwest::Client,
}

impl<'a> Reader<'a> {
    fn new(operator: &'a Operator, who: Credentials) -> anyhow::Result<Self> {
        let token = match who {
            Credentials::Token(token) => Some(token),
            Credentials::Certificate(_) | Credentials::None => None,
        };
        let http = reqwest::Client::builder().no_proxy().timeout(SOON).build()?;
        Ok(Self { operator, token, http })
    }

    async fn get(&self, path: &str) -> anyhow::Result<(u16, String)> {
        let mut request = self.http.get(format!("{}{path}", self.operator.admin_url()));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await?;
        Ok((response.status().as_u16(), response.text().await?))
    }

    async fn probe(&self, path: &str, body: &str) -> anyhow::Result<(u16, Value)> {
        let mut request = self.http.post(format!("{}{path}/probe", self.operator.admin_url())).body(body.to_owned());
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await?;
        Ok((response.status().as_u16(), response.json().await?))
    }

    /// From the public listener.
    async fn get_public(&self, path: &str) -> anyhow::Result<(u16, String)> {
        let mut request = self.http.get(format!("{}{path}", self.operator.url()));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await?;
        Ok((response.status().as_u16(), response.text().await?))
    }

    /// Waits until a path is answered with `status`: a refusal may be remembered for a while after the grant.
    async fn wait(&self, path: &str, status: u16) -> anyhow::Result<String> {
        wait_until(&format!("{status} at {path}"), SOON, || async {
            let (found, body) = self.get(path).await?;
            ensure!(found == status, "{found}: {body}");
            anyhow::Ok(body)
        })
        .await
    }

    async fn expect(&self, path: &str, status: u16) -> anyhow::Result<String> {
        let (found, body) = self.get(path).await?;
        ensure!(found == status, "{path}: {found}, wanted {status}: {body}");
        Ok(body)
    }
}

fn read_rules() -> Value {
    json!([{"apiGroups": ["healthcheck-operator.dev"], "resources": ["healthchecks"], "verbs": ["get", "list"]}])
}

async fn rbac(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster.clone(), "access").await?;
    let (home, other) = (stage.namespace.clone(), cluster.namespace("elsewhere").await?);
    let operator = stage.operator("hco-0").await?;
    let web = HttpTarget::start().await?;
    stage.apply("web", fast(&[target("a", web.address())])).await?;
    stage.wait_health("web", "Healthy").await?;
    let (all, here, one) =
        ("/v1/healthchecks", format!("/v1/healthchecks/{home}"), format!("/v1/healthchecks/{home}/web"));
    let elsewhere = format!("/v1/healthchecks/{other}");

    // Nobody, somebody unknown, and the board of the public listener stays open.
    let nobody = Reader::new(&operator, Credentials::None)?;
    nobody.expect(all, 401).await?;
    nobody.expect(&one, 401).await?;
    Reader::new(&operator, Credentials::Token("made-up".to_owned()))?.expect(all, 401).await?;
    ensure!(operator.get("/healthz").await?.status == 200);

    // Somebody who may nothing: not told what exists either.
    let stranger = Reader::new(&operator, cluster.service_account(&home, "stranger").await?)?;
    for path in [all, &here, &one, &format!("{here}/nothing")] {
        let said = stranger.expect(path, 403).await?;
        ensure!(said.contains(&format!("system:serviceaccount:{home}:stranger")), "{said}");
    }

    // Somebody who may read everywhere.
    let reader = cluster.service_account(&home, "reader").await?;
    cluster.grant(&home, "reader", serde_json::from_value(read_rules())?).await?;
    let reader = Reader::new(&operator, reader)?;
    let list: Value = serde_json::from_str(&reader.wait(all, 200).await?)?;
    ensure!(list["current"] == true, "{list}");
    let items = list["items"].as_array().context("no items")?;
    ensure!(items.iter().any(|item| item["name"] == "web" && item["namespace"] == *home), "{list}");
    let check: Value = serde_json::from_str(&reader.wait(&one, 200).await?)?;
    ensure!(check["name"] == "web" && check["health"] == "Healthy" && check["summary"] == "1/1", "{check}");
    reader.expect(&format!("{here}/nothing"), 404).await?;
    let list: Value = serde_json::from_str(&reader.wait(&elsewhere, 200).await?)?;
    ensure!(list["items"] == json!([]), "{list}");

    // Somebody who may read in one namespace.
    let owner = cluster.service_account(&home, "owner").await?;
    let role = json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": "owner"}, "rules": read_rules(),
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "owner"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "owner"},
            "subjects": [{"kind": "ServiceAccount", "name": "owner", "namespace": home}],
        },
    ]});
    cluster.apply(&home, &role.to_string()).await?;
    let owner = Reader::new(&operator, owner)?;
    owner.wait(&here, 200).await?;
    owner.wait(&one, 200).await?;
    owner.expect(all, 403).await?;
    owner.expect(&elsewhere, 403).await?;

    // Answers are remembered: asking again asks the cluster nothing.
    let mark = cluster.audit().mark()?;
    for _ in 0..5 {
        owner.expect(&one, 200).await?;
    }
    web.wait_hits(5, SOON).await?;
    let writes = cluster.audit().writes_by(&stage.user(), mark)?;
    let reviews = writes.iter().filter(|entry| entry.resource.ends_with("reviews")).count();
    ensure!(reviews <= 2, "{reviews} reviews");
    Ok(())
}

/// Who may read may not yet probe; who may probe is answered by the replica that probes, and the verdict is none the wiser.
async fn on_demand(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster.clone(), "ondemand").await?;
    let home = stage.namespace.clone();
    let operator = stage.operator("hco-0").await?;
    let web = HttpTarget::start().await?;
    let mut spec = fast(&[target("a", web.address())]);
    spec["interval"] = json!("1h");
    stage.apply("web", spec).await?;
    stage.wait_health("web", "Healthy").await?;
    let one = format!("/v1/healthchecks/{home}/web");
    let who = cluster.service_account(&home, "prober").await?;
    cluster.grant(&home, "prober", serde_json::from_value(read_rules())?).await?;
    let who = Reader::new(&operator, who)?;
    who.wait(&one, 200).await?;
    let (status, said) = who.probe(&one, "").await?;
    ensure!(status == 403 && said["error"].as_str().is_some_and(|why| why.contains("healthchecks/probe")), "{said}");
    ensure!(Reader::new(&operator, Credentials::None)?.probe(&one, "").await?.0 == 401);

    let rules =
        json!([{"apiGroups": ["healthcheck-operator.dev"], "resources": ["healthchecks/probe"], "verbs": ["create"]}]);
    let role = json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": "may-probe"}, "rules": rules,
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "may-probe"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "may-probe"},
            "subjects": [{"kind": "ServiceAccount", "name": "prober", "namespace": home}],
        },
    ]});
    cluster.apply(&home, &role.to_string()).await?;
    wait_until("a probe that is allowed", SOON, || async {
        let (status, said) = who.probe(&one, "").await?;
        ensure!(status == 200, "{status}: {said}");
        ensure!(said["healthy"] == true && said["error"] == "", "{said}");
        anyhow::Ok(())
    })
    .await?;
    web.set_status(503);
    let (status, said) = who.probe(&one, "{}").await?;
    let told = "unexpected status code; got '503', want '200-399'";
    ensure!(status == 200 && said["healthy"] == false && said["error"] == told, "{said}");
    let check: Value = serde_json::from_str(&who.expect(&one, 200).await?)?;
    ensure!(
        check["health"] == "Healthy" && check["endpoints"][0]["state"] == "Healthy",
        "it counts for nothing: {check}"
    );

    // `?fresh=true` is the same right; the board needs none.
    let path = format!("/healthz/{home}/web");
    let fresh = format!("{path}?fresh=true");
    ensure!(operator.get(&fresh).await?.status == 401 && operator.get(&path).await?.status == 200);
    let (status, said) = who.get_public(&fresh).await?;
    ensure!(status == 503 && said.contains(told), "{status}: {said}");
    let (status, said) = who.get_public("/healthz?fresh=true").await?;
    ensure!(status == 403 && said.contains("healthchecks/probe"), "{status}: {said}");

    // The other replica mirrors the statuses, and makes the probe itself all the same: what is behind a Service too.
    let start = || HttpTarget::start_on((fresh_address(), 8080).into());
    let pods = [start().await?, start().await?];
    cluster.service(&home, "app", json!({"name": "http", "port": 80, "targetPort": 8080})).await?;
    for (name, pod) in ["app-0", "app-1"].into_iter().zip(&pods) {
        cluster.pod(&home, name, "app", pod.ip(), true).await?;
    }
    cluster.wait_endpoints(&home, "app", &[(pods[0].ip(), true), (pods[1].ip(), true)]).await?;
    let of_service = json!({"name": "s", "service": {"name": "app"}, "probe": {"http": {}}});
    let of_pods = json!({"name": "p", "port": 8080, "pods": {"selector": {"matchLabels": {"app": "app"}}}, "probe": {"http": {}}});
    let both =
        json!({"interval": "1h", "targets": [of_service, of_pods, {"name": "web", "healthCheck": {"name": "web"}}]});
    stage.apply("both", both).await?;
    // Once probed by who leads, it is not probed again for an hour but by who asks.
    stage.wait_health("both", "Healthy").await?;
    let standby = stage.operator("hco-1").await?;
    let who = Reader { operator: &standby, token: who.token.clone(), http: who.http.clone() };
    wait_until("the standby to probe", SOON, || async {
        let (status, said) = who.probe(&one, "").await?;
        ensure!(status == 200 && said["healthy"] == false && said["error"] == told, "{status}: {said}");
        anyhow::Ok(())
    })
    .await?;
    ensure!(standby.admin_get("/metrics").await?.body.contains("healthcheck_operator_leader 0"));
    let hits = [pods[0].hits(), pods[1].hits()];
    let (status, said) = who.probe(&format!("/v1/healthchecks/{home}/both"), "").await?;
    let rows = said["endpoints"].as_array().context("no endpoints")?;
    ensure!(status == 200 && said["healthy"] == true && rows.len() == 4, "{status}: {said}");
    ensure!([pods[0].hits(), pods[1].hits()] == [hits[0] + 2, hits[1] + 2], "as endpoints and as pods, once each");
    let both = format!("/healthz/{home}/both?fresh=true&verbose");
    wait_until("the standby to ask what it follows", SOON, || async {
        let (status, said) = who.get_public(&both).await?;
        ensure!(status == 503 && said.contains("HealthCheck web is Unhealthy"), "{status}: {said}");
        anyhow::Ok(())
    })
    .await?;
    web.set_status(200);
    let (status, said) = who.get_public(&both).await?;
    ensure!(status == 200 && said.contains("ok (5/5)"), "{status}: {said}");
    let (status, said) = who.probe(&format!("/v1/healthchecks/{home}/nothing"), "").await?;
    ensure!(status == 404 && said["error"].as_str().is_some_and(|why| why.contains("nothing")), "{status}: {said}");
    ensure!(Reader::new(&standby, Credentials::None)?.probe(&one, "").await?.0 == 401);
    Ok(())
}
