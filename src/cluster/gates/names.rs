//! The addresses of targets that are DNS names: looked up again and again, and kept when that fails.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use crate::check::ObjectKey;

/// No name is looked up more often: the resolver keeps its answers for longer anyway.
const SHORTEST: Duration = Duration::from_secs(1);
/// What nobody asks for any more is forgotten after this.
const FORGET: Duration = Duration::from_secs(120);

#[derive(Debug)]
struct Known {
    /// The latest answer; `None`: none yet.
    addresses: Option<Vec<IpAddr>>,
    /// An attempt has ended, well or not.
    attempted: bool,
    under_way: bool,
    due: Instant,
    /// Who wants it, how often, and when that was last said.
    users: BTreeMap<ObjectKey, (Duration, Instant)>,
}

/// What is known of a name.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// Nobody has tried yet.
    Waiting,
    /// It was tried, in vain.
    Unknown,
    Addresses(&'a [IpAddr]),
}

/// See the module's own words.
#[derive(Debug, Default)]
pub struct Names(HashMap<Arc<str>, Known>);

impl Names {
    /// What is known of `name`, which `check` looks at each `interval`.
    pub fn ask(&mut self, name: &Arc<str>, check: &ObjectKey, interval: Duration, now: Instant) -> Answer<'_> {
        let known = self.0.entry(name.clone()).or_insert_with(|| Known {
            addresses: None,
            attempted: false,
            under_way: false,
            due: now,
            users: BTreeMap::new(),
        });
        known.users.insert(check.clone(), (interval.max(SHORTEST), now));
        match &known.addresses {
            Some(addresses) => Answer::Addresses(addresses),
            None if known.attempted => Answer::Unknown,
            None => Answer::Waiting,
        }
    }

    /// The names to be looked up now; each answer is handed to [`Self::answer`].
    pub fn due(&mut self, now: Instant) -> Vec<Arc<str>> {
        self.0.retain(|_, known| {
            known.users.retain(|_, (_, asked)| now.duration_since(*asked) < FORGET);
            !known.users.is_empty()
        });
        let mut due = vec![];
        for (name, known) in &mut self.0 {
            if known.due <= now && !known.under_way {
                known.under_way = true;
                due.push(name.clone());
            }
        }
        due
    }

    /// Takes in what was found; `None`: nothing that is certain. Whom that concerns.
    pub fn answer(&mut self, name: &Arc<str>, found: Option<Vec<IpAddr>>, now: Instant) -> BTreeSet<ObjectKey> {
        let Some(known) = self.0.get_mut(name) else { return BTreeSet::new() };
        known.under_way = false;
        // Whoever asks most often decides for all.
        known.due = now + known.users.values().map(|(every, _)| *every).min().unwrap_or(SHORTEST);
        let first = !std::mem::replace(&mut known.attempted, true);
        let changed = match found {
            Some(mut addresses) if !addresses.is_empty() => {
                for address in &mut addresses {
                    *address = address.to_canonical();
                }
                addresses.sort_unstable();
                addresses.dedup();
                let addresses = Some(addresses);
                std::mem::replace(&mut known.addresses, addresses.clone()) != addresses
            }
            _ => false,
        };
        if first || changed { known.users.keys().cloned().collect() } else { BTreeSet::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_addresses_when_nobody_answers() {
        let (mut names, now) = (Names::default(), Instant::now());
        let (name, check, interval) = ("db.corp".into(), ObjectKey::new("shop", "db"), Duration::from_secs(3));
        assert_eq!(names.ask(&name, &check, interval, now), Answer::Waiting);
        assert_eq!(names.due(now), std::slice::from_ref(&name));
        assert!(names.due(now).is_empty(), "it is under way");
        assert_eq!(names.answer(&name, None, now), [check.clone()].into(), "the wait is over");
        assert_eq!(names.ask(&name, &check, interval, now), Answer::Unknown);
        assert!(names.due(now).is_empty());
        let later = now + interval;
        assert_eq!(names.due(later).len(), 1);
        let address = IpAddr::from([10, 0, 0, 1]);
        assert_eq!(names.answer(&name, Some(vec![address, address]), later).len(), 1);
        assert_eq!(names.ask(&name, &check, interval, later), Answer::Addresses(&[address]));
        for found in [None, Some(vec![]), Some(vec![address])] {
            assert!(names.answer(&name, found, later).is_empty());
            assert_eq!(names.ask(&name, &check, interval, later), Answer::Addresses(&[address]));
        }
    }
}
