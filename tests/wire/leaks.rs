//! What a thousand attempts leave behind: nothing. In a process of its own, as other tests have descriptors too.

use std::{process::Command, time::Duration};

use healthcheck_operator::{
    check::{Attempt, Connection, Handshake, HttpProbe, Kept, ProbeKind, Scheme, TcpProbe, Tls, TlsMode},
    probe::Prober,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{
    ENOUGH, at, attempt, closed_port, eventually, get, named, prober, read_head, run, script, target,
};

#[test]
fn a_thousand_attempts_leave_no_descriptor() {
    let test = std::env::current_exe().expect("this program");
    let output = Command::new(test)
        .args(["--exact", "leaks::counted_alone", "--ignored", "--nocapture"])
        .output()
        .expect("it runs");
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && out.contains("1 passed"), "{out}{}", String::from_utf8_lossy(&output.stderr));
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("descriptors").count()
}

#[tokio::test]
#[ignore = "run by a_thousand_attempts_leave_no_descriptor, in a process of its own"]
async fn counted_alone() {
    let good = target(|mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    })
    .await;
    let silent = target(|mut stream| async move {
        // Until the other side lets go.
        while let Ok(1..) = stream.read(&mut [0; 1024]).await {}
    })
    .await;
    let (_held, closed) = closed_port();
    let tcp = |handshake| ProbeKind::Tcp(TcpProbe { handshake, ..TcpProbe::default() });
    let skip = Tls { mode: TlsMode::SkipVerify, ..Tls::default() };
    let short = Duration::from_millis(20);
    let kinds = [
        attempt(Some(at(good)), tcp(Handshake::HalfOpen), ENOUGH),
        attempt(Some(at(good)), tcp(Handshake::Full), ENOUGH),
        attempt(Some(named("localhost", good.port())), tcp(Handshake::Full), ENOUGH),
        attempt(Some(at(closed)), tcp(Handshake::HalfOpen), ENOUGH),
        attempt(Some(at(good)), ProbeKind::Http(get()), ENOUGH),
        attempt(Some(at(good)), ProbeKind::Http(HttpProbe { connection: Connection::Polite, ..get() }), ENOUGH),
        attempt(Some(at(silent)), ProbeKind::Http(get()), short),
        attempt(Some(at(silent)), ProbeKind::Http(HttpProbe { scheme: Scheme::Https, tls: skip, ..get() }), short),
        attempt(None, ProbeKind::Script(script(&["/bin/true"])), ENOUGH),
        attempt(None, ProbeKind::Script(script(&["/bin/sh", "-c", "sleep 600 & wait"])), short),
    ];
    let kept = HttpProbe { reuse_connection: true, ..get() };
    let kept = attempt(Some(at(good)), ProbeKind::Http(kept), ENOUGH);
    let kinds = kinds.into_iter().chain([Attempt { kept: Some(Kept::default()), ..kept }]).collect::<Vec<_>>();
    let prober = prober();
    // The first round opens what stays open: the runtime's own, and the resolver's.
    attempts(&prober, &kinds, 1).await;
    let before = descriptors();
    attempts(&prober, &kinds, 100).await;
    // The targets close theirs when they see that the probe is gone.
    eventually("all descriptors are closed", || descriptors() <= before).await;
}

async fn attempts(prober: &Prober, kinds: &[Attempt], rounds: usize) {
    for _ in 0..rounds {
        futures::future::join_all(kinds.iter().map(|kind| run(prober, kind.clone()))).await;
    }
}
