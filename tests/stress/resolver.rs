//! A name server that says nothing, and one that takes its time, beside targets that need none.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use hickory_resolver::proto::rr::RecordType;
use serde_json::Value;

use crate::harness::{
    Files, LONG, Target, alive_and_well, alone, answer, check, failures, metric, skip, successes, wait_more,
};
use crate::support::name_server;
use crate::support::operator::Operator;
use crate::support::wait::wait_until;

const TARGETS: usize = 50;
/// So many of the addresses, in which none fails.
const ROUNDS: f64 = 10.0;
/// How long the slow one takes to answer.
const SLOW: Duration = Duration::from_secs(2);
const PROBES: &str = "healthcheck_operator_probes_total";
const UNREACHABLE: &str = "reason=\"ResolverUnreachable\"";

/// The name server's port of an address of its own; `None`, and a word on it, where that is not to be had.
fn listen(last: u8) -> Option<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, last), 53));
    if socket.is_err() {
        skip(&format!("port 53 of 127.0.0.{last} cannot be listened on here (as root)"));
    }
    socket.ok()
}

/// A check of fifty targets by name, asked every so many seconds, and given as long.
fn names(check_name: &str, seconds: u32, port: u16) -> String {
    let spec = format!("interval: {seconds}s; timeout: {seconds}s; failureThreshold: 1; staleAfter: 10m");
    let mut names = check(check_name, &spec, []);
    for n in 0..TARGETS {
        names.push_str(&format!(
            "  - {{name: t{n}, host: {check_name}-{n}.example, port: {port}, probe: {{http: {{}}}}}}\n"
        ));
    }
    names
}

/// `standalone` with these checks and one of fifty addresses, in a place where this is the name server.
fn beside_addresses(target: &Target, names: &[String], server: &UdpSocket) -> anyhow::Result<(Files, Operator)> {
    let spec = "interval: 1s; timeout: 1s; failureThreshold: 1; staleAfter: 10m";
    let addresses = check("addresses", spec, (0..TARGETS).map(|n| (target.at(n), "{http: {}}".to_owned())));
    let files = Files::with(&[&[addresses], names].concat());
    let resolv = files.path().join("resolv.conf");
    std::fs::write(&resolv, format!("nameserver {}\noptions attempts:1\n", server.local_addr()?.ip()))?;
    let script = format!("mount --bind {} /etc/resolv.conf && exec \"$@\"", resolv.display());
    let operator = files.standalone().under(["unshare", "--mount", "--", "sh", "-c", &script, "sh"]).serve()?;
    Ok((files, operator))
}

/// Round after round no name is found and nobody fails, and the addresses are asked at least half as often as the names: both
/// are declared to be asked alike.
async fn none_is_held_up(operator: &Operator) -> anyhow::Result<()> {
    operator.wait_get("/healthz/shop/addresses", LONG, |answer| answer.status == 200).await?;
    let told = async || anyhow::Ok((metric(operator, PROBES, UNREACHABLE).await?, successes(operator).await?));
    let before = told().await?;
    wait_more(operator, ROUNDS * TARGETS as f64).await?;
    none_failed(operator).await?;
    let after = told().await?;
    let (unheard, asked) = (after.0 - before.0, after.1 - before.1);
    ensure!(unheard >= TARGETS as f64, "names were looked up {unheard} times beside {asked} probes of addresses");
    ensure!(asked >= unheard / 2.0, "addresses were asked {asked} times beside {unheard} of names");
    println!("  {unheard} probes of names that nobody finds, none failed, beside {asked} of addresses");
    Ok(())
}

async fn none_failed(operator: &Operator) -> anyhow::Result<()> {
    ensure!(failures(operator).await? == (0.0, 0.0), "{:?}", failures(operator).await?);
    let seen = operator.get("/healthz/shop/addresses").await?;
    ensure!(seen.status == 200, "{seen:?}");
    alive_and_well(operator)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_server_that_swallows_all_holds_up_no_address_and_fails_no_name() -> anyhow::Result<()> {
    let _alone = alone().await;
    // It listens, and never answers.
    let Some(black_hole) = listen(77) else { return Ok(()) };
    let target = Target::start(answer);
    let (_files, operator) = beside_addresses(&target, &[names("names", 1, target.port)], &black_hole)?;
    none_is_held_up(&operator).await?;
    // What cannot be looked at is not known, and it is said why. A probe that this machine did not get to in time says so, until
    // the next one.
    wait_until("names", LONG, || async {
        let seen: Value = serde_json::from_str(&operator.admin_get("/v1/healthchecks/shop/names").await?.body)?;
        ensure!((&seen["health"], &seen["reason"]) == (&"Unknown".into(), &"ProbeError".into()), "{seen}");
        ensure!(seen["counts"]["unknown"] == TARGETS, "{}", seen["counts"]);
        let rows = seen["endpoints"].as_array().map(Vec::as_slice).unwrap_or_default();
        let other = rows.iter().find(|row| row["message"] != "no name server answered in 1s");
        ensure!(rows.len() == TARGETS && other.is_none(), "{other:?}");
        anyhow::Ok(())
    })
    .await?;
    none_failed(&operator).await
}

/// Answers every question that comes to `socket`, each in its time. Ends with the process.
fn answer_slowly(socket: UdpSocket) {
    let socket = Arc::new(socket);
    let (asked, asks) = mpsc::channel();
    let hears = Arc::clone(&socket);
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, peer)) = hears.recv_from(&mut buffer) {
            let answer = name_server::answer(&buffer[..length], |_, kind| {
                Some(Ok(if kind == RecordType::A { vec![Ipv4Addr::LOCALHOST.into()] } else { vec![] }))
            });
            let _ = asked.send((Instant::now() + SLOW, answer, peer));
        }
    });
    thread::spawn(move || {
        for (due, answer, peer) in asks {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let _ = socket.send_to(&answer.unwrap_or_default(), peer);
        }
    });
}

/// As [`beside_addresses`], with a name server that takes its time; `None` where that is not to be had.
fn beside_a_slow_one(
    last: u8,
    check_name: &str,
    seconds: u32,
) -> anyhow::Result<Option<(Arc<Target>, Files, Operator)>> {
    let Some(slow) = listen(last) else { return Ok(None) };
    answer_slowly(slow.try_clone()?);
    let target = Target::start(answer);
    let (files, operator) = beside_addresses(&target, &[names(check_name, seconds, target.port)], &slow)?;
    Ok(Some((target, files, operator)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_name_server_holds_up_no_address_and_fails_no_name() -> anyhow::Result<()> {
    let _alone = alone().await;
    let Some((_target, _files, operator)) = beside_a_slow_one(78, "hasty", 1)? else { return Ok(()) };
    none_is_held_up(&operator).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_name_server_is_waited_for_where_there_is_time() -> anyhow::Result<()> {
    let _alone = alone().await;
    let Some((_target, _files, operator)) = beside_a_slow_one(79, "patient", 10)? else { return Ok(()) };
    operator.wait_get("/healthz/shop/patient", LONG, |answer| answer.status == 200).await?;
    none_failed(&operator).await
}
