//! A listener for half-open probes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use socket2::{Domain, Protocol, Socket, Type};

/// Listens on every IPv4 address until the process ends.
///
/// A half-open handshake ends in the kernel. But where the prober reads the SYN/ACK later than the kernel delays its ACK
/// (40 ms), the handshake completes, and the connection waits to be accepted even after it was reset: a listener that
/// never accepts is deaf as soon as its backlog is full of those. So this one accepts, and counts.
pub struct Listener {
    pub port: u16,
    accepted: Arc<AtomicU64>,
}

impl Listener {
    pub fn start() -> std::io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into())?;
        socket.listen(4096)?;
        let listener = std::net::TcpListener::from(socket);
        let port = listener.local_addr()?.port();
        let accepted = Arc::new(AtomicU64::new(0));
        let count = accepted.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                drop(connection);
                count.fetch_add(1, Relaxed);
            }
        });
        Ok(Self { port, accepted })
    }

    /// Handshakes that were completed after all.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Relaxed)
    }
}
