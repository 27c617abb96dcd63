//! Every endpoint once a second, by everybody.

use std::{collections::BTreeMap, time::Duration};

use super::{
    Servers,
    contenders::Contender,
    run::Cost,
    task::{Every, Task, Work},
};
use crate::common::{
    figures::Figures,
    nginx::Nginx,
    rounds, scaled,
    stats::{median, over, ratios},
    table::Table,
    window,
    wire::{self, Begin, Rhythm},
};

/// How many fewer there are at the other point of the line that tells bytes per endpoint.
const FEWER: usize = 5;
/// Every endpoint has been asked some times by then.
const WARM_UP: Duration = Duration::from_secs(2);
const SECONDS: u64 = 3;
/// Who is but a note is looked at no more often.
const ROUNDS_OF_NOTES: usize = 3;

struct Run {
    cost: Cost,
    rhythm: Option<Rhythm>,
    /// Of the sessions of TLS those that went on from an earlier one, in percent.
    resumed: Option<f64>,
}

/// By work and contender, both by their place.
type Of<T> = BTreeMap<(usize, usize), T>;

#[derive(Default)]
struct Seen {
    all: Of<Vec<Run>>,
    few: Of<f64>,
    absent: Of<String>,
}

pub fn measure(works: &[Work], servers: &Servers, figures: &mut Figures) -> anyhow::Result<()> {
    let mut seen = Seen::default();
    for round in 1..=rounds(5) {
        for (at, work) in works.iter().enumerate() {
            for (number, contender) in Contender::ALL.into_iter().enumerate() {
                let enough = round > ROUNDS_OF_NOTES && contender.is_note();
                if enough || seen.absent.contains_key(&(at, number)) || contender.is_unfit(*work) {
                    continue;
                }
                eprintln!("round {round}: {}, {}", work.name(), contender.name());
                let task = Task {
                    work: *work,
                    endpoints: scaled(work.endpoints()),
                    every: Every::SECOND,
                    port: servers.of(*work).port,
                };
                match run(contender, &task, servers.of(*work), window(SECONDS)) {
                    Ok(run) => seen.all.entry((at, number)).or_default().push(run),
                    Err(error) => {
                        eprintln!("{error:#}");
                        seen.absent.insert((at, number), format!("{error:#}"));
                        continue;
                    }
                }
                if round == 1 && contender.keeps_endpoints() {
                    let task = Task { endpoints: task.endpoints.div_ceil(FEWER), ..task };
                    let running = contender.start(&task)?;
                    std::thread::sleep(WARM_UP);
                    seen.few.insert((at, number), Cost::of(&running, Duration::from_secs(1))?.resident);
                }
            }
        }
    }
    for (at, work) in works.iter().enumerate() {
        tell(*work, at, &seen, figures);
    }
    Ok(())
}

fn run(contender: Contender, task: &Task, server: &Nginx, window: Duration) -> anyhow::Result<Run> {
    let running = contender.start(task)?;
    std::thread::sleep(WARM_UP);
    let is_tls = task.work == Work::Https;
    let logged = if is_tls { server.access_log()?.len() } else { 0 };
    let cost = Cost::of(&running, window)?;
    let resumed = is_tls.then(|| server.resumed_since(logged)).transpose()?;
    // The meter costs the prober's core a little, so it looks when nobody counts.
    let begin = begin(task.work).filter(|_| contender.has_rhythm());
    let packets = begin.map(|begin| wire::listen(task.port, begin, window)).transpose()?;
    Ok(Run { cost, resumed, rhythm: packets.map(|packets| Rhythm::of(&packets, task.every.0)) })
}

/// What tells when a check began, where its punctuality is worth the time. Goals are held against that of half-open TCP.
const fn begin(work: Work) -> Option<Begin> {
    match work {
        Work::Tcp | Work::Http => Some(Begin::Syn),
        Work::HttpKept => Some(Begin::Request),
        Work::TcpFull | Work::Https => None,
    }
}

/// Prints the table of one work.
fn tell(work: Work, at: usize, seen: &Seen, figures: &mut Figures) {
    let mut table = Table::new([
        "prober",
        "checks/s",
        "µs CPU/check",
        "of it user",
        "ours : it",
        "switches/check",
        "bytes/endpoint",
        "interval error p50",
        "p99",
        "mean",
        "burst",
        "resumed",
    ]);
    let place = |contender| Contender::ALL.iter().position(|one| *one == contender).unwrap_or_default();
    let ours = seen.all.get(&(at, place(Contender::Ours)));
    for (number, contender) in Contender::ALL.into_iter().enumerate() {
        let blank = || "–".to_owned();
        let Some(runs) = seen.all.get(&(at, number)) else {
            if let Some(why) = seen.absent.get(&(at, number)) {
                let mut cells = [const { String::new() }; 12].map(|_| blank());
                cells[0] = contender.name().to_owned();
                cells[1] = why.lines().next().unwrap_or_default().chars().take(40).collect();
                table.row(cells);
            }
            continue;
        };
        let of = |part: fn(&Cost) -> f64| median(runs.iter().map(|run| part(&run.cost)));
        let each = |part: fn(&Cost) -> f64| runs.iter().map(|run| part(&run.cost)).collect::<Vec<_>>();
        let rhythm = |part: fn(&Rhythm) -> f64| -> Vec<f64> {
            runs.iter().filter_map(|run| run.rhythm.as_ref().map(part)).collect()
        };
        let endpoints = scaled(work.endpoints());
        let grown = endpoints - endpoints.div_ceil(FEWER);
        let slope = seen.few.get(&(at, number)).map(|few| (of(|cost| cost.resident) - few) / grown as f64);
        let cpu = |runs: &[Run]| runs.iter().map(|run| run.cost.cpu).collect::<Vec<_>>();
        let ratios = ours.map_or_else(Vec::new, |ours| ratios(&cpu(ours), &cpu(runs)));
        let millis = |values: &[f64]| match values {
            [] => blank(),
            values => format!("{:.3} ms", median(values.iter().copied())),
        };
        let bursts = rhythm(|rhythm| rhythm.burst);
        let resumed: Vec<f64> = runs.iter().filter_map(|run| run.resumed).collect();
        table.row([
            contender.name().to_owned(),
            format!("{:.0}", of(|cost| cost.per_second)),
            format!("{:.1}", of(|cost| cost.cpu)),
            format!("{:.1}", of(|cost| cost.user)),
            if ratios.is_empty() { blank() } else { format!("{:.2}", median(ratios.iter().copied())) },
            format!("{:.2}", of(|cost| cost.switches)),
            slope.map_or_else(blank, |slope| format!("{slope:.0}")),
            millis(&rhythm(|rhythm| rhythm.p50)),
            millis(&rhythm(|rhythm| rhythm.p99)),
            millis(&rhythm(|rhythm| rhythm.mean)),
            if bursts.is_empty() { blank() } else { format!("{:.1}", median(bursts.iter().copied())) },
            if resumed.is_empty() { blank() } else { format!("{:.0} %", median(resumed.iter().copied())) },
        ]);
        let name = |what: &str| format!("{}: {}, {what}", work.name(), contender.name());
        figures.note_all(name("CPU per check"), &each(|cost| cost.cpu), "µs");
        figures.note_all(name("context switches per check"), &each(|cost| cost.switches), "");
        if let Some(slope) = slope {
            figures.note(name("bytes per endpoint"), slope, "B");
        }
        for (what, values) in [
            ("interval error p50", rhythm(|rhythm| rhythm.p50)),
            ("interval error p99", rhythm(|rhythm| rhythm.p99)),
            ("interval error mean", rhythm(|rhythm| rhythm.mean)),
            ("burst", bursts),
        ] {
            if !values.is_empty() {
                figures.note_all(name(what), &values, if what == "burst" { "" } else { "ms" });
            }
        }
        match row(work, contender) {
            Some((row, metric)) if !ratios.is_empty() => figures.reach_all(row, metric, &ratios),
            _ => {}
        }
        if (work, contender) == (Work::Tcp, Contender::Ours) {
            punctual(&rhythm, figures);
        }
    }
    let (over, endpoints) = (over("medians", rounds(5)), scaled(work.endpoints()));
    table.print(&format!("{}, {endpoints} endpoints at 1 s, {over}, one prober after the other", work.name()));
}

/// Which goal our ratio to a peer is held against.
const fn row(work: Work, peer: Contender) -> Option<(&'static str, &'static str)> {
    Some(match (work, peer) {
        (Work::Tcp, Contender::HaProxy) => ("1", "CPU per TCP check, half-open, ours : HAProxy"),
        (Work::Http, Contender::HaProxy) => ("2", "CPU per HTTP check, fresh connection, ours : HAProxy"),
        (Work::Tcp, Contender::Envoy) => ("3", "CPU per TCP check, half-open, ours : Envoy"),
        (Work::Http, Contender::Envoy) => ("3", "CPU per HTTP check, fresh connection, ours : Envoy"),
        (Work::Tcp, Contender::Blackbox) => ("3", "CPU per TCP check, half-open, ours : blackbox_exporter"),
        (Work::Http, Contender::Blackbox) => ("3", "CPU per HTTP check, fresh connection, ours : blackbox_exporter"),
        (Work::HttpKept, Contender::Envoy) => ("3b", "CPU per HTTP check, kept connection, ours : Envoy"),
        _ => return None,
    })
}

fn punctual(rhythm: &dyn Fn(fn(&Rhythm) -> f64) -> Vec<f64>, figures: &mut Figures) {
    figures.reach_all("5", "interval error on the wire, p99", &rhythm(|rhythm| rhythm.p99));
    figures.reach_all("5", "interval error on the wire, size of the mean", &rhythm(|rhythm| rhythm.mean.abs()));
    figures.reach_all("6", "burst: most probes in a millisecond : mean", &rhythm(|rhythm| rhythm.burst));
}
