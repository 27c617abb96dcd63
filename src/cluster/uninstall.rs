//! What is done before the operator goes: no gate acts any more, and whatever one held is let go.

mod checks;
mod marker;
mod pass;
#[cfg(test)]
mod tests;
mod told;

use std::{collections::BTreeSet, time::Duration};

use kube::Client;
use tokio::time::Instant;

use self::{
    checks::Checks,
    pass::{Pass, Sweep},
};
use super::{
    checks::Selection,
    client::{CALL_DEADLINE, CallError},
    gates::Features,
    lease::LOOK,
};

/// How long to wait before looking again.
const PAUSE: Duration = Duration::from_secs(1);
/// After this every replica that reaches the API server has seen the marker: it has looked, with some time for the answer.
const HEEDED: Duration = LOOK.saturating_add(Duration::from_secs(1));
/// How many writes are on their way at once.
const WRITES: usize = 8;
/// The most of the time that is kept for what comes last: telling, and freeing the Lease.
const RESERVE: Duration = Duration::from_secs(8);

/// What is to be released.
#[derive(Clone, Debug)]
pub struct Release {
    /// The namespace of the Lease.
    pub namespace: String,
    pub lease: String,
    pub selection: Selection,
    /// What the operator was allowed to do.
    pub features: Features,
    /// How long it may take.
    pub within: Duration,
    /// Whether the Lease is to be free at the end, so that the next installation need not wait for it to run out.
    pub free_lease: bool,
}

/// What was done, and what was not.
#[derive(Debug, Default)]
pub struct Report {
    pub marked: bool,
    pub slices: BTreeSet<String>,
    pub pods: BTreeSet<String>,
    /// What makes pods that name a condition of ours in their `readinessGates`.
    pub waiting: BTreeSet<String>,
    /// HealthChecks whose status says that their gates are released, of those that were looked at.
    pub told: usize,
    pub freed: bool,
    /// For people.
    pub left: Vec<String>,
}

/// After this no replica writes what it decided before it saw the marker. A look at the Lease that was under way when the
/// marker came shows it not; then follow the pause, the next look and the last write, each as slow as calls are now.
fn seen(slowest: Duration) -> Duration {
    // A call that takes long now may take longer still, up to its deadline.
    let slow = (slowest * 8).clamp(CALL_DEADLINE / 3, CALL_DEADLINE);
    LOOK + slow * 3
}

/// Sets the release marker, publishes every endpoint of our slices as ready and sets our conditions on pods True. Goes
/// on until nothing is left to be done and no replica can undo it any more, or the time is over; then says so in the
/// statuses, and frees the Lease.
pub async fn release(client: &Client, release: &Release) -> Report {
    let started = Instant::now();
    let (end, deadline) = (started + release.within, started + release.within - RESERVE.min(release.within / 4));
    let mut report = Report::default();
    let mut slowest = Duration::ZERO;
    loop {
        let sent = Instant::now();
        let marked = marker::set(client, release).await;
        slowest = slowest.max(sent.elapsed());
        let Err(error) = marked else { break };
        if !(error.is_outage() || matches!(error, CallError::Conflict(_))) || Instant::now() + PAUSE >= deadline {
            let lease = format!("{}/{}", release.namespace, release.lease);
            report.left.push(format!("release marker on lease {lease}, so that a replica may gate again: {error}"));
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    report.marked = report.left.is_empty();
    let since = Instant::now();
    if report.marked {
        // Who has not seen the marker yet would take back what is released, and so on in turn.
        tokio::time::sleep_until(deadline.min(since + HEEDED)).await;
    }
    let mut sweep = Sweep::new(slowest);
    let last = loop {
        let mut pass = Pass::default();
        let looked = pass::look(client, release, &mut sweep, &mut report, &mut pass);
        let whole = tokio::time::timeout_at(deadline, looked).await.is_ok();
        let done = whole && !pass.wrote && !pass.again && (!report.marked || since.elapsed() >= seen(sweep.slowest));
        if done || Instant::now() + PAUSE >= deadline {
            if !whole {
                pass.cut_short(release.within);
            }
            break pass;
        }
        tokio::time::sleep(PAUSE).await;
    };
    let ending = async {
        told::tell(client, release, &sweep.tally, &last, &mut report).await;
        if report.marked && release.free_lease {
            marker::free(client, release, &mut report).await;
        }
    };
    let ended = tokio::time::timeout_at(end, ending).await;
    report.left.extend(last.left);
    if ended.is_err() {
        report.left.push(format!("what the statuses say, or the lease, within {:?}", release.within));
    }
    report
}
