//! What becomes of healthy targets when the operator itself stands still, starves or has far too much to do: none of them
//! may be told as failed.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{
    common::{
        OTHERS,
        figures::Figures,
        listener::Listener,
        manifests::{Plan, Probe},
        nginx::Nginx,
        operator::Operator,
        rounds, scaled,
        stats::{median, over, percentile, sorted},
        table::Table,
        window,
        wire::{Begin, Capture, Packet},
    },
    support::{cgroup::Cgroup, run_dir::sub_dir},
};

const STOPPED: Duration = Duration::from_secs(3);
/// Halves of it are asked by TCP and by HTTP.
const ENDPOINTS: usize = 5_000;
/// More than a tenth of a core can do in time.
const THROTTLED: usize = 3_000;
/// At the shortest interval, 300,000 checks a second: ten times what a core can do.
const FLOOD: usize = 30_000;
const SECONDS: u64 = 6;
/// As far from its grid a check is punctual, in nanoseconds.
const PUNCTUAL: u64 = 10_000_000;
const SECOND: u64 = 1_000_000_000;

/// What one run of one kind told.
struct Told {
    probes: f64,
    failed: f64,
    /// What was put down to ourselves.
    local: f64,
    unhealthy: usize,
}

pub fn measure(figures: &mut Figures) -> anyhow::Result<()> {
    let (tcp, http) = (Listener::start()?.port, Nginx::start(OTHERS, false)?);
    let mut table =
        Table::new(["our own fault", "probes", "told as failed", "told as our own", "checks not Healthy any more"]);
    let (mut stopped, mut throttled, mut flooded, mut back) = (vec![], vec![], vec![], vec![]);
    let rounds = rounds(5).div_ceil(2);
    for round in 1..=rounds {
        eprintln!("round {round}: stalls");
        let (told, returned) = stop(tcp, http.port)?;
        stopped.push(told);
        back.push(returned);
        match tenth_of_a_core() {
            Ok(group) => throttled.push(starve(group, tcp, http.port)?),
            Err(error) => eprintln!("no CPU quota can be set here: {error:#}"),
        }
        flooded.push(flood(tcp)?);
    }
    for (name, metric, runs) in [
        ("stopped for 3 s", "false failures, stopped for 3 s", &stopped),
        ("a tenth of a core", "false failures, a tenth of a core", &throttled),
        ("ten times too much to do", "false failures, ten times too much to do", &flooded),
    ] {
        let sum = |part: fn(&Told) -> f64| runs.iter().map(part).sum::<f64>();
        table.row([
            name.to_owned(),
            format!("{:.0}", sum(|told| told.probes)),
            format!("{:.0}", sum(|told| told.failed)),
            format!("{:.0}", sum(|told| told.local)),
            format!("{:.0}", sum(|told| told.unhealthy as f64)),
        ]);
        if !runs.is_empty() {
            figures.reach("14", metric, sum(|told| told.failed));
            figures.note(format!("{metric}: checks that lost their health"), sum(|told| told.unhealthy as f64), "");
        }
    }
    table.print(&format!("Stalls of our own, every target well, {}", over("sums", rounds)));
    println!("after a stop of 3 s all were back on their grid within {:.2} intervals\n", median(back.iter().copied()));
    figures.reach_all("14", "stopped for 3 s, back on time within", &back);
    Ok(())
}

fn start(name: &str, plans: &[Plan]) -> anyhow::Result<Operator> {
    let directory = sub_dir(name);
    for plan in plans {
        plan.write(&directory.join(format!("{}.yaml", plan.name)))?;
    }
    let operator = Operator::standalone(&directory, &["--log-format", "json"], &[])?;
    operator.wait_scheduled(plans.iter().map(|plan| plan.endpoints).sum())?;
    Ok(operator)
}

/// Half of them by TCP, half by HTTP, each with half a second for its answer.
fn both(endpoints: usize, tcp: u16, http: u16) -> [Plan; 2] {
    let half = |probe, port| Plan { timeout: "500ms".into(), ..Plan::loopback(endpoints.div_ceil(2), probe, port) };
    let first = Ipv4Addr::new(127, 128, 0, 1);
    [Plan { name: "tcp", ..half(Probe::Tcp, tcp) }, Plan { name: "http", first, ..half(Probe::Http, http) }]
}

fn told(operator: &Operator) -> anyhow::Result<Told> {
    let metrics = operator.metrics()?;
    let output = operator.process().output();
    let lost = |line: &&str| line.contains("\"health changed\"") && line.contains("\"from\":\"Healthy\"");
    Ok(Told {
        probes: metrics.probes(),
        failed: metrics.failed(),
        local: metrics.local(),
        unhealthy: output.lines().filter(lost).count(),
    })
}

/// Stopped as by a debugger, a snapshot or a migration. With it comes after how many intervals all were punctual again.
fn stop(tcp: u16, http: u16) -> anyhow::Result<(Told, f64)> {
    let operator = start("stopped", &both(scaled(ENDPOINTS), tcp, http))?;
    operator.wait_probes(2 * scaled(ENDPOINTS))?;
    let capture = Capture::start(tcp, Begin::Syn)?;
    std::thread::sleep(Duration::from_secs(3));
    operator.process().freeze()?;
    let stopped = now()?;
    std::thread::sleep(STOPPED);
    operator.process().thaw()?;
    let thawed = now()?;
    std::thread::sleep(Duration::from_secs(4));
    let syns = capture.stop()?;
    Ok((told(&operator)?, back(&syns, stopped, thawed)?))
}

fn now() -> anyhow::Result<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())?)
}

/// When all but one in a thousand were asked in their time again, in intervals of a second from `thawed` on; or all but
/// twice the share that was not before, where the machine keeps nobody punctual.
fn back(syns: &[Packet], stopped: u64, thawed: u64) -> anyhow::Result<f64> {
    let mut places: HashMap<Ipv4Addr, u64> = HashMap::new();
    for (at, to) in syns.iter().filter(|(at, _)| *at < stopped) {
        // The earliest place in a second; a grid that lies across its border is no rarer late than early.
        let place = at % SECOND;
        let kept = places.entry(*to).or_insert(place);
        *kept = (*kept).min(place);
    }
    let is_astray = |at: u64, place: u64| {
        let off = (at + SECOND - place) % SECOND;
        off.min(SECOND - off) > PUNCTUAL
    };
    let early: Vec<&Packet> = syns.iter().filter(|(at, _)| *at < stopped).collect();
    let usual = early.iter().filter(|(at, to)| is_astray(*at, places[to])).count() as f64 / early.len().max(1) as f64;
    let mut first: HashMap<Ipv4Addr, u64> = HashMap::new();
    let mut astray = vec![];
    let mut all = 0_u32;
    for (at, to) in syns.iter().filter(|(at, _)| *at > thawed) {
        let Some(place) = places.get(to) else { continue };
        first.entry(*to).or_insert(at - thawed);
        all += 1;
        if is_astray(*at, *place) {
            astray.push(at - thawed);
        }
    }
    let spared = (f64::from(all) * (2.0 * usual).max(0.001)) as usize;
    let astray = astray.len().checked_sub(spared + 1).map_or(0, |last| astray[last]);
    let missing = places.len() - first.len();
    let first = sorted(first.values().map(|after| *after as f64));
    anyhow::ensure!(missing * 1000 <= places.len(), "{missing} endpoints were not asked again");
    // To be asked within one interval and what is punctual is what everybody is at any time.
    let first = percentile(&first, 99.9);
    let first = if first <= (SECOND + PUNCTUAL) as f64 { first.min(SECOND as f64) } else { first };
    Ok(first.max(astray as f64) / SECOND as f64)
}

fn tenth_of_a_core() -> anyhow::Result<Cgroup> {
    let group = Cgroup::cpu("throttled")?;
    group.set_quota(10)?;
    Ok(group)
}

/// With a tenth of a core.
fn starve(group: Cgroup, tcp: u16, http: u16) -> anyhow::Result<Told> {
    let operator = start("throttled", &both(scaled(THROTTLED), tcp, http))?;
    operator.wait_probes(2 * scaled(THROTTLED))?;
    group.take_in(operator.process().pid())?;
    std::thread::sleep(window(SECONDS));
    // It is let go before it is asked, and ends before its group does.
    group.lift_quota()?;
    let told = told(&operator);
    drop(operator);
    told
}

/// With ten times as much to do as it can.
fn flood(port: u16) -> anyhow::Result<Told> {
    let plan = Plan {
        interval: "100ms".into(),
        timeout: "100ms".into(),
        name: "flood",
        ..Plan::loopback(scaled(FLOOD), Probe::Tcp, port)
    };
    let operator = start("flood", &[plan])?;
    std::thread::sleep(window(SECONDS));
    told(&operator)
}
