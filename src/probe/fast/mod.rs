//! The fast lane: connects, and plain requests over HTTP/1.1, to addresses. They are most of all checks.
//!
//! An attempt is no task here and no future, but a socket in one epoll set and a few words beside it. Sockets are used
//! again: `connect` to no address ends a connection by a reset, which leaves neither TIME_WAIT nor a port behind, and the
//! descriptor with all its settings is ready for the next; and a connection that is kept is asked again, round after round. In
//! the steady state an attempt allocates nothing. It says of every target what the ordinary lane says, in the same words;
//! `tests/wire/lanes.rs` and `tests/wire/kept.rs` hold the two to each other.
//!
//! Deadlines are its caller's, who has a wheel for such things. Its epoll set is where the thread of the caller sleeps.

mod attempt;
mod bell;
mod body;
mod head;
mod kept;
mod lines;
mod question;

use std::{io, mem::MaybeUninit, ops::RangeInclusive, sync::Arc, task::Waker, time::Duration};

use rustix::{
    event::{
        Timespec,
        epoll::{self, EventFlags},
    },
    io::Errno,
};
use tokio::time::Instant;

use self::{
    attempt::{After, Attempt, Course, Tools, Went},
    bell::Bell,
    kept::{Held, LetGo},
    lines::{Lines, Told},
    question::{Kinds, What},
};
use super::{
    ask::{self, Asked},
    egress::EgressGuard,
    failure::Failure,
    http::KeptConnections,
    progress::{Phase, Progress},
};
use crate::check::{Dial, Kept, Probe, Reason, Report};

pub(in crate::probe) use question::Wire;
pub use question::{Asks, Question};

/// So many times the limit of kept connections are lent to them at most: half of the descriptors may be in flight, and an
/// eighth kept.
const LENT: usize = 4;
/// How many events are taken at once.
const EVENTS: usize = 256;
/// How much is read at once; an ordinary head comes whole.
const READ: usize = 16 * 1024;
/// What the bell's events carry: the number of a line that there never is.
const BELL: u64 = u64::MAX;
const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
/// With so many attempts under way their answers are gathered: to wake up for each alone would cost more than to read it.
const CROWD: usize = 4;
/// How long answers of a crowd are gathered; so much later than it came one is read at most.
const GATHER: Duration = Duration::from_micros(250);

/// See the module's own words. Belongs to one loop, which sleeps in [`Self::wait`].
pub struct FastLane {
    bell: Arc<Bell>,
    /// The bell was heard.
    called: bool,
    egress: Arc<EgressGuard>,
    connections: KeptConnections,
    /// How many connections may be kept now.
    room: usize,
    lines: Lines,
    /// By their numbers.
    attempts: Vec<Option<Attempt>>,
    /// Numbers of none.
    free: Vec<u32>,
    let_go: LetGo,
    /// Room for what is taken from there.
    gone: Vec<(u32, u32)>,
    kinds: Kinds,
    tools: Tools,
}

/// How an attempt began.
#[derive(Debug)]
pub enum Begun {
    /// It is under way, under this number.
    Running {
        number: u32,
        /// When [`FastLane::time_out`] is wanted.
        look: Instant,
        /// It dials: who is near has answered that by now.
        dials: bool,
    },
    /// It ended before it began.
    Ended(Report),
}

/// What became of an attempt whose time has come.
#[derive(Debug)]
pub enum TimedOut {
    Ended(Report),
    /// It goes on, and is to be looked at once more in so long.
    Later(Duration),
    /// It has ended already.
    Over,
}

impl FastLane {
    /// # Errors
    /// When the system refuses an epoll set, or one that is waited for with nanoseconds (Linux 5.11).
    pub(super) fn new(egress: Arc<EgressGuard>, connections: KeptConnections) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let bell = Bell::new()?;
        epoll::add(&epoll, &*bell, epoll::EventData::new_u64(BELL), EventFlags::IN | EventFlags::ET)?;
        epoll::wait(&epoll, &mut [MaybeUninit::uninit(); 1], Some(&NOW))?;
        let request = Vec::with_capacity(1024);
        Ok(Self {
            bell,
            called: false,
            egress,
            room: connections.limit,
            connections,
            lines: Lines::new(epoll),
            attempts: vec![],
            free: vec![],
            let_go: LetGo::default(),
            gone: vec![],
            kinds: Kinds::default(),
            tools: Tools { own_ports: own_ports(), request, buffer: vec![0; READ].into() },
        })
    }

    /// Wakes whoever sleeps in [`Self::wait`], or is about to.
    #[must_use]
    pub fn bell(&self) -> Waker {
        Waker::from(self.bell.clone())
    }

    /// What `probe` asks at `dial`, where this lane takes it. `keeps`: [`Self::begin`] will be given a place to keep the connection
    /// in.
    pub fn asks(&mut self, dial: Option<&Dial>, probe: &Probe, keeps: bool) -> Option<Asks> {
        self.kinds.asks(dial, probe, keeps)
    }

    /// So many `more` attempts than are under way may be, on whatever lane, and another is about to begin: as long as nobody
    /// needs the descriptors that are held ready for them, connections are kept with those, and sockets to be used again.
    pub fn make_room(&mut self, more: usize) {
        let limit = self.connections.limit;
        self.room = limit.saturating_add(more.min(LENT * limit));
        let kept = usize::try_from(self.connections.idle.get()).unwrap_or_default();
        if kept > self.room {
            self.lines.give_way();
        }
        // The one that is about to begin may take a socket of them, or needs the room of one.
        self.lines.keep_idle((more + 1).saturating_sub(kept.saturating_sub(limit)));
    }

    /// Begins an attempt of `probe`, whose question was made of [`Self::asks`]. `token` comes back with its report. Its
    /// deadline is the caller's: see [`Self::time_out`]. `kept`: what the attempt before has left, and where this one leaves it.
    pub fn begin(&mut self, token: u64, question: &Question, probe: &Arc<Probe>, kept: Option<&Kept>) -> Begun {
        let started = Instant::now();
        let kept = kept.filter(|_| probe.keeps());
        let held = kept.and_then(Kept::take).and_then(|left| left.downcast::<Held>().ok());
        let number = self.free.pop().unwrap_or_else(|| {
            self.attempts.push(None);
            (self.attempts.len() - 1) as u32
        });
        match self.set_out(question, held.as_deref(), number, started) {
            Ok(course) => {
                let dials = !course.was_kept;
                let look = started + if course.was_kept { probe.timeout / 2 } else { probe.timeout };
                let (asked, probe) = (question.clone(), probe.clone());
                let kept = kept.cloned();
                let attempt = Attempt { token, asked, probe, started, course, old: None, kept, held };
                self.attempts[number as usize] = Some(attempt);
                Begun::Running { number, look, dials }
            }
            Err(failure) => {
                self.free.push(number);
                Begun::Ended(report(Err(failure), started, probe, Phase::Connect))
            }
        }
    }

    /// The time has come that [`Self::begin`] or this named. Without an answer in half of the time on a connection that was kept, a
    /// fresh one is asked beside it: somebody on the way may have forgotten the connection and told nobody. At the deadline
    /// the attempt ends.
    pub fn time_out(&mut self, token: u64, number: u32) -> TimedOut {
        let attempt = self.attempts.get_mut(number as usize).and_then(Option::as_mut);
        let Some(attempt) = attempt.filter(|attempt| attempt.token == token) else { return TimedOut::Over };
        let left = attempt.probe.timeout.saturating_sub(attempt.started.elapsed());
        if !left.is_zero() {
            if attempt.verdict().is_some() || !attempt.course.was_kept {
                return TimedOut::Later(left);
            }
            match self.lines.dial(attempt.asked.address, number, Instant::now()) {
                Ok(line) => {
                    let old = std::mem::replace(&mut attempt.course, Course::fresh(line));
                    attempt.old = Some(Box::new(old));
                    return TimedOut::Later(left);
                }
                Err(failure) => {
                    self.connections.lost.inc();
                    return self.drop_attempt(token, number).map_or(TimedOut::Over, |attempt| {
                        TimedOut::Ended(report(Err(failure), attempt.started, &attempt.probe, Phase::Connect))
                    });
                }
            }
        }
        let Some(attempt) = self.drop_attempt(token, number) else { return TimedOut::Over };
        let phase = attempt.course.phase();
        let asked = attempt
            .verdict()
            .cloned()
            .unwrap_or_else(|| Err(Progress::of(attempt.started, attempt.probe.timeout, phase).timed_out()));
        TimedOut::Ended(report(asked, attempt.started, &attempt.probe, phase))
    }

    /// Gives up the attempt `token` with this number; nothing more is said of it.
    pub fn give_up(&mut self, token: u64, number: u32) {
        self.drop_attempt(token, number);
    }

    /// Sleeps until something can go on, the bell rings, or it is `until`, within microseconds; then goes on with all that
    /// can, and puts what ended into `ended`, with its token.
    pub fn wait(&mut self, until: Instant, ended: &mut Vec<(u64, Report)>) {
        let left = || until.saturating_duration_since(Instant::now());
        if self.attempts.len() - self.free.len() >= CROWD && !left().is_zero() {
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

    /// Goes on with those that can go on within `left`. Whether there may be more at once.
    fn go_on_all(&mut self, left: &Timespec, ended: &mut Vec<(u64, Report)>) -> bool {
        self.let_go.take(&mut self.gone);
        for (line, generation) in self.gone.drain(..) {
            self.lines.let_go(line, generation);
        }
        let mut room = [const { MaybeUninit::uninit() }; EVENTS];
        let events = match epoll::wait(&self.lines.epoll, &mut room, Some(left)) {
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
        events.len() == EVENTS || self.lines.take_echo()
    }

    /// On the connection that was kept, where there is one; else on one of its own.
    fn set_out(
        &mut self,
        question: &Question,
        held: Option<&Held>,
        number: u32,
        now: Instant,
    ) -> Result<Course, Failure> {
        let Question { address, asks } = question;
        if let Err(message) = self.egress.check(*address) {
            return Err(Failure::new(Reason::EgressDenied, message));
        }
        let taken = held.and_then(|held| self.lines.take(held, *address, number, now));
        if let Some(line) = taken
            && let (What::Http(wire), Some(socket)) = (asks.what(), self.lines.socket(line))
        {
            let mut course = Course::again(line);
            if course.send(wire, *address, socket, &mut self.tools.request).is_ok() {
                return Ok(course);
            }
            self.connections.lost.inc();
            self.lines.reset(line, None);
        }
        self.lines.dial(*address, number, now).map(Course::fresh)
    }

    /// Something happened on a line.
    fn go_on(&mut self, at: u32, generation: u32, flags: EventFlags, ended: &mut Vec<(u64, Report)>) {
        let (number, went) = match self.lines.told(at, generation) {
            Told::Attempt(number, socket) => {
                let Some(Some(attempt)) = self.attempts.get_mut(number as usize) else { return };
                (number, attempt.go_on(at, socket, flags, &mut self.tools))
            }
            Told::Kept => {
                if self.lines.is_lost(at, flags) {
                    self.connections.lost.inc();
                    self.lines.reset(at, None);
                }
                return;
            }
            Told::Nobody => return,
        };
        match went {
            Went::On => {}
            Went::Unheard => self.begin_anew(number, at, ended),
            Went::Ended(asked, after) => self.end(number, at, asked, after, ended),
        }
    }

    /// The connection that was kept is gone: a fresh one takes its place, if none is under way.
    fn begin_anew(&mut self, number: u32, at: u32, ended: &mut Vec<(u64, Report)>) {
        self.connections.lost.inc();
        self.lines.reset(at, None);
        let Some(Some(attempt)) = self.attempts.get_mut(number as usize) else { return };
        if attempt.old.take_if(|old| old.line == at).is_some() {
            return;
        }
        match self.lines.dial(attempt.asked.address, number, Instant::now()) {
            Ok(line) => attempt.course = Course::fresh(line),
            Err(failure) => {
                if let Some(attempt) = self.take(number) {
                    ended.push((attempt.token, report(Err(failure), attempt.started, &attempt.probe, Phase::Connect)));
                }
            }
        }
    }

    /// An attempt ended, on the line `at`.
    fn end(&mut self, number: u32, at: u32, asked: Asked, after: After, ended: &mut Vec<(u64, Report)>) {
        let Some(attempt) = self.take(number) else { return };
        ended.push((attempt.token, report(asked, attempt.started, &attempt.probe, Phase::Response)));
        let Attempt { asked: Question { address, asks }, course, old, kept, held, .. } = attempt;
        let was_kept = match old {
            // It came from elsewhere.
            Some(old) if old.line != at => {
                self.connections.lost.inc();
                self.lines.reset(old.line, None);
                false
            }
            Some(_) => {
                self.lines.reset(course.line, None);
                true
            }
            None => course.was_kept,
        };
        if after == After::Again
            && let Some(kept) = kept
            && let Some(place) = self.connections.admit_within(self.room)
        {
            let mut held = held.unwrap_or_else(|| Held::new(address, &self.let_go));
            held.address = address;
            self.lines.keep(at, place, &mut held);
            kept.put(held);
        } else if after == After::Whole && matches!(asks.what(), What::Full) {
            self.lines.close(at);
        } else {
            let again = after != After::Broken && !was_kept;
            self.lines.reset(at, again.then_some(usize::from(address.is_ipv6())));
        }
    }

    fn take(&mut self, number: u32) -> Option<Attempt> {
        let attempt = self.attempts.get_mut(number as usize)?.take()?;
        self.free.push(number);
        Some(attempt)
    }

    /// Ends an attempt where it stands.
    fn drop_attempt(&mut self, token: u64, number: u32) -> Option<Attempt> {
        let attempt = self.attempts.get_mut(number as usize)?.take_if(|attempt| attempt.token == token)?;
        self.free.push(number);
        for course in [Some(&attempt.course), attempt.old.as_deref()].into_iter().flatten() {
            if course.phase() == Phase::Connect {
                self.lines.close(course.line);
            } else {
                self.lines.reset(course.line, None);
            }
        }
        Some(attempt)
    }
}

fn report(asked: Asked, started: Instant, probe: &Probe, phase: Phase) -> Report {
    ask::report(asked, &Progress::of(started, probe.timeout, phase), None)
}

impl std::fmt::Debug for FastLane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FastLane").field("lines", &self.lines.count()).finish_non_exhaustive()
    }
}

/// The ports that the kernel gives to clients, as it was set when this began; all where it does not say.
fn own_ports() -> RangeInclusive<u16> {
    let told = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ends = told.split_whitespace().map_while(|end| end.parse().ok());
    ends.next().zip(ends.next()).map_or(0..=u16::MAX, |(first, last)| first..=last)
}
