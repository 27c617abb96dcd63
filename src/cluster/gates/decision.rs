//! One gate's decision and what is remembered of it, whatever the gate writes to.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{KindCtx, candidates::Candidate, report::GateReport};
use crate::{
    check::{Gate, GateMode, GateReason},
    gate::{Decision, Freeze, Last, Member, Ruling, Verdict, decide, explain},
};

/// What the last decision of a gate said. Empty in a new life: then what is published tells.
#[derive(Debug, Default)]
pub struct Memory {
    last: HashMap<Arc<str>, Last>,
    /// Published in an earlier life, and not decided about since.
    found: HashSet<Arc<str>>,
    started: bool,
}

impl Memory {
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
                if let Some(ready) = found(candidate) {
                    memory.last.insert(candidate.identity.clone(), Last::found(ready));
                    memory.found.insert(candidate.identity.clone());
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
        let member = |candidate: &Candidate<P>| {
            candidate.member(memory.last.get(&candidate.identity).copied(), memory.found.contains(&candidate.identity))
        };
        let members: Vec<Member> = candidates.iter().map(member).collect();
        let decision = decide(&members, &self.gate.limits, freeze, &self.check.uid);
        let message = explain(&decision, &members, &self.gate.limits, freeze);
        memory.last = members
            .iter()
            .zip(&decision.rulings)
            .map(|(member, ruling)| (member.identity.clone(), ruling.last))
            .collect();
        let never = |candidate: &&Candidate<P>| candidate.verdict == Verdict::NeverProbed;
        let unprobed: HashSet<&str> = candidates.iter().filter(never).map(|candidate| &*candidate.identity).collect();
        memory.found.retain(|identity| unprobed.contains(&**identity));
        let published = decision.rulings.iter().map(Ruling::published).collect();
        Outcome { decision, message, published }
    }

    fn freeze(&self) -> Option<Freeze> {
        if self.check.suspend {
            return Some(Freeze::Suspended);
        }
        if self.doubt.is_some() {
            return self.doubt;
        }
        let lost = |candidate: &Candidate| self.frozen.of(candidate.spot.population());
        self.candidates.iter().any(lost).then_some(Freeze::CorrelatedFailure)
    }
}

/// What is told of it.
pub fn report(gate: &Gate, outcome: &Outcome) -> GateReport {
    let decision = &outcome.decision;
    let effective = GateReason::from(decision.effective);
    let (effective, message) = match gate.mode {
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
