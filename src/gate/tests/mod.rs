//! The decision, three ways: by example, by invariants, and against the design's rules told as a search.

mod examples;
mod invariants;
mod oracle;

use super::*;
use crate::check::{GateLimits, GatePolicy, MinHealthy, Word};

use GatePolicy::{FailClosed, FailOpen, FailStatic};
use Verdict::{Healthy, NeverProbed, Stale, Unhealthy};

/// The limits of a gate that says nothing about them.
const DEFAULT: GateLimits = GateLimits {
    min_ready: MinHealthy::Count(1),
    max_removed_percent: 100,
    when_below: FailOpen,
    when_unknown: FailStatic,
};

const SEED: &str = "8f2c6a0e-0000-4000-8000-000000000000";

fn member(name: &str, verdict: Verdict) -> Member {
    Member {
        identity: name.into(),
        label: name.into(),
        verdict,
        last_healthy: None,
        last: None,
        word: None,
        word_until: None,
        flapping: false,
        held_until: None,
        lost: false,
    }
}

fn was(ready: bool, member: Member) -> Member {
    Member { last: Some(Last::found(ready)), ..member }
}

fn says(word: Word, member: Member) -> Member {
    Member { word: Some(word), ..member }
}

fn flapping(member: Member) -> Member {
    Member { flapping: true, ..member }
}

fn lost(member: Member) -> Member {
    Member { lost: true, ..member }
}

/// The same endpoints, as they are after `decision` was published.
fn fed_back(members: &[Member], decision: &Decision) -> Vec<Member> {
    let next = |(member, ruling): (&Member, &Ruling)| Member { last: Some(ruling.last), ..member.clone() };
    members.iter().zip(&decision.rulings).map(next).collect()
}

/// The labels that are published.
fn published<'a>(members: &'a [Member], decision: &Decision) -> Vec<&'a str> {
    let pairs = members.iter().zip(&decision.rulings);
    pairs.filter(|(_, ruling)| ruling.published()).map(|(member, _)| &*member.label).collect()
}
