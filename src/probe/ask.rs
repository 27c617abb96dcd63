//! Asking a target: at its address, or at every address of its name at once.

use std::{
    net::{IpAddr, SocketAddr},
    pin::pin,
};

use futures::{FutureExt as _, future::join_all};
use tokio::{
    sync::Semaphore,
    task::yield_now,
    time::{Instant, timeout, timeout_at},
};

use super::{
    egress::EgressGuard,
    failure::Failure,
    progress::Progress,
    resolve::{Lookup, NameResolver},
};
use crate::check::{Class, Dial, Family, Found, Host, Outcome, Reason, Report};

/// How many scripts of one name run at once beside the first: they share their turns with those of everybody else.
const SCRIPTS_BESIDE: usize = 3;

/// What an attempt that succeeded brought.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub certificate_expires: Option<i64>,
    /// The HTTP status that was answered.
    pub status: Option<u16>,
    /// It says neither good nor bad of the target: this status.
    pub neutral: Option<u16>,
    /// When it was decided; a polite goodbye may take longer.
    pub at: Instant,
}

impl Answer {
    /// A success now, with nothing more to tell.
    pub fn plain() -> Self {
        Self { certificate_expires: None, status: None, neutral: None, at: Instant::now() }
    }
}

pub(super) type Asked = Result<Answer, Failure>;

/// What can be asked of one address.
pub(super) trait Ask: Sync {
    /// A script is run beside the target and not sent to it: it needs no port, no leave to dial, and it keeps the
    /// deadline itself, so that what it said until then can be told.
    const ON_THE_WIRE: bool = true;

    fn ask(&self, address: SocketAddr, progress: &Progress) -> impl Future<Output = Asked> + Send;
}

/// What was found, as a whole and at each address of a name.
#[derive(Debug)]
pub(super) struct Tried {
    pub asked: Asked,
    pub found: Option<Box<Found>>,
}

impl From<Failure> for Tried {
    fn from(failure: Failure) -> Self {
        Self { asked: Err(failure), found: None }
    }
}

/// How targets are reached.
pub(super) struct Way<'a> {
    pub resolver: &'a NameResolver,
    pub egress: &'a EgressGuard,
    /// What the further addresses of names may take at once, of all names together: an attempt has leave for one.
    pub spare: &'a Semaphore,
}

impl Way<'_> {
    /// Asks at the address of `dial`, or at all addresses of its name at once; each has until the deadline. One that
    /// answers is enough; without one the most telling failure stands for all. `known`: where the name led to before.
    pub async fn ask<A: Ask>(&self, dial: &Dial, known: &[IpAddr], progress: &Progress, question: &A) -> Tried {
        let port = match dial.port {
            Some(port) => port,
            None if !A::ON_THE_WIRE => 0,
            None => {
                let message = "no port to dial; give the target or its probe a port";
                return Failure::new(Reason::CannotStart, message).into();
            }
        };
        match &dial.host {
            Host::Address(ip) => {
                let address = SocketAddr::new(*ip, port);
                match self.may_dial::<A>(address) {
                    Ok(()) => Tried { asked: ask_one(question, address, progress).await, found: None },
                    Err(failure) => failure.into(),
                }
            }
            // A box of its own: most targets are addresses, and their tasks need no room for this.
            Host::Name(name) => Box::pin(self.ask_each((name, port), known, progress, question)).await,
        }
    }

    fn may_dial<A: Ask>(&self, address: SocketAddr) -> Result<(), Failure> {
        if !A::ON_THE_WIRE {
            return Ok(());
        }
        self.egress.check(address).map_err(|message| Failure::new(Reason::EgressDenied, message))
    }

    /// Where the name leads to. Without an answer in half the time, it is where it was: a target is not unknown because
    /// the name servers are away.
    async fn look_up(&self, name: &str, known: &[IpAddr], progress: &Progress) -> Result<Lookup, Failure> {
        if known.is_empty() {
            return within(progress, self.resolver.look_up(name, progress)).await;
        }
        let stale = || Lookup { addresses: known.to_vec(), unheard: None };
        match timeout(progress.remaining() / 2, self.resolver.look_up(name, progress)).await {
            Err(_) => Ok(stale()),
            Ok(Err(failure)) if failure.reason != Reason::NameNotFound => Ok(stale()),
            Ok(Err(failure)) => Err(failure),
            Ok(Ok(mut lookup)) => {
                // What a family had of which nobody spoke is asked as well.
                let silent = |ip: &&IpAddr| lookup.unheard == Some(Family::of(**ip));
                let more: Vec<_> = known.iter().filter(silent).copied().collect();
                lookup.addresses.extend(more);
                Ok(lookup)
            }
        }
    }

    async fn ask_each<A: Ask>(
        &self,
        (name, port): (&str, u16),
        known: &[IpAddr],
        progress: &Progress,
        question: &A,
    ) -> Tried {
        let begun = Instant::now();
        let looked_up = self.look_up(name, known, progress).await;
        progress.look_up_ended(begun);
        let Lookup { addresses, unheard } = match looked_up {
            Ok(lookup) => lookup,
            Err(failure) => return failure.into(),
        };
        let beside = Semaphore::new(SCRIPTS_BESIDE);
        let spare = if A::ON_THE_WIRE { self.spare } else { &beside };
        let mut denied = None;
        let mut asking = Vec::with_capacity(addresses.len());
        for ip in addresses {
            let address = SocketAddr::new(ip, port);
            let spare = (!asking.is_empty()).then_some(spare);
            match self.may_dial::<A>(address) {
                Ok(()) => asking.push(async move {
                    let progress = progress.branch();
                    (ip, in_turn(spare, &progress, ask_one(question, address, &progress)).await)
                }),
                Err(failure) => denied = Some(failure),
            }
        }
        // A name that leads to a denied address and another is dialed on the other only.
        if let Some(failure) = denied.filter(|_| asking.is_empty()) {
            return Tried { asked: Err(failure), found: Some(Box::new(Found { reports: vec![], unheard })) };
        }
        let asked = join_all(asking).await;
        let reports = asked.iter().map(|(ip, asked)| (*ip, report(asked.clone(), progress, None))).collect();
        Tried { asked: as_a_whole(asked, port), found: Some(Box::new(Found { reports, unheard })) }
    }
}

/// `asked` as soon as `spare` has room. To wait for it longer than half of the time is our fault, not the target's.
async fn in_turn(spare: Option<&Semaphore>, progress: &Progress, asked: impl Future<Output = Asked>) -> Asked {
    let Some(spare) = spare else { return asked.await };
    match timeout(progress.remaining() / 2, spare.acquire()).await {
        Ok(_turn) => asked.await,
        Err(_) => {
            let message = "other addresses of names are being asked, and no turn was free in time";
            Err(Failure::new(Reason::ProberOverloaded, message))
        }
    }
}

async fn ask_one<A: Ask>(question: &A, address: SocketAddr, progress: &Progress) -> Asked {
    if A::ON_THE_WIRE {
        within(progress, question.ask(address, progress)).await
    } else {
        question.ask(address, progress).await
    }
}

/// `attempt`, unless the deadline comes first.
pub(super) async fn within<T>(
    progress: &Progress,
    attempt: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut attempt = pin!(attempt);
    if let Ok(ended) = timeout_at(progress.deadline, attempt.as_mut()).await {
        return ended;
    }
    // An answer that is there counts, however late the runtime comes to it: with many at once it tells of timers before it has
    // seen all that has arrived. It looks for more before this goes on.
    yield_now().await;
    attempt.now_or_never().unwrap_or_else(|| Err(progress.timed_out()))
}

/// What the engine is told.
pub(super) fn report(asked: Asked, progress: &Progress, found: Option<Box<Found>>) -> Report {
    match asked {
        Ok(Answer { certificate_expires, status, neutral, at }) => {
            let told = |status| format!("got '{status}', which counts for nothing");
            let outcome = neutral.map_or(Outcome::Success, |status| Outcome::Neutral { message: told(status) });
            let latency = at - progress.started;
            Report { outcome, latency, certificate_expires, status, lookup: progress.looked_up(), found }
        }
        Err(failure) => Report {
            outcome: failure.outcome(),
            latency: progress.started.elapsed(),
            certificate_expires: failure.certificate_expires,
            status: failure.status,
            lookup: progress.looked_up(),
            found,
        },
    }
}

/// The first success decides, and a neutral answer where there is none. Of failures the most telling one speaks, and
/// says which address it is about.
fn as_a_whole(asked: Vec<(IpAddr, Asked)>, port: u16) -> Asked {
    let mut worst: Option<(IpAddr, Failure)> = None;
    let mut best: Option<Answer> = None;
    for (ip, asked) in asked {
        match asked {
            Ok(answer) => {
                let rank = |answer: &Answer| (answer.neutral.is_some(), answer.at);
                if best.as_ref().is_none_or(|best| rank(&answer) < rank(best)) {
                    best = Some(answer);
                }
            }
            Err(failure) => {
                if worst.as_ref().is_none_or(|(_, worst)| failure.weight() > worst.weight()) {
                    worst = Some((ip, failure));
                }
            }
        }
    }
    match (best, worst) {
        (Some(answer), _) => Ok(answer),
        (None, Some((ip, failure))) if failure.reason.class() != Some(Class::Http) => {
            let message = match port {
                0 => format!("{} ({ip})", failure.message),
                port => format!("{} ({})", failure.message, SocketAddr::new(ip, port)),
            };
            Err(Failure { message, ..failure })
        }
        (None, Some((_, failure))) => Err(failure),
        (None, None) => Err(Failure::new(Reason::NameNotFound, "no address to dial")),
    }
}
