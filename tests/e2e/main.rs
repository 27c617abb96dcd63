//! Tests on a real node: one for the whole binary, a namespace and an operator installed by Helm for each show.
//!
//! Shows run one after another: each sends traffic and measures what is lost of it, on a machine that may have two
//! cores. `tests/README.md` says how to write one.

#[path = "../support/mod.rs"]
mod support;

mod gated;
mod hosts;
mod node;
mod pace;
mod published;
mod release;
mod room;
mod shell;
mod suite;
mod traffic;
mod verdict;

mod chart;
mod databases;
mod harness;
mod memory;
mod names;
mod plugin;
mod pods;
mod proxies;
mod scripts;
mod services;
mod upheaval;

use std::process::ExitCode;
use std::time::Instant;

use libtest_mimic::Arguments;

use node::Node;
use suite::Suite;
use support::programs::skip;
use support::run_dir;

fn main() -> ExitCode {
    let begun = Instant::now();
    let mut args = Arguments::from_args();
    args.test_threads = Some(1);
    if !args.list
        && let Err(why) = node::possible()
    {
        return if skip(&format!("{why:#}")) == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let node = match (!args.list).then(Node::up).transpose() {
        Ok(node) => node,
        Err(why) => {
            println!("no node: {why:#}");
            run_dir::finish(true);
            return ExitCode::FAILURE;
        }
    };
    let suite = Suite::new(node);
    // The first show installs the chart with its CRDs; the others take what is there, or install them themselves.
    let trials = [
        chart::trials(&suite),
        databases::trials(&suite),
        harness::trials(&suite),
        memory::trials(&suite),
        names::trials(&suite),
        plugin::trials(&suite),
        pods::trials(&suite),
        proxies::trials(&suite),
        scripts::trials(&suite),
        services::trials(&suite),
        upheaval::trials(&suite),
    ];
    let conclusion = libtest_mimic::run(&args, trials.into_iter().flatten().collect());
    let left = suite.end();
    if let Err(left) = &left {
        println!("the node did not go as it should: {left:#}");
    }
    if !args.list {
        println!("the suite took {:.0} s, the images' build included", begun.elapsed().as_secs_f64());
    }
    let failed = conclusion.has_failed() || left.is_err();
    run_dir::finish(failed);
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
