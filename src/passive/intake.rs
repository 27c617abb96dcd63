//! Where reports come in: as many batches at once as the engine has turns for, and none lost uncounted.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    engine::{Engine, Fate, Observation},
    telemetry::{ObservationMetrics, Source},
};

/// How many batches there may be at once, from before their first byte is read to what became of their last report.
const SEATS: usize = 16;
/// How many reports the engine takes in within one turn, of each batch: it is the loop that keeps the probes punctual.
const TURN: usize = 1000;

/// See the module's own words. Cheap to clone.
#[derive(Clone)]
pub struct Intake(Arc<Inner>);

struct Inner {
    /// `None` while another replica judges.
    engine: Mutex<Option<Engine>>,
    seats: Arc<Semaphore>,
    metrics: ObservationMetrics,
}

impl Default for Intake {
    fn default() -> Self {
        Self::new(ObservationMetrics::default())
    }
}

impl fmt::Debug for Intake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intake").field("seats", &self.0.seats.available_permits()).finish_non_exhaustive()
    }
}

/// The right to have one batch taken in.
#[derive(Debug)]
pub struct Seat {
    engine: Engine,
    metrics: ObservationMetrics,
    source: Source,
    _permit: OwnedSemaphorePermit,
}

/// Why no batch can be taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// As many as may be are being taken in.
    Busy,
    /// This process does not judge.
    NotJudging,
}

/// What became of a batch: how many observations, each report as often as it counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub accepted: u64,
    pub unknown_check: u64,
    pub unknown_endpoint: u64,
    pub not_passive: u64,
    pub suspended: u64,
    pub late: u64,
    /// The place in the batch of each report that was not taken, and why; not more than [`Self::TOLD`] of them.
    pub told: Vec<(usize, Fate)>,
}

impl Tally {
    /// How many reports that were not taken are named.
    pub const TOLD: usize = 10;

    fn add(&mut self, index: usize, fate: Fate, count: u32) {
        let counter = match fate {
            Fate::Accepted => &mut self.accepted,
            Fate::UnknownCheck => &mut self.unknown_check,
            Fate::UnknownEndpoint => &mut self.unknown_endpoint,
            Fate::NotPassive => &mut self.not_passive,
            Fate::Suspended => &mut self.suspended,
            Fate::Late => &mut self.late,
        };
        *counter += u64::from(count);
        if fate != Fate::Accepted && self.told.len() < Self::TOLD {
            self.told.push((index, fate));
        }
    }

    fn merge(&mut self, later: Self) {
        self.accepted += later.accepted;
        self.unknown_check += later.unknown_check;
        self.unknown_endpoint += later.unknown_endpoint;
        self.not_passive += later.not_passive;
        self.suspended += later.suspended;
        self.late += later.late;
        self.told.extend(later.told.into_iter().take(Self::TOLD - self.told.len()));
    }
}

impl Intake {
    /// Takes nothing in before [`Self::begin`].
    #[must_use]
    pub fn new(metrics: ObservationMetrics) -> Self {
        let seats = Arc::new(Semaphore::new(SEATS));
        Self(Arc::new(Inner { engine: Mutex::default(), seats, metrics }))
    }

    /// From now on reports go to `engine`.
    pub fn begin(&self, engine: Engine) {
        self.set(Some(engine));
    }

    /// Another replica judges.
    pub fn end(&self) {
        self.set(None);
    }

    fn set(&self, engine: Option<Engine>) {
        *self.0.engine.lock().unwrap_or_else(PoisonError::into_inner) = engine;
    }

    fn engine(&self) -> Result<Engine, Overflow> {
        self.0.engine.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(Overflow::NotJudging)
    }

    #[must_use]
    pub fn metrics(&self) -> &ObservationMetrics {
        &self.0.metrics
    }

    /// A seat for a batch of `source`, where there is one.
    ///
    /// # Errors
    /// Why there is none; who asks shall come back.
    pub fn seat(&self, source: Source) -> Result<Seat, Overflow> {
        let engine = self.engine()?;
        let permit = self.0.seats.clone().try_acquire_owned().map_err(|_| Overflow::Busy)?;
        Ok(self.seated(engine, permit, source))
    }

    /// A seat for a batch of `source`, as soon as there is one: for who is held back by not being read.
    ///
    /// # Errors
    /// When this process does not judge.
    pub async fn wait_for_seat(&self, source: Source) -> Result<Seat, Overflow> {
        // The semaphore is never closed.
        let permit = self.0.seats.clone().acquire_owned().await.map_err(|_| Overflow::NotJudging)?;
        Ok(self.seated(self.engine()?, permit, source))
    }

    fn seated(&self, engine: Engine, permit: OwnedSemaphorePermit, source: Source) -> Seat {
        Seat { engine, metrics: self.0.metrics.clone(), source, _permit: permit }
    }
}

impl Seat {
    /// Has `reports` judged, in their order, and counts what became of them. What is not judged when this is dropped, or
    /// when the engine stops, is counted as dropped.
    ///
    /// # Errors
    /// When the engine stops meanwhile.
    pub async fn take(self, mut reports: Vec<Observation>) -> Result<Tally, Overflow> {
        let mut tally = Tally::default();
        let mut index = 0;
        let left = reports.iter().map(|report| u64::from(report.count)).sum();
        let mut pending = Pending::new(&self.metrics, self.source, left);
        while !reports.is_empty() {
            let rest = reports.split_off(reports.len().min(TURN));
            let turn = std::mem::replace(&mut reports, rest);
            let counts: Vec<u32> = turn.iter().map(|report| report.count).collect();
            let fates = self.engine.observe(turn).await.ok_or(Overflow::NotJudging)?;
            let mut judged = Tally::default();
            for (fate, count) in fates.into_iter().zip(counts) {
                judged.add(index, fate, count);
                pending.judged(u64::from(count));
                index += 1;
            }
            self.count(&judged);
            tally.merge(judged);
        }
        Ok(tally)
    }

    fn count(&self, tally: &Tally) {
        for (result, number) in [
            ("accepted", tally.accepted),
            ("unknown_check", tally.unknown_check),
            ("unknown_endpoint", tally.unknown_endpoint),
            ("not_passive", tally.not_passive),
            ("suspended", tally.suspended),
            ("late", tally.late),
        ] {
            self.metrics.add(self.source, result, number);
        }
    }
}

/// Observations that were read and not judged yet: whoever leaves before they are leaves them counted as dropped.
#[derive(Debug)]
pub struct Pending<'a> {
    metrics: &'a ObservationMetrics,
    source: Source,
    left: u64,
}

impl<'a> Pending<'a> {
    #[must_use]
    pub const fn new(metrics: &'a ObservationMetrics, source: Source, left: u64) -> Self {
        Self { metrics, source, left }
    }

    /// So many are counted elsewhere from now on.
    pub const fn judged(&mut self, count: u64) {
        self.left = self.left.saturating_sub(count);
    }

    /// All of them are.
    pub fn done(mut self) {
        self.left = 0;
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if self.left > 0 {
            self.metrics.dropped(self.source, self.left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_behind_is_counted() {
        let metrics = ObservationMetrics::default();
        let mut pending = Pending::new(&metrics, Source::Api, 7);
        pending.judged(3);
        drop(pending);
        assert_eq!(metrics.number(Source::Api, "dropped"), 4);
        Pending::new(&metrics, Source::Api, 5).done();
        assert_eq!(metrics.number(Source::Api, "dropped"), 4);
    }
}
