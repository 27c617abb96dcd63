//! There is no fast lane but on Linux.

use std::{convert::Infallible, sync::Arc, task::Waker, time::Duration};

use tokio::time::Instant;

use crate::{
    check::{Dial, Kept, Probe, Report},
    probe::{KeptConnections, egress::EgressGuard},
};

/// None is ever made.
#[derive(Debug)]
pub struct FastLane(Infallible);

/// None is ever made.
#[derive(Clone, Debug)]
pub struct Asks(Infallible);

impl Asks {
    #[must_use]
    pub fn of(&self, _: &Dial) -> Option<Question> {
        match self.0 {}
    }
}

/// None is ever made.
#[derive(Clone, Debug)]
pub struct Question(Infallible);

/// How an attempt began.
#[derive(Debug)]
pub enum Begun {
    Running { number: u32, look: Instant, dials: bool },
    Ended(Report),
}

/// What became of an attempt whose time has come.
#[derive(Debug)]
pub enum TimedOut {
    Ended(Report),
    Later(Duration),
    Over,
}

impl FastLane {
    pub(super) fn new(_: Arc<EgressGuard>, _: KeptConnections) -> std::io::Result<Self> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    pub fn asks(&mut self, _: Option<&Dial>, _: &Probe, _: bool) -> Option<Asks> {
        match self.0 {}
    }

    pub fn bell(&self) -> Waker {
        match self.0 {}
    }

    pub fn wait(&mut self, _: Instant, _: &mut Vec<(u64, Report)>) {
        match self.0 {}
    }

    pub fn begin(&mut self, _: u64, _: &Question, _: &Arc<Probe>, _: Option<&Kept>) -> Begun {
        match self.0 {}
    }

    pub fn make_room(&mut self, _: usize) {
        match self.0 {}
    }

    pub fn time_out(&mut self, _: u64, _: u32) -> TimedOut {
        match self.0 {}
    }

    pub fn give_up(&mut self, _: u64, _: u32) {
        match self.0 {}
    }

    pub fn poll(&mut self, _: &mut Vec<(u64, Report)>) {
        match self.0 {}
    }
}
