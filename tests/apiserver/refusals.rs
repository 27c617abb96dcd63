//! What the operator says when it is not let: one line that names the thing and the mend, however often it tries; the
//! process goes on; and what waited is done once the right is granted.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::ResourceExt;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::stage::{SOON, Stage, fast, target};
use crate::suite::Suite;
use crate::support::audit::Mark;
use crate::support::control_plane::ControlPlane;
use crate::support::fault_proxy::{Fault, FaultProxy, Match};
use crate::support::identity::Credentials;
use crate::support::netns::fresh_address;
use crate::support::operator::{self, Operator};
use crate::support::ports::free_port;
use crate::support::targets::HttpTarget;
use crate::support::wait::wait_until;

/// The account that may do less than the operator needs.
const LIMITED: &str = "limited";
/// A token that was mounted is read again within a minute.
const TOKEN_READ_AGAIN: Duration = Duration::from_secs(150);

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.trial("refusals::a_lease_that_may_not_be_touched", lease),
        suite.trial("refusals::checks_that_may_not_be_listed", checks),
        suite.trial("refusals::what_may_not_be_written", writes),
        suite.trial("refusals::credentials_that_are_refused", credentials),
    ]
}

fn rule(group: &str, resource: &str, verbs: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": [resource], "verbs": verbs})
}

/// All that the operator needs here, but for what is in `missing`.
fn rights_but(missing: &[&str]) -> anyhow::Result<Vec<PolicyRule>> {
    let all = [
        ("healthchecks", rule("healthcheck-operator.dev", "healthchecks", &["get", "list", "watch"])),
        ("healthchecks/status", rule("healthcheck-operator.dev", "healthchecks/status", &["patch"])),
        ("leases", rule("coordination.k8s.io", "leases", &["get", "create", "update"])),
        ("nodes", rule("", "nodes", &["list", "watch"])),
        ("services", rule("", "services", &["list", "watch"])),
        ("pods", rule("", "pods", &["get", "list", "watch"])),
        ("endpointslices", rule("discovery.k8s.io", "endpointslices", &["list", "watch"])),
        ("annotations", rule("discovery.k8s.io", "endpointslices", &["patch"])),
        ("events", rule("events.k8s.io", "events", &["create", "patch"])),
    ];
    for name in missing {
        ensure!(all.iter().any(|(known, _)| known == name), "no right to {name} is known");
    }
    let left = all.into_iter().filter(|(name, _)| !missing.contains(name)).map(|(_, rule)| rule).collect();
    Ok(serde_json::from_value(Value::Array(left))?)
}

/// A namespace with an operator that is refused.
struct Refused {
    stage: Stage,
    limited: Stage,
    mark: Mark,
}

impl Refused {
    async fn new(cluster: Arc<ControlPlane>, test: &str, missing: &[&str]) -> anyhow::Result<Self> {
        let stage = Stage::new(cluster.clone(), test).await?;
        let limited = stage.as_account(LIMITED).await?;
        cluster.grant(&stage.namespace, LIMITED, rights_but(missing)?).await?;
        let mark = cluster.audit().mark()?;
        Ok(Self { stage, limited, mark })
    }

    /// Adds to what the account may do.
    async fn allow(&self, rule: Value) -> anyhow::Result<()> {
        let (cluster, namespace) = (&self.stage.cluster, &self.stage.namespace);
        let verbs: Vec<_> = rule["verbs"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let resource = rule["resources"][0].as_str().context("no resource")?;
        let name = format!("{namespace}-{}-{}", resource.replace('/', "-"), verbs.join("-"));
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": name}, "rules": [rule],
        });
        cluster.apply(namespace, &role.to_string()).await?;
        cluster.bind(namespace, LIMITED, &name).await
    }

    /// Waits until the account was refused this so often since the start: it goes on trying.
    async fn wait_refused(&self, verb: &str, resource: &str, often: usize) -> anyhow::Result<()> {
        let user = format!("system:serviceaccount:{}:{LIMITED}", self.stage.namespace);
        let (resource, part) = resource.split_once('/').unwrap_or((resource, ""));
        wait_until(&format!("{often} refusals to {verb} {resource}"), SOON, || async {
            let mut entries = self.stage.cluster.audit().since(self.mark)?;
            entries.retain(|entry| entry.user == user && entry.code == 403 && entry.verb == verb);
            entries.retain(|entry| entry.resource == resource && entry.subresource == part);
            ensure!(entries.len() >= often, "{}", entries.len());
            anyhow::Ok(())
        })
        .await
    }
}

/// The warnings with these words that were logged so far.
fn warnings(operator: &Operator, words: &str) -> Vec<String> {
    let output = operator.process().output();
    output.lines().filter(|line| line.contains(" WARN ") && line.contains(words)).map(ToOwned::to_owned).collect()
}

/// Waits for the `number`th warning with these words, and returns it.
async fn warned(operator: &Operator, words: &str, number: usize) -> anyhow::Result<String> {
    wait_until(&format!("warning {number} of '{words}'"), SOON, || async {
        operator.process().check_alive()?;
        let found = warnings(operator, words);
        found.get(number - 1).cloned().with_context(|| operator.process().log_tail())
    })
    .await
}

fn has(line: &str, parts: &[&str]) -> anyhow::Result<()> {
    for part in parts {
        ensure!(line.contains(part), "'{part}' is not in: {line}");
    }
    Ok(())
}

/// It lives, is not ready, and says why in these words.
async fn alive_and_waiting(operator: &Operator, words: &[&str]) -> anyhow::Result<()> {
    wait_until("it to wait", SOON, || async {
        operator.process().check_alive()?;
        ensure!(operator.admin_get("/livez").await?.status == 200, "it says it is dead");
        let ready = operator.admin_get("/readyz").await?;
        ensure!(ready.status == 503, "{ready:?}");
        has(&ready.body, words)
    })
    .await
}

async fn lease(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let refused = Refused::new(cluster.clone(), "no-lease", &["leases"]).await?;
    let stage = &refused.stage;
    // One that somebody has given up: to take it is an update.
    let given_up = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "healthcheck-operator"}, "spec": {"leaseDurationSeconds": 15},
    });
    cluster.apply(&stage.namespace, &given_up.to_string()).await?;
    let web = HttpTarget::start().await?;
    stage.apply("web", fast(&[target("a", web.address())])).await?;
    let operator = refused.limited.command("hco-0", None)?.serve()?;
    operator.wait_alive(SOON).await?;

    let words = "cannot keep the lease";
    let mend = format!("grant get, create and update on leases in namespace {}", stage.namespace);
    has(&warned(&operator, words, 1).await?, &["cannot get resource \"leases\"", &mend])?;
    refused.wait_refused("get", "leases", 4).await?;
    alive_and_waiting(&operator, &["[-]lease failed"]).await?;
    ensure!(web.hits() == 0, "probed by one who does not lead");

    refused.allow(rule("coordination.k8s.io", "leases", &["get"])).await?;
    has(&warned(&operator, words, 2).await?, &["cannot update resource \"leases\"", &mend])?;
    refused.wait_refused("update", "leases", 4).await?;
    ensure!(web.hits() == 0, "probed by one who does not lead");

    refused.allow(rule("coordination.k8s.io", "leases", &["create", "update"])).await?;
    refused.limited.ready(&operator).await?;
    stage.wait_health("web", "Healthy").await?;
    let said = warnings(&operator, words);
    ensure!(said.len() == 2, "each once: {said:#?}");
    Ok(())
}

async fn checks(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let refused = Refused::new(cluster, "no-checks", &["healthchecks", "leases"]).await?;
    let stage = &refused.stage;
    let web = HttpTarget::start().await?;
    stage.apply("web", fast(&[target("a", web.address())])).await?;
    let operator = refused.limited.command("hco-0", None)?.serve()?;
    operator.wait_alive(SOON).await?;

    let words = "HealthChecks cannot be watched";
    let parts = ["cannot list resource \"healthchecks\"", "grant list and watch on healthchecks"];
    has(&warned(&operator, words, 1).await?, &parts)?;
    alive_and_waiting(&operator, &["[-]crd failed", words, parts[0], parts[1]]).await?;
    let answer = operator.get("/healthz").await?;
    ensure!(answer.status == 503, "what is not known is not well: {answer:?}");
    refused.wait_refused("list", "healthchecks", 4).await?;
    // To lead begins the watch anew, and with it the refusals.
    refused.allow(rule("coordination.k8s.io", "leases", &["get", "create", "update"])).await?;
    wait_until("it to lead", SOON, || async {
        ensure!(operator.process().output().contains("holding the lease"), "{}", operator.process().log_tail());
        anyhow::Ok(())
    })
    .await?;
    refused.wait_refused("list", "healthchecks", 8).await?;

    let all = rule("healthcheck-operator.dev", "healthchecks", &["get", "list", "watch"]);
    refused.allow(all).await?;
    refused.limited.ready(&operator).await?;
    stage.wait_health("web", "Healthy").await?;
    let said = warnings(&operator, words);
    ensure!(said.len() == 1, "once: {said:#?}");
    Ok(())
}

async fn writes(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let missing = ["healthchecks/status", "annotations", "events"];
    let refused = Refused::new(cluster.clone(), "no-writes", &missing).await?;
    let stage = &refused.stage;
    let address = fresh_address();
    let web = HttpTarget::start_on((address, free_port()).into()).await?;
    cluster.service(&stage.namespace, "shop", json!({"port": 80, "targetPort": web.port()})).await?;
    cluster.pod(&stage.namespace, "a", "shop", address.into(), true).await?;
    cluster.wait_endpoints(&stage.namespace, "shop", &[(address.into(), true)]).await?;
    let operator = refused.limited.operator("hco-0").await?;
    // Two, so that it shows that what concerns both is said once.
    let of_service = fast(&[json!({"name": "svc", "service": {"name": "shop"}})]);
    stage.apply("shop", of_service.clone()).await?;
    stage.apply("more", of_service).await?;

    let status = "cannot write the status";
    let parts = ["cannot patch resource \"healthchecks/status\"", "grant patch on healthchecks/status"];
    has(&warned(&operator, status, 1).await?, &parts)?;
    let slice = "cannot annotate";
    let parts = [
        "cannot patch resource \"endpointslices\"",
        "grant patch on endpointslices, or start with --disable-annotations",
    ];
    has(&warned(&operator, slice, 1).await?, &parts)?;
    refused.wait_refused("patch", "healthchecks/status", 6).await?;
    refused.wait_refused("patch", "endpointslices", 4).await?;
    // Whatever may not be written is still probed, judged and told.
    let path = format!("/healthz/{}/shop", stage.namespace);
    operator.wait_get(&path, SOON, |answer| answer.status == 200).await?;
    ensure!(stage.get("shop").await?.status.is_none(), "written all the same");
    ensure!(warnings(&operator, status).len() == 1, "{:#?}", warnings(&operator, status));
    ensure!(warnings(&operator, slice).len() == 1, "{:#?}", warnings(&operator, slice));

    // No event goes before its status, so what is missing of events shows now.
    refused.allow(rule("healthcheck-operator.dev", "healthchecks/status", &["patch"])).await?;
    for name in ["shop", "more"] {
        stage.wait_health(name, "Healthy").await?;
    }
    let event = "cannot write events";
    let parts = [
        "cannot create resource \"events\"",
        "grant create and patch on events in events.k8s.io, or start with --disable-events",
    ];
    has(&warned(&operator, event, 1).await?, &parts)?;
    refused.wait_refused("create", "events", 2).await?;
    ensure!(warnings(&operator, event).len() == 1, "{:#?}", warnings(&operator, event));

    refused.allow(rule("discovery.k8s.io", "endpointslices", &["patch"])).await?;
    refused.allow(rule("events.k8s.io", "events", &["create", "patch"])).await?;
    wait_until("the annotations", SOON, || async {
        let slices = cluster.slices(&stage.namespace, "shop").await?;
        for name in ["shop", "more"] {
            let key = format!("healthcheck-operator.dev/{name}");
            ensure!(slices.iter().all(|slice| slice.annotations().contains_key(&key)), "{slices:?}");
        }
        anyhow::Ok(())
    })
    .await?;
    // A right that was just granted is not seen by the very next request.
    wait_until("an event", SOON, || async {
        for (status, word) in [(500, "Unhealthy"), (200, "Healthy")] {
            web.set_status(status);
            stage.wait_health("shop", word).await?;
        }
        ensure!(!stage.events("shop").await?.is_empty(), "none");
        anyhow::Ok(())
    })
    .await?;
    for words in [status, slice, event] {
        ensure!(warnings(&operator, words).len() == 1, "{:#?}", warnings(&operator, words));
    }
    Ok(())
}

async fn credentials(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster.clone(), "refused").await?;
    let words = "refused our credentials";
    let mend = "check the kubeconfig's user, or the service account";

    // Named by hand, somebody waits for a word.
    let made_up = cluster.kubeconfig(&Credentials::Token("made-up".to_owned()), None)?;
    let command = operator::command("controller").arg("--kubeconfig").arg(made_up);
    let ended = command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]).run(SOON).await?;
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    let errors: Vec<_> = said.lines().filter(|line| line.starts_with("error: ")).collect();
    ensure!(ended.status.code() == Some(3) && errors.len() == 1, "{:?}: {said}", ended.status);
    has(errors[0], &[&cluster.url(), words, mend])?;

    // As in a pod: nobody does, and the token comes from a file that others look after.
    let Credentials::Token(token) = &stage.account else { anyhow::bail!("not a token") };
    let directory = tempfile::tempdir()?;
    let mounted = directory.path().join("token");
    std::fs::write(&mounted, "made-up")?;
    let proxy = FaultProxy::start(&cluster).await?;
    let mut config: Value = serde_json::from_slice(&std::fs::read(stage.kubeconfig(Some(&proxy.url()))?)?)?;
    config["users"][0]["user"] = json!({"tokenFile": mounted});
    let file = directory.path().join("kubeconfig");
    std::fs::write(&file, config.to_string())?;
    let web = HttpTarget::start().await?;
    stage.apply("web", fast(&[target("a", web.address())])).await?;
    let operator = operator::command("controller")
        .args(["--watch-namespace", &stage.namespace, "--egress-allow", "127.0.0.0/8"])
        .env("KUBECONFIG", &file)
        .env("POD_NAME", "hco-0")
        .env("POD_NAMESPACE", &stage.namespace)
        .serve()?;
    operator.wait_alive(SOON).await?;
    has(&warned(&operator, words, 1).await?, &[&proxy.url(), mend])?;
    wait_until("it to try again", SOON, || async {
        let tries = proxy.count(&Match::verb("get"));
        ensure!(tries >= 4, "{tries}");
        anyhow::Ok(())
    })
    .await?;
    alive_and_waiting(&operator, &[words, mend]).await?;
    std::fs::write(&mounted, token)?;
    let ready = async || anyhow::Ok(operator.admin_get("/readyz").await?.status == 200);
    wait_until("the token to be read again", TOKEN_READ_AGAIN, || async {
        operator.process().check_alive()?;
        ensure!(ready().await?, "{}", operator.process().log_tail());
        anyhow::Ok(())
    })
    .await?;
    stage.wait_health("web", "Healthy").await?;
    ensure!(warnings(&operator, words).len() == 1, "{:#?}", warnings(&operator, words));

    // Refused while it leads: everything but its writes goes on.
    let rule = proxy.inject(Match::any(), Fault::Answer { status: 401, retry_after: None });
    proxy.cut();
    for words in ["cannot keep the lease", "HealthChecks cannot be watched"] {
        has(&warned(&operator, words, 1).await?, &["credentials", "check the service account"])?;
    }
    web.set_status(500);
    let path = format!("/healthz/{}/web", stage.namespace);
    operator.wait_get(&path, SOON, |answer| answer.status == 503).await?;
    let struck = rule.hits();
    wait_until("it to try again", SOON, || async {
        ensure!(rule.hits() >= struck + 6, "{}", rule.hits());
        anyhow::Ok(())
    })
    .await?;
    for words in ["cannot keep the lease", "HealthChecks cannot be watched"] {
        ensure!(warnings(&operator, words).len() == 1, "{:#?}", warnings(&operator, words));
    }
    rule.lift();
    stage.wait_health("web", "Unhealthy").await?;
    operator.process().check_alive()
}
