//! Free loopback ports for programs that want to be told their port.

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};
use std::sync::Mutex;

/// First port handed out. The range ends below 32768, where Linux takes the source ports of
/// outgoing connections from: a port found free must not be taken by somebody's `connect`.
const FIRST: u16 = 12_000;
const LAST: u16 = 32_000;

/// The claims of this process: a claimed port is one whose UDP twin we hold. TCP and UDP ports
/// do not meet, so the twin keeps other test processes off without being in anybody's way, and
/// the kernel lets go of it however this process ends.
static CLAIMS: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());

/// A TCP port that nobody listens on, on any address, and that no other test process on this
/// machine will be given while this one lives.
///
/// # Panics
/// When all 20,000 ports of the range are taken.
pub fn free_port() -> u16 {
    let mut claims = CLAIMS.lock().expect("no holder of this lock panics");
    let range = LAST - FIRST;
    // Processes start at different places so that they seldom try each other's ports.
    let start = std::process::id().wrapping_mul(397) + claims.len() as u32;
    for step in 0..u32::from(range) {
        let offset = start.wrapping_add(step) % u32::from(range);
        let port = FIRST + u16::try_from(offset).expect("below the range's length");
        if let Some(claim) = claim(port) {
            claims.push(claim);
            return port;
        }
    }
    panic!("no free port between {FIRST} and {LAST}");
}

fn claim(port: u16) -> Option<UdpSocket> {
    let claim = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).ok()?;
    // A machine without IPv6 has no port to lose there.
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)) {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => None,
        _ => Some(claim),
    }
}
