//! The limit: an epoll loop that opens connections in the same style as our fast lane and does nothing else. No records,
//! no verdicts, no metrics; every answer is taken for good.
//!
//! It runs as a child of the benchmark, so that what it used can be read from outside as for everybody else.

use std::{
    net::SocketAddr,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt},
};

use super::task::{Task, Work};

const WORD: &str = "raw-epoll-loop";
const REQUEST: &[u8] =
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nUser-Agent: raw\r\nAccept: */*\r\n\r\n";
const NEXT_REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: raw\r\nAccept: */*\r\n\r\n";
/// What it is asked to do.
#[derive(Clone, Copy)]
pub struct Args {
    work: Work,
    endpoints: usize,
    port: u16,
    /// Of each endpoint.
    micros: u64,
    /// So many checks under way at any time and never a pause, in place of an interval; 0: none.
    flood: usize,
}

impl Args {
    /// Every endpoint in its time.
    pub fn paced(task: &Task) -> Self {
        let micros = u64::try_from(task.every.0.as_micros()).expect("no such long interval");
        Self { work: task.work, endpoints: task.endpoints, port: task.port, micros, flood: 0 }
    }

    /// As many checks as it can make.
    pub fn flood(task: &Task, at_once: usize) -> Self {
        Self { flood: at_once, ..Self::paced(task) }
    }

    /// The words to start it with.
    pub fn words(&self) -> Vec<String> {
        let Self { work, endpoints, port, micros, flood } = self;
        vec![
            WORD.into(),
            work.part().into(),
            endpoints.to_string(),
            port.to_string(),
            micros.to_string(),
            flood.to_string(),
        ]
    }
}

/// Whether this process is to be it.
pub fn asked(words: impl Iterator<Item = String>) -> Option<Args> {
    let words: Vec<String> = words.skip(1).collect();
    let [word, work, endpoints, port, micros, flood] = words.as_slice() else { return None };
    (word == WORD).then_some(())?;
    Some(Args {
        work: Work::of_part(work)?,
        endpoints: endpoints.parse().ok()?,
        port: port.parse().ok()?,
        micros: micros.parse().ok()?,
        flood: flood.parse().ok()?,
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Connecting,
    Asked,
}

struct Loop {
    epoll: OwnedFd,
    sockets: Vec<(OwnedFd, State)>,
    idle: Vec<usize>,
    /// The connections of endpoints, where they are kept.
    kept: Vec<Option<usize>>,
    work: Work,
    port: u16,
}

/// Asks every endpoint in each interval, evenly spread, or as often as it can, until it is killed.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut raw = Loop {
        epoll,
        sockets: vec![],
        idle: vec![],
        kept: vec![None; args.endpoints],
        work: args.work,
        port: args.port,
    };
    let mut events = Vec::with_capacity(1024);
    if args.flood > 0 {
        return raw.flood(args, &mut events);
    }
    let begun = Instant::now();
    let mut next = 0_u64;
    // Endpoint k is due at k / endpoints of each interval, in the step of a millisecond that holds it.
    let due = |next: u64| next * args.micros / args.endpoints as u64 / 1000;
    loop {
        let step = begun.elapsed().as_millis() as u64;
        while due(next) <= step {
            raw.begin((next % args.endpoints as u64) as usize)?;
            next += 1;
        }
        let left = (begun + Duration::from_millis(due(next))).saturating_duration_since(Instant::now());
        raw.turn(&mut events, Some(left))?;
    }
}

impl Loop {
    fn flood(&mut self, args: &Args, events: &mut Vec<epoll::Event>) -> anyhow::Result<()> {
        for next in 0.. {
            self.begin(next % args.endpoints)?;
            // A turn may end no check: an answer that is still to come takes two.
            while self.sockets.len() - self.idle.len() >= args.flood {
                self.turn(events, None)?;
            }
        }
        Ok(())
    }

    /// Waits for answers, and takes them.
    fn turn(&mut self, events: &mut Vec<epoll::Event>, left: Option<Duration>) -> anyhow::Result<()> {
        let left = left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) });
        events.clear();
        epoll::wait(&self.epoll, spare_capacity(events), left.as_ref())?;
        for event in events.iter() {
            self.go_on(event.data.u64() as usize)?;
        }
        Ok(())
    }

    fn begin(&mut self, endpoint: usize) -> anyhow::Result<()> {
        if let Some(at) = self.kept[endpoint] {
            let (socket, state) = &mut self.sockets[at];
            // Its requests are all that it writes and does not send: so the kernel counts them.
            rustix::io::write(&*socket, NEXT_REQUEST)?;
            *state = State::Asked;
            return Ok(());
        }
        let at = match self.idle.pop() {
            Some(at) => at,
            None => self.open()?,
        };
        let (socket, state) = &mut self.sockets[at];
        *state = State::Connecting;
        sockopt::set_tcp_quickack(&*socket, false)?;
        if self.work == Work::HttpKept {
            self.kept[endpoint] = Some(at);
        }
        let to = SocketAddr::from((Task::address(endpoint), self.port));
        match rustix::net::connect(&*socket, &to) {
            Err(rustix::io::Errno::INPROGRESS) | Ok(()) => Ok(()),
            Err(error) => Err(error).context("connect"),
        }
    }

    fn open(&mut self) -> anyhow::Result<usize> {
        let at = self.sockets.len();
        let socket = self.socket(at)?;
        self.sockets.push((socket, State::Idle));
        Ok(at)
    }

    /// A new socket for the place `at`.
    fn socket(&self, at: usize) -> anyhow::Result<OwnedFd> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        let interest = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&self.epoll, &socket, epoll::EventData::new_u64(at as u64), interest)?;
        Ok(socket)
    }

    fn go_on(&mut self, at: usize) -> anyhow::Result<()> {
        let (socket, state) = &mut self.sockets[at];
        match *state {
            State::Idle => return Ok(()),
            State::Connecting => match self.work {
                Work::Tcp => {}
                Work::TcpFull => {
                    // Ended politely it can be used no more: another takes its place.
                    let fresh = self.socket(at)?;
                    self.sockets[at] = (fresh, State::Idle);
                    self.idle.push(at);
                    return Ok(());
                }
                Work::Https => anyhow::bail!("it speaks no TLS"),
                Work::Http => {
                    rustix::net::send(&*socket, REQUEST, SendFlags::NOSIGNAL)?;
                    *state = State::Asked;
                    return Ok(());
                }
                Work::HttpKept => {
                    *state = State::Idle;
                    return Ok(());
                }
            },
            State::Asked => {
                let mut answer = [0_u8; 4096];
                match rustix::net::recv(&*socket, &mut answer, RecvFlags::empty()) {
                    Err(rustix::io::Errno::AGAIN) => return Ok(()),
                    other => drop(other?),
                }
                if self.work == Work::HttpKept {
                    *state = State::Idle;
                    return Ok(());
                }
            }
        }
        rustix::net::connect_unspec(&*socket)?;
        *state = State::Idle;
        self.idle.push(at);
        Ok(())
    }
}
