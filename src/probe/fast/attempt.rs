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
    head::Heard,
    question::{Asks, Question},
};
use crate::{
    check::{Probe, ProbeKind},
    probe::{
        ask::{Answer, Asked},
        failure::{self, Failure, Moment},
        http,
    },
};

/// See the module's own words.
pub(super) struct Attempt {
    pub token: u64,
    pub question: Question,
    pub probe: Arc<Probe>,
    pub started: Instant,
    pub stage: Stage,
    pub heard: Heard,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Connecting,
    /// So much of the request is out.
    Sending(usize),
    Listening,
}

impl Attempt {
    /// Goes on after an event. `None`: it is not at its end yet.
    pub fn go_on(
        &mut self,
        socket: &OwnedFd,
        flags: EventFlags,
        own_ports: &RangeInclusive<u16>,
        request: &mut Vec<u8>,
        buffer: &mut [u8],
    ) -> Option<Asked> {
        match self.connected(socket, flags, own_ports) {
            Ok(true) => {}
            Ok(false) => return None,
            Err(failure) => return Some(Err(failure)),
        }
        let Asks::Http(wire) = &self.question.asks else { return Some(Ok(Answer::plain())) };
        let is_head = wire.is_head;
        if let Stage::Sending(sent) = self.stage {
            wire.write(self.question.address, request);
            match send(socket, request, sent) {
                Ok(sent) if sent == request.len() => self.stage = Stage::Listening,
                Ok(sent) => {
                    self.stage = Stage::Sending(sent);
                    return None;
                }
                Err(error) => return Some(Err(arrived(error))),
            }
            // What is not there yet will be told.
            if !flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                return None;
            }
        }
        match self.listen(socket, is_head, buffer) {
            Ok(None) => None,
            Ok(Some(status)) => Some(self.judge(status)),
            Err(failure) => Some(Err(failure)),
        }
    }

    /// Whether there is a connection by now.
    fn connected(
        &mut self,
        socket: &OwnedFd,
        flags: EventFlags,
        own_ports: &RangeInclusive<u16>,
    ) -> Result<bool, Failure> {
        if self.stage != Stage::Connecting {
            return Ok(true);
        }
        if flags.intersects(EventFlags::ERR | EventFlags::HUP) {
            return match sockopt::socket_error(socket) {
                Ok(Err(error)) | Err(error) => Err(arrived(error)),
                Ok(Ok(())) => Err(arrived(Errno::NOTCONN)),
            };
        }
        if !flags.contains(EventFlags::OUT) {
            return Ok(false);
        }
        if self.is_connected_to_itself(socket, own_ports) {
            return Err(arrived(Errno::CONNREFUSED));
        }
        self.stage = Stage::Sending(0);
        Ok(true)
    }

    /// On loopback a client whose own port happens to be the one it dials connects to itself: nobody listens there.
    /// `own_ports`: those that clients are given.
    fn is_connected_to_itself(&self, socket: &OwnedFd, own_ports: &RangeInclusive<u16>) -> bool {
        let address = self.question.address;
        own_ports.contains(&address.port())
            && rustix::net::getsockname(socket)
                .is_ok_and(|own| SocketAddr::try_from(own).is_ok_and(|own| own == address))
    }

    /// Reads what is there. The status, once there is one.
    fn listen(&mut self, socket: &OwnedFd, is_head: bool, buffer: &mut [u8]) -> Result<Option<u16>, Failure> {
        loop {
            let room = buffer.len().min(self.heard.left());
            if room == 0 {
                return Err(http::too_large());
            }
            let count = match rustix::net::recv(socket, &mut buffer[..room], RecvFlags::empty()) {
                Ok((0, _)) => return Err(http::closed()),
                Ok((count, _)) => count,
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(arrived(error)),
            };
            if let Some(status) = self.heard.take(&buffer[..count], is_head)? {
                return Ok(Some(status));
            }
            // Until nothing is left: an end that came with the last bytes is told no second time.
        }
    }

    fn judge(&self, status: u16) -> Asked {
        let ProbeKind::Http(probe) = &self.probe.kind else { unreachable!("only HTTP is answered with a status") };
        let Ok(status) = StatusCode::from_u16(status) else { return Err(http::malformed()) };
        let at = Instant::now();
        http::answered(probe, status, at, at - self.started)
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
