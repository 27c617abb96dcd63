//! Who reports, told once in a while: a line for every batch would bury the log.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::telemetry::Source;

/// A reporter is told of again after this.
const AGAIN: Duration = Duration::from_secs(600);
/// How many reporters are remembered. The one that was told of longest ago makes room.
const REPORTERS: usize = 256;
/// Of how many scopes a reporter is told within [`AGAIN`]: which they are is its own choice.
const SCOPES: usize = 16;

/// See the module's own words.
#[derive(Debug, Default)]
pub struct Reporters(Mutex<HashMap<(Source, String), Told>>);

/// The scopes of one reporter, and when each was told.
type Told = Vec<(String, Instant)>;

impl Reporters {
    /// Notes that `who` has reported, about `scope`.
    pub fn note(&self, source: Source, who: Option<&str>, scope: &str) {
        if self.is_news(source, who, scope, Instant::now()) {
            tracing::info!(target: "audit", who = who.unwrap_or("-"), source = source.as_str(), scope, "reports traffic");
        }
    }

    fn is_news(&self, source: Source, who: Option<&str>, scope: &str, now: Instant) -> bool {
        let key = (source, who.unwrap_or("-").to_owned());
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REPORTERS && !known.contains_key(&key) {
            let last = |told: &Told| told.iter().map(|(_, at)| *at).max();
            let oldest = known.iter().min_by_key(|(_, told)| last(told)).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| known.remove(&oldest));
        }
        let told = known.entry(key).or_default();
        told.retain(|(_, at)| now.duration_since(*at) < AGAIN);
        if told.len() >= SCOPES || told.iter().any(|(known, _)| known == scope) {
            return false;
        }
        told.push((scope.to_owned(), now));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reporter_is_told_of_once_in_a_while_and_a_few_of_its_scopes() {
        let (reporters, start) = (Reporters::default(), Instant::now());
        let news = |who, scope: &str, at| reporters.is_news(Source::Envoy, Some(who), scope, start + at);
        let zero = Duration::ZERO;
        assert!(news("gateway", "shop/web", zero) && !news("gateway", "shop/web", AGAIN / 2));
        assert!(reporters.is_news(Source::HttpLogger, Some("gateway"), "shop/web", start), "elsewhere");
        assert!(news("gateway", "shop/web", AGAIN));
        let lines = (0..1000).filter(|number| news("noisy", &format!("shop/{number}"), zero)).count();
        assert_eq!(lines, SCOPES);
        assert!(news("noisy", "shop/other", AGAIN));
    }

    #[test]
    fn who_was_told_of_longest_ago_makes_room_and_nobody_else() {
        let (reporters, start) = (Reporters::default(), Instant::now());
        let news = |who: usize, at| {
            reporters.is_news(Source::Api, Some(&who.to_string()), "-", start + Duration::from_millis(at))
        };
        assert!((0..REPORTERS).all(|who| news(who, who as u64)));
        assert!(news(REPORTERS, 1000));
        assert!((1..=REPORTERS).all(|who| !news(who, 2000)), "all others are known");
        assert!(news(0, 3000), "it made room");
    }
}
