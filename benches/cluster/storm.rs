//! Many verdicts at once: 1,000 endpoints of 20 HealthChecks, and 1,000 HealthChecks, a few of which have a gate.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    gates::{self, Ready},
    seen::{Seen, Verdict, lock, verdicts},
    stage::{Stage, stop, until},
};
use crate::common::{
    figures::Figures,
    manifests::address,
    operator::{IMAGE, Operator},
    scaled,
    stats::{percentile, sorted},
    table::Table,
};
use crate::support::{ports::free_port, targets::HttpTarget};

const ENDPOINTS: usize = 1_000;
const LARGE: usize = 20;
const SMALL: usize = 1_000;
/// Of them, with a gate.
const GATED: usize = 40;
const FIRST: Ipv4Addr = Ipv4Addr::new(198, 18, 64, 1);
const AT_ONCE: usize = 32;
/// Each probe's own interval: over so long the verdicts of a storm come in.
const INTERVAL: Duration = Duration::from_secs(1);

/// One storm: everything that `target` answers for goes down and comes back.
struct Storm<'a> {
    stage: &'a Stage,
    operator: Operator,
    namespace: String,
    seen: Seen,
    slices: Ready,
    target: HttpTarget,
    flipping: usize,
    gated: usize,
}

pub async fn measure(stage: &Stage, figures: &mut Figures) -> anyhow::Result<()> {
    let mut table = Table::new([
        "at once",
        "verdict → status p50",
        "p99",
        "max",
        "of those with a gate: max",
        "verdict → slice: max",
        "status writes",
        "a flip",
    ]);
    let per_check = scaled(ENDPOINTS).div_ceil(LARGE).min(64);
    let storms = [("large-storm", LARGE, per_check, 0), ("small-storm", scaled(SMALL), 1, scaled(GATED))];
    for (name, checks, targets, gated) in storms {
        let storm = Storm::prepare(stage, name, checks, targets, gated).await?;
        let (down, up) = (storm.blow(true, targets).await?, storm.blow(false, targets).await?);
        let what = format!("{} endpoints of {checks} checks", checks * targets);
        down.tell(&mut table, &format!("{what} go down"));
        up.tell(&mut table, &format!("{what} return"));
        let worst = |of: fn(&Row) -> &[f64]| percentile(of(&down), 100.0).max(percentile(of(&up), 100.0)) / 1e3;
        let writes = down.per_flip().max(up.per_flip());
        if gated == 0 {
            figures.reach("9", "verdict → status, 1,000 endpoints of 20 objects flip, max", worst(|row| &row.all));
            figures.reach("10", "status writes per flip in a storm, 1,000 endpoints of 20 objects", writes);
        } else {
            figures.reach("9", "verdict → status, 1,000 objects flip, max", worst(|row| &row.all));
            let gate = "verdict → status, those with a gate among 1,000 objects that flip, max";
            figures.reach("9", gate, worst(|row| &row.gated));
            figures.note(
                "verdict → slice, those with a gate among 1,000 that flip, max",
                worst(|row| &row.slices),
                "s",
            );
            figures.reach("10", "status writes per flip in a storm", writes);
        }
        stop(storm.operator)?;
    }
    table.print("Storms (all go down, all return; as many other checks do not)");
    Ok(())
}

/// What came of one half of a storm; milliseconds, sorted.
struct Row {
    all: Vec<f64>,
    gated: Vec<f64>,
    /// From the verdict to the slice that follows it.
    slices: Vec<f64>,
    writes: usize,
    /// Of checks.
    flips: usize,
}

impl Row {
    fn per_flip(&self) -> f64 {
        self.writes as f64 / self.flips as f64
    }

    fn tell(&self, table: &mut Table, name: &str) {
        let at = |of: &[f64], percent| match of {
            [] => "–".to_owned(),
            of => format!("{:.0} ms", percentile(of, percent)),
        };
        table.row([
            name.to_owned(),
            at(&self.all, 50.0),
            at(&self.all, 99.0),
            at(&self.all, 100.0),
            at(&self.gated, 100.0),
            at(&self.slices, 100.0),
            self.writes.to_string(),
            format!("{:.2}", self.per_flip()),
        ]);
    }
}

impl<'a> Storm<'a> {
    /// Makes `checks` that will flip, `gated` of them with a gate, and as many that will not.
    async fn prepare(
        stage: &'a Stage,
        name: &str,
        checks: usize,
        targets: usize,
        gated: usize,
    ) -> anyhow::Result<Self> {
        let namespace = stage.cluster.namespace(name).await?;
        let target = HttpTarget::start_on((Ipv4Addr::UNSPECIFIED, free_port()).into()).await?;
        let steady = HttpTarget::start_on((Ipv4Addr::UNSPECIFIED, free_port()).into()).await?;
        for number in 0..gated {
            stage.service(&namespace, &gate(number)).await?;
        }
        let of = |number: usize| {
            let (kind, port) = if number < checks { ("flips", target.port()) } else { ("stays", steady.port()) };
            (format!("{kind}-{number}"), spec(number, targets, port, number < gated))
        };
        futures::stream::iter(0..2 * checks)
            .map(|number| {
                let (name, spec) = of(number);
                let namespace = &namespace;
                async move { stage.create(namespace, &name, json!({}), spec).await }
            })
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await?;
        let operator = stage.operator_with(&namespace, &["--log-format", "json"], &IMAGE)?;
        stage.ready(&operator).await?;
        let seen = Seen::watch(stage.checks(&namespace)).await?;
        let slices = gates::watch(gates::slices(stage, &namespace)).await?;
        until("every first status", async || Ok(seen.count(|shown| shown.health == "Healthy") == 2 * checks)).await?;
        // What is gathered is written, and so are the slices.
        tokio::time::sleep(Duration::from_secs(15)).await;
        drop_in_background(steady);
        Ok(Self { stage, operator, namespace, seen, slices, target, flipping: checks, gated })
    }

    /// Turns the targets off, or on again, and waits until every status says so.
    async fn blow(&self, down: bool, unhealthy: usize) -> anyhow::Result<Row> {
        let (mark, begun) = (self.stage.cluster.audit().mark()?, Timestamp::now());
        match down {
            true => self.target.close().await,
            false => self.target.reopen().await?,
        }
        let stay = self.flipping;
        let wanted = if down { unhealthy as u64 } else { 0 };
        let (sick, well) = if down { (self.flipping, stay) } else { (0, stay + self.flipping) };
        until("every status", async || {
            let bad = self.seen.count(|shown| shown.health == "Unhealthy" && shown.unhealthy == wanted);
            Ok(bad == sick && self.seen.count(|shown| shown.health == "Healthy" && shown.unhealthy == 0) == well)
        })
        .await?;
        // What trails behind is written too.
        tokio::time::sleep(Duration::from_secs(12)).await;
        let last = if down { "Unhealthy" } else { "Healthy" };
        let mut told = verdicts(&self.operator)?;
        told.retain(|verdict| verdict.at >= begun && verdict.health == last);
        ensure!(told.len() >= self.flipping, "{} verdicts of {} were logged", told.len(), self.flipping);
        let gated: Vec<_> = told.iter().filter(|verdict| self.is_gated(&verdict.check)).cloned().collect();
        let whole = self
            .seen
            .latest(|name| name.starts_with("flips-"))
            .map_or(0.0, |at| (at.duration_since(begun).as_secs_f64() - INTERVAL.as_secs_f64()).max(0.0) * 1e3);
        let mut all = sorted(self.seen.after(&told)?);
        if unhealthy > 1 {
            // The word for a check is there before its last endpoint; all are told only with the last count.
            all.push(whole.max(*all.last().unwrap_or(&0.0)));
        }
        let entries = self.stage.cluster.audit().writes_by(&self.stage.user(), mark)?;
        let mine = |entry: &&crate::support::audit::Entry| {
            entry.resource == "healthchecks" && entry.namespace == self.namespace && entry.name.starts_with("flips-")
        };
        let slices = sorted(self.slices_after(&gated)?);
        let (writes, flips) = (entries.iter().filter(mine).count(), told.len());
        Ok(Row { gated: sorted(self.seen.after(&gated)?), slices, writes, flips, all })
    }
}

impl Storm<'_> {
    /// Those with a gate are the first ones; see [`Storm::prepare`].
    fn is_gated(&self, check: &str) -> bool {
        check.strip_prefix("flips-").and_then(|number| number.parse::<usize>().ok()).is_some_and(|it| it < self.gated)
    }

    /// Milliseconds from each verdict to the slice of its gate.
    fn slices_after(&self, verdicts: &[Verdict]) -> anyhow::Result<Vec<f64>> {
        let number = |verdict: &Verdict| verdict.check.trim_start_matches("flips-").to_owned();
        let slices = lock(&self.slices);
        verdicts
            .iter()
            .map(|verdict| {
                let name = format!("gated-{}-", number(verdict));
                let (_, (_, at)) = slices
                    .iter()
                    .find(|(slice, _)| slice.starts_with(&name))
                    .with_context(|| format!("no slice {name}"))?;
                Ok(at.duration_since(verdict.at).as_secs_f64() * 1e3)
            })
            .collect()
    }
}

fn gate(number: usize) -> String {
    format!("gated-{number}")
}

/// The target lives until the benchmark ends.
fn drop_in_background(target: HttpTarget) {
    tokio::spawn(async move {
        let _target = target;
        std::future::pending::<()>().await;
    });
}

fn spec(number: usize, targets: usize, port: u16, gated: bool) -> Value {
    let target = |index: usize| json!({ "name": format!("db-{index}"), "host": address(FIRST, number * targets + index), "port": port });
    let mut spec = json!({
        "interval": "1s", "timeout": "1s", "failureThreshold": 1, "successThreshold": 1, "probe": { "tcp": {} },
        "minHealthy": "100%", "targets": (0..targets).map(target).collect::<Vec<_>>(),
    });
    if gated {
        spec["gates"] = json!([{ "name": "traffic", "endpointSlice": { "service": gate(number) }, "minReady": 0 }]);
    }
    spec
}
