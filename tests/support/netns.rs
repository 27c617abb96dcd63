//! A network of the test binary's own.
//!
//! EndpointSlices may not hold loopback addresses (the API server refuses them), so pods need
//! other addresses that answer on this machine. In a network namespace of its own the whole of
//! 198.18.0.0/15 (RFC 2544: set aside for benchmarks, routed nowhere) is made local: a listener may
//! bind to any address in it, as many "pods" as a test wants, and nothing is left when the
//! process ends. It has no way out either, so no test can reach a host outside by mistake.

use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, ensure};

/// Set in the process that is already inside.
const INSIDE: &str = "HEALTHCHECK_TEST_NETNS";
/// The second range is that of the hosts in `examples/outside-database.yaml`.
const SET_UP: &str =
    "ip link set lo up && ip route add local 198.18.0.0/15 dev lo && ip route add local 10.20.0.0/24 dev lo";

/// Replaces this process by itself in a network namespace of its own; returns at once in the
/// process that is inside. Call it first in `main`, after anything that needs the network.
///
/// # Errors
/// When the machine does not let us: no `unshare`, no `ip`, or no right to make a namespace.
pub fn enter() -> anyhow::Result<()> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(());
    }
    let tried = unshare()
        .args(["sh", "-c", SET_UP])
        .stdin(Stdio::null())
        .output()
        .context("cannot run `unshare` (Debian: util-linux)")?;
    ensure!(
        tried.status.success(),
        "cannot make a network namespace (needs iproute2, and root or user namespaces): {}",
        String::from_utf8_lossy(&tried.stderr).trim_end()
    );
    let error = unshare()
        .args(["sh", "-c", &format!("{SET_UP} && exec \"$@\""), "sh"])
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .exec();
    Err(error).context("cannot run `unshare`")
}

/// `unshare`, ready for a command that is to run in a network namespace of its own.
pub fn unshare() -> Command {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        // Who is nobody outside may still be root of a user namespace.
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--net", "--"]);
    command
}

/// An address for a pod or a host, not handed out before in this process.
pub fn fresh_address() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let first = u32::from(Ipv4Addr::new(198, 18, 1, 0));
    Ipv4Addr::from(first + NEXT.fetch_add(1, Ordering::Relaxed))
}
