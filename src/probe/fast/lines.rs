//! Sockets, each in its place: under way, idle and ready for any target, or connected and kept for one endpoint.

use std::{net::SocketAddr, os::fd::OwnedFd, time::Duration};

use rustix::{
    event::epoll::{self, EventFlags},
    io::Errno,
    net::{AddressFamily, RecvFlags, SocketFlags, SocketType, ipproto, sockopt},
};
use tokio::time::Instant;

use super::kept::Held;
use crate::probe::{
    dial,
    failure::Failure,
    http::{MAX_AGE, Place},
};

/// Sockets that are kept for later, of each family.
const IDLE: usize = 256;
/// In place of an attempt's number.
const NOBODY: u32 = u32::MAX;

/// All of them, and the epoll set that tells of them.
pub(super) struct Lines {
    pub epoll: OwnedFd,
    all: Vec<Line>,
    /// Lines without a socket.
    free: Vec<u32>,
    /// Lines with a socket that waits to be used again, of IPv4 and of IPv6.
    idle: [Vec<u32>; 2],
    /// Whether a socket may be used again: some sandboxes do not have that.
    recycles: bool,
    /// See [`Self::take_echo`].
    echo: bool,
    began: Instant,
    /// Where the search goes on for one that gives way.
    search: usize,
}

/// A place for one socket after the other.
struct Line {
    socket: Option<OwnedFd>,
    /// Tells the events of this socket from those of one that had the place before.
    generation: u32,
    /// The number of the attempt that it is used for.
    attempt: u32,
    /// When it was connected, in seconds since all began.
    opened: u32,
    /// It is connected, and kept for an endpoint.
    kept: Option<Place>,
}

/// Who is told of an event.
pub(super) enum Told<'a> {
    Attempt(u32, &'a OwnedFd),
    /// An endpoint that did not ask.
    Kept,
    Nobody,
}

impl Lines {
    pub fn new(epoll: OwnedFd) -> Self {
        let idle = [vec![], vec![]];
        Self { epoll, all: vec![], free: vec![], idle, recycles: true, echo: false, began: Instant::now(), search: 0 }
    }

    pub fn count(&self) -> usize {
        self.all.len()
    }

    pub fn socket(&self, at: u32) -> Option<&OwnedFd> {
        self.all.get(at as usize)?.socket.as_ref()
    }

    /// Who is told of an event on line `at`.
    pub fn told(&self, at: u32, generation: u32) -> Told<'_> {
        match self.all.get(at as usize) {
            Some(Line { socket: Some(socket), attempt, kept, .. })
                if self.all[at as usize].generation == generation =>
            {
                match (attempt, kept) {
                    (&NOBODY, Some(_)) => Told::Kept,
                    (&NOBODY, None) => Told::Nobody,
                    (attempt, _) => Told::Attempt(*attempt, socket),
                }
            }
            _ => Told::Nobody,
        }
    }

    /// Begins a connection for `attempt`; its line.
    pub fn dial(&mut self, address: SocketAddr, attempt: u32, now: Instant) -> Result<u32, Failure> {
        let local = |error: Errno| dial::explain(&error.into(), address);
        let at = match self.idle[usize::from(address.is_ipv6())].pop() {
            Some(at) => at,
            None => self.open_at_all_costs(address).map_err(local)?,
        };
        let opened = self.seconds(now);
        let line = &mut self.all[at as usize];
        (line.attempt, line.opened) = (attempt, opened);
        let Some(socket) = &line.socket else { unreachable!("an idle line has a socket") };
        // The last ACK of the handshake is held back. A half-open connection is never completed by it; on any other the
        // request takes it along, or the end, which spares both sides a packet. The kernel forgets this with every
        // connection. A sandbox that does not have it completes the handshake.
        let _ = sockopt::set_tcp_quickack(socket, false);
        match rustix::net::connect(socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(at),
            Err(error) => {
                self.close(at);
                Err(local(error))
            }
        }
    }

    /// A line with a new socket; where there is no descriptor left, in place of one that waits for the other family, or for an
    /// endpoint's next round.
    fn open_at_all_costs(&mut self, address: SocketAddr) -> Result<u32, Errno> {
        let opened = self.open(address);
        if !matches!(opened, Err(Errno::MFILE | Errno::NFILE)) {
            return opened;
        }
        match self.idle[usize::from(address.is_ipv4())].pop() {
            Some(other) => self.close(other),
            None if self.give_way() => {}
            None => return opened,
        }
        self.open(address)
    }

    /// Closes sockets that wait to be used again, beyond so many.
    pub fn keep_idle(&mut self, most: usize) {
        while self.idle[0].len() + self.idle[1].len() > most {
            let family = usize::from(self.idle[1].len() > self.idle[0].len());
            let Some(at) = self.idle[family].pop() else { return };
            self.close(at);
        }
    }

    /// Ends a connection that is kept, of another endpoint each time. Whether there was one.
    pub fn give_way(&mut self) -> bool {
        let at = self.next_kept();
        if let Some(at) = at {
            self.reset(at, None);
        }
        at.is_some()
    }

    fn next_kept(&mut self) -> Option<u32> {
        let (before, from) = self.all.split_at(self.search.min(self.all.len()));
        let kept = |line: &Line| line.kept.is_some();
        let found = from.iter().position(kept).map(|at| at + before.len()).or_else(|| before.iter().position(kept))?;
        self.search = found + 1;
        u32::try_from(found).ok()
    }

    /// A line with a new socket.
    fn open(&mut self, address: SocketAddr) -> Result<u32, Errno> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        let at = match self.free.pop() {
            Some(at) => at,
            None => {
                self.all.push(Line { socket: None, generation: 0, attempt: NOBODY, opened: 0, kept: None });
                (self.all.len() - 1) as u32
            }
        };
        let line = &mut self.all[at as usize];
        line.generation = line.generation.wrapping_add(1);
        let data = epoll::EventData::new_u64(u64::from(line.generation) << 32 | u64::from(at));
        let interest = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        match epoll::add(&self.epoll, &socket, data, interest) {
            Ok(()) => {
                line.socket = Some(socket);
                Ok(at)
            }
            Err(error) => {
                self.free.push(at);
                Err(error)
            }
        }
    }

    pub fn close(&mut self, at: u32) {
        let line = &mut self.all[at as usize];
        line.socket = None;
        (line.attempt, line.kept) = (NOBODY, None);
        self.free.push(at);
    }

    /// Ends the connection on a line by a reset. `again`: the socket may be used again, for this family.
    pub fn reset(&mut self, at: u32, again: Option<usize>) {
        let line = &mut self.all[at as usize];
        let Some(socket) = &line.socket else { return };
        line.attempt = NOBODY;
        let again = again.filter(|family| self.recycles && self.idle[*family].len() < IDLE);
        match rustix::net::connect_unspec(socket) {
            Ok(()) => {
                if let Some(family) = again {
                    self.echo = true;
                    self.idle[family].push(at);
                    return;
                }
            }
            Err(error) => {
                // That a connection which broke is none any more says nothing.
                let is_refused = again.is_some() && !matches!(error, Errno::INTR | Errno::NOBUFS | Errno::NOMEM);
                if is_refused && std::mem::take(&mut self.recycles) {
                    tracing::info!(%error, "sockets cannot be used again here; every probe opens its own");
                }
                // Closed, it is reset likewise.
                let _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
            }
        }
        self.close(at);
    }

    /// Whether a socket was reset since this was last asked: it says so once more, and taken at once, that wakes nobody later.
    pub const fn take_echo(&mut self) -> bool {
        std::mem::replace(&mut self.echo, false)
    }

    /// Keeps the connection on `at` for the endpoint that has `held`.
    pub fn keep(&mut self, at: u32, place: Place, held: &mut Held) {
        let line = &mut self.all[at as usize];
        (line.attempt, line.kept) = (NOBODY, Some(place));
        (held.line, held.generation) = (at, line.generation);
    }

    /// The connection that `held` names, for `attempt`; if it is still there, leads to `address` and is not too old.
    pub fn take(&mut self, held: &Held, address: SocketAddr, attempt: u32, now: Instant) -> Option<u32> {
        let now = self.seconds(now);
        let line = self.kept(held.line, held.generation)?;
        if held.address != address || Duration::from_secs(now.saturating_sub(line.opened).into()) >= MAX_AGE {
            self.reset(held.line, None);
            return None;
        }
        (line.attempt, line.kept) = (attempt, None);
        Some(held.line)
    }

    /// Nobody holds the connection any more.
    pub fn let_go(&mut self, at: u32, generation: u32) {
        if self.kept(at, generation).is_some() {
            self.reset(at, None);
        }
    }

    fn kept(&mut self, at: u32, generation: u32) -> Option<&mut Line> {
        self.all.get_mut(at as usize).filter(|line| line.generation == generation && line.kept.is_some())
    }

    /// Something happened on a line that is kept. Whether it is of no use any more: the target closed it, or talks out of
    /// turn.
    pub fn is_lost(&self, at: u32, flags: EventFlags) -> bool {
        if !flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR) {
            return false;
        }
        let Some(socket) = self.socket(at) else { return false };
        !matches!(rustix::net::recv(socket, &mut [0; 1], RecvFlags::PEEK), Err(Errno::AGAIN | Errno::INTR))
    }

    /// Of `now`, since all began.
    fn seconds(&self, now: Instant) -> u32 {
        u32::try_from(now.duration_since(self.began).as_secs()).unwrap_or(u32::MAX)
    }
}
