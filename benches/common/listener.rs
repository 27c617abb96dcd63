//! Targets that cost next to nothing.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
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
        let (listener, port) = listen()?;
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

/// Answers requests over HTTP that come in one piece, one on each connection, on every IPv4 address until the process ends;
/// returns its port. nginx on the core beside the prober's is full before a bare loop is, and who waits for it is not the limit.
pub fn answer() -> std::io::Result<u16> {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
    let (listener, port) = listen()?;
    std::thread::spawn(move || {
        let mut request = [0; 4096];
        for mut connection in listener.incoming().flatten() {
            // Whoever is asked by a prober that holds back its ACK hears of a connection when the request is there, so that
            // nobody else waits for it. One that gave up is counted by the prober.
            if connection.read(&mut request).is_ok_and(|length| length > 0) {
                let _ = connection.write_all(ANSWER);
            }
        }
    });
    Ok(port)
}

/// On every IPv4 address, at a free port.
fn listen() -> std::io::Result<(TcpListener, u16)> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into())?;
    socket.listen(4096)?;
    let listener = TcpListener::from(socket);
    let port = listener.local_addr()?.port();
    Ok((listener, port))
}
