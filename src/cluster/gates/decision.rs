//! One gate's decision and what is remembered of it, whatever the gate writes to.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    KindCtx,
    candidates::{Candidate, Judged},
    doubt::settling,
    former::Former,
    report::GateReport,
};
use crate::{
    check::{Check, Gate, GateMode, GateReason, HealthReason, Text},
    gate::{Decision, Freeze, Last, Member, Ruling, Verdict, decide, explain, wait_anew},
};

/// What the last decision of a gate said. Empty in a new life: then what is published tells.
#[derive(Debug, Default)]
pub struct Memory {
    last: HashMap<Text, Last>,
    /// Published in an earlier life, and not decided about since.
    found: HashSet<Text>,
    started: bool,
    /// What the gate did in an earlier life, by its status.
    former: Option<Former>,
    /// It was frozen then, and is until then.
    frozen_until: Option<Instant>,
    /// Until when (of the gates' clock) what was held then waits anew.
    held: HashMap<Text, Duration>,
}

impl Memory {
    /// Of a gate that this life has not looked at yet.
    #[must_use]
    pub fn after(former: Option<Former>, check: &Check, now: Instant) -> Self {
        let frozen = former.is_some_and(Former::was_frozen);
        Self { former, frozen_until: frozen.then(|| now + settling(check)), ..Self::default() }
    }

    /// When it is to be looked at again for what an earlier life has left.
    #[must_use]
    pub fn due(&self, born: Instant, now: Instant) -> Option<Instant> {
        let held = self.held.values().map(|until| born + *until);
        held.chain(self.frozen_until).filter(|at| now < *at).min()
    }

    /// What is healthy, and is found withheld by a gate that was held or frozen, waits anew.
    fn hold_anew<P>(&mut self, found: &Candidate<P>, ctx: (&Judged<'_>, &Check)) {
        let (judged, check) = ctx;
        let Some(waited) = self.former.and_then(|former| former.waited(judged.wall)) else { return };
        if found.verdict == Verdict::Healthy && found.word.is_none() {
            let until = judged.now.saturating_add(wait_anew(waited, check.rhythm.interval));
            self.held.insert(found.identity.clone(), until);
        }
    }

    /// Whether nothing is remembered.
    pub(super) fn is_blank(&self) -> bool {
        self.last.is_empty()
    }

    /// What was decided about all: where an earlier life was interrupted, what lets traffic through.
    fn common(&self) -> Option<Last> {
        self.last.values().copied().reduce(|one, other| if one.published { one } else { other })
    }
}

/// A decision, and what it was made of.
#[derive(Debug)]
pub struct Outcome {
    decision: Decision,
    /// The check has only begun, and not all of its endpoints have a verdict.
    early: bool,
    message: String,
    /// For each candidate, in order.
    pub published: Vec<bool>,
}

impl KindCtx<'_> {
    /// Decides what is published of the candidates. `found` says what is published of one from an earlier life; it is
    /// asked in the first decision of this life only. `alike`: what was decided about one was decided about all.
    pub(super) fn decide<P>(
        &mut self,
        candidates: &[Candidate<P>],
        alike: bool,
        found: impl Fn(&Candidate<P>) -> Option<bool>,
    ) -> Outcome {
        let freeze = self.freeze();
        let memory = &mut *self.memory;
        if !std::mem::replace(&mut memory.started, true) {
            for candidate in candidates {
                let Some(ready) = found(candidate) else { continue };
                memory.last.insert(candidate.identity.clone(), Last::found(ready));
                memory.found.insert(candidate.identity.clone());
                if !ready && !alike && self.gate.mode == GateMode::Enforce {
                    memory.hold_anew(candidate, (&self.judged, self.check));
                }
            }
        }
        if matches!(freeze, Some(Freeze::ApiServerUnreachable | Freeze::ProberIsolated))
            && self.gate.mode == GateMode::Enforce
        {
            // What was decided may not have been written, and then it must not be once our own side is well again.
            for candidate in candidates {
                if let (Some(ready), Some(last)) = (found(candidate), memory.last.get_mut(&candidate.identity)) {
                    last.published = ready;
                }
            }
        }
        if alike && let Some(last) = memory.common() {
            memory.last = candidates.iter().map(|candidate| (candidate.identity.clone(), last)).collect();
        }
        memory.held.retain(|_, until| self.judged.now < *until);
        let member = |candidate: &Candidate<P>| {
            let identity = &candidate.identity;
            let mut member = candidate.member(memory.last.get(identity).copied(), memory.found.contains(identity));
            let held = memory.held.get(identity).map(|until| self.judged.calendar.at(*until));
            member.held_until = member.held_until.max(held);
            member.flapping |= held.is_some();
            member
        };
        let members: Vec<Member> = candidates.iter().map(member).collect();
        let decision = decide(&members, &self.gate.limits, freeze, &self.check.uid);
        let message = explain(&decision, &members, &self.gate.limits, freeze, self.believed_at);
        memory.last = members
            .iter()
            .zip(&decision.rulings)
            .map(|(member, ruling)| (member.identity.clone(), ruling.last))
            .collect();
        let never = |candidate: &&Candidate<P>| candidate.verdict == Verdict::NeverProbed;
        let unprobed: HashSet<&str> = candidates.iter().filter(never).map(|candidate| &*candidate.identity).collect();
        memory.found.retain(|identity| unprobed.contains(&**identity));
        let published = decision.rulings.iter().map(Ruling::published).collect();
        let early = decision.below && self.view.reason == HealthReason::Pending;
        Outcome { decision, early, message, published }
    }

    fn freeze(&self) -> Option<Freeze> {
        if self.check.suspend {
            return Some(Freeze::Suspended);
        }
        let taken_over = self.memory.frozen_until.is_some_and(|until| self.now < until);
        self.doubt.or(taken_over.then_some(Freeze::TakenOver))
    }
}

/// What is told of it.
pub fn report(gate: &Gate, outcome: &Outcome) -> GateReport {
    let decision = &outcome.decision;
    let effective = GateReason::from(decision.effective);
    let (effective, message) = match gate.mode {
        // That a rule decides until the first verdicts are there is no news of anything amiss.
        GateMode::Enforce if outcome.early => {
            (GateReason::Pending, format!("not all are probed yet, so {effective}: {}", outcome.message))
        }
        GateMode::Enforce => (effective, outcome.message.clone()),
        GateMode::DryRun => (GateReason::DryRun, format!("would be {effective}: {}", outcome.message)),
    };
    GateReport {
        name: gate.name.clone(),
        effective,
        desired: decision.desired,
        published: decision.published,
        withheld: decision.withheld,
        message,
    }
}
