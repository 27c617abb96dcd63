//! etcd, kube-apiserver and kube-controller-manager: the real ones, on loopback.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::{Namespace, Node, ServiceAccount};
use kube::api::{Api, ObjectMeta, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::sync::OnceCell;

use super::audit::{self, AuditLog};
use super::identity::{Credentials, kubeconfig};
use super::pki::Pki;
use super::ports::free_port;
use super::process::Process;
use super::programs::Programs;
use super::run_dir::sub_dir;
use super::wait::{wait_until, wait_while};

/// A definition is usable within moments.
const ESTABLISHED: Duration = Duration::from_secs(60);

/// The node that test pods say they run on. It must exist, or the EndpointSlice controller skips
/// them; no kubelet stands behind it.
pub const NODE: &str = "node-1";

/// How long a part may take until it is ready: 5–9 s on two idle cores, far more on busy ones.
const READY_WITHIN: Duration = Duration::from_secs(120);

static STARTED: AtomicU32 = AtomicU32::new(0);

/// A running control plane. Dropping it kills its programs; of what they wrote the logs stay.
pub struct ControlPlane {
    programs: Programs,
    directory: PathBuf,
    pki: Pki,
    admin: Credentials,
    port: u16,
    client: Client,
    api_server: Mutex<Process>,
    // Dropped in this order: who is asked goes after who asks.
    controller_manager: Option<Process>,
    etcd: Etcd,
    etcd_url: String,
    api_server_args: Vec<String>,
    ready_after: Duration,
    crds: OnceCell<()>,
}

impl ControlPlane {
    /// Starts etcd and kube-apiserver, and kube-controller-manager too when `controllers`, and
    /// waits until they do their work.
    ///
    /// # Errors
    /// When one does not start or is not ready in time, with the end of its log.
    pub async fn start(programs: &Programs, controllers: bool) -> anyhow::Result<Self> {
        let begun = Instant::now();
        let directory = sub_dir(&format!("cluster-{}", STARTED.fetch_add(1, Ordering::Relaxed)));
        let pki = Pki::new(&directory)?;
        let (etcd, etcd_url) = start_etcd(programs, &directory)?;
        let port = free_port();
        let api_server_args = api_server_args(&directory, &pki, &etcd_url, port)?;
        let api_server = start_api_server(programs, &directory, &api_server_args)?;
        let admin = Credentials::Certificate(pki.client("admin", Some("system:masters"))?);
        let client = client_for(&format!("https://127.0.0.1:{port}"), Some(pki.ca_pem()), &admin).await?;
        let mut cluster = Self {
            programs: programs.clone(),
            directory,
            pki,
            admin,
            port,
            client,
            api_server: Mutex::new(api_server),
            controller_manager: None,
            etcd,
            etcd_url,
            api_server_args,
            ready_after: Duration::ZERO,
            crds: OnceCell::new(),
        };
        cluster.wait_ready().await?;
        cluster.create_node(NODE).await?;
        if controllers {
            cluster.controller_manager = Some(cluster.start_controllers()?);
            cluster.wait_service_account("default", "default").await?;
        }
        cluster.ready_after = begun.elapsed();
        Ok(cluster)
    }

    /// The administrator's client.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// How long the start took until everything was ready.
    pub fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// `https://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Where etcd listens for clients, who speak gRPC without TLS.
    pub fn etcd_address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.etcd_url.trim_start_matches("http://").parse()?)
    }

    /// The certificate that the API server's is signed by.
    pub fn ca_pem(&self) -> &str {
        self.pki.ca_pem()
    }

    /// The directory with this control plane's files and logs.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The API server's audit log; see [`audit::POLICY`] for what is in it.
    pub fn audit(&self) -> AuditLog {
        AuditLog::new(&self.directory.join("audit.log"))
    }

    /// The administrator's credentials (group `system:masters`).
    pub fn admin(&self) -> &Credentials {
        &self.admin
    }

    /// A client for somebody else.
    ///
    /// # Errors
    /// When the credentials cannot be read.
    pub async fn client_as(&self, who: &Credentials) -> anyhow::Result<Client> {
        client_for(&self.url(), Some(self.ca_pem()), who).await
    }

    /// Writes a kubeconfig and returns its path. `server`: `None` for the API server itself, or
    /// the `http://` URL of a fault proxy before it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn kubeconfig(&self, who: &Credentials, server: Option<&str>) -> anyhow::Result<PathBuf> {
        static WRITTEN: AtomicU32 = AtomicU32::new(0);
        let config = match server {
            Some(url) if url.starts_with("http://") => kubeconfig(url, None, who, "default")?,
            Some(url) => kubeconfig(url, Some(self.ca_pem()), who, "default")?,
            None => kubeconfig(&self.url(), Some(self.ca_pem()), who, "default")?,
        };
        let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
        let path = self.directory.join(format!("kubeconfig-{number}.yaml"));
        std::fs::write(&path, serde_json::to_vec_pretty(&config)?)?;
        Ok(path)
    }

    /// The path of a program of the cluster's.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.path(name)
    }

    /// Runs the real kubectl as the administrator and returns its output, whatever its exit code.
    ///
    /// # Errors
    /// When it cannot be run.
    pub async fn kubectl(&self, args: &[&str]) -> anyhow::Result<Output> {
        self.kubectl_as(&self.admin, args).await
    }

    /// Runs the real kubectl as somebody. It looks up the API anew each time: a CRD established
    /// a moment ago must be seen.
    ///
    /// # Errors
    /// When it cannot be run.
    pub async fn kubectl_as(&self, who: &Credentials, args: &[&str]) -> anyhow::Result<Output> {
        let config = self.kubeconfig(who, None)?;
        let mut command = Command::new(self.programs.path("kubectl"));
        command.arg("--kubeconfig").arg(&config);
        command.arg("--cache-dir").arg(config.with_extension("cache"));
        command.args(args).env("HOME", &self.directory).stdin(Stdio::null());
        tokio::task::spawn_blocking(move || command.output())
            .await?
            .with_context(|| format!("cannot run kubectl in {:?}", self.programs))
    }

    /// Runs kubectl as the administrator and returns what it printed.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub async fn kubectl_ok(&self, args: &[&str]) -> anyhow::Result<String> {
        let output = self.kubectl(args).await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl {args:?}: {said}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Applies a manifest by kubectl, as a user would, and returns what kubectl printed.
    ///
    /// # Errors
    /// When it is refused, with what kubectl said.
    pub async fn apply(&self, namespace: &str, manifest: &str) -> anyhow::Result<String> {
        static APPLIED: AtomicU32 = AtomicU32::new(0);
        let number = APPLIED.fetch_add(1, Ordering::Relaxed);
        let path = self.directory.join(format!("manifest-{number}.yaml"));
        std::fs::write(&path, manifest)?;
        let path = path.display().to_string();
        self.kubectl_ok(&["apply", "--namespace", namespace, "--filename", &path]).await
    }

    /// Installs what is in `crds/` and waits until it is established; once per cluster, however
    /// many trials ask for it.
    ///
    /// # Errors
    /// When the API server does not take it.
    pub async fn install_crds(&self) -> anyhow::Result<()> {
        let install = || async {
            let crds = concat!(env!("CARGO_MANIFEST_DIR"), "/crds");
            self.kubectl_ok(&["apply", "--server-side", "--filename", crds]).await?;
            let established = ["wait", "--for=condition=Established", "--timeout=20s", "--filename", crds];
            // kubectl gives up at once on a definition that has no conditions at all yet.
            wait_until("the definitions to be established", ESTABLISHED, || async {
                self.kubectl_ok(&established).await.map(|_| ())
            })
            .await
        };
        self.crds.get_or_try_init(install).await.copied()
    }

    /// A namespace for one test, named after it and used by no other. With controllers it has its
    /// `default` ServiceAccount when this returns (before, no pod can be made in it).
    ///
    /// # Errors
    /// When the API server refuses, or the ServiceAccount does not come.
    pub async fn namespace(&self, test: &str) -> anyhow::Result<String> {
        let api: Api<Namespace> = Api::all(self.client());
        let meta = ObjectMeta { generate_name: Some(format!("{test}-")), ..Default::default() };
        let made = api.create(&PostParams::default(), &Namespace { metadata: meta, ..Default::default() }).await?;
        let name = made.metadata.name.context("the API server gave the namespace no name")?;
        if self.controller_manager.is_some() {
            self.wait_service_account(&name, "default").await?;
        }
        Ok(name)
    }

    /// Freezes the API server (SIGSTOP): connections stay open and nothing is answered.
    pub fn freeze_api_server(&self) -> anyhow::Result<()> {
        self.api_server().freeze()
    }

    /// Lets a frozen API server go on.
    pub fn thaw_api_server(&self) -> anyhow::Result<()> {
        self.api_server().thaw()
    }

    /// `kill -9` of the API server; etcd goes on.
    pub fn kill_api_server(&self) -> anyhow::Result<()> {
        self.api_server().kill().map(|_| ())
    }

    /// Starts the API server again after a kill, on the same port, with all its data, and waits
    /// until it is ready.
    ///
    /// # Errors
    /// When it is not ready in time.
    pub async fn restart_api_server(&self) -> anyhow::Result<()> {
        let process = start_api_server(&self.programs, &self.directory, &self.api_server_args)?;
        *self.api_server() = process;
        self.wait_ready().await
    }

    fn api_server(&self) -> std::sync::MutexGuard<'_, Process> {
        self.api_server.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    async fn wait_ready(&self) -> anyhow::Result<()> {
        let alive = || self.check_alive();
        wait_while(alive, "the API server to be ready", READY_WITHIN, || async {
            let ready = http::Request::get("/readyz").body(Vec::new())?;
            self.client.request_text(ready).await.context("/readyz")
        })
        .await
        .map(|_| ())
    }

    async fn wait_service_account(&self, namespace: &str, name: &str) -> anyhow::Result<()> {
        let api: Api<ServiceAccount> = Api::namespaced(self.client(), namespace);
        let what = format!("the ServiceAccount {name} of the namespace {namespace}");
        wait_while(|| self.check_alive(), &what, READY_WITHIN, || api.get(name)).await.map(|_| ())
    }

    /// Fails when one of the programs has ended: there is nothing to wait for then.
    fn check_alive(&self) -> anyhow::Result<()> {
        self.etcd.process.check_alive()?;
        self.api_server().check_alive()?;
        self.controller_manager.as_ref().map_or(Ok(()), Process::check_alive)
    }

    async fn create_node(&self, name: &str) -> anyhow::Result<()> {
        let meta = ObjectMeta { name: Some(name.to_owned()), ..Default::default() };
        let node = Node { metadata: meta, ..Default::default() };
        Api::all(self.client()).create(&PostParams::default(), &node).await?;
        Ok(())
    }

    fn start_controllers(&self) -> anyhow::Result<Process> {
        let who = Credentials::Certificate(self.pki.client("system:kube-controller-manager", None)?);
        let config = self.kubeconfig(&who, None)?;
        let args = [
            format!("--kubeconfig={}", config.display()),
            format!("--secure-port={}", free_port()),
            String::from("--bind-address=127.0.0.1"),
            String::from("--leader-elect=false"),
            // As in a real cluster: each controller has only the rights of its own role.
            String::from("--use-service-account-credentials=true"),
            format!("--service-account-private-key-file={}", self.directory.join("service-accounts.key").display()),
            format!("--root-ca-file={}", self.pki.ca_file().display()),
            // No kubelet stands behind the node: these three would take the test's pods away.
            String::from(
                "--controllers=*,-node-lifecycle-controller,-taint-eviction-controller,-pod-garbage-collector-controller",
            ),
            String::from("--kube-api-qps=200"),
            String::from("--kube-api-burst=400"),
        ];
        let log = self.directory.join("kube-controller-manager.log");
        Process::start(&self.programs.path("kube-controller-manager"), &args, &[], &log)
    }
}

/// A client of a server for somebody, over the way that the kubeconfig describes.
///
/// # Errors
/// When the credentials cannot be read.
pub async fn client_for(server: &str, ca_pem: Option<&str>, who: &Credentials) -> anyhow::Result<Client> {
    let config: Kubeconfig = serde_json::from_value(kubeconfig(server, ca_pem, who, "default")?)?;
    let mut config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    // A test is to see each answer, not the last one of several tries.
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

/// Its data go with it: every log of its own has 128 MB on disk before anything is in it.
struct Etcd {
    process: Process,
    data: PathBuf,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = std::fs::remove_dir_all(&self.data);
    }
}

fn start_etcd(programs: &Programs, directory: &Path) -> anyhow::Result<(Etcd, String)> {
    let data = directory.join("etcd");
    let clients = format!("http://127.0.0.1:{}", free_port());
    let peers = format!("http://127.0.0.1:{}", free_port());
    let args = [
        format!("--data-dir={}", data.display()),
        format!("--listen-client-urls={clients}"),
        format!("--advertise-client-urls={clients}"),
        format!("--listen-peer-urls={peers}"),
        format!("--initial-advertise-peer-urls={peers}"),
        format!("--initial-cluster=default={peers}"),
        // The data need not outlive the machine, and slow disks would be waited for.
        String::from("--unsafe-no-fsync"),
        String::from("--log-level=warn"),
    ];
    let process = Process::start(&programs.path("etcd"), &args, &[], &directory.join("etcd.log"))?;
    Ok((Etcd { process, data }, clients))
}

fn start_api_server(programs: &Programs, directory: &Path, args: &[String]) -> anyhow::Result<Process> {
    Process::start(&programs.path("kube-apiserver"), args, &[], &directory.join("kube-apiserver.log"))
}

fn api_server_args(directory: &Path, pki: &Pki, etcd: &str, port: u16) -> anyhow::Result<Vec<String>> {
    let policy = directory.join("audit-policy.yaml");
    std::fs::write(&policy, audit::POLICY)?;
    let serving = pki.server()?;
    let (private, public) = pki.key_pair("service-accounts")?;
    Ok(vec![
        format!("--etcd-servers={etcd}"),
        String::from("--bind-address=127.0.0.1"),
        String::from("--advertise-address=127.0.0.1"),
        format!("--secure-port={port}"),
        format!("--tls-cert-file={}", serving.cert.display()),
        format!("--tls-private-key-file={}", serving.key.display()),
        format!("--client-ca-file={}", pki.ca_file().display()),
        format!("--service-account-key-file={}", public.display()),
        format!("--service-account-signing-key-file={}", private.display()),
        String::from("--service-account-issuer=https://kubernetes.default.svc"),
        String::from("--authorization-mode=RBAC"),
        String::from("--service-cluster-ip-range=10.96.0.0/16"),
        // It would write the loopback address into an EndpointSlice, which is not allowed.
        String::from("--endpoint-reconciler-type=none"),
        format!("--audit-policy-file={}", policy.display()),
        format!("--audit-log-path={}", directory.join("audit.log").display()),
        // Entries must be there when they are looked for, and the file must not be turned over.
        String::from("--audit-log-mode=blocking"),
        String::from("--audit-log-maxsize=4096"),
        // Watches end by themselves after one to two minutes instead of half an hour to an hour,
        // so that a run of some minutes sees clients open them again.
        String::from("--min-request-timeout=60"),
        // The tests decide when a request is refused, by the fault proxy; not this machine's load.
        String::from("--enable-priority-and-fairness=false"),
        String::from("--max-requests-inflight=0"),
        String::from("--max-mutating-requests-inflight=0"),
    ])
}
