//! The `podReadiness` gate: a condition that pods wait for before they are ready.

use std::collections::{BTreeMap, HashMap, btree_map::Entry};

use super::{
    Evaluated, KindCtx,
    candidates::Candidate,
    decision, listed,
    pod_claims::{Claim, claims},
    report::GateReport,
    write::{GateKey, GateWrite, PodWrite},
};
use crate::{
    check::{Check, Gate, GateMode, GateReason, Health, PodSelector, Text},
    cluster::index::{facts::PodFacts, pod_uid, scopes_of},
    gate::Verdict,
};

/// The reason of a condition that lets the pod be ready, of one that does not, and of one that no gate holds any more.
const ADMITTED: &str = "Admitted";
const WITHHELD: &str = "Withheld";
pub const RELEASED: &str = "Released";

type PodCandidate<'a> = Candidate<&'a PodFacts>;

/// Whose condition it is, for people and for [`said_by`].
fn says(check: &Check, gate: &Gate) -> String {
    format!("HealthCheck {}, gate {}", check.key.name, gate.name)
}

/// Whether `message` tells of the same gate as `there` does. The cause behind it is that of the moment when the condition
/// turned: a pod is not written to for each way in which it goes on to fail.
fn speaks_of_the_same(there: &str, message: &str) -> bool {
    let whose = |message: &str| message.split_once(CAUSE).map_or(message, |(whose, _)| whose).to_owned();
    whose(there) == whose(message)
}

/// Between whose condition it is, and why it is False. No name holds it.
const CAUSE: &str = ": ";

/// The HealthCheck and the gate of it that set the condition with this message; `None` where no gate of ours wrote it.
#[must_use]
pub fn said_by(message: &str) -> Option<(&str, &str)> {
    let whose = message.split_once(CAUSE).map_or(message, |(whose, _)| whose);
    whose.strip_prefix("HealthCheck ")?.split_once(", gate ")
}

/// Lets `pod` be ready, as far as we are concerned, because no gate holds it any more. `None` where that is so.
#[must_use]
pub fn release(pod: &PodFacts, kind: &Text) -> Option<(GateKey, GateWrite)> {
    write(pod, kind, true, RELEASED, "no gate of a HealthCheck holds this pod any more".to_owned())
}

/// `None` where the condition is like that already.
fn write(
    pod: &PodFacts,
    kind: &Text,
    status: bool,
    reason: &'static str,
    message: String,
) -> Option<(GateKey, GateWrite)> {
    let readiness = pod.readiness.as_ref()?;
    let there = pod.condition(kind);
    let same = there.is_some_and(|there| {
        there.status == Some(status)
            && there.reason == reason
            && (reason == RELEASED || speaks_of_the_same(&there.message, &message))
    });
    let write = PodWrite {
        resource_version: readiness.resource_version.clone(),
        status,
        reason,
        message,
        turns: there.is_none_or(|there| there.status != Some(status)),
    };
    (!same).then(|| (GateKey::Pod(pod.key.clone(), kind.clone()), GateWrite::Pod(write)))
}

impl KindCtx<'_> {
    /// What the gate does and writes.
    pub(super) fn pod_readiness(&mut self, kind: &Text, selector: Option<&PodSelector>) -> Evaluated {
        let name = &self.gate.name;
        let (reconciler, check) = (self.reconciler, self.check);
        let sources = &reconciler.index.sources;
        let refused = scopes_of(check).iter().find_map(|scope| sources.refusal(scope.kind, &scope.namespace));
        if let Some(refusal) = refused {
            return Evaluated::idle(name, GateReason::Forbidden, refusal);
        }
        let none = BTreeMap::new();
        let pods = sources.pods.get(&check.key.namespace).unwrap_or(&none);
        let all = match selector {
            Some(selector) => self.matching_pods(kind, selector, pods),
            None => self.target_pods(pods),
        };
        let (candidates, left) = self.sort_out(kind, all);
        if candidates.is_empty()
            && let Some(reason) = left.reason
        {
            return Evaluated::idle(name, reason, left.told.join("; "));
        }
        let outcome = self.decide(&candidates, selector.is_some(), |candidate| {
            candidate.spot.condition(kind).and_then(|condition| condition.status)
        });
        let mut report = decision::report(self.gate, &outcome);
        report.message = left.told.into_iter().chain([report.message]).collect::<Vec<_>>().join("; ");
        if self.gate.mode == GateMode::DryRun {
            // They wait for a condition, whoever only shows what it would be. What there is is let go by `pod_release`.
            let new = candidates.iter().filter(|candidate| candidate.spot.condition(kind).is_none());
            let writes = new.filter_map(|candidate| release(candidate.spot, kind)).collect();
            return Evaluated { report, writes };
        }
        let message = says(check, self.gate);
        let writes: Vec<_> = candidates
            .iter()
            .zip(&outcome.published)
            .filter_map(|(candidate, published)| {
                let waits = !published && candidate.verdict == Verdict::NeverProbed;
                match candidate.spot.condition(kind) {
                    // No verdict is on its way while the check is suspended, and a rolling update must not wait for one.
                    None if waits && check.suspend => return release(candidate.spot, kind),
                    // No condition is as good as False, and a verdict is on its way.
                    None if waits => return None,
                    Some(there) if waits && there.reason == RELEASED => return None,
                    _ => {}
                }
                let reason = if *published { ADMITTED } else { WITHHELD };
                let cause = candidate.cause.filter(|_| !published);
                let message = cause.map_or_else(|| message.clone(), |cause| format!("{message}{CAUSE}{cause}"));
                write(candidate.spot, kind, *published, reason, message)
            })
            .collect();
        if let Some(message) = writes.iter().find_map(|(key, _)| self.book.undone(key, self.now)) {
            report = GateReport { effective: GateReason::Conflict, message, ..report };
        }
        if let Some((reason, message)) = writes.iter().find_map(|(key, _)| self.book.failure(key)) {
            report = GateReport { effective: *reason, message: message.clone(), ..report };
        }
        Evaluated { report, writes }
    }

    /// The pods of the targets, each by its own verdict.
    fn target_pods<'p>(&self, pods: &'p BTreeMap<Text, PodFacts>) -> Vec<PodCandidate<'p>> {
        let by_uid: HashMap<&str, &PodFacts> = pods.values().map(|pod| (&*pod.uid, pod)).collect();
        let mut found: BTreeMap<&str, PodCandidate<'p>> = BTreeMap::new();
        for row in self.view.endpoints.iter() {
            let Some(pod) = pod_uid(&row.identity).and_then(|uid| by_uid.get(uid)) else { continue };
            if pod.ends {
                continue;
            }
            let candidate = self.judged.candidate(row, *pod, pod.uid.clone(), pod.key.name.clone());
            match found.entry(&pod.key.name) {
                Entry::Vacant(free) => {
                    free.insert(candidate);
                }
                Entry::Occupied(mut taken) => taken.get_mut().merge(candidate),
            }
        }
        found.into_values().collect()
    }

    /// The pods that match, all by the verdict of the check.
    fn matching_pods<'p>(
        &self,
        kind: &str,
        selector: &PodSelector,
        pods: &'p BTreeMap<Text, PodFacts>,
    ) -> Vec<PodCandidate<'p>> {
        let matching: Vec<_> = pods.values().filter(|pod| !pod.ends && selector.matches(&pod.labels)).collect();
        // What was once decided must not fall because the check was edited and has to look anew.
        let decided = !self.memory.is_blank()
            || self.view.endpoints.iter().any(|row| row.measured)
            || matching.iter().any(|pod| pod.condition(kind).is_some());
        let verdict = match self.view.health {
            Health::Healthy | Health::Degraded => Verdict::Healthy,
            Health::Unhealthy => Verdict::Unhealthy,
            Health::Unknown if decided => Verdict::Stale,
            Health::Unknown => Verdict::NeverProbed,
        };
        // No target has an empty name: this is the override for all of them.
        let word = self.judged.overrides.in_force("", self.judged.wall);
        let lost = self.view.endpoints.iter().any(|row| self.judged.is_lost(row));
        let of = |pod: &'p PodFacts| Candidate {
            spot: pod,
            identity: pod.uid.clone(),
            label: pod.key.name.clone(),
            zone: None,
            verdict,
            last_healthy: (verdict != Verdict::Healthy).then_some(self.view.since),
            word: word.map(|(word, _)| word),
            word_until: word.map(|(_, until)| until),
            cause: (verdict != Verdict::Healthy).then(|| self.view.reason.as_str()),
            held_until: None,
            lost,
        };
        matching.into_iter().map(of).collect()
    }

    /// Those that the gate may act on, and what is to be said of the others.
    fn sort_out<'p>(&self, kind: &Text, all: Vec<PodCandidate<'p>>) -> (Vec<PodCandidate<'p>>, LeftAlone) {
        let claims = claims(&self.check.key.namespace, self.reconciler);
        let rank = |claim: &Claim<'_>| claim.rank(self.reconciler);
        let ours = claims.iter().find(|claim| claim.check.key == self.check.key && claim.kind == kind).map(rank);
        let first = |pod: &PodFacts| {
            claims.iter().find(|claim| {
                claim.kind == kind
                    && claim.check.key != self.check.key
                    && ours.as_ref().is_some_and(|ours| rank(claim) < *ours)
                    && claim.has(pod)
            })
        };
        let (mut kept, mut bare, mut taken) = (vec![], vec![], vec![]);
        let mut holder = None;
        for candidate in all {
            if !candidate.spot.waits_for(kind) {
                bare.push(candidate.label);
            } else if let Some(other) = first(candidate.spot) {
                holder = Some(other.check.key.name.clone());
                taken.push(candidate.label);
            } else {
                kept.push(candidate);
            }
        }
        let mut left = LeftAlone::default();
        if !bare.is_empty() {
            left.reason = Some(GateReason::NotFound);
            left.told.push(format!(
                "left alone, since their spec.readinessGates lacks '{kind}' (add it to the pod template): {}",
                listed(&bare)
            ));
        }
        if let Some(holder) = holder {
            left.reason = Some(GateReason::Conflict);
            left.told.push(format!(
                "left alone, since HealthCheck '{holder}' comes first for '{kind}' (take another conditionType): {}",
                listed(&taken)
            ));
        }
        (kept, left)
    }
}

/// Pods that the gate does not act on.
#[derive(Default)]
struct LeftAlone {
    reason: Option<GateReason>,
    told: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_tells_whose_it_is() {
        assert_eq!(said_by("HealthCheck orders-db, gate traffic"), Some(("orders-db", "traffic")));
        for other in ["", "HealthCheck orders-db", "orders-db, gate traffic", "no gate of a HealthCheck holds"] {
            assert_eq!(said_by(other), None, "{other}");
        }
        assert_eq!(said_by("HealthCheck orders-db, gate traffic: UnexpectedStatus"), Some(("orders-db", "traffic")));
    }

    #[test]
    fn another_cause_is_no_other_gate() {
        let (plain, one, other) = ("HealthCheck a, gate b", "HealthCheck a, gate b: Stale", "HealthCheck a, gate b: X");
        assert!(speaks_of_the_same(plain, one) && speaks_of_the_same(one, other));
        assert!(!speaks_of_the_same(one, "HealthCheck a, gate c: Stale") && !speaks_of_the_same("", one));
    }
}
