//! The design's rules, told as a search: of all sets that might be published, those that no rule forbids, and of these
//! the least and best. Small numbers, every combination.

use jiff::Timestamp;

use super::*;

/// One kind of endpoint that can be given.
type Kind = (Verdict, Option<bool>, Option<Word>, bool);

/// The set that should be published, as bits.
fn right_set(members: &[Member], limits: &GateLimits) -> u32 {
    let count = members.len();
    let probed = |at: usize| members[at].verdict != NeverProbed || members[at].word == Some(Word::Healthy);
    let any_probed = (0..count).any(probed);
    let wanted = |at: usize| match (members[at].word, members[at].verdict, limits.when_unknown) {
        (Some(word), ..) => word == Word::Healthy,
        (None, Healthy, _) | (None, Stale, FailOpen) => true,
        (None, Stale, FailStatic) => members[at].last.is_none_or(|last| last.published),
        (None, ..) => false,
    };
    // Where nothing is any good, what was let in unprobed stays beside it.
    let asks = !matches!(limits.min_ready, MinHealthy::Count(0) | MinHealthy::Percent(0));
    let hopeless = asks && limits.when_below != FailClosed && !(0..count).any(wanted);
    let stays = |at: usize| hopeless && members[at].last.is_some_and(|last| last.published);
    let electable: Vec<usize> = (0..count).filter(|at| probed(*at) || !any_probed || stays(*at)).collect();
    let (total, known) = (electable.len() as f64, (0..count).filter(|at| probed(*at)).count() as f64);
    let floor = match limits.min_ready {
        MinHealthy::Count(floor) => f64::from(floor),
        MinHealthy::Percent(percent) => (total * f64::from(percent) / 100.0).ceil(),
    };
    let was_ready = |at: usize| members[at].last.is_some_and(|last| last.published);
    let below = ((0..count).filter(|at| wanted(*at)).count() as f64) < floor;
    let must = |at: usize| match (below, limits.when_below) {
        (false, _) => wanted(at) && (!members[at].flapping || members[at].word.is_some() || was_ready(at)),
        (true, FailOpen) => true,
        (true, FailStatic) => wanted(at) || was_ready(at) || members[at].last.is_none(),
        (true, FailClosed) => false,
    };
    let allowed = |set: u32| {
        let inside = |at: &usize| set & (1 << at) != 0;
        let size = electable.iter().filter(|at| inside(at)).count() as f64;
        let foreign = (0..count).any(|at| inside(&at) && !electable.contains(&at));
        let complete = electable.iter().all(|at| inside(at) || !must(*at));
        let high = (below && limits.when_below == FailClosed) || size >= floor.min(total);
        let removed = if any_probed { total - size } else { 0.0 };
        let capped = removed <= (known * f64::from(limits.max_removed_percent) / 100.0).floor();
        !foreign && complete && high && capped
    };
    // Who joins beyond what must be there: the healthy before the flapping, those before the rest, by recency; and
    // what an operator called Unhealthy last of all.
    let rank = |at: usize| {
        let member = &members[at];
        let class = match () {
            () if member.word == Some(Word::Unhealthy) => 3,
            () if !wanted(at) => 2,
            () if member.flapping => 1,
            () => 0,
        };
        let recency =
            if member.verdict == Healthy { i64::MAX } else { member.last_healthy.map_or(-1, |at| at.as_second()) };
        (class, -recency, crate::engine::stable_hash(&[SEED, &member.identity]))
    };
    let cost = |set: u32| {
        let mut joined: Vec<_> = (0..count).filter(|at| set & (1 << at) != 0 && !must(*at)).map(rank).collect();
        joined.sort_unstable();
        (set.count_ones(), joined)
    };
    (0..1_u32 << count)
        .filter(|set| allowed(*set))
        .min_by_key(|set| cost(*set))
        .unwrap_or_else(|| panic!("{members:?}"))
}

fn kinds(words: &[Option<Word>], flaps: &[bool]) -> Vec<Kind> {
    let mut kinds = vec![];
    for verdict in [Healthy, Unhealthy, Stale, NeverProbed] {
        for last in [None, Some(true), Some(false)] {
            for word in words {
                kinds.extend(flaps.iter().map(|flapping| (verdict, last, *word, *flapping)));
            }
        }
    }
    kinds
}

fn made(at: usize, (verdict, last, word, flapping): Kind) -> Member {
    Member {
        identity: format!("10.0.0.{at}:80").into(),
        last: last.map(Last::found),
        // Every endpoint but two was healthy at another time.
        last_healthy: (at > 0).then(|| Timestamp::from_second([0, 3, 7, 3][at]).unwrap()),
        word,
        flapping,
        ..member("", verdict)
    }
}

fn all_limits() -> Vec<GateLimits> {
    let mut all = vec![];
    for when_below in GatePolicy::ALL {
        for when_unknown in GatePolicy::ALL {
            for max_removed_percent in [0, 50, 100] {
                for min_ready in [0, 1, 2].map(MinHealthy::Count).into_iter().chain([MinHealthy::Percent(70)]) {
                    all.push(GateLimits { min_ready, max_removed_percent, when_below, when_unknown });
                }
            }
        }
    }
    all
}

/// Compares for every choice of `size` of these kinds. Members are told apart by their number, so all orders count.
fn compare(size: usize, kinds: &[Kind], limits: &[GateLimits]) {
    for choice in 0..kinds.len().pow(size as u32) {
        let kind = |at: usize| kinds[choice / kinds.len().pow(at as u32) % kinds.len()];
        let members: Vec<_> = (0..size).map(|at| made(at, kind(at))).collect();
        for limits in limits {
            let decision = decide(&members, limits, None, SEED);
            let bits: u32 =
                decision.rulings.iter().enumerate().map(|(at, ruling)| u32::from(ruling.published()) << at).sum();
            assert_eq!(right_set(&members, limits), bits, "{limits:?}\n{members:#?}\n{decision:#?}");
        }
    }
}

#[test]
fn up_to_two_endpoints_of_every_kind() {
    let kinds = kinds(&[None, Some(Word::Healthy), Some(Word::Unhealthy)], &[false, true]);
    for size in 0..=2 {
        compare(size, &kinds, &all_limits());
    }
}

#[test]
fn three_endpoints_of_every_verdict_and_past() {
    compare(3, &kinds(&[None], &[false]), &all_limits());
}

#[test]
fn four_endpoints_at_the_limits_that_matter_most() {
    let kinds =
        kinds(&[None], &[false]).into_iter().filter(|(verdict, last, ..)| *verdict != NeverProbed || last.is_none());
    let limits =
        all_limits().into_iter().filter(|limits| limits.max_removed_percent == 50 && limits.when_unknown == FailStatic);
    let (kinds, limits): (Vec<_>, Vec<_>) = (kinds.collect(), limits.collect());
    compare(4, &kinds, &limits);
}
