//! Tests against a real API server: one cluster for the whole binary, a namespace for each test.
//!
//! Files beside this one hold the trials; `tests/README.md` says how to write one.

#[path = "../support/mod.rs"]
mod support;

mod access;
mod annotations;
mod bounds;
mod chart;
mod controller;
mod denied;
mod faults;
mod gates;
mod grants;
mod grpc;
mod harness;
mod leader;
mod limits;
mod mends;
mod outages;
mod plugin;
mod pod_gates;
mod rbac;
mod readme;
mod refusals;
mod reports;
mod scripts;
mod stage;
mod suite;
mod tls;
mod uninstall;
mod upkeep;
mod validation;
mod writes;

use std::process::ExitCode;

use libtest_mimic::Arguments;

use suite::Suite;
use support::programs::{Programs, skip};
use support::{netns, run_dir};

/// Trials wait far more than they compute, so there may be more of them at once than cores.
const AT_ONCE: usize = 6;

fn main() -> ExitCode {
    if std::env::var_os(harness::ORPHAN_MAKER).is_some() {
        harness::make_orphan();
    }
    let mut args = Arguments::from_args();
    args.test_threads.get_or_insert(AT_ONCE);
    let programs = if args.list { None } else { Some(prepare()) };
    let programs = match programs.transpose() {
        Ok(programs) => programs,
        Err(why) => return if skip(&format!("{why:#}")) == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE },
    };
    let suite = Suite::new(programs);
    let trials = [
        access::trials(&suite),
        annotations::trials(&suite),
        bounds::trials(&suite),
        chart::trials(&suite),
        controller::trials(&suite),
        denied::trials(&suite),
        faults::trials(&suite),
        gates::trials(&suite),
        plugin::trials(&suite),
        pod_gates::trials(&suite),
        uninstall::trials(&suite),
        grants::trials(&suite),
        grpc::trials(&suite),
        harness::trials(&suite),
        leader::trials(&suite),
        limits::trials(&suite),
        mends::trials(&suite),
        outages::trials(&suite),
        rbac::trials(&suite),
        readme::trials(&suite),
        refusals::trials(&suite),
        reports::trials(&suite),
        scripts::trials(&suite),
        tls::trials(&suite),
        upkeep::trials(&suite),
        validation::trials(&suite),
        writes::trials(&suite),
    ];
    let trials = trials.into_iter().flatten().collect();
    let conclusion = libtest_mimic::run(&args, trials);
    // The programs end before their files go.
    drop(suite);
    run_dir::finish(conclusion.has_failed());
    conclusion.exit_code()
}

/// What must be there before the first trial. The network is left last: a first build needs it.
fn prepare() -> anyhow::Result<Programs> {
    let programs = Programs::locate()?;
    for name in ["etcd", "kube-apiserver", "kube-controller-manager", "kubectl"] {
        anyhow::ensure!(programs.has(name), "KUBEBUILDER_ASSETS has no {name}; add it, or unset it to have all built");
    }
    chart::prepare();
    netns::enter()?;
    Ok(programs)
}
