//! `--once`: probe until everything is decided, print it, and say how it ended.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{Running, blind::Blind};
use crate::{
    check::{Check, EndpointState, InitialState, Kind, ObjectKey, Reason},
    cli::{Exit, output::Output, print::print, table},
    engine::{Board, CheckView, EndpointView},
};

/// Nobody who asks once wants to wait a whole interval between two probes.
const QUICK: Duration = Duration::from_secs(1);

/// Runs `checks` until every endpoint is decided, or cannot be.
pub(super) async fn run(running: &Running, blind: &Blind, checks: Vec<Check>, output: Output) -> anyhow::Result<Exit> {
    let checks: Vec<Check> = checks.into_iter().map(hurried).collect();
    let patience = checks.iter().map(patience).max().unwrap_or_default();
    let tries = Tries { enough: checks.iter().map(|check| (check.key.clone(), failures(check))).collect(), blind };
    let mut changes = running.board.subscribe();
    for check in checks {
        super::send(&running.engine, Arc::new(check)).await;
    }
    running.engine.settle().await;
    running.board.set_synced();
    let decided = async {
        while !running.board.all().iter().all(|view| tries.are_over(view)) {
            tokio::select! {
                _ = changes.changed() => {}
                () = blind.more() => {}
            }
        }
    };
    // Some answers come now and then only, which decides nothing; the table says why.
    let _ = tokio::time::timeout(patience, decided).await;
    // What changed together is read together.
    running.engine.settle().await;
    let views = running.board.all();
    print(&render(&running.board, &views, output)?)?;
    Ok(Exit::of(views.iter().filter(|view| !view.suspended).map(|view| view.health)))
}

/// The same question asked at a quicker pace.
fn hurried(mut check: Check) -> Check {
    let longest_timeout = check.targets.iter().map(|target| target.probe.timeout).max().unwrap_or_default();
    let pace = check.rhythm.shortest().min(QUICK.max(longest_timeout));
    check.rhythm.interval = pace;
    check.rhythm.unhealthy_interval = pace;
    check.rhythm.confirm_interval = pace;
    check.rhythm.no_traffic_interval = None;
    check.rhythm.jitter_percent = 0;
    // What is asked for is what is measured.
    check.initial_state = InitialState::Unknown;
    check
}

/// The longest until a verdict: as many failures as it takes, and two seconds for our own part.
fn patience(check: &Check) -> Duration {
    let timeout = check.targets.iter().map(|target| target.probe.timeout).max().unwrap_or_default();
    check.rhythm.interval * failures(check) + timeout + Duration::from_secs(2)
}

/// How many failures in a row are enough, whatever their class.
fn failures(check: &Check) -> u32 {
    check.thresholds.failure.map_or(1, u32::from)
}

/// When to stop looking.
struct Tries<'a> {
    /// How many attempts that could not look are enough to say so: as many as failures would be.
    enough: HashMap<ObjectKey, u32>,
    blind: &'a Blind,
}

impl Tries<'_> {
    fn are_over(&self, view: &CheckView) -> bool {
        view.suspended || view.endpoints.iter().all(|row| self.is_over(view, row))
    }

    fn is_over(&self, view: &CheckView, row: &EndpointView) -> bool {
        // What a member check is follows from endpoints that have rows of their own, or from none.
        row.kind == Kind::HealthCheck || row.state != EndpointState::Unknown || self.is_blind(view, row)
    }

    /// Whether we could not look at it often enough, and the board says so.
    fn is_blind(&self, view: &CheckView, row: &EndpointView) -> bool {
        let told = row.reason.map(Reason::class) == Some(None);
        let enough = self.enough.get(&view.key).copied().unwrap_or(u32::MAX);
        told && self.blind.attempts(&view.key, &row.target) >= enough
    }
}

fn render(board: &Board, views: &[Arc<CheckView>], output: Output) -> anyhow::Result<String> {
    if output == Output::Text {
        let rows: Vec<Vec<String>> = views.iter().map(|view| row(view)).collect();
        return Ok(table::render(&["NAME", "HEALTH", "TARGETS", "REASON", "MESSAGE"], &rows));
    }
    // The same document as GET /v1/healthchecks.
    let list: serde_json::Value = serde_json::from_str(&crate::server::document(board))?;
    Ok(match output {
        Output::Yaml => serde_saphyr::to_string(&list)?,
        Output::Text | Output::Json => format!("{list:#}\n"),
    })
}

fn row(view: &CheckView) -> Vec<String> {
    vec![
        view.key.to_string(),
        view.health.to_string(),
        view.counts.summary(),
        view.reason.to_string(),
        view.message.clone(),
    ]
}
