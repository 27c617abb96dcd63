//! Taking hold of an address.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, Socket, Type};

/// How many connections the kernel keeps for us while we are busy.
const BACKLOG: i32 = 1024;

/// An address that cannot be served on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {flag} {address}: {}", explain(cause, flag))]
pub struct BindError {
    flag: &'static str,
    address: SocketAddr,
    cause: io::Error,
}

fn explain(error: &io::Error, flag: &str) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!("the port is in use; stop the other program, or give {flag} another port"),
        io::ErrorKind::AddrNotAvailable => format!("this machine has no such address; give {flag} one that it has"),
        io::ErrorKind::PermissionDenied => format!("not permitted; give {flag} a port from 1024 up"),
        _ => error.to_string(),
    }
}

/// Listens on `address`, without blocking; `[::]` takes IPv4 too, and is IPv4 alone on a machine without IPv6.
///
/// # Errors
/// Names the flag, the address and the mend.
pub fn listen(flag: &'static str, address: SocketAddr) -> Result<TcpListener, BindError> {
    let everywhere = address.is_ipv6() && address.ip().is_unspecified();
    let bound = match bind(address) {
        Err(error) if everywhere && lacks_ipv6(&error) => {
            tracing::info!(%flag, "no IPv6 here; listening on IPv4 alone");
            bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()))
        }
        bound => bound,
    };
    bound.map_err(|cause| BindError { flag, address, cause })
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // Whatever the machine's own default is.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // A restart must not wait for connections of the former life to time out.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn lacks_ipv6(error: &io::Error) -> bool {
    use rustix::io::Errno;
    // The first where the kernel has none, the second where it is switched off on every interface.
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_machine_without_ipv6_falls_back() {
        use rustix::io::Errno;
        assert!(lacks_ipv6(&Errno::AFNOSUPPORT.into()));
        assert!(lacks_ipv6(&Errno::ADDRNOTAVAIL.into()));
        assert!(!lacks_ipv6(&Errno::ADDRINUSE.into()));
        assert!(!lacks_ipv6(&Errno::ACCESS.into()));
    }
}
