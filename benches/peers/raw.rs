//! The limit: an epoll loop that opens connections in the same style as our fast lane and does nothing else. No records,
//! no verdicts, no metrics; every answer is taken for good.
//!
//! It runs as a child of the benchmark, so that what it used can be read from outside as for everybody else.

use std::{
    net::{Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt},
};

const WORD: &str = "raw-epoll-loop";
const REQUEST: &[u8] =
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nUser-Agent: raw\r\nAccept: */*\r\n\r\n";
/// How many steps a second has.
const GRID: usize = 1000;

/// What it is asked to do.
pub struct Args {
    http: bool,
    endpoints: usize,
    port: u16,
}

/// The words to start it with.
pub fn args(http: bool, endpoints: usize, port: u16) -> Vec<String> {
    vec![WORD.to_owned(), http.to_string(), endpoints.to_string(), port.to_string()]
}

/// Whether this process is to be it.
pub fn asked(words: impl Iterator<Item = String>) -> Option<Args> {
    let words: Vec<String> = words.skip(1).collect();
    let [word, http, endpoints, port] = words.as_slice() else { return None };
    (word == WORD).then_some(())?;
    Some(Args { http: http.parse().ok()?, endpoints: endpoints.parse().ok()?, port: port.parse().ok()? })
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
    http: bool,
    port: u16,
}

/// Asks every endpoint once a second, evenly spread, until it is killed.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut raw = Loop { epoll, sockets: vec![], idle: vec![], http: args.http, port: args.port };
    let begun = Instant::now();
    let mut events = Vec::with_capacity(1024);
    let mut next = 0_usize;
    loop {
        let step = begun.elapsed().as_millis() as usize;
        // Endpoint k is due in the step k * GRID / endpoints of each second.
        while next * GRID / args.endpoints <= step {
            raw.begin(next % args.endpoints)?;
            next += 1;
        }
        let due = begun + Duration::from_millis((next * GRID / args.endpoints) as u64);
        let left = due.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        events.clear();
        epoll::wait(&raw.epoll, spare_capacity(&mut events), Some(&left))?;
        for event in &events {
            raw.go_on(event.data.u64() as usize)?;
        }
    }
}

impl Loop {
    fn begin(&mut self, endpoint: usize) -> anyhow::Result<()> {
        let at = match self.idle.pop() {
            Some(at) => at,
            None => self.open()?,
        };
        let (socket, state) = &mut self.sockets[at];
        *state = State::Connecting;
        sockopt::set_tcp_quickack(&*socket, false)?;
        let to = SocketAddr::from((Ipv4Addr::from(0x7f01_0001 + u32::try_from(endpoint)?), self.port));
        match rustix::net::connect(&*socket, &to) {
            Err(rustix::io::Errno::INPROGRESS) | Ok(()) => Ok(()),
            Err(error) => Err(error).context("connect"),
        }
    }

    fn open(&mut self) -> anyhow::Result<usize> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        let interest = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&self.epoll, &socket, epoll::EventData::new_u64(self.sockets.len() as u64), interest)?;
        self.sockets.push((socket, State::Idle));
        Ok(self.sockets.len() - 1)
    }

    fn go_on(&mut self, at: usize) -> anyhow::Result<()> {
        let (socket, state) = &mut self.sockets[at];
        match *state {
            State::Idle => return Ok(()),
            State::Connecting if self.http => {
                rustix::net::send(&*socket, REQUEST, SendFlags::NOSIGNAL)?;
                *state = State::Asked;
                return Ok(());
            }
            State::Connecting => {}
            State::Asked => {
                let mut answer = [0_u8; 4096];
                match rustix::net::recv(&*socket, &mut answer, RecvFlags::empty()) {
                    Err(rustix::io::Errno::AGAIN) => return Ok(()),
                    other => drop(other?),
                }
            }
        }
        rustix::net::connect_unspec(&*socket)?;
        *state = State::Idle;
        self.idle.push(at);
        Ok(())
    }
}
