//! The ordinary lane: every kind of probe, on tokio.

use std::{net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use tokio::time::timeout_at;

use super::{
    Lane, dial,
    egress::EgressGuard,
    failure::Failure,
    grpc,
    http::{self, Answer, Exchange},
    progress::Progress,
    references::{NoReferences, References},
    resolve::{NameResolver, NameServers},
    runner,
    script::{self, Scripts},
    tcp,
    tls::{self, TlsClients},
};
use crate::check::{
    Attempt, Dial, GrpcProbe, Handshake, Host, HttpProbe, Outcome, ProbeKind, Reason, Report, ScriptProbe, TcpProbe,
    Tls,
};

/// Where scripts run.
#[derive(Clone, Debug)]
pub enum ScriptBackend {
    /// Beside this process, with its rights: for `standalone`, where who writes a script is who starts the program.
    Local(Arc<Scripts>),
    /// By the `runner` that listens on this socket.
    Runner { socket: PathBuf },
    /// Nowhere: an attempt is local, `ScriptsDisabled`.
    Disabled,
}

/// What a [`Prober`] is made of.
pub struct Settings {
    pub egress: Arc<EgressGuard>,
    pub references: Arc<dyn References>,
    pub scripts: ScriptBackend,
    pub name_servers: NameServers,
}

impl Settings {
    /// Without a cluster: every address allowed, no references, scripts run here.
    #[must_use]
    pub fn standalone() -> Self {
        Self {
            egress: Arc::new(EgressGuard::open()),
            references: Arc::new(NoReferences),
            scripts: ScriptBackend::Local(Arc::default()),
            name_servers: NameServers::System,
        }
    }
}

/// Makes attempts of every kind, each on a connection of its own. Shares nothing between attempts but name and TLS
/// session caches.
pub struct Prober {
    egress: Arc<EgressGuard>,
    references: Arc<dyn References>,
    scripts: ScriptBackend,
    resolver: NameResolver,
    tls: TlsClients,
}

impl Lane for Prober {
    async fn attempt(&self, attempt: Attempt) -> Report {
        let progress = Progress::start(attempt.probe.timeout);
        // A box each: a task in flight is then as large as the probe it makes, not as the largest there is.
        let result = match &attempt.probe.kind {
            // A script's own deadline answers, so that what it said until then can be told.
            ProbeKind::Script(probe) => Box::pin(self.script(probe, &attempt, &progress)).await,
            ProbeKind::Tcp(probe) if probe.is_connect() => {
                self.within(&progress, self.connect(probe.handshake, &attempt, &progress)).await
            }
            ProbeKind::Tcp(probe) => Box::pin(self.within(&progress, self.talk(probe, &attempt, &progress))).await,
            ProbeKind::Grpc(probe) => Box::pin(self.within(&progress, self.grpc(probe, &attempt, &progress))).await,
            ProbeKind::Http(probe) => Box::pin(self.within(&progress, self.http(probe, &attempt, &progress))).await,
        };
        match result {
            Ok(Answer { certificate_expires, neutral, at }) => {
                let outcome = if neutral { Outcome::Neutral } else { Outcome::Success };
                Report { outcome, latency: at - progress.started, certificate_expires }
            }
            Err(failure) => Report {
                outcome: failure.outcome(),
                latency: progress.started.elapsed(),
                certificate_expires: failure.certificate_expires,
            },
        }
    }
}

impl Prober {
    /// A prober with these settings. The resolver's configuration is read now, the machine's certificate authorities
    /// when the first probe needs them.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let Settings { egress, references, scripts, name_servers } = settings;
        let resolver = NameResolver::new(&name_servers);
        Self { egress, references, scripts, resolver, tls: TlsClients::new() }
    }

    /// The addresses of a DNS name, as a probe of it would find them: at least one, at most 16. `None` when nobody knows,
    /// or nobody answers `within` this time.
    pub async fn addresses(&self, name: &str, within: Duration) -> Option<Vec<IpAddr>> {
        let progress = Progress::start(within);
        let found = timeout_at(progress.deadline, self.resolver.addresses(name, &progress)).await;
        found.ok()?.inspect_err(|failure| tracing::debug!(name, failure.message, "name not looked up")).ok()
    }

    async fn within<F>(&self, progress: &Progress, attempt: F) -> Result<Answer, Failure>
    where
        F: Future<Output = Result<Answer, Failure>>,
    {
        timeout_at(progress.deadline, attempt).await.unwrap_or_else(|_| Err(progress.timed_out()))
    }

    async fn connect(&self, handshake: Handshake, attempt: &Attempt, progress: &Progress) -> Result<Answer, Failure> {
        let dial = place(attempt)?;
        let addresses = dial::addresses(&self.resolver, &self.egress, dial, progress).await?;
        dial::first_success(&addresses, is_named(dial), |address| tcp::connect(address, handshake, progress)).await?;
        Ok(Answer::plain())
    }

    async fn talk(&self, probe: &TcpProbe, attempt: &Attempt, progress: &Progress) -> Result<Answer, Failure> {
        let dial = place(attempt)?;
        let setting = self.setting(probe.tls.as_ref(), attempt).await?;
        let addresses = dial::addresses(&self.resolver, &self.egress, dial, progress).await?;
        let exchange = &tcp::Exchange { probe, dial, setting: setting.as_ref(), tls: &self.tls, progress };
        let expires = dial::first_success(&addresses, is_named(dial), |address| exchange.talk(address)).await?;
        Ok(Answer { certificate_expires: expires, ..Answer::plain() })
    }

    async fn grpc(&self, probe: &GrpcProbe, attempt: &Attempt, progress: &Progress) -> Result<Answer, Failure> {
        let dial = place(attempt)?;
        let setting = self.setting(probe.tls.as_ref(), attempt).await?;
        let addresses = dial::addresses(&self.resolver, &self.egress, dial, progress).await?;
        let exchange = &grpc::Exchange { probe, dial, setting: setting.as_ref(), tls: &self.tls, progress };
        let expires = dial::first_success(&addresses, is_named(dial), |address| exchange.ask(address)).await?;
        Ok(Answer { certificate_expires: expires, ..Answer::plain() })
    }

    async fn setting(&self, tls: Option<&Tls>, attempt: &Attempt) -> Result<Option<tls::Setting>, Failure> {
        match tls {
            Some(tls) => tls::setting(tls, &attempt.check, &*self.references).await.map(Some),
            None => Ok(None),
        }
    }

    async fn http(&self, probe: &HttpProbe, attempt: &Attempt, progress: &Progress) -> Result<Answer, Failure> {
        let dial = place(attempt)?;
        let plan = http::plan(probe, dial, &attempt.check, &*self.references).await?;
        let addresses = dial::addresses(&self.resolver, &self.egress, dial, progress).await?;
        let (plan, tls) = (&plan, &self.tls);
        dial::first_success(&addresses, is_named(dial), |address| {
            http::probe(Exchange { probe, plan, tls, progress }, address)
        })
        .await
    }

    async fn script(&self, probe: &ScriptProbe, attempt: &Attempt, progress: &Progress) -> Result<Answer, Failure> {
        if matches!(self.scripts, ScriptBackend::Disabled) {
            let message = "scripts are off; whoever installs the operator may turn them on (scripts.enabled)";
            return Err(Failure::new(Reason::ScriptsDisabled, message));
        }
        let environment = self.environment(probe, attempt, progress);
        let env = timeout_at(progress.deadline, environment).await.unwrap_or_else(|_| Err(progress.timed_out()))?;
        let run = script::Run {
            command: probe.command.iter().map(ToString::to_string).collect(),
            source: probe.source.as_deref().map(str::to_owned),
            env,
            timeout: progress.remaining(),
        };
        let ended = match &self.scripts {
            ScriptBackend::Local(scripts) => scripts.run(&run).await,
            ScriptBackend::Runner { socket } => runner::ask(socket, &run).await?,
            ScriptBackend::Disabled => script::Ended::disabled(),
        };
        script::judge(&ended, attempt.probe.timeout)?;
        Ok(Answer::plain())
    }

    /// The declared variables, and where the target is; a name is resolved as for any other probe.
    async fn environment(
        &self,
        probe: &ScriptProbe,
        attempt: &Attempt,
        progress: &Progress,
    ) -> Result<Vec<(String, String)>, Failure> {
        let mut env: Vec<_> = probe.env.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let mut set = |name: &str, value: String| env.push((format!("HEALTHCHECK_TARGET_{name}"), value));
        set("NAME", attempt.target.to_string());
        let Some(dial) = &attempt.dial else { return Ok(env) };
        let (host, address) = match &dial.host {
            Host::Address(ip) => (ip.to_string(), *ip),
            Host::Name(name) => {
                let addresses = self.resolver.addresses(name, progress).await?;
                let Some(first) = addresses.first() else {
                    return Err(Failure::new(Reason::NameNotFound, format!("no such name '{name}'")));
                };
                (name.to_string(), *first)
            }
        };
        set("HOST", host);
        set("ADDRESS", address.to_string());
        if let Some(port) = dial.port {
            set("PORT", port.to_string());
        }
        Ok(env)
    }
}

fn place(attempt: &Attempt) -> Result<&Dial, Failure> {
    attempt
        .dial
        .as_ref()
        .ok_or_else(|| Failure::new(Reason::CannotStart, "no place to probe; give the target a host, service or pods"))
}

const fn is_named(dial: &Dial) -> bool {
    matches!(dial.host, Host::Name(_))
}
