//! System calls that an old kernel does not have, or a sandbox refuses.

use std::net::SocketAddr;

use anyhow::ensure;
use rustix::io::Errno;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use crate::harness::{Files, Target, alive_and_well, alone, answer, check, failures, metric, wait_healthy, wait_more};
use crate::support::operator::Operator;
use crate::support::process::Starter;

const EACH: usize = 10;
/// All that the fast lane takes.
const PROBES: [&str; 4] = ["{tcp: {}}", "{tcp: {handshake: Full}}", "{http: {}}", "{http: {reuseConnection: true}}"];
const WITHOUT: &str = "no fast lane on this system";

/// Starts programs in which `call` ends in `errno`: always, or by one of these rules.
fn refusing(call: i64, rules: Vec<SeccompRule>, errno: Errno) -> anyhow::Result<Starter> {
    let errno = SeccompAction::Errno(errno.raw_os_error().unsigned_abs());
    let this = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new([(call, rules)].into(), SeccompAction::Allow, errno, this)?;
    let filter: BpfProgram = filter.try_into()?;
    // It holds for the thread from then on, and for all that it starts.
    Ok(Starter::new(move || seccompiler::apply_filter(&filter).expect("a filter of system calls")))
}

/// Every kind of probe passes, round after round. What has done so.
async fn all_are_healthy(command: impl FnOnce(&Files) -> anyhow::Result<Operator>) -> anyhow::Result<Operator> {
    let target = Target::start(answer);
    let spec = "interval: 1s; timeout: 1s; failureThreshold: 1; staleAfter: 10m";
    let places =
        |probe: &'static str| (0..EACH).map(|n| (target.at(n), probe.to_owned())).collect::<Vec<(SocketAddr, _)>>();
    let documents = PROBES.iter().enumerate().map(|(n, probe)| check(&format!("c{n}"), spec, places(probe)));
    let files = Files::with(&documents.collect::<Vec<_>>());
    let operator = command(&files)?;
    wait_healthy(&operator, PROBES.len()).await?;
    wait_more(&operator, 3.0 * (PROBES.len() * EACH) as f64).await?;
    ensure!(failures(&operator).await? == (0.0, 0.0), "{:?}", failures(&operator).await?);
    let unmade = metric(&operator, "healthcheck_operator_probes_total", "reason=\"CannotStart\"").await?;
    ensure!(unmade == 0.0, "{unmade} could not be made");
    alive_and_well(&operator)?;
    Ok(operator)
}

/// How often it is said that there is no fast lane.
fn said(operator: &Operator) -> usize {
    operator.process().output().matches(WITHOUT).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_call_that_the_fast_lane_sleeps_in_the_ordinary_one_does_it_all_and_that_is_said_once()
-> anyhow::Result<()> {
    let _alone = alone().await;
    let starter = refusing(libc::SYS_epoll_pwait2, vec![], Errno::NOSYS)?;
    let confined = all_are_healthy(|files| files.standalone().started_by(starter).serve()).await?;
    ensure!(said(&confined) == 1, "{}", confined.process().output());
    let free = all_are_healthy(|files| files.standalone().serve()).await?;
    ensure!(said(&free) == 0, "{}", free.process().output());
    Ok(())
}

/// Some sandboxes know few options of sockets. What holds the last ACK back is a kindness, and no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_ack_can_be_held_back_both_lanes_go_on_without() -> anyhow::Result<()> {
    let _alone = alone().await;
    let equals = |argument, value: i32| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, u64::from(value.unsigned_abs()))
    };
    for errno in [Errno::NOPROTOOPT, Errno::PERM] {
        for lane in ["on", "off"] {
            let quick_ack = SeccompRule::new(vec![equals(1, libc::IPPROTO_TCP)?, equals(2, libc::TCP_QUICKACK)?])?;
            let starter = refusing(libc::SYS_setsockopt, vec![quick_ack], errno)?;
            let command = |files: &Files| files.standalone().args(["--fast-lane", lane]).started_by(starter).serve();
            let operator = all_are_healthy(command).await?;
            ensure!(said(&operator) == 0, "{}", operator.process().output());
        }
    }
    Ok(())
}
