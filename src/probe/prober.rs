//! The ordinary lane: every kind of probe, on tokio.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use tokio::sync::Semaphore;

use super::{
    Lane,
    ask::{self, Answer, Ask, Asked, Tried, Way},
    egress::EgressGuard,
    exchange::{self, Exchange},
    failure::Failure,
    fast::FastLane,
    grpc,
    http::{self, KeptConnections, Shelf},
    progress::Progress,
    references::{NoReferences, References},
    resolve::{NameResolver, NameServers},
    runner::{self, Remote},
    script::{self, Scripts},
    tls::{self, TlsClients},
};
use crate::check::{Attempt, Dial, HttpProbe, Kept, ProbeKind, Reason, Report, ScriptProbe, Tls};

/// Where scripts run.
#[derive(Clone, Debug)]
pub enum ScriptBackend {
    /// Beside this process, with its rights: for `standalone`, where who writes a script is who starts the program.
    Local(Arc<Scripts>),
    /// By the `runner` that listens on this socket.
    Runner { socket: PathBuf },
    /// By one in another pod.
    Remote(Arc<Remote>),
    /// Nowhere: an attempt is local, `ScriptsDisabled`.
    Disabled,
}

/// What a [`Prober`] is made of.
pub struct Settings {
    pub egress: Arc<EgressGuard>,
    pub references: Arc<dyn References>,
    pub scripts: ScriptBackend,
    pub name_servers: NameServers,
    /// Of probes with `reuseConnection`.
    pub connections: KeptConnections,
    /// How many further addresses of names may be asked at once, in all; the first one of each goes with its attempt.
    pub spare: usize,
    /// Whether an engine is offered the fast lane.
    pub fast_lane: bool,
}

/// What is spared for further addresses unless said otherwise.
const SPARE: usize = 1024;

impl Settings {
    /// Without a cluster: every address allowed, no references, scripts run here.
    #[must_use]
    pub fn standalone() -> Self {
        Self {
            egress: Arc::new(EgressGuard::open()),
            references: Arc::new(NoReferences),
            scripts: ScriptBackend::Local(Arc::default()),
            name_servers: NameServers::System,
            connections: KeptConnections::default(),
            spare: SPARE,
            fast_lane: true,
        }
    }
}

/// Makes attempts of every kind. Shares nothing between them but name and TLS session caches; what one leaves for the next
/// is the caller's ([`crate::check::Kept`]).
pub struct Prober {
    egress: Arc<EgressGuard>,
    references: Arc<dyn References>,
    scripts: ScriptBackend,
    resolver: NameResolver,
    tls: TlsClients,
    connections: KeptConnections,
    spare: Semaphore,
    fast_lane: bool,
}

impl Lane for Prober {
    fn fast(&self) -> Option<FastLane> {
        if !self.fast_lane {
            return None;
        }
        match FastLane::new(self.egress.clone(), self.connections.clone()) {
            Ok(lane) => Some(lane),
            Err(error) => {
                tracing::warn!(%error, "no fast lane on this system: every probe takes the ordinary one");
                None
            }
        }
    }

    async fn attempt(&self, attempt: Attempt) -> Report {
        let progress = Progress::start(attempt.probe.timeout);
        // A box each: a task in flight is then as large as the probe it makes, not as the largest there is.
        let tried = match &attempt.probe.kind {
            ProbeKind::Script(probe) => Box::pin(self.script(probe, &attempt, &progress)).await,
            ProbeKind::Tcp(probe) if probe.is_connect() => self.ask(&attempt, &progress, &probe.handshake).await,
            ProbeKind::Tcp(probe) => {
                let server_name = probe.tls.as_ref().and_then(|tls| tls.server_name.as_deref());
                Box::pin(self.exchange(probe, probe.tls.as_ref(), server_name, &attempt, &progress)).await
            }
            ProbeKind::Grpc(probe) => {
                let server_name = grpc::server_name(probe);
                Box::pin(self.exchange(probe, probe.tls.as_ref(), server_name, &attempt, &progress)).await
            }
            ProbeKind::Http(probe) => Box::pin(self.http(probe, &attempt, &progress)).await,
        };
        ask::report(tried.asked, &progress, tried.found)
    }
}

impl Prober {
    /// A prober with these settings. The resolver's configuration is read now, the machine's certificate authorities
    /// when the first probe needs them.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let Settings { egress, references, scripts, name_servers, connections, spare, fast_lane } = settings;
        let resolver = NameResolver::new(&name_servers);
        let (tls, spare) = (TlsClients::new(), Semaphore::new(spare));
        Self { egress, references, scripts, resolver, tls, connections, spare, fast_lane }
    }

    async fn ask<A: Ask>(&self, attempt: &Attempt, progress: &Progress, question: &A) -> Tried {
        match place(attempt) {
            Ok(dial) => {
                let way = Way { resolver: &self.resolver, egress: &self.egress, spare: &self.spare };
                way.ask(dial, &attempt.known, progress, question).await
            }
            Err(failure) => failure.into(),
        }
    }

    async fn exchange<P>(
        &self,
        probe: &P,
        tls: Option<&Tls>,
        server_name: Option<&str>,
        attempt: &Attempt,
        progress: &Progress,
    ) -> Tried
    where
        P: 'static,
        for<'a> Exchange<'a, P>: Ask,
    {
        let setting = async {
            match tls {
                Some(tls) => tls::setting(tls, &attempt.check, &*self.references).await.map(Some),
                None => Ok(None),
            }
        };
        let (dial, setting) = match (place(attempt), ask::within(progress, setting).await) {
            (Ok(dial), Ok(setting)) => (dial, setting),
            (Err(failure), _) | (_, Err(failure)) => return failure.into(),
        };
        let tls = setting.as_ref().map(|setting| exchange::Tls { clients: &self.tls, setting, server_name });
        self.ask(attempt, progress, &Exchange { probe, dial, tls }).await
    }

    async fn http(&self, probe: &HttpProbe, attempt: &Attempt, progress: &Progress) -> Tried {
        let kept = attempt.kept.as_ref().filter(|_| probe.keeps_connection());
        let plan =
            async { http::plan(probe, place(attempt)?, &attempt.check, &*self.references, kept.is_some()).await };
        let plan = match ask::within(progress, plan).await {
            Ok(plan) => plan,
            Err(failure) => {
                // A credential that is gone: what was opened with it goes, too.
                drop(kept.and_then(Kept::take));
                return failure.into();
            }
        };
        let shelf = Shelf::open(kept, &self.connections, &plan);
        let exchange = http::Exchange { probe, plan: &plan, clients: &self.tls, shelf: &shelf };
        let tried = self.ask(attempt, progress, &exchange).await;
        shelf.close(&plan);
        tried
    }

    async fn script(&self, probe: &ScriptProbe, attempt: &Attempt, progress: &Progress) -> Tried {
        if matches!(self.scripts, ScriptBackend::Disabled) {
            let message = "scripts are off; whoever installs the operator may turn them on (scripts.enabled)";
            return Failure::new(Reason::ScriptsDisabled, message).into();
        }
        let script = Script { probe, attempt, scripts: &self.scripts, resolver: &self.resolver };
        match attempt.dial {
            Some(_) => self.ask(attempt, progress, &script).await,
            None => Tried { asked: script.run(None, progress).await, found: None },
        }
    }
}

/// A script, run for one address.
struct Script<'a> {
    probe: &'a ScriptProbe,
    attempt: &'a Attempt,
    scripts: &'a ScriptBackend,
    resolver: &'a NameResolver,
}

impl Ask for Script<'_> {
    const ON_THE_WIRE: bool = false;

    async fn ask(&self, address: SocketAddr, progress: &Progress) -> Asked {
        self.run(Some(address.ip()), progress).await
    }
}

impl Script<'_> {
    async fn run(&self, address: Option<IpAddr>, progress: &Progress) -> Asked {
        let run = script::Run {
            namespace: self.attempt.check.namespace.to_string(),
            command: self.probe.command.iter().map(ToString::to_string).collect(),
            source: self.probe.source.as_deref().map(str::to_owned),
            env: self.environment(address),
            timeout: progress.remaining(),
        };
        let ended = match self.scripts {
            ScriptBackend::Local(scripts) => scripts.run(run).await,
            ScriptBackend::Runner { socket } => runner::ask(socket, &run).await?,
            ScriptBackend::Remote(remote) => remote.ask(&run, self.resolver).await?,
            ScriptBackend::Disabled => script::Ended::disabled(),
        };
        script::judge(&ended, self.attempt.probe.timeout)?;
        Ok(Answer::plain())
    }

    /// The declared variables, and where the target is.
    fn environment(&self, address: Option<IpAddr>) -> Vec<(String, String)> {
        let declared = self.probe.env.iter();
        let mut env: Vec<_> = declared.map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let mut set = |name: &str, value: String| env.push((format!("HEALTHCHECK_TARGET_{name}"), value));
        set("NAME", self.attempt.target.to_string());
        if let Some((dial, address)) = self.attempt.dial.as_ref().zip(address) {
            set("HOST", dial.host.with_port(None));
            set("ADDRESS", address.to_string());
            if let Some(port) = dial.port {
                set("PORT", port.to_string());
            }
        }
        env
    }
}

fn place(attempt: &Attempt) -> Result<&Dial, Failure> {
    attempt
        .dial
        .as_ref()
        .ok_or_else(|| Failure::new(Reason::CannotStart, "no place to probe; give the target a host, service or pods"))
}
