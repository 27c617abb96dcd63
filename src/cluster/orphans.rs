//! Annotations whose check is gone, on slices that nobody watches: left behind while no operator was running.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client, api::ListParams};
use tokio::time::Instant;

use super::{
    annotate::is_ours,
    checks::Selection,
    client::{CallError, call, list_all},
    index::facts::SliceFacts,
    lease::Held,
    patch::{SlicePatch, write_annotations},
};
use crate::api::HealthCheck;

/// How often everything is searched.
const SWEEP: Duration = Duration::from_secs(600);
/// How soon it is searched again after the first sweep in a row that did not succeed; each further one doubles it.
const AGAIN: Duration = Duration::from_secs(2);

/// When slices are searched: now and then, and soon again after a sweep that did not succeed.
#[derive(Debug)]
pub struct Sweeps {
    due: Instant,
    pause: Duration,
    /// The sweep that is due is one more try.
    again: bool,
}

impl Sweeps {
    /// The first one is due at once.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self { due: now, pause: AGAIN, again: false }
    }

    /// Whether a sweep is to begin; the next one is due after the usual time.
    pub fn begin(&mut self, now: Instant) -> bool {
        if self.due > now {
            return false;
        }
        if !std::mem::take(&mut self.again) {
            self.pause = AGAIN;
        }
        self.due = now + SWEEP;
        true
    }

    /// A sweep, or a part of it, came to nothing.
    pub fn failed(&mut self, now: Instant) {
        if !self.again {
            self.again = true;
            self.due = self.due.min(now + self.pause);
            self.pause = (self.pause * 2).min(SWEEP);
        }
    }
}

/// Every slice that bears an annotation of ours, and whether all slices could be searched.
pub async fn find(client: &Client, selection: &Selection) -> (Vec<SliceFacts>, bool) {
    let mut found = vec![];
    let keep = |slice: EndpointSlice| {
        let facts = SliceFacts::of(&slice);
        let bears = !facts.service.is_empty() && facts.annotations.values().any(|value| is_ours(value));
        found.extend(bears.then_some(facts));
    };
    let searched = list_all(&selection.apis(client), &ListParams::default(), keep).await;
    if let Err(error) = &searched {
        tracing::debug!(%error, "slices not searched for orphaned annotations; trying again");
    }
    (found, searched.is_ok())
}

/// Takes away the annotations of `checks` from `slice`, of those that are really gone. `false`: something is left to be
/// done, for there was no answer, or the slice has changed.
pub async fn take_away(client: &Client, held: &Held, slice: &SliceFacts, checks: Vec<(String, bool)>) -> bool {
    let api: Api<HealthCheck> = Api::namespaced(client.clone(), &slice.key.namespace);
    let mut annotations = BTreeMap::new();
    let mut done = true;
    for (check, certain) in checks {
        if certain {
            annotations.insert(check, None);
            continue;
        }
        match call(api.get_metadata(&check)).await {
            Err(CallError::NotFound(_)) => {
                annotations.insert(check, None);
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(slice = %slice.key, check, %error, "cannot tell whether the check of an annotation is gone; trying again");
                done = false;
            }
        }
    }
    if annotations.is_empty() {
        return done;
    }
    if !held.now() {
        return false;
    }
    let patch = SlicePatch { resource_version: slice.resource_version.clone(), annotations };
    match write_annotations(client, &slice.key, &patch).await {
        // Gone with all that it bore.
        Ok(_) | Err(CallError::NotFound(_)) => done,
        Err(error) => {
            tracing::debug!(slice = %slice.key, %error, "orphaned annotation not taken away; trying again");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_that_fails_is_repeated_ever_later_and_one_that_succeeds_is_not() {
        let mut now = Instant::now();
        let mut sweeps = Sweeps::new(now);
        assert!(sweeps.begin(now) && !sweeps.begin(now + SWEEP - AGAIN), "once in ten minutes");
        let mut pauses = vec![];
        for _ in 0..12 {
            // Two slices of one sweep that fail are one failure.
            sweeps.failed(now);
            sweeps.failed(now);
            let pause = (1..=SWEEP.as_secs()).map(Duration::from_secs).find(|pause| sweeps.due <= now + *pause);
            let pause = pause.expect("never later than the next sweep");
            now += pause;
            assert!(sweeps.begin(now));
            pauses.push(pause);
        }
        assert_eq!(pauses[..3], [AGAIN, AGAIN * 2, AGAIN * 4]);
        assert_eq!(pauses[11], SWEEP);
        // One that succeeds is followed by a usual one.
        assert!(!sweeps.begin(now + SWEEP - AGAIN) && sweeps.begin(now + SWEEP));
        sweeps.failed(now + SWEEP);
        assert!(sweeps.begin(now + SWEEP + AGAIN), "pauses begin anew");
    }
}
