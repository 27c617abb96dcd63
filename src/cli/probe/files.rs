//! `probe -f`: every endpoint that files declare, probed once.

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::Args;
use futures::future::{BoxFuture, ready};
use serde_json::{Value, json};

use super::Probing;
use crate::{
    check::{Check, HealthReason, ObjectKey, Target},
    cli::{
        Exit,
        output::Output,
        print::{complain, found, print},
    },
    compile::Mode,
    engine::Declared,
    on_demand::{Declares, EndpointAnswer, Fresh, FreshSet, OnDemand, Settings},
    source::{Fault, gather, load},
};

/// Each probe has its own timeout; this is for ten thousand of them.
const DEADLINE: Duration = Duration::from_secs(3600);

/// Half of the descriptors that a process commonly may open.
const ATTEMPTS: usize = 512;

#[derive(Args, Debug)]
pub struct FileArgs {
    /// File or directory with HealthChecks, `-` for standard input (may be given many times): each of their endpoints is
    /// probed once, a line each. What needs a cluster is refused
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR")]
    pub filenames: Vec<PathBuf>,
    /// How the results are printed
    #[arg(short, long, value_enum, default_value_t, requires = "filenames")]
    output: Output,
}

/// What the files declare.
struct InFiles(HashMap<ObjectKey, Arc<Check>>);

impl Declares for InFiles {
    fn declared<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<Option<Declared>, String>> {
        let declared = self.0.get(key).map(|check| Declared {
            check: check.clone(),
            endpoints: check.targets.iter().filter_map(Target::own_endpoint).collect(),
        });
        Box::pin(ready(Ok(declared)))
    }
}

/// Probes what the files declare and prints how it ended.
///
/// # Errors
/// The runtime cannot start, or the result cannot be printed.
pub fn run(args: &FileArgs) -> anyhow::Result<Exit> {
    let checks = match read(&args.filenames) {
        Ok(checks) => checks,
        Err(faults) => {
            faults.iter().for_each(|fault| complain(fault));
            return Ok(Exit::Usage);
        }
    };
    let probing = Probing::start(Default::default())?;
    let checks: HashMap<_, _> = checks.into_iter().map(|check| (check.key.clone(), Arc::new(check))).collect();
    let mut keys: Vec<_> = checks.keys().cloned().collect();
    keys.sort();
    let asked = keys.clone();
    let (runtime, prober) = (&probing.runtime, probing.prober.clone());
    let fresh = runtime.block_on(async move {
        let on_demand = OnDemand::with(Settings { attempts: ATTEMPTS, deadline: DEADLINE, board: None });
        on_demand.begin(prober, InFiles(checks));
        on_demand.fresh(asked, None).await.0
    });
    probing.end();
    // Nobody else asks this process.
    let fresh = fresh.map_err(|why| anyhow::anyhow!("nothing could be probed: {why:?}"))?;
    print(&render(&fresh, args.output).context("cannot render the results")?)?;
    // By the checks and not by their endpoints, so that `minHealthy` and `optional` count.
    Ok(Exit::of(fresh.values().filter(|fresh| !is_suspended(fresh)).map(|fresh| fresh.health)))
}

fn read(filenames: &[PathBuf]) -> Result<Vec<Check>, Vec<Fault>> {
    let (sources, mut faults) = gather(filenames);
    let loaded = load(&sources, Mode::Standalone);
    faults.extend(loaded.faults);
    if faults.is_empty() && loaded.declared.is_empty() {
        // Nothing probed is nothing shown to be well: most likely the path is wrong.
        let names: Vec<_> = filenames.iter().map(|path| path.display().to_string()).collect();
        faults.push(Fault::of_file(names.join(", "), "holds no HealthCheck: give a file or directory that does"));
    }
    if faults.is_empty() {
        Ok(loaded.declared.into_iter().map(|declared| declared.check).collect())
    } else {
        Err(faults)
    }
}

fn is_suspended(fresh: &Fresh) -> bool {
    fresh.reason == HealthReason::Suspended
}

fn render(fresh: &FreshSet, output: Output) -> anyhow::Result<String> {
    Ok(match output {
        Output::Text => fresh.iter().map(|(key, fresh)| lines(key, fresh)).collect(),
        Output::Json => format!("{:#}\n", document(fresh)),
        Output::Yaml => serde_saphyr::to_string(&document(fresh))?,
    })
}

fn lines(key: &ObjectKey, fresh: &Fresh) -> String {
    if fresh.endpoints.is_empty() {
        let why = if fresh.message.is_empty() { "no endpoint" } else { &fresh.message };
        return match is_suspended(fresh) {
            true => format!("{key}: suspended\n"),
            false => format!("{key}: {}\n", found(None, why)),
        };
    }
    let line = |answer: &EndpointAnswer| {
        let place = if answer.endpoint.is_empty() { String::new() } else { format!(" {}", answer.endpoint) };
        format!("{key} {}{place}: {}\n", answer.target, found(answer.healthy, &answer.error))
    };
    fresh.endpoints.iter().map(line).collect()
}

fn document(fresh: &FreshSet) -> Value {
    let check = |(key, fresh): (&ObjectKey, &Fresh)| {
        json!({
            "namespace": *key.namespace, "name": *key.name, "health": fresh.health.as_str(),
            "suspended": is_suspended(fresh), "error": fresh.message, "endpoints": fresh.endpoints,
        })
    };
    json!({ "checks": fresh.iter().map(check).collect::<Vec<_>>() })
}
