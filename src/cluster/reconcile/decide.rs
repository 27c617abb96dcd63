//! Decides what the engine is to run of each check that changed, its members before itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Action, Reconciler, entry::members_of, stand_in::bare};
use crate::{
    check::{Check, ObjectKey, Place, ProbeKind, Text},
    cluster::{
        index::{Problem, ProblemKind, resolve},
        status::Acceptance,
        writer::{Note, confirmed_within},
    },
    compile,
    engine::{Desired, Prior},
};

impl Reconciler {
    /// Does what can be done with all that was taken in, and says what follows.
    pub fn settle(&mut self) -> Vec<Action> {
        if self.is_complete() {
            self.judge_graphs();
            // Members first: each round does what the round before made possible.
            loop {
                let ready: Vec<_> = self.dirty.iter().filter(|key| self.may_be_sent(key)).cloned().collect();
                if ready.is_empty() {
                    break;
                }
                for key in ready {
                    self.dirty.remove(&key);
                    self.decide(&key);
                }
            }
        }
        std::mem::take(&mut self.actions)
    }

    fn judge_graphs(&mut self) {
        for namespace in std::mem::take(&mut self.graph_dirty) {
            let composite = self.by_member.keys().any(|member| member.namespace == namespace);
            let fresh: BTreeMap<_, _> = if composite {
                compile::graph::problems(self.index.namespace(&namespace).map(|check| &**check))
                    .into_iter()
                    .map(|(key, problems)| (key, problems.into_iter().map(graph_problem).collect::<Vec<_>>()))
                    .collect()
            } else {
                BTreeMap::new()
            };
            let here = |key: &ObjectKey| key.namespace == namespace;
            let before: BTreeSet<_> = self.graph.keys().filter(|key| here(key)).cloned().collect();
            for key in before.iter().chain(fresh.keys()) {
                if self.graph.get(key) != fresh.get(key) && self.entries.contains_key(key) {
                    self.dirty.insert(key.clone());
                    self.index.look_at_gates(key);
                    self.verdict_changed(key);
                }
            }
            self.graph.retain(|key, _| !here(key));
            self.graph.extend(fresh);
        }
    }

    fn may_be_sent(&self, key: &ObjectKey) -> bool {
        let Some(entry) = self.entries.get(key) else { return true };
        let Some(check) = self.accepted(key) else { return true };
        if entry.sent {
            return self.index.is_ready(check);
        }
        self.index.is_ready(check)
            && members_of(check).all(|member| self.entries.get(&member).is_none_or(|entry| entry.sent))
    }

    fn decide(&mut self, key: &ObjectKey) {
        let Some(entry) = self.entries.get(key) else { return };
        let mut problems = entry.broken.clone();
        problems.extend(self.graph.get(key).into_iter().flatten().cloned());
        let terminal = problems.iter().any(|problem| problem.kind.is_terminal());
        let found = self.index.get(key).cloned();
        let (check, endpoints) = match found.clone() {
            Some(check) if !terminal => {
                let resolved = resolve(&check, &self.index.sources);
                problems.extend(resolved.problems);
                problems.extend(self.missing_members(&check));
                problems.extend(entry.reference_problems.iter().flatten().cloned());
                if !self.scripts_allowed {
                    problems.extend(script_problems(&check));
                }
                if entry.reference_problems.is_none() && !entry.references.is_empty() {
                    self.actions.push(Action::LookUp(key.clone(), entry.version(), entry.references.clone()));
                }
                (check, resolved.endpoints)
            }
            // It stays on the board with nothing to probe, so that nobody takes its absence for health.
            found => (Arc::new(bare(key, entry, found.as_deref())), vec![]),
        };
        problems.sort();
        problems.dedup();
        let readable = entry.broken.is_empty();
        let override_problems = found.as_ref().map(|check| check.overrides.problems.clone()).unwrap_or_default();
        let acceptance = Acceptance {
            uid: entry.uid.clone(),
            generation: entry.generation,
            problems,
            gates: found.filter(|_| readable).map(|check| check.gates.iter().map(|gate| gate.name.clone()).collect()),
            override_problems,
        };
        let refresh = confirmed_within(self.refresh, self.entries.len());
        let Some(entry) = self.entries.get_mut(key) else { return };
        let prior = entry.prior.take().map(|prior| Prior { refresh, ..*prior });
        entry.sent = true;
        self.actions.push(Action::Upsert(Box::new(Desired { check, endpoints, prior })));
        self.actions.push(Action::Note(Box::new(Note::Accepted(key.clone(), acceptance))));
    }

    fn missing_members(&self, check: &Check) -> Vec<Problem> {
        let missing = |(index, name): (usize, &Text)| {
            let member = ObjectKey::of(check.key.namespace.clone(), name.clone());
            (!self.entries.contains_key(&member)).then(|| Problem {
                kind: ProblemKind::InvalidReference,
                path: format!("spec.targets[{index}].healthCheck.name"),
                message: format!(
                    "HealthCheck '{name}' not found in namespace '{}'; create it or correct the name",
                    check.key.namespace
                ),
            })
        };
        let members = check.targets.iter().enumerate().filter_map(|(index, target)| match &target.place {
            Place::Check { name } => Some((index, name)),
            _ => None,
        });
        members.filter_map(missing).collect()
    }
}

fn graph_problem(problem: compile::Problem) -> Problem {
    let kind = if problem.message.contains("circle") { ProblemKind::Cycle } else { ProblemKind::TooDeep };
    Problem { kind, path: problem.field_path, message: problem.message }
}

fn script_problems(check: &Check) -> Vec<Problem> {
    let scripts = check.targets.iter().enumerate().filter(|(_, target)| {
        matches!(target.probe.kind, ProbeKind::Script(_)) && !matches!(target.place, Place::Check { .. })
    });
    scripts
        .map(|(index, _)| Problem {
            kind: ProblemKind::ScriptsDisabled,
            path: format!("spec.targets[{index}]"),
            message: "scripts are switched off; whoever installs the operator may switch them on (scripts.enabled)"
                .to_owned(),
        })
        .collect()
}
