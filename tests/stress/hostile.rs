//! Thousands of endpoints that do their worst at once, and are mended.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use serde_json::Value;

use crate::harness::{
    Files, LONG, MOST_TARGETS, Serve, Target, alive_and_well, checks, nth, peak_memory, wait_healthy_within,
};

/// As many in all. 100,000 by hand, of the release build: `STRESS_ENDPOINTS`.
const ENDPOINTS: usize = 10_000;
/// What ten thousand of them may take, in KiB.
const MEMORY: u64 = 192 * 1024;

/// Bytes that mean nothing.
pub fn garbage(mut stream: TcpStream, _: &Arc<Target>) {
    let _ = stream.write_all(&[0xfe; 700]);
    let _ = stream.shutdown(std::net::Shutdown::Write);
}

fn reset(stream: TcpStream, _: &Arc<Target>) {
    let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
}

/// Accepts nothing more until it is mended: the kernel takes as many as the queue holds and answers nobody after that, and
/// however many there are it takes no descriptor of ours.
fn hang(stream: TcpStream, target: &Arc<Target>) {
    target.wait_mended();
    drop(stream);
}

fn count() -> usize {
    std::env::var("STRESS_ENDPOINTS").ok().and_then(|count| count.parse().ok()).unwrap_or(ENDPOINTS)
}

/// For so many.
fn long() -> Duration {
    LONG * u32::try_from(count().div_ceil(ENDPOINTS)).expect("few")
}

/// The checks `kind-0`, `kind-1`, … of a quarter of all endpoints, at `port`. After the first round, which is within a
/// second, at most five thousand are due in one: as many as threads of this process can answer once they are mended.
fn quarter(kind: &str, port: u16) -> Vec<String> {
    let interval = count().div_ceil(5_000).max(5);
    let spec = format!("interval: {interval}s; timeout: 1s; failureThreshold: 1; successThreshold: 1; staleAfter: 30m");
    checks(kind, &spec, (0..count() / 4).map(|n| ((nth(n), port).into(), "{http: {}}".to_owned())))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_by_the_thousand_that_refuse_hang_reset_and_babble_at_once_get_the_right_words() -> anyhow::Result<()>
{
    // Bound and not listened on: nobody else comes to listen there.
    let closed = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    closed.bind(&std::net::SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into())?;
    let refused = closed.local_addr()?.as_socket().expect("an address").port();
    let kinds: [(&str, Serve, &[&str]); 3] = [
        ("hang", hang, &["TimeoutConnect", "TimeoutResponse"]),
        ("reset", reset, &["ConnectionReset", "ConnectionClosed"]),
        ("garbage", garbage, &["MalformedResponse", "ConnectionReset"]),
    ];
    let targets: Vec<Arc<Target>> = kinds.iter().map(|(_, serve, _)| Target::start(*serve)).collect();
    let mut documents = quarter("refuse", refused);
    for ((kind, ..), target) in kinds.iter().zip(&targets) {
        documents.extend(quarter(kind, target.port));
    }
    let files = Files::with(&documents);
    let operator = files.standalone().serve()?;
    let all = format!("Unhealthy; 0 healthy, 0 degraded, {} unhealthy, 0 unknown\n", documents.len());
    operator.wait_get("/healthz", long(), |answer| answer.body == all).await?;
    // Every one of them was looked at, and is told in the right words.
    let words = [("refuse", &["ConnectionRefused"][..])]
        .into_iter()
        .chain(kinds.iter().map(|(kind, _, words)| (*kind, *words)));
    for (kind, words) in words {
        for of in 0..(count() / 4).div_ceil(MOST_TARGETS) {
            // A probe that this machine did not get to in time says so, until the next one.
            crate::support::wait::wait_until(kind, long(), || async {
                let seen = operator.admin_get(&format!("/v1/healthchecks/shop/{kind}-{of}")).await?;
                let seen: Value = serde_json::from_str(&seen.body)?;
                let rows = seen["endpoints"].as_array().map(Vec::as_slice).unwrap_or_default();
                let other = rows.iter().find(|row| !words.contains(&row["reason"].as_str().unwrap_or_default()));
                ensure!(rows.len() == MOST_TARGETS && other.is_none(), "{kind}-{of}: {other:?}");
                anyhow::Ok(())
            })
            .await?;
        }
    }
    let peak = peak_memory(&operator)?;
    ensure!(peak < MEMORY * count().max(ENDPOINTS) as u64 / ENDPOINTS as u64, "{peak} KiB");

    // All is mended at once, and nobody has to restart anything.
    targets.iter().for_each(|target| target.mend());
    drop(closed);
    let open = TcpListener::bind((Ipv4Addr::UNSPECIFIED, refused))?;
    let opened = Target::on(open, crate::harness::answer);
    wait_healthy_within(&operator, documents.len(), long()).await?;
    ensure!(opened.hits() >= (count() / 4) as u64, "each was asked");
    println!("  {} endpoints, all bad and then all well: at most {peak} KiB resident", count());
    alive_and_well(&operator)
}
