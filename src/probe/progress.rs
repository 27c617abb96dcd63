//! Where an attempt stands, so that a deadline can say what it cut short.

use std::{
    sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::failure::Failure;
use crate::check::Reason;

/// The steps of one attempt, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Phase {
    /// Secrets and ConfigMaps are fetched.
    References,
    Resolve,
    Connect,
    Tls,
    Request,
    Response,
    Receive,
}

const PHASES: [Phase; 7] =
    [Phase::References, Phase::Resolve, Phase::Connect, Phase::Tls, Phase::Request, Phase::Response, Phase::Receive];

/// The clock of one attempt: when it began, when it must end, and how far it came.
#[derive(Debug)]
pub(super) struct Progress {
    pub started: Instant,
    pub deadline: Instant,
    timeout: Duration,
    phase: AtomicU8,
    /// No name server has answered a question that any of them can answer at once.
    name_servers_silent: AtomicBool,
    /// How long the look-up of a name took, in microseconds; 0: there was none, or it has not ended.
    lookup_micros: AtomicU32,
    /// Of what is received: how many bytes have come, which block is awaited, and of how many.
    heard: [AtomicUsize; 3],
}

impl Progress {
    pub fn start(timeout: Duration) -> Self {
        let started = Instant::now();
        Self {
            started,
            deadline: started + timeout,
            timeout,
            phase: AtomicU8::new(Phase::References as u8),
            name_servers_silent: AtomicBool::new(false),
            lookup_micros: AtomicU32::new(0),
            heard: Default::default(),
        }
    }

    /// Of an attempt that began at `started` and came as far as `phase`.
    #[cfg(all(target_os = "linux", not(without_fast_lane)))]
    pub fn of(started: Instant, timeout: Duration, phase: Phase) -> Self {
        Self {
            started,
            deadline: started + timeout,
            timeout,
            phase: AtomicU8::new(phase as u8),
            name_servers_silent: AtomicBool::new(false),
            lookup_micros: AtomicU32::new(0),
            heard: Default::default(),
        }
    }

    /// The same attempt at one of several addresses, from where it stands.
    pub fn branch(&self) -> Self {
        Self {
            started: self.started,
            deadline: self.deadline,
            timeout: self.timeout,
            phase: AtomicU8::new(self.phase.load(Ordering::Relaxed)),
            name_servers_silent: AtomicBool::new(false),
            lookup_micros: AtomicU32::new(self.lookup_micros.load(Ordering::Relaxed)),
            heard: Default::default(),
        }
    }

    pub fn reach(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::Relaxed);
    }

    /// A redirect begins another exchange: its steps are told from here on.
    pub fn restart(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Whether the name servers seem to be gone: then a name without an answer says nothing about its target.
    pub fn name_servers_silent(&self, silent: bool) {
        self.name_servers_silent.store(silent, Ordering::Relaxed);
    }

    /// A name was looked up since `begun`, or could not be.
    pub fn look_up_ended(&self, begun: Instant) {
        let micros = u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX);
        self.lookup_micros.store(micros.max(1), Ordering::Relaxed);
    }

    /// How long that took; `None` where nothing was looked up.
    pub fn looked_up(&self) -> Option<Duration> {
        match self.lookup_micros.load(Ordering::Relaxed) {
            0 => None,
            micros => Some(Duration::from_micros(micros.into())),
        }
    }

    /// Something came, and block `next` of `all` is awaited.
    pub fn heard(&self, bytes: usize, next: usize, all: usize) {
        for (known, now) in self.heard.iter().zip([bytes, next, all]) {
            known.store(now, Ordering::Relaxed);
        }
    }

    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// What it means that the deadline came now.
    pub fn timed_out(&self) -> Failure {
        let phase = PHASES.get(usize::from(self.phase.load(Ordering::Relaxed))).copied().unwrap_or(Phase::Response);
        if let Some(took) = self.looked_up().filter(|took| phase > Phase::Resolve && *took > self.timeout * 3 / 4) {
            let took = Duration::from_millis(took.as_millis().try_into().unwrap_or(u64::MAX));
            let message =
                format!("to look up the name took {took:?} of {:?}: too little was left for the target", self.timeout);
            return Failure::new(Reason::ResolverUnreachable, message);
        }
        let (reason, step) = match phase {
            Phase::References => {
                let message = format!("a Secret or ConfigMap could not be read in {:?}", self.timeout);
                return Failure::new(Reason::SecretMissing, message);
            }
            Phase::Resolve if self.name_servers_silent.load(Ordering::Relaxed) => {
                let message = format!("no name server answered in {:?}", self.timeout);
                return Failure::new(Reason::ResolverUnreachable, message);
            }
            Phase::Resolve => (Reason::TimeoutResolve, "Resolve"),
            Phase::Connect => (Reason::TimeoutConnect, "Connect"),
            Phase::Tls => (Reason::TimeoutTls, "TLS"),
            Phase::Request => (Reason::TimeoutRequest, "Request"),
            Phase::Response => (Reason::TimeoutResponse, "Response"),
            Phase::Receive => {
                let [bytes, next, all] = self.heard.each_ref().map(|known| known.load(Ordering::Relaxed));
                let message = match bytes {
                    0 => format!("nothing came in {:?} (Receive)", self.timeout),
                    _ => format!(
                        "block {next} of {all} is not in the {bytes} bytes that came in {:?} (Receive)",
                        self.timeout
                    ),
                };
                return Failure::new(Reason::TimeoutReceive, message);
            }
        };
        Failure::new(reason, format!("no answer in {:?} ({step})", self.timeout))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_deadline_names_the_furthest_step() {
        let progress = Progress::start(Duration::from_secs(1));
        assert_eq!(progress.timed_out().reason, Reason::SecretMissing);
        for (phase, reason, message) in [
            (Phase::Resolve, Reason::TimeoutResolve, "no answer in 1s (Resolve)"),
            (Phase::Connect, Reason::TimeoutConnect, "no answer in 1s (Connect)"),
            (Phase::Tls, Reason::TimeoutTls, "no answer in 1s (TLS)"),
            (Phase::Request, Reason::TimeoutRequest, "no answer in 1s (Request)"),
            (Phase::Response, Reason::TimeoutResponse, "no answer in 1s (Response)"),
        ] {
            progress.reach(phase);
            assert_eq!(progress.timed_out(), Failure::new(reason, message));
        }
        progress.reach(Phase::Connect);
        assert_eq!(progress.timed_out().reason, Reason::TimeoutResponse);
        progress.reach(Phase::Receive);
        assert_eq!(progress.timed_out(), Failure::new(Reason::TimeoutReceive, "nothing came in 1s (Receive)"));
        progress.heard(7, 1, 2);
        let told = "block 1 of 2 is not in the 7 bytes that came in 1s (Receive)";
        assert_eq!(progress.timed_out(), Failure::new(Reason::TimeoutReceive, told));
        progress.restart(Phase::Connect);
        assert_eq!(progress.timed_out().reason, Reason::TimeoutConnect);
    }

    /// Names that were found before are looked up for half of the time, so this is of new ones.
    #[tokio::test(start_paused = true)]
    async fn time_that_the_name_servers_took_is_not_held_against_the_target() {
        let (progress, begun) = (Progress::start(Duration::from_secs(1)), Instant::now());
        tokio::time::advance(Duration::from_millis(740)).await;
        progress.look_up_ended(begun);
        progress.reach(Phase::Connect);
        assert_eq!(progress.timed_out().reason, Reason::TimeoutConnect);
        tokio::time::advance(Duration::from_millis(50)).await;
        progress.look_up_ended(begun);
        let told = "to look up the name took 790ms of 1s: too little was left for the target";
        for progress in [progress.branch(), progress] {
            assert_eq!(progress.timed_out(), Failure::new(Reason::ResolverUnreachable, told));
        }
    }
}
