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
    /// asked in the first decision of this life only.
    pub(super) fn decide(&mut self, found: impl Fn(&Candidate) -> Option<bool>) -> Outcome {
        let freeze = self.freeze();
        let memory = &mut *self.memory;
        if !std::mem::replace(&mut memory.started, true) {
            for candidate in self.candidates {
                if let Some(ready) = found(candidate) {
                    memory.last.insert(candidate.label.clone(), Last::found(ready));
                    memory.found.insert(candidate.label.clone());
                }
            }
        }
        let member = |candidate: &Candidate| {
            candidate.member(memory.last.get(&candidate.label).copied(), memory.found.contains(&candidate.label))
        };
        let members: Vec<Member> = self.candidates.iter().map(member).collect();
        let decision = decide(&members, &self.gate.limits, freeze, &self.check.uid);
        let message = explain(&decision, &members, &self.gate.limits, freeze);
        memory.last = members
            .iter()
            .zip(&decision.rulings)
            .map(|(member, ruling)| (member.identity.clone(), ruling.last))
            .collect();
        let never = |candidate: &&Candidate| candidate.verdict == Verdict::NeverProbed;
        let unprobed: HashSet<&str> = self.candidates.iter().filter(never).map(|candidate| &*candidate.label).collect();
        memory.found.retain(|identity| unprobed.contains(&**identity));
        let published = decision.rulings.iter().map(Ruling::published).collect();
        Outcome { decision, message, published }
    }

    fn freeze(&self) -> Option<Freeze> {
        if self.check.suspend {
            return Some(Freeze::Suspended);
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
