//! Wiring and supervision: one process, two roles, and a clean end.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, anyhow, bail};
use ipnet::IpNet;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::{Api, Client, Config, api::PostParams};
use tokio::{
    sync::watch,
    task::{JoinError, JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use super::{
    asked::Asked,
    checks::{Complaints, Selection},
    client::{CallError, Connection, call, client},
    egress_facts::{self, OwnPods},
    gates::Features,
    leader,
    lease::{Elector, Held, LeaseOptions, Role},
    mirror,
    references::{Grant, ReferenceStore},
    review::ClusterAuthorizer,
};
use crate::{
    engine::{self, Board, Engine, Limits, Surroundings},
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

impl Operator {
    /// Plays whatever role the lease gives, until `stop`.
    ///
    /// # Errors
    /// When a part of the role broke down: only a new process begins from what is known to be good, and a standby is
    /// quicker than that.
    async fn play(&self, mut role: watch::Receiver<Role>, stop: CancellationToken) -> anyhow::Result<()> {
        self.readiness.not_ready("lease", "the lease has not been read yet");
        while !stop.is_cancelled() {
            let current = *role.borrow_and_update();
            self.metrics.leader.set(i64::from(current == Role::Leader));
            if current != Role::Unknown {
                self.readiness.ready("lease");
            }
            let ended = stop.child_token();
            let watcher = watch_role(role.clone(), current, ended.clone());
            let playing = async {
                let played = match current {
                    Role::Leader => self.lead(ended.clone()).await,
                    // Before the lease is read, what others wrote is already worth showing.
                    Role::Standby | Role::Unknown => self.stand_by(ended.clone()).await,
                };
                ended.cancel();
                played
            };
            tokio::join!(playing, watcher).0?;
        }
        Ok(())
    }

    async fn lead(&self, stop: CancellationToken) -> anyhow::Result<()> {
        if !self.egress_known.is_cancelled() {
            // What others wrote is worth showing as long as nothing may be probed.
            let waited = stop.child_token();
            let standing_by = async {
                let stood = self.stand_by(waited.clone()).await;
                waited.cancel();
                stood
            };
            let knowing = async {
                tokio::select! {
                    () = waited.cancelled() => {}
                    () = self.egress_known.cancelled() => waited.cancel(),
                }
            };
            tokio::join!(standing_by, knowing).0?;
            if stop.is_cancelled() {
                return Ok(());
            }
        }
        let options = &self.options;
        let engine_stop = CancellationToken::new();
        let parts = engine::Parts {
            lane: self.prober.clone(),
            board: self.board.clone(),
            limits: options.limits,
            surroundings: self.surroundings.clone(),
            metrics: self.metrics.clone(),
            beats: self.beats.clone(),
        };
        let (engine, engine_task) = engine::start(parts, engine_stop.clone());
        self.on_demand.begin(self.prober.clone(), engine.clone());
        let parts = leader::Parts {
            client: self.client.clone(),
            board: self.board.clone(),
            held: self.held.clone(),
            surroundings: self.surroundings.clone(),
            prober: options.identity.prober.clone(),
            selection: options.selection.clone(),
            refresh: options.refresh,
            scripts_allowed: !matches!(options.scripts, ScriptBackend::Disabled),
            annotations: options.annotations,
            gates: options.gates,
            events: options.events,
            references: self.references.clone(),
            metrics: self.metrics.clone(),
            beats: self.beats.clone(),
            readiness: self.readiness.clone(),
            complaints: self.complaints.clone(),
        };
        let leader_stop = stop.child_token();
        let listening = listen(&self.passive, engine.clone(), leader_stop.clone());
        let leading = async {
            let led = leader::lead(parts, engine, leader_stop.clone()).await;
            leader_stop.cancel();
            led
        };
        // Who failed first is told; the other one may have failed of it.
        let (led, engine, ()) = tokio::join!(leading, watch_engine(engine_task, &leader_stop, &engine_stop), listening);
        self.on_demand.end();
        self.passive.end();
        engine.and(led)
    }

    async fn stand_by(&self, stop: CancellationToken) -> anyhow::Result<()> {
        let parts = mirror::Parts {
            client: self.client.clone(),
            board: self.board.clone(),
            selection: self.options.selection.clone(),
            refresh: self.options.refresh,
            metrics: self.metrics.clone(),
            beats: self.beats.clone(),
            readiness: self.readiness.clone(),
            complaints: self.complaints.clone(),
        };
        let ended = stop.child_token();
        let mirroring = async {
            mirror::mirror(parts, stop.clone()).await;
            ended.cancel();
        };
        // Who leads is nothing to who wants to have something probed: what that counts for is nothing either.
        let probing = async {
            tokio::select! {
                () = ended.cancelled() => return,
                () = self.egress_known.cancelled() => {}
            }
            let asked = Asked::new(self.client.clone(), self.options.selection.clone());
            self.on_demand.begin(self.prober.clone(), asked);
            ended.cancelled().await;
            self.on_demand.end();
        };
        tokio::join!(mirroring, probing);
        if stop.is_cancelled() { Ok(()) } else { bail!("the mirror ended by itself; this is a bug") }
    }
}

/// Sees the engine to its end, which is that of leading: probing ends first, so that what is flushed is the last word.
/// An engine that ends before ends the leading too: nothing may be confirmed that nobody probes.
async fn watch_engine(
    mut engine: JoinHandle<()>,
    leading: &CancellationToken,
    engine_stop: &CancellationToken,
) -> anyhow::Result<()> {
    let ended = tokio::select! {
        biased;
        () = leading.cancelled() => {
            engine_stop.cancel();
            return engine.await.context("the engine broke down; this is a bug");
        }
        ended = &mut engine => ended,
    };
    leading.cancel();
    ended.context("the engine broke down; this is a bug")?;
    bail!("the engine ended by itself; this is a bug")
}

/// Has reports judged as soon as every check is there that was at the start: before, one that nobody knows yet would be
/// told so, and what was said of it lost. Who is told to come back does so.
async fn listen(passive: &Intake, engine: Engine, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = engine.opened() => passive.begin(engine.clone()),
    }
}

/// Ends `token` when the role is no longer `current`.
async fn watch_role(mut role: watch::Receiver<Role>, current: Role, token: CancellationToken) {
    tokio::select! {
        () = token.cancelled() => {}
        _ = role.wait_for(|role| *role != current) => token.cancel(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        check::{Attempt, Report},
        passive::Overflow,
        probe::Lane,
        telemetry::Source,
    };

    #[tokio::test]
    async fn an_engine_that_breaks_down_ends_the_leading_and_is_told() {
        let (leading, engine_stop) = (CancellationToken::new(), CancellationToken::new());
        let engine = tokio::spawn(async { panic!("a bug") });
        let told = watch_engine(engine, &leading, &engine_stop).await.expect_err("told");
        assert!(told.to_string().contains("the engine broke down"), "{told:#}");
        assert!(leading.is_cancelled());
        let leading = CancellationToken::new();
        let told = watch_engine(tokio::spawn(async {}), &leading, &engine_stop).await.expect_err("told");
        assert!(told.to_string().contains("ended by itself") && leading.is_cancelled(), "{told:#}");
    }

    /// Nobody is probed.
    struct Nobody;

    impl Lane for Nobody {
        async fn attempt(&self, _: Attempt) -> Report {
            std::future::pending().await
        }
    }

    #[tokio::test]
    async fn before_the_first_settle_of_a_takeover_reports_shall_come_back() {
        let (passive, stop) = (Intake::default(), CancellationToken::new());
        let limits = Limits { in_flight: 1, per_host: 1 };
        let parts = engine::Parts {
            lane: Arc::new(Nobody),
            board: Arc::default(),
            limits,
            surroundings: Surroundings::default(),
            metrics: Metrics::default(),
            beats: Beats::default(),
        };
        let (engine, task) = engine::start(parts, stop.clone());
        let mut listening = std::pin::pin!(listen(&passive, engine.clone(), stop.clone()));
        assert!(futures::poll!(&mut listening).is_pending());
        assert_eq!(passive.seat(Source::Api).expect_err("too early"), Overflow::NotJudging);
        engine.settle().await;
        listening.await;
        assert!(passive.seat(Source::Api).is_ok());
        stop.cancel();
        task.await.expect("ends");
    }

    #[tokio::test]
    async fn an_engine_is_stopped_with_the_leading() {
        let (leading, engine_stop) = (CancellationToken::new(), CancellationToken::new());
        let engine = tokio::spawn(engine_stop.clone().cancelled_owned());
        leading.cancel();
        watch_engine(engine, &leading, &engine_stop).await.expect("as it should");
    }
}
