//! The writes that are on their way, so that nothing is sent twice, and why others came to nothing.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use super::write::{GateEnded, GateKey, GateWrite};
use crate::{check::GateReason, cluster::client::CallError};

/// How soon a write that met another's is made again if nothing shows what is there now.
const AGAIN: Duration = Duration::from_secs(2);
/// How soon one that was refused is.
const REFUSED_AGAIN: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Sent {
    write: GateWrite,
    /// It has failed, and is not to be repeated before then.
    again: Option<Instant>,
}

/// See the module's own words.
#[derive(Debug, Default)]
pub struct Book {
    sent: HashMap<GateKey, Sent>,
    failures: HashMap<GateKey, (GateReason, String)>,
}

impl Book {
    /// Whether the very same as `write` is on its way, or has just failed.
    #[must_use]
    pub fn is_sent(&self, key: &GateKey, write: &GateWrite, now: Instant) -> bool {
        let same = |sent: &Sent| sent.write == *write && sent.again.is_none_or(|again| now < again);
        self.sent.get(key).is_some_and(same)
    }

    /// `write` is sent.
    pub fn send(&mut self, key: &GateKey, write: &GateWrite) {
        self.sent.insert(key.clone(), Sent { write: write.clone(), again: None });
    }

    /// Takes in what became of a write.
    pub fn ended(&mut self, ended: &GateEnded, now: Instant) {
        let key = &ended.key;
        let failed = |after| Some(now + after);
        let (again, failure) = match &ended.result {
            Ok(_) => (None, None),
            // The watch shows what is there now, and what follows from that is another write.
            Err(CallError::Conflict(_) | CallError::NotFound(_)) => (failed(AGAIN), None),
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

    /// Nothing is to be written to `key` any more. Whether something was on its way, and is to be taken back.
    pub fn settled(&mut self, key: &GateKey) -> bool {
        self.failures.remove(key);
        self.sent.remove(key).is_some_and(|sent| sent.again.is_none())
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
        self.sent.iter().filter(|(_, sent)| due(sent)).map(|(key, _)| key.clone()).collect()
    }
}
