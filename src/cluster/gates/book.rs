//! The writes that are on their way, so that nothing is sent twice, and why others came to nothing.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use super::{
    slice::MANAGER,
    write::{GateEnded, GateKey, GateWrite, SliceWrite},
};
use crate::{check::GateReason, cluster::client::CallError};

/// How soon a write that met another's is made again if nothing shows what is there now.
const AGAIN: Duration = Duration::from_secs(2);
/// How soon one that was refused is.
const REFUSED_AGAIN: Duration = Duration::from_secs(10);
/// So often in a row a write may find something else than it was computed from before that is told.
const CONFLICTS: u32 = 3;
/// So often what was written is put right at once: a hand that slipped.
const AT_ONCE: u32 = 2;
/// How long it is then left alone at first, and at most.
const UNDONE_AGAIN: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));
/// How long something has to stay as it was written until what was done to it before is forgotten.
const QUIET: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Sent {
    write: GateWrite,
    /// It has failed, and is not to be repeated before then.
    again: Option<Instant>,
}

/// What was last written to a slice or a condition.
#[derive(Debug)]
struct Kept {
    says: u64,
    /// So often the very same had to be written again, because it did not stay.
    undone: u32,
    at: Instant,
}

impl Kept {
    fn pause(&self) -> Duration {
        match self.undone.checked_sub(AT_ONCE) {
            None => Duration::ZERO,
            Some(more) => UNDONE_AGAIN.0.saturating_mul(1 << more.min(16)).min(UNDONE_AGAIN.1),
        }
    }

    fn is_forgotten(&self, now: Instant) -> bool {
        self.at + self.pause() + QUIET <= now
    }
}

/// See the module's own words.
#[derive(Debug, Default)]
pub struct Book {
    sent: HashMap<GateKey, Sent>,
    kept: HashMap<GateKey, Kept>,
    /// When what waits because it does not stay is to be looked at again.
    held: HashMap<GateKey, Instant>,
    /// How often in a row a write met another's.
    met: HashMap<GateKey, u32>,
    failures: HashMap<GateKey, (GateReason, String)>,
}

impl Book {
    /// Whether the very same as `write` is on its way, or has just failed.
    #[must_use]
    pub fn is_sent(&self, key: &GateKey, write: &GateWrite, now: Instant) -> bool {
        let same = |sent: &Sent| sent.write == *write && sent.again.is_none_or(|again| now < again);
        self.sent.get(key).is_some_and(same)
    }

    /// Whether `write` waits, since what it would write was written again and again and did not stay: somebody else has
    /// another mind, and neither of us is to keep the cluster's proxies busy with it.
    pub fn is_fought(&mut self, key: &GateKey, write: &GateWrite, now: Instant) -> bool {
        let same = |kept: &&Kept| write.says() == Some(kept.says) && !kept.is_forgotten(now);
        let until = self.kept.get(key).filter(same).map(|kept| kept.at + kept.pause()).filter(|until| now < *until);
        match until {
            Some(until) => self.held.insert(key.clone(), until),
            None => self.held.remove(key),
        };
        until.is_some()
    }

    /// Why `key` is told to be in conflict, though nothing is refused: it does not stay as it is written.
    #[must_use]
    pub fn undone(&self, key: &GateKey, now: Instant) -> Option<String> {
        self.kept.get(key).filter(|kept| kept.undone >= AT_ONCE && !kept.is_forgotten(now))?;
        let name = &key.object().name;
        let (what, leave) = match key {
            GateKey::Slice(_) => (format!("EndpointSlice '{name}'"), format!("slices that are managed by {MANAGER}")),
            GateKey::Pod(_, kind) => (format!("condition {kind} of pod '{name}'"), "this condition".to_owned()),
        };
        Some(format!(
            "{what} does not stay as it is written, so it is put right ever more seldom; find what changes it, a mutating webhook or another controller, and have it leave out {leave}"
        ))
    }

    fn keep(&mut self, ended: &GateEnded, now: Instant) {
        let key = &ended.key;
        let Some(says) = ended.write.says() else {
            self.kept.remove(key);
            return;
        };
        self.kept.retain(|_, kept| !kept.is_forgotten(now));
        let undone = self.kept.get(key).map_or(0, |kept| kept.undone.saturating_add(u32::from(kept.says == says)));
        self.kept.insert(key.clone(), Kept { says, undone, at: now });
    }

    /// `write` is sent.
    pub fn send(&mut self, key: &GateKey, write: &GateWrite) {
        self.sent.insert(key.clone(), Sent { write: write.clone(), again: None });
    }

    /// Takes in what became of a write.
    pub fn ended(&mut self, ended: &GateEnded, now: Instant) {
        let key = &ended.key;
        let failed = |after| Some(now + after);
        if ended.result.is_ok() {
            self.keep(ended, now);
        }
        let met = match &ended.result {
            Err(CallError::Conflict(_) | CallError::NotFound(_)) => self.met.remove(key).unwrap_or(0).saturating_add(1),
            _ => 0,
        };
        match met {
            0 => self.met.remove(key),
            met => self.met.insert(key.clone(), met),
        };
        let (again, failure) = match &ended.result {
            Ok(_) => (None, None),
            // The watch shows what is there now, and what follows from that is another write; but not for ever.
            Err(CallError::Conflict(message) | CallError::NotFound(message)) => {
                (failed(AGAIN), (met >= CONFLICTS).then(|| (GateReason::WriteFailed, in_the_way(ended, message))))
            }
            Err(CallError::Forbidden(message)) => {
                (failed(REFUSED_AGAIN), Some((GateReason::Forbidden, message.clone())))
            }
            Err(CallError::Invalid(message)) => (failed(REFUSED_AGAIN), Some((GateReason::Conflict, message.clone()))),
            Err(error) => (failed(AGAIN), Some((GateReason::WriteFailed, error.to_string()))),
        };
        match again {
            // One that was taken back meanwhile is not made again.
            Some(_) => {
                if let Some(sent) = self.sent.get_mut(key) {
                    sent.again = again;
                }
            }
            None => {
                self.sent.remove(key);
            }
        }
        match failure {
            Some(failure) => self.failures.insert(key.clone(), failure),
            None => self.failures.remove(key),
        };
    }

    /// Nothing is to be written to `key` any more. Whether something may be on its way, and is to be taken
    /// back.
    pub fn settled(&mut self, key: &GateKey) -> bool {
        self.failures.remove(key);
        self.met.remove(key);
        self.held.remove(key);
        // One that failed may wait again all the same: a newer one, that was queued behind it.
        self.sent.remove(key).is_some()
    }

    /// Why the last write to `key` was refused, where it was.
    #[must_use]
    pub fn failure(&self, key: &GateKey) -> Option<&(GateReason, String)> {
        self.failures.get(key)
    }

    /// What failed and is to be made again by `now`.
    #[must_use]
    pub fn due(&self, now: Instant) -> Vec<GateKey> {
        let due = |sent: &Sent| sent.again.is_some_and(|again| again <= now);
        let failed = self.sent.iter().filter(|(_, sent)| due(sent)).map(|(key, _)| key);
        let held = self.held.iter().filter(|(_, until)| **until <= now).map(|(key, _)| key);
        failed.chain(held).cloned().collect()
    }
}

/// What is said of a write that finds something else than it was computed from, again and again.
fn in_the_way(ended: &GateEnded, message: &str) -> String {
    let name = &ended.key.object().name;
    match &ended.write {
        GateWrite::Slice(SliceWrite::Create(_)) => format!(
            "EndpointSlice '{name}' is there and has lost its labels, so it is nobody's; delete it, and it is made anew: {message}"
        ),
        _ => format!("'{name}' changes faster than it can be written, or is not what the watch shows: {message}"),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::discovery::v1::EndpointSlice;

    use super::*;
    use crate::{
        check::{Family, ObjectKey},
        cluster::gates::{
            slice::{Body, Entry, Owner},
            write::{PodWrite, Turns, Written},
        },
    };

    fn slice() -> ObjectKey {
        ObjectKey::new("shop", "db-1")
    }

    fn key() -> GateKey {
        GateKey::Slice(slice())
    }

    fn body(ready: bool) -> Body {
        let entry = Entry { address: [10, 0, 0, 1].into(), ready, zone: None, name_of: None };
        Body { family: Family::V4, port_name: "pg".into(), port: 5432, entries: vec![entry] }
    }

    fn object(ready: bool) -> EndpointSlice {
        body(ready).object(&slice(), "db", "traffic", &Owner { name: "db".into(), uid: "u".into() })
    }

    fn create() -> GateWrite {
        GateWrite::Slice(SliceWrite::Create(Box::new(object(true))))
    }

    fn change(version: u32, ready: bool) -> GateWrite {
        GateWrite::Slice(SliceWrite::Change {
            resource_version: version.to_string(),
            gate: "traffic".into(),
            body: body(ready),
            turns: Turns::OTHER,
        })
    }

    fn ended(write: GateWrite, error: Option<CallError>) -> GateEnded {
        GateEnded { key: key(), write, result: error.map_or(Ok(Written::Slice(None)), Err) }
    }

    fn conflict() -> Option<CallError> {
        Some(CallError::Conflict("there already".to_owned()))
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_does_not_stay_is_put_right_ever_more_seldom_and_told() {
        let start = Instant::now();
        let mut book = Book::default();
        book.ended(&ended(create(), None), start);
        let mut writes = vec![];
        for second in 1..3600 {
            let now = start + second * SECOND;
            let write = change(second, true);
            if book.is_fought(&key(), &write, now) {
                assert!(book.undone(&key(), now).is_some(), "it is told while it waits");
                continue;
            }
            writes.push(second);
            book.ended(&ended(write, None), now);
        }
        assert_eq!(writes[..6], [1, 2, 4, 8, 16, 32], "at once, and then not");
        assert!(writes.len() < 25, "{writes:?}");
        let last = start + *writes.last().expect("some") * SECOND;
        assert_eq!(book.due(last + Duration::from_secs(300)), [key()], "it is not forgotten");
        let later = last + Duration::from_secs(400);
        assert!(!book.is_fought(&key(), &change(9, true), later) && book.undone(&key(), later).is_none());
    }

    #[test]
    fn a_condition_that_does_not_stay_is_put_right_ever_more_seldom_too() {
        let (start, mut book) = (Instant::now(), Book::default());
        let key = GateKey::Pod(ObjectKey::new("shop", "web-0"), "healthcheck-operator.dev/traffic".into());
        let write = |version: u32, status| {
            let resource_version = version.to_string();
            GateWrite::Pod(PodWrite { resource_version, status, reason: "R", message: "m".into(), turns: true })
        };
        let mut writes = vec![];
        for second in 1..600 {
            let now = start + second * SECOND;
            if !book.is_fought(&key, &write(second, false), now) {
                writes.push(second);
                let result = Ok(Written::Slice(None));
                book.ended(&GateEnded { key: key.clone(), write: write(second, false), result }, now);
            }
        }
        assert!(writes.len() < 15, "{writes:?}");
        let told = book.undone(&key, start + 600 * SECOND).expect("told");
        assert!(told.starts_with("condition healthcheck-operator.dev/traffic of pod 'web-0' does not stay"), "{told}");
        assert!(!book.is_fought(&key, &write(700, true), start + 600 * SECOND), "another word waits for nothing");
    }

    #[test]
    fn what_is_news_waits_for_no_quarrel() {
        let now = Instant::now();
        let mut book = Book::default();
        for version in 0..9 {
            book.ended(&ended(change(version, true), None), now);
        }
        assert!(book.is_fought(&key(), &change(9, true), now) && !book.is_fought(&key(), &change(9, false), now));
        let mut flips = Book::default();
        for version in 0..9 {
            flips.ended(&ended(change(version, version % 2 == 0), None), now);
        }
        assert!(!flips.is_fought(&key(), &change(9, false), now) && flips.undone(&key(), now).is_none());
    }

    #[test]
    fn a_newer_write_is_taken_back_though_an_older_one_failed() {
        let now = Instant::now();
        let mut book = Book::default();
        book.send(&key(), &change(1, false));
        // Behind it in the queue, and kept there when the first meets an outage.
        book.send(&key(), &change(1, true));
        book.ended(&ended(change(1, false), Some(CallError::Timeout)), now);
        assert!(book.settled(&key()), "what waits is to be taken back");
        assert!(!book.settled(&key()), "and there is nothing more");
    }

    #[test]
    fn a_slice_that_is_always_in_the_way_is_told() {
        let now = Instant::now();
        let mut book = Book::default();
        for attempt in 1..=3 {
            book.send(&key(), &create());
            book.ended(&ended(create(), conflict()), now);
            assert_eq!(book.failure(&key()).is_some(), attempt == 3, "{attempt}");
        }
        let told = &book.failure(&key()).expect("told").1;
        assert!(told.contains("EndpointSlice 'db-1' is there and has lost its labels"), "{told}");
        book.ended(&ended(create(), None), now);
        assert_eq!(book.failure(&key()), None);
    }
}
