//! Wiring and supervision: one process, two roles, and a clean end.

mod roles;

use std::{sync::Arc, time::Duration};

use anyhow::{Context, anyhow, bail};
use ipnet::IpNet;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::{Api, Client, Config, api::PostParams};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    checks::{Complaints, Selection},
    client::{CallError, Connection, call, client},
    egress_facts::{self, OwnPods},
    gates::Features,
    lease::{Elector, Held, LeaseOptions},
    references::{Grant, ReferenceStore},
    review::ClusterAuthorizer,
};
use crate::{
    engine::{Board, Limits, Surroundings},
    on_demand::{self, OnDemand},
    passive::Intake,
    probe::{DeniedDynamic, EgressGuard, KeptConnections, NameServers, Prober, ScriptBackend, Settings, canary},
    server::{self, Access, Readiness, ServerConfig, Servers},
    telemetry::{Beats, Metrics},
};

/// Who this replica is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// `status.prober`: the pod's name, outside a cluster the host's.
    pub prober: String,
    /// The pod's name, where the chart gave one.
    pub pod: Option<String>,
    /// The namespace of the Lease, and of our service account.
    pub namespace: String,
    /// The chart's ClusterRole that may get Secrets.
    pub secret_reader: String,
}

/// How the operator is to run.
#[derive(Clone, Debug)]
pub struct Options {
    pub connection: Connection,
    pub identity: Identity,
    pub selection: Selection,
    pub refresh: Duration,
    pub lease_name: String,
    pub lease_duration: Duration,
    pub lease_renew: Duration,
    /// Who runs scripts, if anybody does.
    pub scripts: ScriptBackend,
    pub egress_allow: Vec<IpNet>,
    pub annotations: bool,
    pub gates: Features,
    pub events: bool,
    pub server: ServerConfig,
    pub limits: Limits,
    /// Idle connections that probes may keep.
    pub kept_connections: usize,
    /// Whether what can take the fast lane takes it.
    pub fast_lane: bool,
}

/// How long stopping may take in all, beyond the last writes.
const RELEASE: Duration = Duration::from_secs(2);

/// Everything both roles use.
struct Operator {
    options: Options,
    client: Client,
    board: Arc<Board>,
    metrics: Metrics,
    beats: Beats,
    readiness: Readiness,
    held: Held,
    surroundings: Surroundings,
    /// Cancelled when the egress guard knows what it needs for probing.
    egress_known: CancellationToken,
    prober: Arc<Prober>,
    on_demand: OnDemand,
    passive: Intake,
    references: ReferenceStore,
    /// What keeps HealthChecks from being watched, whichever role it is met in.
    complaints: Complaints,
}

/// Runs the operator until `stop`.
///
/// # Errors
/// When it cannot start, or an essential part of it ended by itself.
pub async fn run(options: Options, stop: CancellationToken) -> anyhow::Result<()> {
    let (metrics, beats, readiness, board) =
        (Metrics::default(), Beats::default(), Readiness::default(), Arc::new(Board::new()));
    let config = options.connection.load().await?;
    let api = client(&config, &metrics)?;
    let on_demand = OnDemand::with(on_demand::Settings {
        attempts: options.limits.on_demand(),
        board: Some(board.clone()),
        ..on_demand::Settings::default()
    });
    let passive = Intake::new(metrics.observations.clone());
    let access = Access::Cluster(Arc::new(ClusterAuthorizer::new(api.clone())));
    readiness.not_ready("crd", "HealthChecks have not been listed yet");
    readiness.not_ready("egress", "the API server has not been reached yet");
    let state = server::State {
        board: board.clone(),
        beats: beats.clone(),
        readiness: readiness.clone(),
        metrics: metrics.clone(),
        access,
        on_demand: Some(on_demand.clone()),
        passive: passive.clone(),
    };
    let servers = Servers::bind(&options.server, state)?;
    let mut essential = JoinSet::new();
    let servers_stop = CancellationToken::new();
    essential.spawn({
        let stop = servers_stop.clone();
        async move {
            servers.serve(stop).await;
            "HTTP"
        }
    });
    if !greet(&api, &config, &options, &readiness, &stop).await? {
        servers_stop.cancel();
        return Ok(());
    }

    let denied =
        DeniedDynamic { api_servers: egress_facts::without_asking(&config.cluster_url), ..DeniedDynamic::default() };
    let guard = Arc::new(EgressGuard::cluster(denied, options.egress_allow.clone()));
    let (facts_stop, egress_known) = (CancellationToken::new(), CancellationToken::new());
    let own = options.identity.pod.clone().map(|pod| OwnPods { namespace: options.identity.namespace.clone(), pod });
    let parts = egress_facts::Parts {
        client: api.clone(),
        cluster_url: config.cluster_url.clone(),
        own,
        guard: guard.clone(),
        metrics: metrics.clone(),
        readiness: readiness.clone(),
        known: egress_known.clone(),
    };
    let facts = egress_facts::keep(parts, facts_stop.clone());
    essential.spawn(async move {
        facts.await;
        "egress facts"
    });

    let lease = LeaseOptions {
        namespace: options.identity.namespace.clone(),
        name: options.lease_name.clone(),
        pod: options.identity.pod.clone(),
        duration: options.lease_duration,
        renew: options.lease_renew,
    };
    let surroundings = Surroundings::default();
    essential.spawn({
        let (surroundings, stop) = (surroundings.clone(), servers_stop.clone());
        async move {
            canary::watch(|failed| surroundings.set_canary_failed(failed), stop).await;
            "canary"
        }
    });
    let (elector, role, held) = Elector::new(client(&config, &metrics)?, lease, beats.clone(), surroundings.clone());
    let (lease_stop, may_release) = (CancellationToken::new(), CancellationToken::new());
    let mut elector = tokio::spawn(elector.run(lease_stop.clone(), may_release.clone()));

    let references = ReferenceStore::new(api.clone(), grant(&api, &options.identity).await);
    let prober = Arc::new(Prober::new(Settings {
        egress: guard,
        references: Arc::new(references.clone()),
        scripts: options.scripts.clone(),
        name_servers: NameServers::System,
        connections: KeptConnections {
            limit: options.kept_connections,
            idle: metrics.kept_connections.clone(),
            lost: metrics.lost_connections.clone(),
        },
        spare: options.limits.spare(),
        fast_lane: options.fast_lane,
    }));
    let operator = Operator {
        options,
        client: api,
        board,
        metrics,
        beats,
        readiness,
        held,
        surroundings,
        egress_known,
        prober,
        on_demand,
        passive,
        references,
        complaints: Complaints::default(),
    };

    let failure;
    {
        let mut roles = std::pin::pin!(operator.play(role, stop.clone()));
        tokio::select! {
            ended = &mut roles => failure = ended.err(),
            Some(ended) = essential.join_next() => {
                failure = Some(name_of(ended));
                // Whatever else is wrong: what was decided is written, and the lease given up.
                stop.cancel();
                lease_stop.cancel();
                also(roles.await);
            }
            ended = &mut elector => {
                failure = Some(name_of(ended.map(|()| "lease")));
                stop.cancel();
                also(roles.await);
            }
        }
    }
    lease_stop.cancel();
    may_release.cancel();
    if !elector.is_finished() && tokio::time::timeout(RELEASE, &mut elector).await.is_err() {
        tracing::warn!("lease not released in time; a standby takes it when it has run out");
    }
    facts_stop.cancel();
    servers_stop.cancel();
    while essential.join_next().await.is_some() {}
    failure.map_or(Ok(()), Err)
}

fn name_of(ended: Result<&'static str, JoinError>) -> anyhow::Error {
    match ended {
        Ok(name) => anyhow!("{name} ended by itself; this is a bug"),
        Err(error) => anyhow!("a part broke down; this is a bug: {error}"),
    }
}

/// What else went wrong while stopping; why we stop is told already.
fn also(ended: anyhow::Result<()>) {
    if let Err(error) = ended {
        tracing::error!("{error:#}");
    }
}

/// The names in the line that grants us a namespace's Secrets. Who we are is what the API server takes us for.
async fn grant(api: &Client, identity: &Identity) -> Grant {
    let reviews: Api<SelfSubjectReview> = Api::all(api.clone());
    let name = match call(reviews.create(&PostParams::default(), &SelfSubjectReview::default())).await {
        Ok(review) => review.status.and_then(|status| status.user_info?.username).unwrap_or_default(),
        Err(_) => String::new(),
    };
    let account = name.strip_prefix("system:serviceaccount:").map(ToOwned::to_owned);
    let subject = match account {
        Some(account) => format!("--serviceaccount={account}"),
        None if name.is_empty() => {
            format!("--serviceaccount={}:{}", identity.namespace, super::patch::FIELD_MANAGER)
        }
        None => format!("--user={name}"),
    };
    Grant { cluster_role: identity.secret_reader.clone(), subject }
}

/// Says a first word to the API server, and waits until it answers. `false`: told to stop before it did.
///
/// # Errors
/// When it refuses us, or cannot be reached, and was named by hand: then a person is waiting to be told. In a pod nobody
/// is, and to end would only be to be started again: what is mended there, a token say, is seen while we wait.
async fn greet(
    api: &Client,
    config: &Config,
    options: &Options,
    readiness: &Readiness,
    stop: &CancellationToken,
) -> anyhow::Result<bool> {
    let by_hand = options.connection.kubeconfig.is_some() || options.connection.context.is_some();
    // Each of the two is said once, however often the one turns into the other.
    let (mut refused, mut unreachable) = (false, false);
    loop {
        let answer = tokio::select! {
            () = stop.cancelled() => return Ok(false),
            answer = call(api.apiserver_version()) => answer,
        };
        let server = &config.cluster_url;
        match answer {
            Ok(version) => {
                tracing::info!(%server, version = version.git_version, "talking to the API server");
                return Ok(true);
            }
            // Whoever may not ask for the version may still be let do everything else.
            Err(CallError::Forbidden(_)) => return Ok(true),
            Err(CallError::Unauthorized(message)) => {
                let told = format!(
                    "the API server {server} refused our credentials ({message}); check the kubeconfig's user, or the service account"
                );
                if by_hand {
                    bail!(told);
                }
                if !std::mem::replace(&mut refused, true) {
                    tracing::warn!("{told}; trying again");
                }
                readiness.not_ready("egress", told);
            }
            Err(error) if by_hand => {
                return Err(error).with_context(|| {
                    format!("cannot talk to the API server {server}; check the kubeconfig's server, or choose another with --context")
                });
            }
            Err(error) => {
                if !std::mem::replace(&mut unreachable, true) {
                    tracing::warn!(%server, "waiting for the API server: {error}");
                }
                readiness.not_ready("egress", format!("waiting for the API server {server}: {error}"));
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(false),
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}
