//! From objects to what the engine is to run and what is to be said of them. Plain and synchronous: events in, actions
//! out.
//!
//! A check is handed to the engine only when everything it refers to has been listed, its members before itself: a
//! restart then looks to the engine like no change at all.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;

use super::{
    checks::{Listing, Selection},
    index::{Index, Problem, ProblemKind, SourceChange, resolve, services_of},
    referred::Referred,
    server_state::ServerState,
    status::Acceptance,
    watch::Told,
    writer::Note,
};
use crate::{
    check::{
        Check, Counts, Health, HealthReason, InitialState, MinHealthy, ObjectKey, Place, ProbeKind, Rhythm, Thresholds,
    },
    compile,
    engine::{Board, CheckView, Desired, Prior},
};

/// A HealthCheck as far as anybody here needs it.
#[derive(Debug)]
pub struct CheckFacts {
    pub key: ObjectKey,
    pub uid: Arc<str>,
    pub generation: i64,
    pub labels: BTreeMap<String, String>,
    pub compiled: Result<Arc<Check>, Vec<compile::Problem>>,
    pub server: Box<ServerState>,
    /// What an earlier life left in the status.
    pub prior: Option<Box<Prior>>,
    /// What its probes read when they run.
    pub references: Vec<Referred>,
}

/// Which object of a name, and which state of its spec: its uid and generation.
pub type Version = (Arc<str>, i64);

/// What follows.
#[derive(Debug)]
pub enum Action {
    Upsert(Box<Desired>),
    Remove(ObjectKey),
    Note(Box<Note>),
    /// These are to be looked up, and the answer handed to [`Reconciler::references`].
    LookUp(ObjectKey, Version, Vec<Referred>),
}

#[derive(Debug)]
struct Entry {
    uid: Arc<str>,
    generation: i64,
    labels: BTreeMap<String, String>,
    /// What is wrong with the spec itself.
    broken: Vec<Problem>,
    prior: Option<Box<Prior>>,
    /// The engine runs it.
    sent: bool,
    /// The Secrets and ConfigMaps that it reads.
    references: Vec<Referred>,
    /// What was found of them; `None`: not looked up yet.
    reference_problems: Option<Vec<Problem>>,
}

impl Entry {
    fn version(&self) -> Version {
        (self.uid.clone(), self.generation)
    }
}

/// See the module's own words.
#[derive(Debug)]
pub struct Reconciler {
    pub index: Index,
    entries: BTreeMap<ObjectKey, Entry>,
    /// Which checks have a check as a member.
    by_member: HashMap<ObjectKey, BTreeSet<ObjectKey>>,
    /// Circles and too deep nesting.
    graph: BTreeMap<ObjectKey, Vec<Problem>>,
    graph_dirty: BTreeSet<Arc<str>>,
    dirty: BTreeSet<ObjectKey>,
    /// Services whose slices' annotations are to be looked at.
    services: BTreeSet<ObjectKey>,
    listing: Listing,
    scripts_allowed: bool,
    refresh: Duration,
    actions: Vec<Action>,
}

impl Reconciler {
    #[must_use]
    pub fn new(selection: &Selection, scripts_allowed: bool, refresh: Duration) -> Self {
        Self {
            index: Index::default(),
            entries: BTreeMap::new(),
            by_member: HashMap::new(),
            graph: BTreeMap::new(),
            graph_dirty: BTreeSet::new(),
            dirty: BTreeSet::new(),
            services: BTreeSet::new(),
            listing: Listing::new(selection),
            scripts_allowed,
            refresh,
            actions: Vec::new(),
        }
    }

    /// Whether all HealthChecks have been listed.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.listing.is_complete()
    }

    /// Whether every check that is known runs.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.is_complete() && self.entries.values().all(|entry| entry.sent)
    }

    /// The checks that the engine has not been given yet, for they refer to what cannot be listed: Unknown, and said to
    /// be so on `board`.
    #[must_use]
    pub fn undecided(&self, board: &Board, now: Timestamp) -> Vec<CheckView> {
        let unsent = self.entries.iter().filter(|(_, entry)| !entry.sent);
        unsent
            .map(|(key, entry)| {
                let former = board.get(key).filter(|view| view.uid == entry.uid);
                undecided(key, entry, self.index.get(key).map(|check| &**check), former.as_deref(), now)
            })
            .collect()
    }

    #[must_use]
    pub fn knows(&self, key: &ObjectKey) -> bool {
        self.entries.contains_key(key)
    }

    /// The check under `key`, unless something is wrong with its spec.
    #[must_use]
    pub fn accepted(&self, key: &ObjectKey) -> Option<&Arc<Check>> {
        self.index.get(key).filter(|_| !self.graph.contains_key(key))
    }

    /// Services whose slices may need other annotations since this was last asked.
    pub fn take_services(&mut self) -> BTreeSet<ObjectKey> {
        std::mem::take(&mut self.services)
    }

    /// The Services of `key` are to be looked at: its verdict changed.
    pub fn verdict_changed(&mut self, key: &ObjectKey) {
        if let Some(check) = self.index.get(key) {
            self.services.extend(services_of(check));
        }
    }

    /// The slices of all Services that are referred to are to be looked at again.
    pub fn look_at_slices(&mut self) {
        self.services.extend(self.index.sources.slices.keys().cloned());
    }

    /// Takes in what a watch of HealthChecks told.
    pub fn check(&mut self, watch: usize, told: Told<CheckFacts>) {
        match told {
            Told::Begin => self.listing.begin(watch),
            Told::Is(facts) => {
                self.listing.has(watch, &facts.key);
                self.put(facts);
            }
            Told::Gone(facts) => self.remove(&facts.key),
            Told::Complete => {
                for key in self.listing.complete(watch, self.entries.keys()) {
                    self.remove(&key);
                }
            }
            Told::Failed(_) => {}
        }
    }

    fn put(&mut self, facts: CheckFacts) {
        let CheckFacts { key, uid, generation, labels, compiled, server, prior, references } = facts;
        self.actions.push(Action::Note(Box::new(Note::Seen(key.clone(), server))));
        let known = self.entries.get(&key);
        if known.is_some_and(|known| known.uid != uid) {
            // Another object of the same name: the former one is gone, though nobody said so.
            self.remove_entry(&key);
        } else if known.is_some_and(|known| known.generation == generation && known.labels == labels) {
            return;
        }
        if let Some(former) = self.index.get(&key) {
            self.services.extend(services_of(former));
        }
        self.unlink(&key);
        let (check, broken) = match compiled {
            Ok(check) => (Some(check), vec![]),
            Err(problems) => {
                let problem = |each: compile::Problem| Problem {
                    kind: ProblemKind::InvalidSpec,
                    path: each.field_path,
                    message: each.message,
                };
                (None, problems.into_iter().map(problem).collect())
            }
        };
        let sent = self.entries.get(&key).is_some_and(|entry| entry.sent);
        let prior = if sent { None } else { prior };
        let entry = Entry { uid, generation, labels, broken, prior, sent, references, reference_problems: None };
        self.entries.insert(key.clone(), entry);
        if let Some(check) = check {
            for member in members_of(&check) {
                self.by_member.entry(member).or_default().insert(key.clone());
            }
            self.services.extend(services_of(&check));
            self.index.insert(check);
        } else {
            self.index.remove(&key);
        }
        self.touch(&key);
    }

    /// `key` changed, and so may everything that has it as a member.
    fn touch(&mut self, key: &ObjectKey) {
        self.dirty.insert(key.clone());
        self.dirty.extend(self.by_member.get(key).into_iter().flatten().cloned());
        self.graph_dirty.insert(key.namespace.clone());
    }

    /// Takes `key` out of the members' map.
    fn unlink(&mut self, key: &ObjectKey) {
        let Some(check) = self.index.get(key).cloned() else { return };
        for member in members_of(&check) {
            if let Some(owners) = self.by_member.get_mut(&member) {
                owners.remove(key);
                if owners.is_empty() {
                    self.by_member.remove(&member);
                }
            }
        }
    }

    fn remove(&mut self, key: &ObjectKey) {
        if self.entries.contains_key(key) {
            self.remove_entry(key);
            self.touch(key);
            self.dirty.remove(key);
            self.actions.push(Action::Note(Box::new(Note::Gone(key.clone()))));
        }
    }

    fn remove_entry(&mut self, key: &ObjectKey) {
        self.unlink(key);
        self.graph.remove(key);
        if let Some(check) = self.index.remove(key) {
            self.services.extend(services_of(&check));
        }
        if self.entries.remove(key).is_some_and(|entry| entry.sent) {
            self.actions.push(Action::Remove(key.clone()));
        }
    }

    /// Takes in what a watch of Services, slices or pods told.
    pub fn source(&mut self, change: SourceChange) {
        if let SourceChange::Slice(_, Told::Is(slice)) = &change
            && !slice.service.is_empty()
        {
            self.services.insert(ObjectKey { namespace: slice.key.namespace.clone(), name: slice.service.clone() });
        }
        let touched = self.index.apply(change);
        self.dirty.extend(touched);
    }

    /// Takes in what came of looking up the references of `key` as it was at `version`.
    pub fn references(&mut self, key: &ObjectKey, version: &Version, problems: Vec<Problem>) {
        if let Some(entry) = self.entries.get_mut(key)
            && (&entry.uid, entry.generation) == (&version.0, version.1)
            && entry.reference_problems.as_ref() != Some(&problems)
        {
            entry.reference_problems = Some(problems);
            self.dirty.insert(key.clone());
        }
    }

    /// Everything that has references, for looking them up again.
    pub fn referring(&self) -> Vec<(ObjectKey, Version, Vec<Referred>)> {
        let refers =
            |(key, entry): &(&ObjectKey, &Entry)| !entry.references.is_empty() && self.index.get(key).is_some();
        self.entries
            .iter()
            .filter(refers)
            .map(|(key, entry)| (key.clone(), entry.version(), entry.references.clone()))
            .collect()
    }

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
        let (check, endpoints) = match found {
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
        let acceptance = Acceptance { uid: entry.uid.clone(), generation: entry.generation, problems };
        let refresh = super::writer::confirmed_within(self.refresh, self.entries.len());
        let Some(entry) = self.entries.get_mut(key) else { return };
        let prior = entry.prior.take().map(|prior| Prior { refresh, ..*prior });
        entry.sent = true;
        self.actions.push(Action::Upsert(Box::new(Desired { check, endpoints, prior })));
        self.actions.push(Action::Note(Box::new(Note::Accepted(key.clone(), acceptance))));
    }

    fn missing_members(&self, check: &Check) -> Vec<Problem> {
        let missing = |(index, name): (usize, &Arc<str>)| {
            let member = ObjectKey { namespace: check.key.namespace.clone(), name: name.clone() };
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

fn undecided(
    key: &ObjectKey,
    entry: &Entry,
    check: Option<&Check>,
    former: Option<&CheckView>,
    now: Timestamp,
) -> CheckView {
    CheckView {
        key: key.clone(),
        uid: entry.uid.clone(),
        generation: entry.generation,
        labels: Arc::new(entry.labels.clone()),
        suspended: false,
        health: Health::Unknown,
        reason: HealthReason::ProbeError,
        message: "not probed yet: what its targets refer to cannot be listed".to_owned(),
        since: now,
        counts: Counts::default(),
        endpoints: Arc::default(),
        outages: former.map_or_else(Arc::default, |view| view.outages.clone()),
        probes: "".into(),
        interval: check.map_or(Duration::ZERO, |check| check.rhythm.interval),
        transitions: [0; 4],
        live: Arc::default(),
    }
}

fn graph_problem(problem: compile::Problem) -> Problem {
    let kind = if problem.message.contains("circle") { ProblemKind::Cycle } else { ProblemKind::TooDeep };
    Problem { kind, path: problem.field_path, message: problem.message }
}

fn members_of(check: &Check) -> impl Iterator<Item = ObjectKey> {
    check.targets.iter().filter_map(|target| match &target.place {
        Place::Check { name } => Some(ObjectKey { namespace: check.key.namespace.clone(), name: name.clone() }),
        _ => None,
    })
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

/// A check that asks nothing, in place of one that cannot be run.
fn bare(key: &ObjectKey, entry: &Entry, known: Option<&Check>) -> Check {
    const DEFAULT: Duration = Duration::from_secs(10);
    let rhythm =
        Rhythm { interval: DEFAULT, unhealthy_interval: DEFAULT, confirm_interval: DEFAULT, jitter_percent: 0 };
    Check {
        key: key.clone(),
        uid: entry.uid.clone(),
        generation: entry.generation,
        labels: entry.labels.clone(),
        suspend: false,
        rhythm: known.map_or(rhythm, |check| check.rhythm),
        thresholds: Thresholds { success: 2, failure: 3, connect: None, http: None, timeout: None },
        initial_state: InitialState::Unknown,
        stale_after: known.map_or(DEFAULT * 3, |check| check.stale_after),
        min_healthy: MinHealthy::Percent(100),
        annotations: false,
        targets: vec![],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        api,
        cluster::{
            checks::{Object, facts},
            index::{Scope, SourceKind},
        },
    };

    fn object(name: &str, uid: &str, generation: i64, spec: &Value) -> CheckFacts {
        let object = json!({
            "apiVersion": api::API_VERSION, "kind": api::KIND,
            "metadata": {"name": name, "namespace": "shop", "uid": uid, "generation": generation, "resourceVersion": "1"},
            "spec": spec,
        });
        facts(serde_json::from_value::<Object>(object).expect("an object")).expect("with a name")
    }

    fn host() -> Value {
        json!({"targets": [{"name": "t", "host": "10.0.0.1", "port": 80}]})
    }

    fn member(of: &str) -> Value {
        json!({"targets": [{"name": "m", "healthCheck": {"name": of}}]})
    }

    fn reconciler() -> Reconciler {
        Reconciler::new(&Selection::default(), false, Duration::from_secs(300))
    }

    fn list(reconciler: &mut Reconciler, objects: Vec<CheckFacts>) {
        reconciler.check(0, Told::Begin);
        for object in objects {
            reconciler.check(0, Told::Is(object));
        }
        reconciler.check(0, Told::Complete);
    }

    /// What was done: `run db (1)` with its endpoints, `end db`, `db: what is wrong`.
    fn done(reconciler: &mut Reconciler) -> Vec<String> {
        let told = |action| match action {
            Action::Upsert(desired) => Some(format!("run {} ({})", desired.check.key.name, desired.endpoints.len())),
            Action::Remove(key) => Some(format!("end {}", key.name)),
            Action::Note(note) => match *note {
                Note::Accepted(key, acceptance) if !acceptance.problems.is_empty() => {
                    let kinds: Vec<_> = acceptance.problems.iter().map(|problem| problem.kind.as_str()).collect();
                    Some(format!("{}: {}", key.name, kinds.join(",")))
                }
                _ => None,
            },
            Action::LookUp(key, _, references) => Some(format!("look up {} of {}", references.len(), key.name)),
        };
        reconciler.settle().into_iter().filter_map(told).collect()
    }

    #[test]
    fn nothing_runs_before_the_list_is_complete_and_members_run_first() {
        let mut reconciler = reconciler();
        reconciler.check(0, Told::Begin);
        reconciler.check(0, Told::Is(object("a", "1", 1, &member("b"))));
        reconciler.check(0, Told::Is(object("b", "2", 1, &member("c"))));
        reconciler.check(0, Told::Is(object("c", "3", 1, &host())));
        assert!(done(&mut reconciler).is_empty());
        reconciler.check(0, Told::Complete);
        assert_eq!(done(&mut reconciler), ["run c (1)", "run b (0)", "run a (0)"]);
        assert!(reconciler.is_settled());
        // Nothing new, nothing done.
        list(
            &mut reconciler,
            vec![object("a", "1", 1, &member("b")), object("b", "2", 1, &member("c")), object("c", "3", 1, &host())],
        );
        assert!(done(&mut reconciler).is_empty());
    }

    #[test]
    fn a_check_waits_for_what_it_refers_to_and_so_does_who_has_it_as_a_member() {
        let mut reconciler = reconciler();
        let pods = json!({"targets": [{"name": "p", "pods": {"selector": {"matchLabels": {"a": "b"}}}, "port": 1}]});
        list(
            &mut reconciler,
            vec![object("a", "1", 1, &member("p")), object("p", "2", 1, &pods), object("h", "3", 1, &host())],
        );
        assert_eq!(done(&mut reconciler), ["run h (1)"]);
        let undecided = reconciler.undecided(&Board::new(), Timestamp::UNIX_EPOCH);
        let undecided: Vec<_> = undecided.iter().map(|view| (&*view.key.name, view.health, view.reason)).collect();
        let nobodys = |name| (name, Health::Unknown, HealthReason::ProbeError);
        assert_eq!(undecided, [nobodys("a"), nobodys("p")]);
        let scope = Scope { kind: SourceKind::Pods, namespace: "shop".into() };
        reconciler.source(SourceChange::Pod(scope.clone(), Told::Begin));
        reconciler.source(SourceChange::Pod(scope, Told::Complete));
        assert_eq!(done(&mut reconciler), ["run p (0)", "run a (0)"]);
    }

    #[test]
    fn a_circle_runs_as_nothing_until_it_is_broken() {
        let mut reconciler = reconciler();
        list(&mut reconciler, vec![object("a", "1", 1, &member("b")), object("b", "2", 1, &member("a"))]);
        assert_eq!(done(&mut reconciler), ["run a (0)", "a: Cycle", "run b (0)", "b: Cycle"]);
        reconciler.check(0, Told::Is(object("b", "2", 2, &host())));
        let mut mended = done(&mut reconciler);
        mended.sort();
        assert_eq!(mended, ["run a (0)", "run b (1)"]);
    }

    #[test]
    fn a_missing_member_is_told_and_found_when_it_comes() {
        let mut reconciler = reconciler();
        list(&mut reconciler, vec![object("a", "1", 1, &member("b"))]);
        assert_eq!(done(&mut reconciler), ["run a (0)", "a: InvalidReference"]);
        reconciler.check(0, Told::Is(object("b", "2", 1, &host())));
        let mut found = done(&mut reconciler);
        found.sort();
        assert_eq!(found, ["run a (0)", "run b (1)"]);
        reconciler.check(0, Told::Gone(object("b", "2", 1, &host())));
        assert_eq!(done(&mut reconciler), ["end b", "run a (0)", "a: InvalidReference"]);
    }

    #[test]
    fn what_cannot_be_read_or_is_wrong_is_told_on_itself_and_stops_nobody() {
        let mut reconciler = reconciler();
        let unreadable = json!({"targets": "all"});
        let wrong = json!({"targets": [{"name": "t", "host": "10.0.0.1"}]});
        list(
            &mut reconciler,
            vec![
                object("unreadable", "1", 1, &unreadable),
                object("wrong", "2", 1, &wrong),
                object("right", "3", 1, &host()),
            ],
        );
        assert_eq!(
            done(&mut reconciler),
            ["run right (1)", "run unreadable (0)", "unreadable: InvalidSpec", "run wrong (0)", "wrong: InvalidSpec",]
        );
    }

    #[test]
    fn an_object_made_again_is_another_one() {
        let mut reconciler = reconciler();
        list(&mut reconciler, vec![object("a", "1", 1, &host())]);
        assert_eq!(done(&mut reconciler), ["run a (1)"]);
        // The deletion was missed.
        reconciler.check(0, Told::Is(object("a", "2", 1, &host())));
        assert_eq!(done(&mut reconciler), ["end a", "run a (1)"]);
        list(&mut reconciler, vec![]);
        assert_eq!(done(&mut reconciler), ["end a"]);
    }

    #[test]
    fn scripts_that_are_off_and_references_are_told() {
        let mut reconciler = reconciler();
        let script = json!({"targets": [{"name": "s", "probe": {"script": {"command": ["true"]}}}]});
        let secret = json!({"targets": [{"name": "t", "host": "10.0.0.1", "port": 80, "probe": {"http": {"headers": [
            {"name": "X-A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        ]}}}]});
        list(&mut reconciler, vec![object("script", "1", 1, &script), object("secret", "2", 1, &secret)]);
        assert_eq!(
            done(&mut reconciler),
            ["run script (1)", "script: ScriptsDisabled", "look up 1 of secret", "run secret (1)"]
        );
        let key = ObjectKey::new("shop", "secret");
        let missing =
            Problem { kind: ProblemKind::InvalidReference, path: String::new(), message: "missing".to_owned() };
        // What was found for another object, or an earlier spec, says nothing of this one.
        for (uid, generation) in [("2", 0), ("1", 1)] {
            reconciler.references(&key, &(uid.into(), generation), vec![missing.clone()]);
            assert!(done(&mut reconciler).is_empty());
        }
        let version = ("2".into(), 1);
        reconciler.references(&key, &version, vec![missing.clone()]);
        assert_eq!(done(&mut reconciler), ["run secret (1)", "secret: InvalidReference"]);
        reconciler.references(&key, &version, vec![missing]);
        assert!(done(&mut reconciler).is_empty(), "the same again");
        reconciler.references(&key, &version, vec![]);
        assert_eq!(done(&mut reconciler), ["run secret (1)"]);
    }
}
