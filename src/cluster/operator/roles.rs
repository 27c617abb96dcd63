//! What the operator does as the active replica, and as a standby.

use anyhow::{Context, bail};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::Operator;
use crate::{
    cluster::{asked::Asked, leader, lease::Role, mirror},
    engine::{self, Engine},
    passive::Intake,
    probe::ScriptBackend,
};

impl Operator {
    /// Plays whatever role the lease gives, until `stop`.
    ///
    /// # Errors
    /// When a part of the role broke down: only a new process begins from what is known to be good, and a standby is
    /// quicker than that.
    pub(super) async fn play(&self, mut role: watch::Receiver<Role>, stop: CancellationToken) -> anyhow::Result<()> {
        self.readiness.not_ready("lease", "the lease has not been read yet");
        while !stop.is_cancelled() {
            let current = *role.borrow_and_update();
            self.metrics.leader.set(i64::from(current == Role::Leader));
            if current != Role::Unknown {
                self.readiness.ready("lease");
            }
            let ended = stop.child_token();
            let watcher = watch_role(role.clone(), current, ended.clone());
            let playing = async {
                let played = match current {
                    Role::Leader => self.lead(ended.clone()).await,
                    // Before the lease is read, what others wrote is already worth showing.
                    Role::Standby | Role::Unknown => self.stand_by(ended.clone()).await,
                };
                ended.cancel();
                played
            };
            tokio::join!(playing, watcher).0?;
        }
        Ok(())
    }

    async fn lead(&self, stop: CancellationToken) -> anyhow::Result<()> {
        if !self.egress_known.is_cancelled() {
            // What others wrote is worth showing as long as nothing may be probed.
            let waited = stop.child_token();
            let standing_by = async {
                let stood = self.stand_by(waited.clone()).await;
                waited.cancel();
                stood
            };
            let knowing = async {
                tokio::select! {
                    () = waited.cancelled() => {}
                    () = self.egress_known.cancelled() => waited.cancel(),
                }
            };
            tokio::join!(standing_by, knowing).0?;
            if stop.is_cancelled() {
                return Ok(());
            }
        }
        let options = &self.options;
        let engine_stop = CancellationToken::new();
        let parts = engine::Parts {
            lane: self.prober.clone(),
            board: self.board.clone(),
            limits: options.limits,
            surroundings: self.surroundings.clone(),
            metrics: self.metrics.clone(),
            beats: self.beats.clone(),
        };
        let (engine, engine_task) = engine::start(parts, engine_stop.clone());
        self.on_demand.begin(self.prober.clone(), engine.clone());
        let parts = leader::Parts {
            client: self.client.clone(),
            board: self.board.clone(),
            held: self.held.clone(),
            surroundings: self.surroundings.clone(),
            prober: options.identity.prober.clone(),
            selection: options.selection.clone(),
            refresh: options.refresh,
            scripts_allowed: !matches!(options.scripts, ScriptBackend::Disabled),
            annotations: options.annotations,
            gates: options.gates,
            events: options.events,
            references: self.references.clone(),
            metrics: self.metrics.clone(),
            beats: self.beats.clone(),
            readiness: self.readiness.clone(),
            complaints: self.complaints.clone(),
        };
        let leader_stop = stop.child_token();
        let listening = listen(&self.passive, engine.clone(), leader_stop.clone());
        let leading = async {
            let led = leader::lead(parts, engine, leader_stop.clone()).await;
            leader_stop.cancel();
            led
        };
        // Who failed first is told; the other one may have failed of it.
        let (led, engine, ()) = tokio::join!(leading, watch_engine(engine_task, &leader_stop, &engine_stop), listening);
        self.on_demand.end();
        self.passive.end();
        engine.and(led)
    }

    async fn stand_by(&self, stop: CancellationToken) -> anyhow::Result<()> {
        let parts = mirror::Parts {
            client: self.client.clone(),
            board: self.board.clone(),
            selection: self.options.selection.clone(),
            refresh: self.options.refresh,
            metrics: self.metrics.clone(),
            beats: self.beats.clone(),
            readiness: self.readiness.clone(),
            complaints: self.complaints.clone(),
        };
        let ended = stop.child_token();
        let mirroring = async {
            mirror::mirror(parts, stop.clone()).await;
            ended.cancel();
        };
        // Who leads is nothing to who wants to have something probed: what that counts for is nothing either.
        let probing = async {
            tokio::select! {
                () = ended.cancelled() => return,
                () = self.egress_known.cancelled() => {}
            }
            let asked = Asked::new(self.client.clone(), self.options.selection.clone());
            self.on_demand.begin(self.prober.clone(), asked);
            ended.cancelled().await;
            self.on_demand.end();
        };
        tokio::join!(mirroring, probing);
        if stop.is_cancelled() { Ok(()) } else { bail!("the mirror ended by itself; this is a bug") }
    }
}

/// Sees the engine to its end, which is that of leading: probing ends first, so that what is flushed is the last word.
/// An engine that ends before ends the leading too: nothing may be confirmed that nobody probes.
async fn watch_engine(
    mut engine: JoinHandle<()>,
    leading: &CancellationToken,
    engine_stop: &CancellationToken,
) -> anyhow::Result<()> {
    let ended = tokio::select! {
        biased;
        () = leading.cancelled() => {
            engine_stop.cancel();
            return engine.await.context("the engine broke down; this is a bug");
        }
        ended = &mut engine => ended,
    };
    leading.cancel();
    ended.context("the engine broke down; this is a bug")?;
    bail!("the engine ended by itself; this is a bug")
}

/// Has reports judged as soon as every check is there that was at the start: before, one that nobody knows yet would be
/// told so, and what was said of it lost. Who is told to come back does so.
async fn listen(passive: &Intake, engine: Engine, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = engine.opened() => passive.begin(engine.clone()),
    }
}

/// Ends `token` when the role is no longer `current`.
async fn watch_role(mut role: watch::Receiver<Role>, current: Role, token: CancellationToken) {
    tokio::select! {
        () = token.cancelled() => {}
        _ = role.wait_for(|role| *role != current) => token.cancel(),
    }
}

#[cfg(test)]
mod tests;
