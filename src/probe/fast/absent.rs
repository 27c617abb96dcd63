//! There is no fast lane but on Linux.

use std::{convert::Infallible, sync::Arc};

use crate::{
    check::{Dial, Probe, Report},
    probe::egress::EgressGuard,
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
    Line(u32),
    Ended(Report),
}

impl FastLane {
    pub(super) fn new(_: Arc<EgressGuard>) -> std::io::Result<Self> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    pub fn asks(&mut self, _: Option<&Dial>, _: &Probe) -> Option<Asks> {
        match self.0 {}
    }

    pub fn bell(&self) -> std::task::Waker {
        match self.0 {}
    }

    pub fn wait(&mut self, _: tokio::time::Instant, _: &mut Vec<(u64, Report)>) {
        match self.0 {}
    }

    pub fn begin(&mut self, _: u64, _: &Question, _: &Arc<Probe>) -> Begun {
        match self.0 {}
    }

    pub fn time_out(&mut self, _: u64, _: u32) -> Option<Report> {
        match self.0 {}
    }

    pub fn give_up(&mut self, _: u64, _: u32) {
        match self.0 {}
    }

    pub fn poll(&mut self, _: &mut Vec<(u64, Report)>) {
        match self.0 {}
    }
}
