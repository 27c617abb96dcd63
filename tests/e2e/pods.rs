//! Pods whose kubelet probe lies, behind an ordinary Service, with a readiness gate.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::room::{Room, SOON};
use crate::suite::Suite;
use crate::support::recorder::{Change, Recorder};
use crate::support::wait::wait_until;
use crate::traffic::Traffic;
use crate::verdict::{State, WATCHED};

const APP: &str = "web";
const CONDITION: &str = "healthcheck-operator.dev/web";

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![suite.show("pods::a_readiness_gate_tells_what_the_kubelet_does_not_see", lying)]
}

/// An HTTP server in three pods. The kubelet is content with a port that listens.
fn deployment(version: &str) -> Value {
    let serve = "mkdir /tmp/www && hostname >/tmp/www/index.html && cp /tmp/www/index.html /tmp/www/healthz \
                 && exec httpd -f -p 8080 -h /tmp/www";
    let container = json!({
        "name": APP, "image": "node-tools:1", "imagePullPolicy": "Never",
        "command": ["/bin/sh", "-c", serve],
        "env": [{"name": "VERSION", "value": version}],
        "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 1},
        // Whoever was sent here before everybody knew is still answered.
        "lifecycle": {"preStop": {"sleep": {"seconds": 3}}},
    });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": APP},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": APP}},
            "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {
                "metadata": {"labels": {"app": APP}},
                "spec": {
                    "terminationGracePeriodSeconds": 5,
                    "readinessGates": [{"conditionType": CONDITION}],
                    "containers": [container],
                },
            },
        },
    })
}

fn check() -> Value {
    json!({
        "interval": "500ms", "timeout": "400ms", "failureThreshold": 2, "successThreshold": 2,
        "probe": {"http": {"path": "/healthz", "expectedStatuses": [200]}},
        "targets": [{"name": APP, "service": {"name": APP}}],
        "gates": [{"name": "ready", "podReadiness": {"conditionType": CONDITION}}],
    })
}

async fn lying(room: Arc<Room>) -> anyhow::Result<()> {
    room.operator(&[]).await?;
    let pods = Recorder::<Pod>::start(room.api()).await?;
    room.service(APP, json!({"selector": {"app": APP}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}))
        .await?;
    room.apply(&deployment("1")).await?;
    room.check(APP, check()).await?;
    rolled_out(&room).await?;
    let address = (room.service_ip(APP).await?, 80).into();

    let traffic = Traffic::start(address).await?;
    let names = names(&room).await?;
    for name in &names {
        traffic.answered_by(name).await?;
    }
    let (sick, begun) = (&names[0], Instant::now());
    exec(&room, sick, "rm /tmp/www/index.html /tmp/www/healthz").await?;
    let verdict = turned(&pods, sick, CONDITION, State::Unhealthy, begun).await?;
    turned(&pods, sick, "Ready", State::Unhealthy, begun).await?;
    traffic.until("requests after the verdict", verdict + WATCHED, |seen| seen.len() >= 100).await?;
    let contents = condition(&room.api::<Pod>().get(sick).await?, "ContainersReady");
    ensure!(contents == State::Healthy, "the kubelet's own probe was to see nothing, and says {contents:?}");
    exec(&room, sick, "hostname >/tmp/www/index.html && cp /tmp/www/index.html /tmp/www/healthz").await?;
    traffic.answered_by(sick).await?;
    traffic.stop("a sick pod that the kubelet finds well").await?.over_by(begun, verdict)?;

    let traffic = Traffic::start(address).await?;
    let begun = Instant::now();
    room.apply(&deployment("2")).await?;
    rolled_out(&room).await?;
    println!("  the rolling update of 3 pods took {:.1} s", begun.elapsed().as_secs_f64());
    let now = self::names(&room).await?;
    ensure!(!now.iter().any(|name| names.contains(name)), "{now:?} are left of {names:?}");
    for name in &now {
        traffic.answered_by(name).await?;
    }
    room.node.kubectl(&["scale", "deployment", APP, "--replicas=4", "--namespace", &room.namespace]).await?;
    rolled_out(&room).await?;
    let joined = self::names(&room).await?.into_iter().find(|name| !now.contains(name)).context("no new pod")?;
    traffic.answered_by(&joined).await?;
    traffic.more(100).await?;
    traffic.stop("a rolling update, and a pod more").await?.lossless()?;
    by_verdict(&pods, &joined)
}

async fn rolled_out(room: &Room) -> anyhow::Result<()> {
    let deployment = format!("deployment/{APP}");
    let args = ["rollout", "status", "--timeout=120s", "--namespace", &room.namespace, &deployment];
    room.node.kubectl(&args).await.map(|_| ())
}

/// The pods that are not on their way out.
async fn names(room: &Room) -> anyhow::Result<Vec<String>> {
    let mut pods = room.api::<Pod>().list(&ListParams::default().labels(&format!("app={APP}"))).await?.items;
    pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
    pods.into_iter().map(|pod| pod.metadata.name.context("a pod without a name")).collect()
}

async fn exec(room: &Room, pod: &str, script: &str) -> anyhow::Result<()> {
    room.node.kubectl(&["exec", "--namespace", &room.namespace, pod, "--", "sh", "-c", script]).await.map(|_| ())
}

fn condition(pod: &Pod, kind: &str) -> State {
    let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    match conditions.find(|condition| condition.type_ == kind).map(|condition| condition.status.as_str()) {
        Some("True") => State::Healthy,
        Some("False") => State::Unhealthy,
        _ => State::Unknown,
    }
}

/// What a condition of a pod said in turn.
fn states(pods: &Recorder<Pod>, name: &str, kind: &str) -> anyhow::Result<Vec<(Instant, State)>> {
    let mut states: Vec<(Instant, State)> = Vec::new();
    for (heard, change) in pods.timed()? {
        let Change::Now(pod) = change else { continue };
        if pod.metadata.name.as_deref() != Some(name) {
            continue;
        }
        let state = condition(&pod, kind);
        if states.last().is_none_or(|(_, last)| *last != state) {
            states.push((heard, state));
        }
    }
    Ok(states)
}

async fn turned(pods: &Recorder<Pod>, name: &str, kind: &str, to: State, since: Instant) -> anyhow::Result<Instant> {
    wait_until(&format!("{kind} of {name} to be {to:?}"), SOON, || async {
        let states = states(pods, name, kind)?;
        let found = states.iter().find(|(heard, state)| *heard >= since && *state == to);
        found.map(|(heard, _)| *heard).with_context(|| format!("{states:?}"))
    })
    .await
}

/// The pod was ready only once the gate said so, and never ceased to be.
fn by_verdict(pods: &Recorder<Pod>, name: &str) -> anyhow::Result<()> {
    let of = |kind| states(pods, name, kind);
    let (ours, ready) = (of(CONDITION)?, of("Ready")?);
    let first = |states: &[(Instant, State)]| {
        states.iter().find(|(_, state)| *state == State::Healthy).map(|(heard, _)| *heard).context("never True")
    };
    ensure!(first(&ours)? <= first(&ready)?, "{name} was ready before it was admitted");
    for (kind, states) in [("our condition", &ours), ("Ready", &ready)] {
        let later = states.iter().skip_while(|(_, state)| *state != State::Healthy).count();
        ensure!(later == 1, "{kind} of {name} was {states:?}");
    }
    Ok(())
}
