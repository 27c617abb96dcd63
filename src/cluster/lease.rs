//! Which replica is the active one: one Lease, held by one, watched by the others.
//!
//! Nobody's wall clock is trusted. A standby takes the Lease once it has seen it unchanged for its whole duration,
//! counted on its own boot clock and only while its own reads succeed. The holder believes itself the holder only
//! until that duration after it *sent* the last renewal that succeeded, counted on its boot clock: one that was stopped
//! or suspended knows at once that it may write nothing.
//!
//! An uninstall may take the Lease from whoever holds it. While its release marker stands a Lease that is free is left
//! alone as if it were held; the next installation, for which the marker does not hold, takes it at once.

mod held;
mod marker;
mod silence;

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ObjectMeta, PostParams},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    boottime,
    client::{CallError, call},
};
use crate::{engine::Surroundings, telemetry::Beats};

pub use held::Held;
pub use marker::{installation, release_marker};
use silence::Silence;

/// How often the Lease is read by a standby, and how soon a failed renewal is tried again.
const POLL: Duration = Duration::from_secs(1);
/// How often the holder looks at it between renewals: for the release marker.
pub const LOOK: Duration = Duration::from_secs(2);
/// An answer that takes longer than this is none, as far as gates go.
const PATIENCE: Duration = Duration::from_secs(3);
/// Stands for the version of a Lease that is not there.
const GONE: &str = "gone";

/// How the Lease is kept.
#[derive(Clone, Debug)]
pub struct LeaseOptions {
    pub namespace: String,
    pub name: String,
    /// The pod's name: a predecessor in the same pod is certainly dead.
    pub pod: Option<String>,
    /// How long a Lease that is not renewed is left alone.
    pub duration: Duration,
    /// How often it is renewed; shorter than `duration`.
    pub renew: Duration,
}

/// Whether this replica is the active one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Nothing has been read yet.
    Unknown,
    Standby,
    Leader,
}

/// Keeps the Lease, or waits for it.
pub struct Elector {
    leases: Api<Lease>,
    options: LeaseOptions,
    identity: String,
    role: watch::Sender<Role>,
    held: Held,
    beats: Beats,
    surroundings: Surroundings,
    silence: Silence,
    /// Boot time of the last renewal.
    renewed: Duration,
    /// Nothing of the Lease was read yet.
    first: bool,
    /// The release marker on the Lease is that of a former installation.
    outlived: bool,
    /// What was complained about last, so that it is said once.
    complaint: Option<String>,
}

impl Elector {
    /// `client` should be one of its own, so that no other traffic makes a renewal late.
    #[must_use]
    pub fn new(
        client: Client,
        options: LeaseOptions,
        beats: Beats,
        surroundings: Surroundings,
    ) -> (Self, watch::Receiver<Role>, Held) {
        let (role, receiver) = watch::channel(Role::Unknown);
        let held = Held::default();
        held.keeps(options.duration, options.renew);
        let identity = identity(options.pod.as_deref());
        let elector = Self {
            leases: Api::namespaced(client, &options.namespace),
            options,
            identity,
            role,
            held: held.clone(),
            beats,
            surroundings,
            silence: Silence::default(),
            renewed: Duration::ZERO,
            first: true,
            outlived: false,
            complaint: None,
        };
        (elector, receiver, held)
    }

    /// Runs until `stop`, and then gives the Lease up where it is held. `may_release` is waited for first, so that the
    /// last writes are still made under the Lease.
    pub async fn run(mut self, stop: CancellationToken, may_release: CancellationToken) {
        loop {
            self.beats.beat("lease", Duration::from_secs(30) + self.options.renew);
            let pause = self.turn().await;
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        while !may_release.is_cancelled() {
            let pause = self.turn_while_stopping().await;
            tokio::select! {
                () = may_release.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.release().await;
        self.beats.end("lease");
    }

    /// Keeps a Lease that is held, and takes none that is not.
    async fn turn_while_stopping(&mut self) -> Duration {
        if *self.role.borrow() == Role::Leader { self.turn().await } else { POLL }
    }

    /// One look at the Lease, and what follows from it. How long to wait for the next.
    async fn turn(&mut self) -> Duration {
        let sent = boottime::now();
        let answer = self.listen(call(self.leases.get_opt(&self.options.name))).await;
        match answer {
            Ok(Some(lease)) => self.judge(lease, sent).await,
            Ok(None) if self.may_have_a_holder() => POLL,
            Ok(None) => {
                let fresh = self.lease_of_ours(None);
                let created = call(self.leases.create(&PostParams::default(), &fresh)).await;
                self.took(created, sent)
            }
            Err(error) => {
                self.silence.failed();
                self.complain(&error);
                POLL
            }
        }
    }

    /// Whether somebody may still believe himself the holder of a Lease that is not there: it was seen, and somebody took
    /// it away. The holder himself makes it anew at his next look.
    fn may_have_a_holder(&mut self) -> bool {
        let never_seen = std::mem::take(&mut self.first);
        let leads = *self.role.borrow() == Role::Leader;
        !never_seen && !leads && self.silence.read(GONE, boottime::now()) < self.options.duration
    }

    /// Waits for an answer, and tells whether there is any.
    async fn listen<T>(&self, answer: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
        let mut answer = std::pin::pin!(answer);
        let answer = match tokio::time::timeout(PATIENCE, &mut answer).await {
            Ok(answer) => answer,
            Err(_) => {
                self.surroundings.set_api_silent(true);
                answer.await
            }
        };
        let silent = matches!(&answer, Err(CallError::Timeout | CallError::Unreachable(_) | CallError::Server(_)));
        self.surroundings.set_api_silent(silent);
        answer
    }

    async fn judge(&mut self, lease: Lease, sent: Duration) -> Duration {
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
        let first = std::mem::take(&mut self.first);
        self.look_at_marker(&lease).await;
        if holder == self.identity {
            if let Some(rest) = self.until_renewal() {
                return rest;
            }
            let renewed = self.replace(&lease).await;
            return self.took(renewed, sent);
        }
        if *self.role.borrow() == Role::Leader {
            tracing::warn!(%holder, "another replica holds the lease; standing by");
        }
        self.stand_by();
        let version = lease.resource_version().unwrap_or_default();
        let silent = self.silence.read(&version, boottime::now());
        // What a holder promised counts, where it promised more than we would.
        let promised = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds).unwrap_or(0);
        let promised = Duration::from_secs(u64::try_from(promised).unwrap_or(0));
        // Whoever takes the Lease away in an uninstall may have taken it from one that lives, and does not know it yet.
        let given_up = holder.is_empty() && !self.held.is_released();
        let free = given_up || silent >= self.options.duration.max(promised) || (first && self.is_predecessor(&holder));
        if !free {
            self.complaint = None;
            return POLL;
        }
        tracing::info!(former = %holder, "taking the lease");
        let replaced = self.replace(&lease).await;
        self.took(replaced, sent)
    }

    /// A marker holds until the release is installed anew or upgraded; whoever holds the Lease then takes it away.
    async fn look_at_marker(&mut self, lease: &Lease) {
        let marker = lease.annotations().get(&release_marker());
        self.outlived = match marker {
            None => false,
            Some(marker) => match installation(&self.leases, &self.options.name).await {
                // Gone with the rest of an uninstalled release, while its last pods end: the marker holds.
                Ok(None) => false,
                Ok(Some(installation)) => installation != *marker,
                Err(_) => self.outlived,
            },
        };
        self.held.set_released(marker.is_some() && !self.outlived);
    }

    /// How long to wait while the Lease is held and need not be renewed yet.
    fn until_renewal(&self) -> Option<Duration> {
        let due = self.renewed + self.options.renew;
        let rest = due.saturating_sub(boottime::now());
        (*self.role.borrow() == Role::Leader && !rest.is_zero()).then(|| rest.min(LOOK))
    }

    async fn replace(&self, lease: &Lease) -> Result<Lease, CallError> {
        let ours = self.lease_of_ours(Some(lease));
        call(self.leases.replace(&self.options.name, &PostParams::default(), &ours)).await
    }

    /// The Lease as we would have it; it carries the version it was computed from, so a second taker is refused.
    fn lease_of_ours(&self, current: Option<&Lease>) -> Lease {
        let now = MicroTime(jiff::Timestamp::now());
        let spec = current.and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let kept = spec.holder_identity.as_deref() == Some(&self.identity);
        let transitions = spec.lease_transitions.unwrap_or(0);
        let mut metadata = current.map_or_else(
            || ObjectMeta { name: Some(self.options.name.clone()), ..ObjectMeta::default() },
            |lease| lease.metadata.clone(),
        );
        if let Some(annotations) = metadata.annotations.as_mut().filter(|_| self.outlived) {
            annotations.remove(&release_marker());
        }
        Lease {
            metadata,
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: Some(i32::try_from(self.options.duration.as_secs()).unwrap_or(i32::MAX)),
                acquire_time: if kept { spec.acquire_time } else { Some(now.clone()) },
                renew_time: Some(now),
                lease_transitions: Some(if kept || current.is_none() { transitions } else { transitions + 1 }),
                ..LeaseSpec::default()
            }),
        }
    }

    fn took(&mut self, written: Result<Lease, CallError>, sent: Duration) -> Duration {
        match written {
            Ok(_) => {
                self.complaint = None;
                self.held.until(sent + self.options.duration);
                self.renewed = sent;
                let became = self.role.send_if_modified(|role| std::mem::replace(role, Role::Leader) != Role::Leader);
                if became {
                    tracing::info!(identity = %self.identity, "holding the lease");
                }
                self.options.renew.min(LOOK)
            }
            // Somebody was faster: look again.
            Err(CallError::Conflict(_)) => Duration::from_millis(200),
            Err(error) => {
                self.complain(&error);
                POLL
            }
        }
    }

    fn stand_by(&mut self) {
        self.held.end();
        self.role.send_if_modified(|role| std::mem::replace(role, Role::Standby) != Role::Standby);
    }

    fn complain(&mut self, error: &CallError) {
        let complaint = match error {
            CallError::Forbidden(message) => {
                format!("{message}; grant get, create and update on leases in namespace {}", self.options.namespace)
            }
            CallError::Unauthorized(message) => {
                format!("the API server refuses our credentials ({message}); check the service account")
            }
            other => other.to_string(),
        };
        if self.complaint.as_ref() != Some(&complaint) {
            tracing::warn!(lease = %self.options.name, "cannot keep the lease: {complaint}");
            self.complaint = Some(complaint);
        }
    }

    fn is_predecessor(&self, holder: &str) -> bool {
        let Some(pod) = &self.options.pod else { return false };
        holder.strip_prefix(pod.as_str()).is_some_and(|rest| rest.starts_with('_'))
    }

    /// Gives the Lease up, so that a standby need not wait for it to run out.
    async fn release(&mut self) {
        let leading = *self.role.borrow() == Role::Leader;
        self.held.end();
        if !leading {
            return;
        }
        let Ok(mut lease) = call(self.leases.get(&self.options.name)).await else { return };
        let Some(spec) = lease.spec.as_mut() else { return };
        if spec.holder_identity.as_deref() != Some(&self.identity) {
            return;
        }
        spec.holder_identity = None;
        spec.renew_time = Some(MicroTime(jiff::Timestamp::now()));
        match call(self.leases.replace(&self.options.name, &PostParams::default(), &lease)).await {
            Ok(_) => tracing::info!("lease released"),
            Err(error) => tracing::warn!(%error, "lease not released; a standby takes it when it has run out"),
        }
    }
}

/// The pod's name and a part by chance: two processes are never the same holder.
fn identity(pod: Option<&str>) -> String {
    use std::hash::{BuildHasher, RandomState};
    let chance = RandomState::new().hash_one(std::process::id());
    format!("{}_{chance:016x}", pod.unwrap_or("healthcheck-operator"))
}

#[cfg(test)]
mod tests;
