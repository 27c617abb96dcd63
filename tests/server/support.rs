//! A running pair of listeners, and checks to put on its board.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use clap::Parser;
use healthcheck_operator::{
    api::HealthCheck,
    check::{Counts, EndpointState, Health, HealthReason, ObjectKey, Reason},
    compile::{Mode, compile},
    engine::{
        self, Board, CheckLive, CheckView, Counters, Desired, EndpointLive, EndpointView, Engine, Limits, Live, Parts,
        Remarks, Surroundings,
    },
    on_demand::OnDemand,
    passive::Intake,
    probe::Lane,
    server::{Access, AdminDefault, Readiness, ServerArgs, ServerConfig, Servers, State},
    telemetry::{Beats, Metrics},
};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Nothing on loopback takes this long; what does hangs.
pub const LONG: Duration = Duration::from_secs(20);

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    server: ServerArgs,
}

/// The configuration of `flags`, on free ports of loopback.
pub fn config(flags: &[&str]) -> ServerConfig {
    let places = ["test", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let cli = Cli::parse_from([&places, flags].concat());
    cli.server.config(AdminDefault::Loopback).expect("the flags fit together")
}

/// An engine that runs `specs`, by their names in the namespace `shop`, until `stop`.
pub async fn engine(
    lane: impl Lane,
    board: &Arc<Board>,
    metrics: &Metrics,
    specs: impl IntoIterator<Item = (&str, Value)>,
    stop: &CancellationToken,
) -> Engine {
    let parts = Parts {
        lane: Arc::new(lane),
        board: board.clone(),
        limits: Limits { in_flight: 10, per_host: 10 },
        surroundings: Surroundings::default(),
        metrics: metrics.clone(),
        beats: Beats::default(),
    };
    let (engine, _) = engine::start(parts, stop.clone());
    for (name, spec) in specs {
        let object = json!({
            "apiVersion": "healthcheck-operator.dev/v1alpha1", "kind": "HealthCheck",
            "metadata": {"name": name, "namespace": "shop"}, "spec": spec,
        });
        let object: HealthCheck = serde_json::from_value(object).expect("a HealthCheck");
        let check = Arc::new(compile(&object, Mode::Standalone).expect("a check"));
        let endpoints = check.targets.iter().filter_map(|target| target.own_endpoint()).collect();
        engine.upsert(Desired { check, endpoints, prior: None }).await;
    }
    engine.settle().await;
    engine
}

pub struct Fixture {
    pub board: Arc<Board>,
    pub beats: Beats,
    pub readiness: Readiness,
    pub metrics: Metrics,
    pub public: SocketAddr,
    pub admin: SocketAddr,
    /// Where `--envoy-listen` is.
    pub envoy: Option<SocketAddr>,
    pub stop: CancellationToken,
    pub served: JoinHandle<()>,
    pub http: reqwest::Client,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub content_type: String,
    pub headers: reqwest::header::HeaderMap,
    pub body: String,
}

impl Fixture {
    /// Default flags, and a board that is current and empty.
    pub async fn start() -> Self {
        Self::with(&config(&[]), Access::Open).await
    }

    pub async fn with(config: &ServerConfig, access: Access) -> Self {
        let board = Arc::new(Board::new());
        board.set_synced();
        Self::on(board, config, access).await
    }

    pub async fn on(board: Arc<Board>, config: &ServerConfig, access: Access) -> Self {
        Self::asking(board, config, access, None).await
    }

    pub async fn asking(board: Arc<Board>, config: &ServerConfig, access: Access, on_demand: Option<OnDemand>) -> Self {
        Self::reporting(board, config, access, on_demand, Intake::default(), Metrics::default()).await
    }

    pub async fn reporting(
        board: Arc<Board>,
        config: &ServerConfig,
        access: Access,
        on_demand: Option<OnDemand>,
        passive: Intake,
        metrics: Metrics,
    ) -> Self {
        let (beats, readiness) = (Beats::default(), Readiness::default());
        let state = State {
            board: board.clone(),
            beats: beats.clone(),
            readiness: readiness.clone(),
            metrics: metrics.clone(),
            access,
            on_demand,
            passive,
        };
        let servers = Servers::bind(config, state).expect("free ports of loopback");
        let (public, admin) = (servers.public_address(), servers.admin_address());
        let envoy = servers.envoy_address();
        let stop = CancellationToken::new();
        let served = tokio::spawn(servers.serve(stop.clone()));
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(LONG)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("a client");
        Self { board, beats, readiness, metrics, public, admin, envoy, stop, served, http }
    }

    /// GET from the public listener.
    pub async fn get(&self, path: &str) -> Answer {
        self.accepting(path, "*/*").await
    }

    pub async fn accepting(&self, path: &str, accept: &str) -> Answer {
        let request = self.http.get(format!("http://{}{path}", self.public)).header("accept", accept);
        answer(request).await
    }

    /// GET from the admin listener, by who asks for OpenMetrics.
    pub async fn scrape(&self, path: &str) -> Answer {
        answer(self.http.get(format!("http://{}{path}", self.admin)).header("accept", "application/openmetrics-text"))
            .await
    }

    /// GET from the admin listener.
    pub async fn admin(&self, path: &str) -> Answer {
        answer(self.http.get(format!("http://{}{path}", self.admin))).await
    }
}

pub async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.expect("an answer");
    let headers = response.headers().clone();
    let content_type = headers.get("content-type").map_or("", |value| value.to_str().expect("ASCII")).to_owned();
    Answer { code: response.status().as_u16(), content_type, headers, body: response.text().await.expect("a body") }
}

/// Sends `bytes` as they are, and returns everything that comes until the server closes.
pub async fn raw(address: SocketAddr, bytes: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("the listener accepts");
    stream.write_all(bytes.as_bytes()).await.expect("the listener reads");
    rest(&mut stream).await
}

/// Everything that comes until the server closes.
pub async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset after the answer ends it as well.
    let _ = timeout(LONG, stream.read_to_end(&mut bytes)).await.expect("the server closes");
    String::from_utf8(bytes).expect("UTF-8")
}

pub fn at(text: &str) -> Timestamp {
    text.parse().expect("RFC 3339")
}

/// A check in the making.
pub struct Check(CheckView);

impl Check {
    pub fn new(namespace: &str, name: &str, health: Health) -> Self {
        let live = CheckLive::default();
        live.beat(at("2026-11-01T10:00:09Z"));
        Self(CheckView {
            key: ObjectKey::new(namespace, name),
            uid: format!("uid-{name}").into(),
            generation: 7,
            labels: Arc::default(),
            suspended: false,
            health,
            reason: match health {
                Health::Healthy => HealthReason::AllTargetsHealthy,
                Health::Degraded => HealthReason::MinimumMet,
                Health::Unhealthy => HealthReason::TargetsUnhealthy,
                Health::Unknown => HealthReason::Pending,
            },
            message: String::new(),
            since: at("2026-11-01T10:00:00Z"),
            counts: Counts::default(),
            targets: Arc::default(),
            unlisted: Health::Unknown,
            endpoints: Arc::default(),
            outages: Arc::default(),
            probes: "http".into(),
            interval: Duration::from_millis(2500),
            idle_interval: Duration::from_millis(2500),
            transitions: [3, 0, 2, 1],
            live: Arc::new(live),
        })
    }

    pub fn message(mut self, message: &str) -> Self {
        self.0.message = message.into();
        self
    }

    pub fn suspended(mut self) -> Self {
        self.0.suspended = true;
        self.0.health = Health::Unknown;
        self.0.reason = HealthReason::Suspended;
        self
    }

    pub fn labels(mut self, labels: &[(&str, &str)]) -> Self {
        let labels = labels.iter().map(|(key, value)| (key.to_string(), value.to_string()));
        self.0.labels = Arc::new(labels.collect::<BTreeMap<_, _>>());
        self
    }

    /// A declared target, with no endpoint yet.
    pub fn target(mut self, name: &str) -> Self {
        self.0.targets = self.0.targets.iter().cloned().chain([name.into()]).collect();
        self
    }

    pub fn endpoint(mut self, endpoint: EndpointView) -> Self {
        self.0.counts.total += 1;
        match endpoint.state {
            state if state.is_healthy() => self.0.counts.healthy += 1,
            state if state.is_unhealthy() => self.0.counts.unhealthy += 1,
            _ => self.0.counts.unknown += 1,
        }
        if !self.0.targets.contains(&endpoint.target) {
            self = self.target(&endpoint.target.clone());
        }
        self.0.endpoints = self.0.endpoints.iter().cloned().chain([endpoint]).collect();
        self
    }

    pub fn edit(mut self, edit: impl FnOnce(&mut CheckView)) -> Self {
        edit(&mut self.0);
        self
    }

    pub fn put(self, board: &Board) {
        board.publish(vec![self.0], &[]);
    }

    pub fn build(self) -> CheckView {
        self.0
    }
}

pub fn endpoint(target: &str, label: &str, state: EndpointState) -> EndpointView {
    let live = EndpointLive::default();
    live.set(Counters { success: 1, connect: 2, http: 3, timeout: 4 }, Some(Duration::from_micros(1500)));
    let unhealthy = state.is_unhealthy();
    EndpointView {
        target: target.into(),
        label: label.into(),
        identity: format!("{target}|{label}").into(),
        kind: healthcheck_operator::check::Kind::Http,
        optional: false,
        state,
        stale: false,
        measured: true,
        since: at("2026-11-01T10:00:00Z").into(),
        remarks: unhealthy.then(|| {
            let message = "unexpected status code; got '503', want '200-399'".into();
            Arc::new(Remarks { reason: Some(Reason::UnexpectedStatus), message, ..Remarks::default() })
        }),
        named: false,
        live: Live::new(live),
    }
}

/// `row` with other remarks.
pub fn remark(row: EndpointView, edit: impl FnOnce(&mut Remarks)) -> EndpointView {
    let mut remarks = Remarks::clone(&row);
    edit(&mut remarks);
    EndpointView { remarks: remarks.kept(), ..row }
}

/// One check of each kind in `shop`, a healthy one in `bank`.
pub fn fill(board: &Board) {
    use EndpointState::{Healthy, MostlyHealthy, Unhealthy, Unknown};
    Check::new("shop", "checkout", Health::Healthy)
        .endpoint(endpoint("web", "10.0.0.1:80", Healthy))
        .endpoint(endpoint("web", "10.0.0.2:80", MostlyHealthy))
        .labels(&[("tier", "web"), ("team", "a")])
        .put(board);
    Check::new("shop", "orders", Health::Degraded)
        .message("pg-b: connection refused")
        .endpoint(endpoint("pg-a", "10.0.1.1:5432", Healthy))
        .endpoint(endpoint("pg-b", "10.0.1.2:5432", Unhealthy))
        .labels(&[("tier", "db")])
        .put(board);
    Check::new("shop", "payments", Health::Unhealthy)
        .message("psp: unexpected status code; got '503', want '200-399'")
        .endpoint(endpoint("psp", "10.0.2.1:443", Unhealthy))
        .labels(&[("tier", "web")])
        .put(board);
    Check::new("shop", "search", Health::Unknown).endpoint(endpoint("es", "10.0.3.1:9200", Unknown)).put(board);
    Check::new("shop", "legacy", Health::Unknown).suspended().put(board);
    Check::new("bank", "ledger", Health::Healthy).endpoint(endpoint("tcp", "10.0.4.1:1", Healthy)).put(board);
}
