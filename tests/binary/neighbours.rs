//! Hostile targets make nobody else late, and leave nothing behind.

use std::time::Duration;

use anyhow::ensure;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::checks::{Files, SOON, check, no_panic, quick_http, standalone, v1};
use crate::processes::{look, running};
use crate::support::door::Door;
use crate::support::targets::{HttpTarget, loopback};
use crate::support::wait::{wait_for, wait_until};

/// How a target is bad.
#[derive(Clone, Copy)]
enum Malice {
    /// A header that never ends, a byte at a time: every byte is progress.
    Drips,
    /// Headers without end, as fast as they are taken.
    FloodsHeaders,
    /// A body without end, after a fair head.
    FloodsBody,
    /// Accepts and says nothing.
    Hangs,
    /// Speaks something else.
    Babbles,
}

async fn hostile(malice: Malice) -> std::io::Result<Door> {
    Door::open(loopback(), move |mut stream: TcpStream| async move {
        let _ = misbehave(malice, &mut stream).await;
    })
    .await
}

async fn misbehave(malice: Malice, stream: &mut TcpStream) -> std::io::Result<()> {
    let mut request = [0; 4096];
    ensure_open(stream, &mut request).await?;
    match malice {
        Malice::Drips => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nX-Slow: ").await?;
            loop {
                stream.write_all(b"x").await?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Malice::FloodsHeaders => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
            loop {
                stream
                    .write_all(&b"X-Flood: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n".repeat(64))
                    .await?;
            }
        }
        Malice::FloodsBody => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n").await?;
            loop {
                stream.write_all(&[b'x'; 16 * 1024]).await?;
            }
        }
        Malice::Hangs => loop {
            ensure_open(stream, &mut request).await?;
        },
        Malice::Babbles => stream.write_all(b"SSH-2.0-OpenSSH_9.9\r\n\0\0\0\x7f\xff").await,
    }
}

/// Reads something; fails when the peer has gone.
async fn ensure_open(stream: &mut TcpStream, buffer: &mut [u8]) -> std::io::Result<()> {
    match stream.read(buffer).await? {
        0 => Err(std::io::ErrorKind::ConnectionReset.into()),
        _ => Ok(()),
    }
}

fn http(name: &str, port: u16) -> String {
    check(
        name,
        &format!(
            "  interval: 300ms\n  timeout: 300ms\n  failureThreshold: 2\n  targets: [{{name: t, host: 127.0.0.1, port: {port}, probe: {{http: {{expectedStatuses: [200]}}}}}}]"
        ),
    )
}

fn script(name: &str, source: &str) -> String {
    check(
        name,
        &format!(
            "  interval: 500ms\n  timeout: 500ms\n  failureThreshold: 2\n  targets:\n  - name: t\n    probe:\n      script:\n        source: |\n          {source}"
        ),
    )
}

#[tokio::test]
async fn hostile_targets_make_nobody_late_and_leave_nothing_behind() -> anyhow::Result<()> {
    let plain = HttpTarget::start().await?;
    let mut doors = Vec::new();
    let mut documents = vec![quick_http("plain", plain.port())];
    for (name, malice) in [
        ("drips", Malice::Drips),
        ("floods-headers", Malice::FloodsHeaders),
        ("floods-body", Malice::FloodsBody),
        ("hangs", Malice::Hangs),
        ("babbles", Malice::Babbles),
    ] {
        let door = hostile(malice).await?;
        documents.push(http(name, door.address().port()));
        doors.push(door);
    }
    // The test's own pid makes the command lines its own.
    let mark = format!("sleep 86{}", std::process::id());
    documents.push(script("forks", &format!("{mark} & exit 0")));
    documents.push(script("forks-and-fails", &format!("(trap '' TERM; {mark}) & {mark} & exit 4")));
    documents.push(script("shouts", "exec cat /dev/zero"));
    let files = Files::with(&documents);
    let operator = standalone(files.path()).serve()?;

    for (name, health) in [
        ("plain", "Healthy"),
        ("drips", "Unhealthy"),
        ("floods-headers", "Unhealthy"),
        ("hangs", "Unhealthy"),
        ("babbles", "Unhealthy"),
        ("forks", "Healthy"),
        ("forks-and-fails", "Unhealthy"),
        ("shouts", "Unhealthy"),
    ] {
        wait_until(name, SOON, || async {
            let seen = v1(&operator, name).await?;
            ensure!(seen["health"] == health, "{seen}");
            anyhow::Ok(())
        })
        .await?;
    }
    // The head of the answer was fair, whatever follows: it is decided, one way or the other.
    wait_until("floods-body", SOON, || async {
        let seen = v1(&operator, "floods-body").await?;
        ensure!(seen["health"] != "Unknown", "{seen}");
        anyhow::Ok(())
    })
    .await?;

    let settled = look(&operator).descriptors;
    assert!(settled > 0, "/proc tells nothing");
    let before = doors.iter().map(Door::accepted).sum::<u64>();
    plain.wait_hits(50, SOON).await?;
    let seen = v1(&operator, "plain").await?;
    assert_eq!(seen["health"], "Healthy", "{seen}");
    assert_eq!((&seen["transitions"]["Healthy"], &seen["transitions"]["Unhealthy"]), (&1.into(), &0.into()), "{seen}");
    let after = doors.iter().map(Door::accepted).sum::<u64>();
    assert!(after >= before + 5, "the hostile ones were not asked meanwhile: {before} then {after}");

    // Nine checks hold a probe each at most, some five descriptors; what leaks is more by each round.
    wait_for("descriptors to be given back", SOON, || look(&operator).descriptors, |now| *now <= settled + 45).await?;
    wait_for("zombies to be reaped", SOON, || look(&operator).zombies, |zombies| *zombies == 0).await?;
    wait_for("what scripts left to be killed", SOON, || running(&mark), |left| *left <= 3).await?;

    assert_eq!(operator.process().stop()?.code(), Some(0));
    wait_for("the last of the scripts to end", SOON, || running(&mark), |left| *left == 0).await?;
    no_panic(&operator);
    Ok(())
}
