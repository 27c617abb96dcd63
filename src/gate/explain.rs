//! What a gate does, in words for people: the message of `GatesApplied`, of events and of a dry run.

use jiff::Timestamp;

use super::{Decision, Effective, Freeze, Member, Ruling, Verdict, Why};
use crate::check::{GateLimits, Word};

/// How many endpoints a list names.
const NAMED: usize = 5;

/// Why `decision` is what it is: which rule limits the gate, what is published although its verdict says otherwise, and
/// what is withheld, each endpoint with its cause. At most ten endpoints are named. The arguments are those of the call
/// of [`super::decide`] that gave `decision`; the order of `members` does not matter to the text. `believed_at` is when a
/// loss of most endpoints is believed after all, unless what is left fails too.
#[must_use]
pub fn explain(
    decision: &Decision,
    members: &[Member],
    limits: &GateLimits,
    freeze: Option<Freeze>,
    believed_at: Option<Timestamp>,
) -> String {
    if members.is_empty() {
        return "no endpoints".into();
    }
    let mut parts = vec![format!("{} of {} published", decision.published, members.len())];
    let lost = members.iter().filter(|member| member.lost).count();
    let freeze = freeze.or((lost == members.len()).then_some(Freeze::CorrelatedFailure));
    parts.extend(freeze.map(|freeze| frozen(freeze, "frozen", believed_at)));
    if freeze.is_none() {
        parts.extend(limit(decision, members.len(), limits));
        let some = || frozen(Freeze::CorrelatedFailure, &format!("{lost} of them frozen"), believed_at);
        parts.extend((lost > 0).then(some));
    }
    let pairs = || members.iter().zip(&decision.rulings);
    let said = |member: &Member| member.word == Some(Word::Healthy);
    let by_word = |(member, ruling): &(&Member, &Ruling)| ruling.published() && said(member);
    let good = |member: &Member| member.verdict == Verdict::Healthy && member.word.is_none();
    let odd = |(member, ruling): &(&Member, &Ruling)| ruling.published() && !said(member) && !good(member);
    parts.extend(list("published by hand", pairs().filter(by_word)));
    parts.extend(list("published all the same", pairs().filter(odd)));
    parts.extend(list("withheld", pairs().filter(|(_, ruling)| !ruling.published())));
    parts.join("; ")
}

/// Why, and until when. Whoever knows better need not wait.
fn frozen(freeze: Freeze, what: &str, believed_at: Option<Timestamp>) -> String {
    let end = match (freeze, believed_at) {
        (Freeze::CorrelatedFailure, Some(at)) => {
            format!("most are back or, if the others stay well, until {}", second(at))
        }
        (Freeze::CorrelatedFailure, None) => "some are back".to_owned(),
        _ => return format!("{what}, since {}: nothing is taken out until that is over", freeze.told()),
    };
    format!("{what}, since {}: none is taken out until {end}; an override acts now", freeze.told())
}

/// The whole second after `at`.
fn second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second() + i64::from(at.subsec_nanosecond() > 0)).unwrap_or(at)
}

fn limit(decision: &Decision, count: usize, limits: &GateLimits) -> Option<String> {
    let capped = decision.rulings.iter().any(|ruling| ruling.why == Why::Cap);
    let cap = || format!("no more than maxRemovedPercent {} is held back", limits.max_removed_percent);
    if decision.below {
        let policy = limits.when_below.as_str();
        let never = if decision.floor as usize > count { ", which so few can never meet" } else { "" };
        let below = format!("{} desired, fewer than minReady {}{never}: {policy}", decision.desired, decision.floor);
        return Some(if capped { format!("{below}; {}", cap()) } else { below });
    }
    if capped {
        return Some(cap());
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
    let until = member.word_until.map(|until| format!(" until {until:.0}")).unwrap_or_default();
    let known = match (member.word, member.verdict) {
        (Some(word), _) => &format!("overridden as {}{until}", word.as_str()),
        (None, Verdict::Healthy) if member.flapping => {
            let held = member.held_until.filter(|_| !ruling.published());
            return held.map_or("healthy but flapping".into(), |at| {
                format!("healthy but flapping, held until {}", second(at))
            });
        }
        (None, Verdict::Healthy) => "healthy",
        (None, Verdict::Unhealthy) => "unhealthy",
        (None, Verdict::Stale) => "unknown",
        (None, Verdict::NeverProbed) => "never probed",
    };
    let decided = match ruling.why {
        Why::Verdict | Why::Override | Why::NeverProbed | Why::Flapping => return known.to_owned(),
        Why::Unknown => "whenUnknown",
        Why::Below => "whenBelow",
        Why::Floor => "minReady",
        Why::Cap => "maxRemovedPercent",
        Why::Frozen => "frozen",
    };
    format!("{known}, {decided}")
}
