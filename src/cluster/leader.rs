//! The active replica: it watches, probes and writes. Begins with fresh lists, so that what the former leader wrote
//! last is what it goes on from.

mod gating;

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use jiff::Timestamp;
use kube::{Api, Client};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use self::gating::Learnt;
use super::{
    annotation_plan::{AnnotationPlan, Orphan},
    checks::{Complaints, Selection, facts, tell_readiness, watch_checks},
    client::{CallError, call},
    events,
    gates::{Features, Gates},
    index::{SourceChange, facts::SliceFacts},
    lease::Held,
    orphans::{self, Sweeps},
    reconcile::{Action, CheckFacts, Reconciler, Version},
    references::ReferenceStore,
    referred::Referred,
    source_watches::SourceWatches,
    watch::Told,
    writer::{self, Annotated, Note, Writer},
};
use crate::{
    api::HealthCheck,
    check::ObjectKey,
    engine::{Board, Engine, Surroundings},
    server::Readiness,
    telemetry::{Beats, Metrics},
};

/// How often what has no event of its own is looked at.
const TICK: Duration = Duration::from_secs(1);
/// How often Secrets and ConfigMaps are looked up again; most answers come from the store.
const REFERENCES: Duration = Duration::from_secs(10);
/// How long the first answer waits for checks whose Services or pods cannot be listed.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a leader works with.
#[derive(Clone)]
pub struct Parts {
    pub client: Client,
    pub board: Arc<Board>,
    pub held: Held,
    pub surroundings: Surroundings,
    pub prober: String,
    pub selection: Selection,
    pub refresh: Duration,
    pub scripts_allowed: bool,
    pub annotations: bool,
    pub gates: Features,
    pub events: bool,
    pub references: ReferenceStore,
    pub metrics: Metrics,
    pub beats: Beats,
    pub readiness: Readiness,
    pub complaints: Complaints,
}

enum Input {
    Check(usize, Told<CheckFacts>),
    Source(SourceChange),
    References(ObjectKey, Version, Vec<super::index::Problem>),
    /// `None`: nobody could be asked.
    Judged(Orphan, Option<bool>),
    /// Slices with annotations of ours, and whether all were searched.
    Found(Vec<SliceFacts>, bool),
    /// Whether everything was taken from a slice that had to be.
    Cleared(bool),
    Gate(Learnt),
}

struct Leader {
    parts: Parts,
    engine: Engine,
    reconciler: Reconciler,
    plan: AnnotationPlan,
    gates: Gates,
    sources: SourceWatches<Input>,
    notes: mpsc::Sender<Note>,
    inputs: mpsc::Sender<Input>,
    /// Look-ups under way.
    tasks: JoinSet<()>,
    looking_up: HashSet<(ObjectKey, Version)>,
    asked: HashSet<Orphan>,
    sweeps: Sweeps,
    /// Checks that could not be decided when this was last looked at, and are not on the board yet.
    waiting: BTreeSet<ObjectKey>,
    /// Checks that cannot be decided, and are on the board as such.
    stand_ins: BTreeSet<ObjectKey>,
    /// The index the watches were last set for; `None`: they are to be looked at in any case.
    watched: Option<u64>,
    synced: bool,
    born: Instant,
    complete_since: Option<Instant>,
}

/// Leads until `stop`. Returns when everything that could be written was.
///
/// # Errors
/// When the writer broke down.
pub async fn lead(parts: Parts, engine: Engine, stop: CancellationToken) -> anyhow::Result<()> {
    let (inputs, mut inbox) = mpsc::channel(1024);
    let (notes, notes_inbox) = mpsc::channel(1024);
    let (events_sender, events_inbox) = mpsc::channel(1024);
    // Without a bound, as the writer must never wait for who may be waiting for it. Each write tells once.
    let (annotated_sender, mut annotated) = mpsc::unbounded_channel();
    let (gated_sender, mut gated) = mpsc::unbounded_channel();
    let watches =
        watch_checks(&parts.client, &parts.selection, &parts.metrics, &parts.complaints, facts, Input::Check, &inputs);
    let events_task = if parts.events {
        tokio::spawn(events::publish(parts.client.clone(), parts.prober.clone(), events_inbox))
    } else {
        tokio::spawn(drain(events_inbox))
    };
    let writer = Writer::new(writer::Parts {
        client: parts.client.clone(),
        board: parts.board.clone(),
        held: parts.held.clone(),
        prober: parts.prober.clone(),
        refresh: parts.refresh,
        events: events_sender,
        annotated: annotated_sender,
        gated: gated_sender,
        beats: parts.beats.clone(),
    });
    let writer_stop = CancellationToken::new();
    let mut writer = tokio::spawn(writer.run(notes_inbox, writer_stop.clone()));
    let mut subscription = parts.board.subscribe();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut batch = Vec::with_capacity(256);
    let mut leader = Leader {
        reconciler: Reconciler::new(&parts.selection, parts.scripts_allowed, parts.refresh),
        plan: AnnotationPlan::default(),
        gates: Gates::new(parts.gates, parts.metrics.gates.clone(), parts.surroundings.clone()),
        sources: SourceWatches::new(parts.client.clone(), parts.metrics.clone(), inputs.clone(), Input::Source),
        parts,
        engine,
        notes,
        inputs,
        tasks: JoinSet::new(),
        looking_up: HashSet::new(),
        asked: HashSet::new(),
        sweeps: Sweeps::new(Instant::now()),
        waiting: BTreeSet::new(),
        stand_ins: BTreeSet::new(),
        watched: None,
        synced: false,
        born: Instant::now(),
        complete_since: None,
    };
    super::begin_sync(&leader.parts.readiness, &leader.parts.board);
    let mut broken = None;
    loop {
        let write = leader.gates.next_write();
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep_until(write.unwrap_or_else(Instant::now)), if write.is_some() => {}
            _ = inbox.recv_many(&mut batch, 256) => {
                for input in batch.drain(..) { leader.input(input).await }
            }
            keys = subscription.changed() => {
                for key in &keys { leader.reconciler.verdict_changed(key) }
                leader.verdicts_changed(&keys);
            }
            Some(ended) = gated.recv() => leader.gate_ended(&ended),
            Some(ended) = annotated.recv() => leader.annotated(&ended),
            Some(_) = leader.tasks.join_next() => {}
            _ = tick.tick() => leader.tick(),
            ended = &mut writer => {
                broken = Some(ended);
                break;
            }
        }
        leader.settle().await;
    }
    drop(watches);
    writer_stop.cancel();
    // What the last writes tell is not waited for: nobody would act on it any more.
    annotated.close();
    gated.close();
    leader.parts.metrics.gates.clear();
    let written = match broken {
        Some(Ok(())) => Err(anyhow::anyhow!("the writer ended by itself; this is a bug")),
        Some(ended) => ended.context("the writer broke down; this is a bug"),
        None => writer.await.context("the writer broke down; this is a bug"),
    };
    // The writer is gone, so the events end by themselves; an API server that does not answer is not waited for.
    if tokio::time::timeout(Duration::from_millis(500), events_task).await.is_err() {
        tracing::debug!("last events not written");
    }
    leader.parts.beats.end("controller");
    written
}

async fn drain<T>(mut inbox: mpsc::Receiver<T>) {
    while inbox.recv().await.is_some() {}
}

impl Leader {
    async fn input(&mut self, input: Input) {
        match input {
            Input::Check(index, told) => {
                tell_readiness(&self.parts.readiness, &told);
                self.reconciler.check(index, told);
            }
            Input::Source(change) => self.reconciler.source(change),
            Input::References(key, version, problems) => {
                self.reconciler.references(&key, &version, problems);
                self.looking_up.remove(&(key, version));
            }
            Input::Judged(orphan, gone) => {
                self.asked.remove(&orphan);
                // Without an answer it is asked again when the slices are next looked at.
                if let Some(gone) = gone {
                    self.plan.judge(orphan, gone);
                    self.reconciler.look_at_slices();
                }
            }
            Input::Gate(learnt) => self.learnt(learnt),
            Input::Found(slices, whole) => {
                for slice in slices {
                    self.stray(slice);
                }
                if !whole {
                    self.sweeps.failed(Instant::now());
                }
            }
            Input::Cleared(true) => {}
            Input::Cleared(false) => self.sweeps.failed(Instant::now()),
        }
    }

    /// Does what follows from everything that was taken in.
    async fn settle(&mut self) {
        let actions = self.reconciler.settle();
        for action in actions {
            match action {
                Action::Upsert(desired) => self.engine.upsert(*desired).await,
                Action::Remove(key) => self.engine.remove(key).await,
                Action::Note(note) => self.note(*note).await,
                Action::LookUp(key, version, references) => self.look_up(key, version, references),
            }
        }
        let version = self.reconciler.index.version();
        if self.watched.replace(version) != Some(version) {
            for scope in self.sources.set(&self.reconciler.index.scopes()) {
                self.reconciler.source(SourceChange::Dropped(scope));
            }
        }
        self.finish_sync().await;
        self.withdraw();
        self.gate().await;
        if self.parts.annotations && self.reconciler.is_complete() {
            self.annotate().await;
        }
    }

    async fn note(&self, note: Note) {
        if self.notes.send(note).await.is_err() {
            tracing::debug!("the writer has stopped");
        }
    }

    /// Once everything there was to know is on the board, says so.
    async fn finish_sync(&mut self) {
        if self.synced || !self.reconciler.is_complete() {
            return;
        }
        let since = *self.complete_since.get_or_insert_with(Instant::now);
        if !self.reconciler.is_settled() && since.elapsed() < PATIENCE {
            return;
        }
        self.synced = true;
        self.engine.settle().await;
        let board = &self.parts.board;
        let gone: Vec<_> =
            board.all().iter().map(|view| view.key.clone()).filter(|key| !self.reconciler.knows(key)).collect();
        // What a mirror left of checks that cannot be probed yet is nobody's word any more.
        let undecided = self.reconciler.undecided(board, Timestamp::now());
        self.stand_ins.extend(undecided.iter().map(|view| view.key.clone()));
        board.publish(undecided, &gone);
        board.set_synced();
        self.parts.readiness.ready("sync");
        tracing::info!(checks = self.reconciler.index.len(), took = ?self.born.elapsed(), "probing");
        if self.parts.annotations {
            self.sweep();
        }
        self.sweep_pods();
    }

    /// Puts checks that could not be decided at the last tick either on the board as Unknown, so that nobody takes their
    /// absence for health. What is listed at once needs no such word.
    fn stand_in(&mut self) {
        let undecided = self.reconciler.undecided(&self.parts.board, Timestamp::now());
        let (due, early): (Vec<_>, Vec<_>) = undecided.into_iter().partition(|view| self.waiting.contains(&view.key));
        self.waiting = early.into_iter().map(|view| view.key).collect();
        self.stand_ins.extend(due.iter().map(|view| view.key.clone()));
        self.parts.board.publish(due, &[]);
    }

    /// Takes off the board what stood in for checks that are gone; the engine never knew them.
    fn withdraw(&mut self) {
        let gone: Vec<_> = self.stand_ins.iter().filter(|key| !self.reconciler.knows(key)).cloned().collect();
        self.parts.board.publish(vec![], &gone);
        self.stand_ins.retain(|key| self.reconciler.is_undecided(key));
    }

    fn tick(&mut self) {
        self.parts.beats.beat("controller", Duration::from_secs(30));
        // Watches that nobody refers to end after a while.
        self.watched = None;
        let seconds = self.born.elapsed().as_secs();
        self.sweep_gates();
        if seconds.is_multiple_of(REFERENCES.as_secs()) {
            for (key, version, references) in self.reconciler.referring() {
                self.look_up(key, version, references);
            }
        }
        if self.synced {
            self.stand_in();
            self.sweep_pods();
        }
        if self.synced && self.parts.annotations {
            self.sweep();
            if seconds.is_multiple_of(5) {
                // What was put off, or refused, is looked at again.
                self.reconciler.look_at_slices();
            }
        }
    }

    fn look_up(&mut self, key: ObjectKey, version: Version, references: Vec<Referred>) {
        // What is looked up for a former version says nothing of this one.
        if !self.looking_up.insert((key.clone(), version.clone())) {
            return;
        }
        let (store, inputs) = (self.parts.references.clone(), self.inputs.clone());
        self.tasks.spawn(async move {
            let problems = store.problems(&key.namespace, &references).await;
            let _ = inputs.send(Input::References(key, version, problems)).await;
        });
    }

    async fn annotate(&mut self) {
        let mut orphans = vec![];
        let mut notes = vec![];
        for service in self.reconciler.take_services() {
            let plan = self.plan.plan(&service, &self.reconciler, &self.parts.board);
            notes.extend(plan.notes);
            orphans.extend(plan.orphans);
        }
        for note in notes {
            self.note(note).await;
        }
        for orphan in orphans {
            self.ask(orphan);
        }
    }

    fn annotated(&mut self, ended: &Annotated) {
        if let Ok(version) = &ended.result {
            let patch = &ended.patch;
            let sources = &mut self.reconciler.index.sources;
            sources.annotated(&ended.slice, &patch.resource_version, version, &patch.annotations);
        } else {
            self.plan.failed(&ended.slice);
        }
    }

    /// Asks whether the check of `orphan` is really gone.
    fn ask(&mut self, orphan: Orphan) {
        if !self.asked.insert(orphan.clone()) {
            return;
        }
        let (client, inputs) = (self.parts.client.clone(), self.inputs.clone());
        self.tasks.spawn(async move {
            let api: Api<HealthCheck> = Api::namespaced(client, &orphan.slice.namespace);
            let gone = match call(api.get_metadata(&orphan.check)).await {
                Err(CallError::NotFound(_)) => Some(true),
                Ok(_) => Some(false),
                Err(error) => {
                    tracing::debug!(slice = %orphan.slice, check = orphan.check, %error, "cannot tell whether the check of an annotation is gone; asking again");
                    None
                }
            };
            let _ = inputs.send(Input::Judged(orphan, gone)).await;
        });
    }

    /// Looks for annotations of ours on slices that nobody watches, when it is time to.
    fn sweep(&mut self) {
        if !self.sweeps.begin(Instant::now()) {
            return;
        }
        self.plan.sweep(&self.reconciler);
        let (client, selection, inputs) =
            (self.parts.client.clone(), self.parts.selection.clone(), self.inputs.clone());
        self.tasks.spawn(async move {
            let (found, whole) = orphans::find(&client, &selection).await;
            let _ = inputs.send(Input::Found(found, whole)).await;
        });
    }

    /// A slice with annotations of ours in a namespace where no check refers to Services.
    fn stray(&mut self, slice: SliceFacts) {
        if self.reconciler.index.sources.slice(&slice.key).is_some() {
            return;
        }
        let strays = self.plan.strays(&slice, &self.reconciler);
        if strays.is_empty() {
            return;
        }
        let (client, held, inputs) = (self.parts.client.clone(), self.parts.held.clone(), self.inputs.clone());
        self.tasks.spawn(async move {
            let done = orphans::take_away(&client, &held, &slice, strays).await;
            let _ = inputs.send(Input::Cleared(done)).await;
        });
    }
}
