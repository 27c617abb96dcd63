//! One attempt: what it waits for, and what it makes of what comes.

use std::{
    net::SocketAddr,
    ops::RangeInclusive,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use ::http::StatusCode;
use rustix::{
    event::epoll::EventFlags,
    io::Errno,
    net::{RecvFlags, SendFlags, sockopt},
};
use tokio::time::Instant;

use super::{
    body::{Body, Came},
    head::Heard,
    kept::Held,
    question::{Question, What, Wire},
};
use crate::{
    check::{Class, Kept, Probe, ProbeKind},
    probe::{
        ask::{Answer, Asked},
        failure::{self, Failure, Moment},
        http,
        progress::Phase,
    },
};

/// What is asked of a target, and how far that has come.
pub(super) struct Attempt {
    pub token: u64,
    pub asked: Question,
    pub probe: Arc<Probe>,
    pub started: Instant,
    pub course: Course,
    /// The connection that was kept, where it has brought no answer in half of the time and a fresh one is asked beside it.
    pub old: Option<Box<Course>>,
    /// Where the connection is left for the endpoint's next attempt. `None`: it is not kept.
    pub kept: Option<Kept>,
    /// What was left there, to be left again.
    pub held: Option<Box<Held>>,
}

/// The way to an answer over one connection.
pub(super) struct Course {
    pub line: u32,
    pub stage: Stage,
    /// The connection is older than the attempt: that it is gone says nothing of the target.
    pub was_kept: bool,
    heard: Heard,
    /// Once there is a head to judge.
    verdict: Option<Asked>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Stage {
    Connecting,
    /// So much of the request is out.
    Sending(usize),
    Listening,
    /// The verdict stands, and the connection may be kept when the body has ended.
    Settling(Body),
}

/// What came of an event.
pub(super) enum Went {
    /// It is not at its end yet.
    On,
    /// A connection that was kept was no longer there, or the target has not heard us there.
    Unheard,
    Ended(Asked, After),
}

/// What may be done with the connection now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// It broke, or was cut short.
    Broken,
    /// It ends as it should.
    Whole,
    /// Another request may follow.
    Again,
}

/// What all attempts work with, one after the other.
pub(super) struct Tools {
    pub own_ports: RangeInclusive<u16>,
    pub request: Vec<u8>,
    pub buffer: Box<[u8]>,
}

impl Attempt {
    /// Goes on, on `line`, after an event there.
    pub fn go_on(&mut self, line: u32, socket: &OwnedFd, flags: EventFlags, tools: &mut Tools) -> Went {
        let Self { asked, probe, started, course, old, kept, .. } = self;
        let course = match old {
            Some(old) if old.line == line => &mut **old,
            _ => course,
        };
        let given = Given { asked, probe, started: *started, keeps: kept.is_some() };
        course.go_on(&given, socket, flags, tools)
    }

    /// What is known by now: an answer whose body has not ended is one.
    pub fn verdict(&self) -> Option<&Asked> {
        self.course.verdict.as_ref().or_else(|| self.old.as_ref()?.verdict.as_ref())
    }
}

/// What an attempt is made of, whatever comes.
struct Given<'a> {
    asked: &'a Question,
    probe: &'a Probe,
    started: Instant,
    keeps: bool,
}

impl Course {
    /// Over a connection that has just begun.
    pub fn fresh(line: u32) -> Self {
        Self { line, stage: Stage::Connecting, was_kept: false, heard: Heard::default(), verdict: None }
    }

    /// Over one that was kept.
    pub fn again(line: u32) -> Self {
        Self { line, stage: Stage::Sending(0), was_kept: true, heard: Heard::default(), verdict: None }
    }

    pub const fn phase(&self) -> Phase {
        match self.stage {
            Stage::Connecting => Phase::Connect,
            Stage::Sending(_) => Phase::Request,
            Stage::Listening | Stage::Settling(_) => Phase::Response,
        }
    }

    fn go_on(&mut self, given: &Given<'_>, socket: &OwnedFd, flags: EventFlags, tools: &mut Tools) -> Went {
        if matches!(self.stage, Stage::Connecting) {
            match is_connected(given.asked.address, socket, flags, &tools.own_ports) {
                Ok(true) => self.stage = Stage::Sending(0),
                Ok(false) => return Went::On,
                Err(failure) => return Went::Ended(Err(failure), After::Broken),
            }
        }
        let What::Http(wire) = given.asked.asks.what() else { return Went::Ended(Ok(Answer::plain()), After::Whole) };
        match self.send(wire, given.asked.address, socket, &mut tools.request) {
            Ok(true) => {}
            Ok(false) => return Went::On,
            Err(failure) => return self.broke(failure, false),
        }
        // What is not there yet will be told.
        if !flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            return Went::On;
        }
        // Nothing more will follow on what ends with this.
        let ends = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        match self.listen(given, wire, socket, &mut tools.buffer) {
            Ok(Went::Ended(asked, After::Again)) if ends => Went::Ended(asked, After::Whole),
            Ok(went) => went,
            Err(failure) => self.broke(failure, true),
        }
    }

    /// Sends what is left of the request, as far as it goes. Whether all of it is out.
    pub fn send(
        &mut self,
        wire: &Wire,
        address: SocketAddr,
        socket: &OwnedFd,
        request: &mut Vec<u8>,
    ) -> Result<bool, Failure> {
        let Stage::Sending(sent) = self.stage else { return Ok(true) };
        wire.write(address, request);
        let sent = send(socket, request, sent).map_err(arrived)?;
        self.stage = if sent == request.len() { Stage::Listening } else { Stage::Sending(sent) };
        Ok(sent == request.len())
    }

    /// What `failure` means here. `sent`: the request was out.
    fn broke(&self, failure: Failure, sent: bool) -> Went {
        let untold = failure.reason.class() == Some(Class::Connect) && self.heard.is_nothing();
        if self.was_kept && (!sent || untold) {
            return Went::Unheard;
        }
        Went::Ended(Err(failure), After::Broken)
    }

    /// Reads what is there.
    fn listen(&mut self, given: &Given<'_>, wire: &Wire, socket: &OwnedFd, buffer: &mut [u8]) -> Result<Went, Failure> {
        loop {
            let bytes = match receive(socket, buffer, self.heard.left()) {
                Ok(Some(count)) => &buffer[..count],
                Ok(None) => return Ok(Went::On),
                // Whatever becomes of its body: the verdict stands.
                Err(_) if self.verdict.is_some() => return Ok(self.settled(After::Whole)),
                Err(failure) => return Err(failure),
            };
            let came = match &mut self.stage {
                Stage::Settling(body) => {
                    self.heard.pass(bytes.len());
                    body.take(bytes)
                }
                _ => {
                    // Until nothing is left: an end that came with the last bytes is told no second time.
                    let Some((head, left)) = self.heard.take(bytes, wire.is_head)? else { continue };
                    if self.was_kept && head.status == StatusCode::REQUEST_TIMEOUT.as_u16() {
                        // What a server says before it closes a connection that was idle too long (RFC 9110, 15.5.9).
                        return Ok(Went::Unheard);
                    }
                    self.verdict = Some(given.judge(head.status));
                    if !given.keeps || !head.again {
                        return Ok(self.settled(After::Whole));
                    }
                    let mut body = head.body;
                    let came = body.take(&bytes[bytes.len() - left..]);
                    self.stage = Stage::Settling(body);
                    if body.least() > self.heard.left() as u64 { Came::Endless } else { came }
                }
            };
            match came {
                Came::Open => {}
                Came::Ended(0) => return Ok(self.settled(After::Again)),
                Came::Ended(_) | Came::Endless => return Ok(self.settled(After::Whole)),
            }
        }
    }

    fn settled(&mut self, after: After) -> Went {
        self.verdict.take().map_or(Went::On, |asked| Went::Ended(asked, after))
    }
}

impl Given<'_> {
    fn judge(&self, status: u16) -> Asked {
        let ProbeKind::Http(probe) = &self.probe.kind else { unreachable!("only HTTP is answered with a status") };
        let Ok(status) = StatusCode::from_u16(status) else { return Err(http::malformed()) };
        let at = Instant::now();
        http::answered(probe, status, at, at - self.started)
    }
}

/// Whether there is a connection by now.
fn is_connected(
    address: SocketAddr,
    socket: &OwnedFd,
    flags: EventFlags,
    own_ports: &RangeInclusive<u16>,
) -> Result<bool, Failure> {
    if flags.intersects(EventFlags::ERR | EventFlags::HUP) {
        return match sockopt::socket_error(socket) {
            Ok(Err(error)) | Err(error) => Err(arrived(error)),
            // What the socket had to say of its last connection; of this it says nothing yet.
            Ok(Ok(())) => Ok(false),
        };
    }
    if !flags.contains(EventFlags::OUT) {
        return Ok(false);
    }
    if is_connected_to_itself(address, socket, own_ports) {
        return Err(arrived(Errno::CONNREFUSED));
    }
    Ok(true)
}

/// On loopback a client whose own port happens to be the one it dials connects to itself: nobody listens there.
/// `own_ports`: those that clients are given.
fn is_connected_to_itself(address: SocketAddr, socket: &OwnedFd, own_ports: &RangeInclusive<u16>) -> bool {
    own_ports.contains(&address.port())
        && rustix::net::getsockname(socket).is_ok_and(|own| SocketAddr::try_from(own).is_ok_and(|own| own == address))
}

/// Reads at most `left` bytes into `buffer`. `None`: nothing is there yet.
fn receive(socket: &OwnedFd, buffer: &mut [u8], left: usize) -> Result<Option<usize>, Failure> {
    let room = buffer.len().min(left);
    if room == 0 {
        return Err(http::too_large());
    }
    loop {
        match rustix::net::recv(socket, &mut buffer[..room], RecvFlags::empty()) {
            Ok((0, _)) => return Err(http::closed()),
            Ok((count, _)) => return Ok(Some(count)),
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(error) => return Err(arrived(error)),
        }
    }
}

/// Sends `request` from `sent` on, as far as it goes; how much of it is out then.
fn send(socket: impl AsFd, request: &[u8], mut sent: usize) -> Result<usize, Errno> {
    while sent < request.len() {
        match rustix::net::send(&socket, &request[sent..], SendFlags::NOSIGNAL) {
            Ok(count) => sent += count,
            Err(Errno::AGAIN) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}

fn arrived(error: Errno) -> Failure {
    failure::from_io(&error.into(), Moment::Arrived)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use rustix::net::{AddressFamily, SocketFlags, SocketType};

    use super::*;

    /// A socket that is used again tells the end of its last connection once more; told late, that is not how the next one ended.
    #[test]
    fn what_a_socket_says_of_its_last_connection_is_not_held_against_the_next() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).expect("a socket");
        let told = |flags| is_connected(address, &socket, flags, &(1..=1));
        assert!(matches!(told(EventFlags::OUT | EventFlags::HUP), Ok(false)));
        assert_eq!(rustix::net::connect(&socket, &address), Err(Errno::INPROGRESS));
        assert!(matches!(told(EventFlags::OUT | EventFlags::HUP), Ok(false)));
        assert!(matches!(told(EventFlags::OUT), Ok(true)));
    }
}
