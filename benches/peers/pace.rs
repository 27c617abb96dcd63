//! Asks blackbox_exporter, which probes only when it is asked, at an even rate over a few kept connections.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::bail;

use super::task::{Task, Work};
use crate::common::client::Client;

/// Fewer than it can do at most on one core (2,300 TCP or 1,230 HTTP a second were seen), so that what is measured is
/// the work and not the queue.
const PER_SECOND: u32 = 600;
/// The same over TLS, where each handshake is one from scratch.
const PER_SECOND_TLS: u32 = 100;
const CALLERS: u32 = 4;

/// Callers that ask until it is dropped.
pub struct Pacer {
    stop: Arc<AtomicBool>,
    callers: Vec<JoinHandle<()>>,
}

impl Pacer {
    pub fn start(exporter: SocketAddr, task: &Task) -> anyhow::Result<Self> {
        wait(exporter)?;
        let stop = Arc::new(AtomicBool::new(false));
        let callers = (0..CALLERS).map(|caller| {
            let (stop, task) = (stop.clone(), *task);
            std::thread::spawn(move || {
                if let Err(error) = call(exporter, &task, caller, &stop) {
                    eprintln!("blackbox_exporter: {error:#}");
                }
            })
        });
        Ok(Self { callers: callers.collect(), stop })
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for caller in self.callers.drain(..) {
            let _ = caller.join();
        }
    }
}

fn wait(exporter: SocketAddr) -> anyhow::Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(10) {
        if Client::connect(exporter).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("blackbox_exporter does not listen")
}

fn call(exporter: SocketAddr, task: &Task, caller: u32, stop: &AtomicBool) -> anyhow::Result<()> {
    let mut client = Client::connect(exporter)?;
    let per_second = if task.work == Work::Https { PER_SECOND_TLS } else { PER_SECOND };
    let pause = Duration::from_secs(1) * CALLERS / per_second;
    let begun = Instant::now() + pause * caller / CALLERS;
    for number in 0_u32.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        std::thread::sleep((begun + pause * number).saturating_duration_since(Instant::now()));
        let to = Task::address((number * CALLERS + caller) as usize % task.endpoints);
        let port = task.port;
        let path = match task.work {
            Work::Tcp | Work::TcpFull => format!("/probe?module=tcp&target={to}:{port}"),
            Work::Http => format!("/probe?module=http&target=http://{to}:{port}/"),
            Work::Https => format!("/probe?module=https&target=https://{to}:{port}/"),
            Work::HttpKept => bail!("it keeps no connection from check to check"),
        };
        client.ask(&path)?;
    }
    Ok(())
}
