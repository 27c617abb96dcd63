//! The fast lane: connects, and plain requests over HTTP/1.1, to addresses. They are most of all checks.
//!
//! An attempt is no task here and no future, but a socket in one epoll set and a few words beside it. Sockets are used
//! again: `connect` to no address ends a connection by a reset, which leaves neither TIME_WAIT nor a port behind, and the
//! descriptor with all its settings is ready for the next. In the steady state an attempt allocates nothing. It says of every target what
//! the ordinary lane says, in the same words; `tests/wire/lanes.rs` holds the two to each other.
//!
//! Deadlines are its caller's, who has a wheel for such things. Its epoll set is where the thread of the caller sleeps.

mod attempt;
mod bell;
mod head;
mod question;

use std::{
    io, mem::MaybeUninit, net::SocketAddr, ops::RangeInclusive, os::fd::OwnedFd, sync::Arc, task::Waker, time::Duration,
};

use rustix::{
    event::{
        Timespec,
        epoll::{self, EventFlags},
    },
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt},
};
use tokio::time::Instant;

use self::{
    attempt::{Attempt, Stage},
    bell::Bell,
    head::Heard,
    question::Wires,
};
use super::{
    ask, dial,
    egress::EgressGuard,
    failure::Failure,
    progress::{Phase, Progress},
};
use crate::check::{Dial, Probe, Reason, Report};

pub(in crate::probe) use question::Wire;
pub use question::{Asks, Question};

/// How many events are taken at once.
const EVENTS: usize = 256;
/// How much is read at once; an ordinary head comes whole.
const READ: usize = 16 * 1024;
/// Sockets that are kept for later, of each family.
const IDLE: usize = 256;
/// What the bell's events carry: the number of a line that there never is.
const BELL: u64 = u64::MAX;
const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
/// With so many attempts under way their answers are gathered: to wake up for each alone would cost more than to read it.
const CROWD: usize = 4;
/// How long answers of a crowd are gathered; so much later than it came one is read at most.
const GATHER: Duration = Duration::from_micros(250);

/// See the module's own words. Belongs to one loop, which sleeps in [`Self::wait`].
pub struct FastLane {
    epoll: OwnedFd,
    bell: Arc<Bell>,
    /// The bell was heard.
    called: bool,
    egress: Arc<EgressGuard>,
    lines: Vec<Line>,
    /// Attempts under way.
    flying: usize,
    /// Lines without a socket.
    free: Vec<u32>,
    /// Lines with a socket that waits to be used again, of IPv4 and of IPv6.
    idle: [Vec<u32>; 2],
    /// Whether a socket may be used again: some sandboxes do not have that.
    recycles: bool,
    wires: Wires,
    own_ports: RangeInclusive<u16>,
    request: Vec<u8>,
    buffer: Box<[u8]>,
}

/// A place for one attempt after the other.
struct Line {
    socket: Option<OwnedFd>,
    /// Tells the events of this socket from those of one that had the place before.
    generation: u32,
    attempt: Option<Attempt>,
}

/// How an attempt began.
#[derive(Debug)]
pub enum Begun {
    /// It is under way on this line.
    Line(u32),
    /// It ended before it began.
    Ended(Report),
}

impl FastLane {
    /// # Errors
    /// When the system refuses an epoll set, or one that is waited for with nanoseconds (Linux 5.11).
    pub(super) fn new(egress: Arc<EgressGuard>) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let bell = Bell::new()?;
        epoll::add(&epoll, &*bell, epoll::EventData::new_u64(BELL), EventFlags::IN | EventFlags::ET)?;
        epoll::wait(&epoll, &mut [MaybeUninit::uninit(); 1], Some(&NOW))?;
        Ok(Self {
            epoll,
            bell,
            called: false,
            egress,
            lines: vec![],
            flying: 0,
            free: vec![],
            idle: [vec![], vec![]],
            recycles: true,
            wires: Wires::default(),
            own_ports: own_ports(),
            request: Vec::with_capacity(1024),
            buffer: vec![0; READ].into(),
        })
    }

    /// Wakes whoever sleeps in [`Self::wait`], or is about to.
    #[must_use]
    pub fn bell(&self) -> Waker {
        Waker::from(self.bell.clone())
    }

    /// What `probe` asks at `dial`, where this lane takes it.
    pub fn asks(&mut self, dial: Option<&Dial>, probe: &Probe) -> Option<Asks> {
        self.wires.asks(dial, probe)
    }

    /// Begins an attempt of `probe`, whose question was made of [`Self::asks`]. `token` comes back with its report. Its
    /// deadline is the caller's: see [`Self::time_out`].
    pub fn begin(&mut self, token: u64, question: &Question, probe: &Arc<Probe>) -> Begun {
        let started = Instant::now();
        match self.dial(question) {
            Ok(at) => {
                let attempt = Attempt {
                    token,
                    question: question.clone(),
                    probe: probe.clone(),
                    started,
                    stage: Stage::Connecting,
                    heard: Heard::default(),
                };
                self.lines[at as usize].attempt = Some(attempt);
                self.flying += 1;
                Begun::Line(at)
            }
            Err(failure) => {
                Begun::Ended(ask::report(Err(failure), &Progress::of(started, probe.timeout, Phase::Connect), None))
            }
        }
    }

    /// The deadline of the attempt `token` on `line` has come.
    /// `None`: it has ended already.
    pub fn time_out(&mut self, token: u64, line: u32) -> Option<Report> {
        let attempt = self.let_go(token, line)?;
        let phase = match attempt.stage {
            Stage::Connecting => Phase::Connect,
            Stage::Sending(_) => Phase::Request,
            Stage::Listening => Phase::Response,
        };
        let progress = Progress::of(attempt.started, attempt.probe.timeout, phase);
        Some(ask::report(Err(progress.timed_out()), &progress, None))
    }

    /// Gives up the attempt `token` on `line`; nothing more is said of it.
    pub fn give_up(&mut self, token: u64, line: u32) {
        self.let_go(token, line);
    }

    /// Sleeps until something can go on, the bell rings, or it is `until`, within microseconds; then goes on with all that
    /// can, and puts what ended into `ended`, with its token.
    pub fn wait(&mut self, until: Instant, ended: &mut Vec<(u64, Report)>) {
        let left = || until.saturating_duration_since(Instant::now());
        if self.flying >= CROWD && !left().is_zero() {
            std::thread::sleep(GATHER.min(left()));
            let before = ended.len();
            self.called = false;
            self.poll(ended);
            if ended.len() > before || self.called {
                return;
            }
        }
        let left = left();
        let left =
            Timespec { tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
        if self.go_on_all(&left, ended) {
            self.poll(ended);
        }
    }

    /// Goes on with every attempt that can go on, and puts what ended into `ended`, with its token. Never sleeps.
    pub fn poll(&mut self, ended: &mut Vec<(u64, Report)>) {
        while self.go_on_all(&NOW, ended) {}
    }

    /// Goes on with those that can go on within `left`. Whether there may be more at once: a socket that was let go says so
    /// once more, and taken now, that wakes nobody later.
    fn go_on_all(&mut self, left: &Timespec, ended: &mut Vec<(u64, Report)>) -> bool {
        let mut room = [const { MaybeUninit::uninit() }; EVENTS];
        let before = ended.len();
        let events = match epoll::wait(&self.epoll, &mut room, Some(left)) {
            Ok((events, _)) => events,
            // It has slept, if not as long as it might.
            Err(Errno::INTR) => return false,
            Err(error) => {
                tracing::error!(%error, "epoll_wait failed; this is a bug");
                std::thread::sleep(Duration::from_millis(1));
                return false;
            }
        };
        for event in &*events {
            let (flags, data) = (event.flags, event.data.u64());
            if data == BELL {
                self.bell.hear();
                self.called = true;
            } else {
                self.go_on(data as u32, (data >> 32) as u32, flags, ended);
            }
        }
        events.len() == EVENTS || ended.len() > before
    }

    fn dial(&mut self, question: &Question) -> Result<u32, Failure> {
        let address = question.address;
        self.egress.check(address).map_err(|message| Failure::new(Reason::EgressDenied, message))?;
        let local = |error: Errno| dial::explain(&error.into(), address);
        let at = match self.idle[usize::from(address.is_ipv6())].pop() {
            Some(at) => at,
            None => self.open_at_all_costs(address).map_err(local)?,
        };
        let Some(socket) = &self.lines[at as usize].socket else { unreachable!("an idle line has a socket") };
        // The last ACK of the handshake is held back. A half-open connection is never completed by it; on any other the
        // request takes it along, which spares both sides a packet. The kernel forgets this with every connection.
        let quiet = match question.asks {
            Asks::HalfOpen | Asks::Http(_) => sockopt::set_tcp_quickack(socket, false),
            Asks::Full => Ok(()),
        };
        match quiet.and_then(|()| rustix::net::connect(socket, &address)) {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(at),
            Err(error) => {
                self.close(at);
                Err(local(error))
            }
        }
    }

    /// A line with a new socket, in place of one that waits for the other family where there is no descriptor left.
    fn open_at_all_costs(&mut self, address: SocketAddr) -> Result<u32, Errno> {
        let opened = self.open(address);
        if matches!(opened, Err(Errno::MFILE | Errno::NFILE))
            && let Some(other) = self.idle[usize::from(address.is_ipv4())].pop()
        {
            self.close(other);
            return self.open(address);
        }
        opened
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
                self.lines.push(Line { socket: None, generation: 0, attempt: None });
                (self.lines.len() - 1) as u32
            }
        };
        let line = &mut self.lines[at as usize];
        line.generation = line.generation.wrapping_add(1);
        let data = epoll::EventData::new_u64(u64::from(line.generation) << 32 | u64::from(at));
        let interest = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
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

    fn close(&mut self, at: u32) {
        self.lines[at as usize].socket = None;
        self.free.push(at);
    }

    /// Something happened on a line.
    fn go_on(&mut self, at: u32, generation: u32, flags: EventFlags, ended: &mut Vec<(u64, Report)>) {
        let Self { lines, request, buffer, own_ports, .. } = self;
        let Some(Line { socket: Some(socket), generation: current, attempt: Some(attempt) }) =
            lines.get_mut(at as usize)
        else {
            return;
        };
        if *current != generation {
            return;
        }
        let Some(asked) = attempt.go_on(socket, flags, own_ports, request, buffer) else { return };
        let is_whole = asked.is_ok();
        let phase = Phase::Response;
        let report = ask::report(asked, &Progress::of(attempt.started, attempt.probe.timeout, phase), None);
        ended.push((attempt.token, report));
        let politely = is_whole && matches!(attempt.question.asks, Asks::Full);
        let family = usize::from(attempt.question.address.is_ipv6());
        self.lines[at as usize].attempt = None;
        self.flying -= 1;
        if politely {
            self.close(at);
        } else {
            self.reset(at, is_whole.then_some(family));
        }
    }

    fn let_go(&mut self, token: u64, at: u32) -> Option<Attempt> {
        let attempt = self.lines.get_mut(at as usize)?.attempt.take_if(|attempt| attempt.token == token)?;
        self.flying -= 1;
        if attempt.stage == Stage::Connecting {
            self.close(at);
        } else {
            self.reset(at, None);
        }
        Some(attempt)
    }

    /// Ends the connection on a line by a reset. `again`: the socket may be used again, for this family.
    fn reset(&mut self, at: u32, again: Option<usize>) {
        let Some(socket) = &self.lines[at as usize].socket else { return };
        let again = again.filter(|family| self.recycles && self.idle[*family].len() < IDLE);
        match rustix::net::connect_unspec(socket) {
            Ok(()) => {
                if let Some(family) = again {
                    self.idle[family].push(at);
                    return;
                }
            }
            // A connection that has ended already is none to end.
            Err(error) if again.is_some() => {
                self.recycles = false;
                tracing::info!(%error, "sockets cannot be used again here; every probe opens its own");
                let _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
            }
            Err(_) => {
                let _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
            }
        }
        self.close(at);
    }
}

impl std::fmt::Debug for FastLane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FastLane").field("lines", &self.lines.len()).finish_non_exhaustive()
    }
}

/// The ports that the kernel gives to clients, as it was set when this began; all where it does not say.
fn own_ports() -> RangeInclusive<u16> {
    let told = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ends = told.split_whitespace().map_while(|end| end.parse().ok());
    ends.next().zip(ends.next()).map_or(0..=u16::MAX, |(first, last)| first..=last)
}
