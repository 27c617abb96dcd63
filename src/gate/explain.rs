//! What a gate does, in words for people: the message of `GatesApplied`, of events and of a dry run.

use super::{Decision, Effective, Freeze, Member, Ruling, Verdict, Why, Word};
use crate::check::GateLimits;

/// How many endpoints a list names.
const NAMED: usize = 5;

/// Why `decision` is what it is: which rule limits the gate, what is published although its verdict says otherwise, and
/// what is withheld, each endpoint with its cause. At most ten endpoints are named. The arguments are those of the call
/// of [`super::decide`] that gave `decision`; the order of `members` does not matter to the text.
#[must_use]
pub fn explain(decision: &Decision, members: &[Member], limits: &GateLimits, freeze: Option<Freeze>) -> String {
    if members.is_empty() {
        return "no endpoints".into();
    }
    let mut parts = vec![format!("{} of {} published", decision.published, members.len())];
    parts.extend(limit(decision, limits, freeze));
    let pairs = || members.iter().zip(&decision.rulings);
    let odd = |(member, ruling): &(&Member, &Ruling)| ruling.published() && !is_plainly_healthy(member);
    parts.extend(list("published all the same", pairs().filter(odd)));
    parts.extend(list("withheld", pairs().filter(|(_, ruling)| !ruling.published())));
    parts.join("; ")
}

fn is_plainly_healthy(member: &Member) -> bool {
    member.verdict == Verdict::Healthy && member.word.is_none() && !member.flapping
}

fn limit(decision: &Decision, limits: &GateLimits, freeze: Option<Freeze>) -> Option<String> {
    if let Some(freeze) = freeze {
        return Some(format!("frozen, since {}: nothing is taken out until that is over", freeze.told()));
    }
    if decision.below {
        let policy = limits.when_below.as_str();
        return Some(format!("{} desired, fewer than minReady {}: {policy}", decision.desired, decision.floor));
    }
    let capped = decision.rulings.iter().any(|ruling| ruling.why == Why::Cap);
    if capped {
        return Some(format!("no more than maxRemovedPercent {} is held back", limits.max_removed_percent));
    }
    let unknown = matches!(decision.effective, Effective::FailOpen | Effective::FailStatic | Effective::FailClosed);
    unknown.then(|| format!("whenUnknown {}", limits.when_unknown.as_str()))
}

fn list<'a>(title: &str, pairs: impl Iterator<Item = (&'a Member, &'a Ruling)>) -> Option<String> {
    let mut pairs: Vec<_> = pairs.collect();
    let total = pairs.len();
    if total == 0 {
        return None;
    }
    let name = |(member, _): &(&'a Member, &'a Ruling)| (&member.label, &member.identity);
    if total > NAMED {
        pairs.select_nth_unstable_by(NAMED, |a, b| name(a).cmp(&name(b)));
        pairs.truncate(NAMED);
    }
    pairs.sort_unstable_by(|a, b| name(a).cmp(&name(b)));
    let mut named: Vec<_> =
        pairs.iter().map(|(member, ruling)| format!("{} ({})", member.label, cause(member, ruling))).collect();
    if total > NAMED {
        named.push(format!("and {} more", total - NAMED));
    }
    Some(format!("{title}: {}", named.join(", ")))
}

/// What is known of the endpoint and, where that did not decide, what did.
fn cause(member: &Member, ruling: &Ruling) -> String {
    let known = match (member.word, member.verdict) {
        (Some(Word::Healthy), _) => "overridden as Healthy",
        (Some(Word::Unhealthy), _) => "overridden as Unhealthy",
        (None, Verdict::Healthy) if member.flapping => "healthy but flapping",
        (None, Verdict::Healthy) => "healthy",
        (None, Verdict::Unhealthy) => "unhealthy",
        (None, Verdict::Stale) => "unknown",
        (None, Verdict::NeverProbed) => "never probed",
    };
    let decided = match ruling.why {
        Why::Verdict | Why::Override | Why::NeverProbed | Why::Flapping => return known.into(),
        Why::Unknown => "whenUnknown",
        Why::Below => "whenBelow",
        Why::Floor => "minReady",
        Why::Cap => "maxRemovedPercent",
        Why::Frozen => "frozen",
    };
    format!("{known}, {decided}")
}
