//! From an address to an open connection.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpStream;

use super::failure::{self, Failure, Moment};
use crate::check::Reason;

/// How a connection is opened and how it ends when it is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// The handshake's last ACK is held back, and a drop resets: the target's listener never has a connection to accept.
    HalfOpen,
    /// A drop resets, which leaves no TIME_WAIT on either side.
    Reset,
    /// A drop closes in the ordinary way.
    Polite,
}

/// Opens a TCP connection to `address`. Bounded by whoever calls: dropping the future closes the socket.
pub(super) async fn connect(address: SocketAddr, manner: Manner) -> Result<TcpStream, Failure> {
    let local = |error: io::Error| explain(&error, address);
    let socket = open(address, manner).map_err(local)?;
    match socket.connect(&address.into()) {
        Ok(()) => {}
        Err(error) if Errno::from_io_error(&error) == Some(Errno::INPROGRESS) => {}
        Err(error) => return Err(local(error)),
    }
    let stream = TcpStream::from_std(socket.into()).map_err(local)?;
    let arrived = |error: io::Error| failure::from_io(&error, Moment::Arrived);
    stream.writable().await.map_err(arrived)?;
    if let Some(error) = stream.take_error().map_err(arrived)? {
        return Err(arrived(error));
    }
    let peer = stream.peer_addr().map_err(arrived)?;
    // On loopback a client whose own port happens to be the one it dials connects to itself: nobody listens there.
    if stream.local_addr().is_ok_and(|local| local == peer) {
        return Err(Failure::new(Reason::ConnectionRefused, "connection refused"));
    }
    Ok(stream)
}

fn open(address: SocketAddr, manner: Manner) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    match manner {
        Manner::HalfOpen => {
            // A sandbox that does not have it completes the handshake.
            #[cfg(target_os = "linux")]
            let _ = socket.set_tcp_quickack(false);
            socket.set_linger(Some(Duration::ZERO))?;
        }
        Manner::Reset => socket.set_linger(Some(Duration::ZERO))?,
        Manner::Polite => {}
    }
    if manner != Manner::HalfOpen {
        socket.set_tcp_nodelay(true)?;
    }
    Ok(socket)
}

/// What an error of `socket` or `connect` means. "Address not available" is either no port left or no address of that
/// family: a datagram socket, whose ports are others, tells which.
pub(super) fn explain(error: &io::Error, address: SocketAddr) -> Failure {
    let failure = failure::from_io(error, Moment::Local);
    if Errno::from_io_error(error) != Some(Errno::ADDRNOTAVAIL) {
        return failure;
    }
    let any: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    match UdpSocket::bind(any).and_then(|socket| socket.connect(address)) {
        Ok(()) => failure,
        Err(_) => Failure::new(Reason::NoRoute, "no route from here: this machine has no address to dial it from"),
    }
}
