//! What holds whatever is given.

use std::collections::BTreeMap;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;

fn any_member() -> impl Strategy<Value = Member> {
    let verdict = prop::sample::select(vec![Healthy, Unhealthy, Unhealthy, Stale, NeverProbed]);
    let last_healthy = prop::option::of((0..5_i64).prop_map(|second| Timestamp::from_second(second).unwrap()));
    let last = prop::option::of((any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        // A newcomer was never published nor wanted.
        |(published, wanted, newcomer)| match newcomer {
            true => Last { published: false, wanted: false, newcomer },
            false => Last { published, wanted, newcomer },
        },
    ));
    let word = prop::sample::select(vec![None, None, None, Some(Word::Healthy), Some(Word::Unhealthy)]);
    (verdict, last_healthy, last, word, prop::bool::weighted(0.3), prop::bool::weighted(0.3)).prop_map(
        |(verdict, last_healthy, last, word, flapping, lost)| Member {
            last_healthy,
            last,
            word,
            flapping,
            lost,
            ..member("", verdict)
        },
    )
}

fn any_members() -> impl Strategy<Value = Vec<Member>> {
    prop::collection::vec(any_member(), 0..9).prop_map(|mut members| {
        for (at, member) in members.iter_mut().enumerate() {
            member.identity = format!("10.0.0.{at}:80").into();
            member.label = member.identity.clone();
        }
        members
    })
}

fn any_limits() -> impl Strategy<Value = GateLimits> {
    let min_ready = prop_oneof![(0..10_u32).prop_map(MinHealthy::Count), (0..=100_u8).prop_map(MinHealthy::Percent)];
    let policy = || prop::sample::select(&GatePolicy::ALL[..]);
    let percent = prop_oneof![Just(100), 0..=100_u8];
    (min_ready, percent, policy(), policy()).prop_map(|(min_ready, max_removed_percent, when_below, when_unknown)| {
        GateLimits { min_ready, max_removed_percent, when_below, when_unknown }
    })
}

fn any_freeze() -> impl Strategy<Value = Option<Freeze>> {
    prop::option::weighted(0.3, prop::sample::select(&Freeze::ALL[..]))
}

/// Whether all were lost together: then the gate is frozen, and asks for neither floor nor cap.
fn all_lost(members: &[Member]) -> bool {
    !members.is_empty() && members.iter().all(|member| member.lost)
}

/// Those that a probe, or an operator, vouches for.
fn vouched(member: &Member) -> bool {
    member.verdict != NeverProbed || member.word == Some(Word::Healthy)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn never_fewer_than_the_floor_under_fail_open_and_fail_static(members in any_members(), limits in any_limits(), open: bool) {
        prop_assume!(!all_lost(&members));
        let limits = GateLimits { when_below: if open { FailOpen } else { FailStatic }, ..limits };
        let decision = decide(&members, &limits, None, SEED);
        let probed = members.iter().filter(|member| vouched(member)).count();
        let there = if probed > 0 { probed } else { members.len() } as u32;
        prop_assert!(decision.published >= limits.min_ready.of(there).min(there), "{:?}", decision);
    }

    #[test]
    fn fail_static_takes_nothing_away_below_the_floor(members in any_members(), limits in any_limits()) {
        let limits = GateLimits { when_below: FailStatic, ..limits };
        let decision = decide(&members, &limits, None, SEED);
        for (member, ruling) in members.iter().zip(&decision.rulings).filter(|(member, _)| vouched(member)) {
            let was = member.last.is_some_and(|last| last.published);
            prop_assert!(!decision.below || !was || ruling.published(), "{:?}", decision);
        }
    }

    #[test]
    fn never_more_held_back_than_the_cap(members in any_members(), limits in any_limits()) {
        prop_assume!(!all_lost(&members));
        let decision = decide(&members, &limits, None, SEED);
        let pairs = members.iter().zip(&decision.rulings).filter(|(member, _)| vouched(member));
        let (all, back) = pairs.fold((0, 0), |(all, back), (_, ruling)| (all + 1, back + usize::from(!ruling.published())));
        prop_assert!(back * 100 <= all * usize::from(limits.max_removed_percent), "{} of {}: {:?}", back, all, decision);
    }

    #[test]
    fn nothing_never_probed_is_published_beside_anything_that_is_desired(members in any_members(), limits in any_limits()) {
        prop_assume!(!all_lost(&members));
        let decision = decide(&members, &limits, None, SEED);
        let out = || members.iter().zip(&decision.rulings).filter(|(_, ruling)| ruling.published());
        let strange = out().filter(|(member, _)| !vouched(member)).count();
        let was_in = |member: &Member| member.last.is_some_and(|last| last.published);
        let let_in = out().filter(|(member, _)| !vouched(member)).all(|(member, _)| was_in(member));
        let alone = strange == out().count();
        prop_assert!(strange == 0 || alone || (let_in && decision.desired == 0), "{:?}", decision);
    }

    #[test]
    fn publishing_what_was_decided_changes_nothing(members in any_members(), limits in any_limits(), freeze in any_freeze()) {
        let once = decide(&members, &limits, freeze, SEED);
        let again = decide(&fed_back(&members, &once), &limits, freeze, SEED);
        prop_assert_eq!(published(&members, &once), published(&members, &again));
        let lasts = |decision: &Decision| decision.rulings.iter().map(|ruling| ruling.last).collect::<Vec<_>>();
        prop_assert_eq!(lasts(&once), lasts(&again));
        prop_assert_eq!((once.desired, once.below, once.floor), (again.desired, again.below, again.floor));
    }

    #[test]
    fn the_same_input_gives_the_same_and_the_order_does_not_matter(
        members in any_members(), limits in any_limits(), freeze in any_freeze(), keys in prop::collection::vec(any::<u32>(), 9),
    ) {
        let mut order: Vec<_> = (0..members.len()).collect();
        order.sort_by_key(|at| keys[*at]);
        let shuffled: Vec<_> = order.iter().map(|at| members[*at].clone()).collect();
        let (one, other) = (decide(&members, &limits, freeze, SEED), decide(&shuffled, &limits, freeze, SEED));
        let by_name = |members: &[Member], decision: &Decision| -> BTreeMap<_, _> {
            members.iter().map(|member| member.identity.clone()).zip(decision.rulings.clone()).collect()
        };
        prop_assert_eq!(by_name(&members, &one), by_name(&shuffled, &other));
        prop_assert_eq!(explain(&one, &members, &limits, freeze, None), explain(&other, &shuffled, &limits, freeze, None));
        prop_assert_eq!(decide(&members, &limits, freeze, SEED), one);
    }

    #[test]
    fn a_frozen_gate_takes_nothing_away_but_by_an_operators_word(members in any_members(), limits in any_limits()) {
        let decision = decide(&members, &limits, Some(Freeze::CorrelatedFailure), SEED);
        for (member, ruling) in members.iter().zip(&decision.rulings) {
            let was = member.last.is_some_and(|last| last.published);
            prop_assert!(ruling.published() || !was || member.word == Some(Word::Unhealthy), "{:?}", decision);
        }
    }

    #[test]
    fn a_frozen_gate_lets_in_nothing_that_was_held_back_but_by_an_operators_word(members in any_members(), limits in any_limits()) {
        let decision = decide(&members, &limits, Some(Freeze::ProberIsolated), SEED);
        for (member, ruling) in members.iter().zip(&decision.rulings) {
            let held_back = member.last.is_some_and(|last| !last.published && !last.newcomer);
            prop_assert!(!ruling.published() || !held_back || member.word == Some(Word::Healthy), "{:?}", decision);
        }
    }

    #[test]
    fn what_was_lost_together_stays_whatever_becomes_of_the_others(members in any_members(), limits in any_limits()) {
        let decision = decide(&members, &limits, None, SEED);
        let limit = [Why::Below, Why::Floor, Why::Cap];
        let frozen = |member: &Member| member.lost && member.word.is_none() && member.verdict != NeverProbed;
        for (member, ruling) in members.iter().zip(&decision.rulings).filter(|(member, _)| frozen(member)) {
            let was = member.last.is_some_and(|last| last.published);
            prop_assert!(ruling.published() || !was, "{:?}", decision);
            let joins = member.verdict == Healthy && !member.flapping;
            let none_is_left = all_lost(&members) && member.last.is_none_or(|last| last.newcomer);
            prop_assert!(!ruling.published() || was || joins || limit.contains(&ruling.why) || none_is_left, "{:?}", decision);
        }
    }

    #[test]
    fn a_word_in_a_frozen_gate_passes_floor_and_cap(members in any_members(), limits in any_limits()) {
        let decision = decide(&members, &limits, Some(Freeze::CorrelatedFailure), SEED);
        let pairs = || members.iter().zip(&decision.rulings).filter(|(_, ruling)| !ruling.published());
        let taken = || pairs().filter(|(member, _)| member.last.is_some_and(|last| last.published));
        let taken_away = taken().count() as u32;
        prop_assert!(taken_away == 0 || decision.published >= decision.floor.min(decision.published + taken_away), "{:?}", decision);
        let all = members.iter().filter(|member| vouched(member)).count();
        let back = pairs().filter(|(member, _)| vouched(member)).count();
        let of_the_probed = taken().any(|(member, _)| vouched(member));
        prop_assert!(!of_the_probed || back * 100 <= all * usize::from(limits.max_removed_percent), "{:?}", decision);
    }

    #[test]
    fn what_is_desired_is_withheld_only_for_a_hold_or_by_fail_closed(members in any_members(), limits in any_limits()) {
        let decision = decide(&members, &limits, None, SEED);
        for (member, ruling) in members.iter().zip(&decision.rulings) {
            let good = member.word == Some(Word::Healthy) || (member.word.is_none() && member.verdict == Healthy);
            let closed = decision.below && limits.when_below == FailClosed;
            prop_assert!(!good || ruling.published() || member.flapping || closed, "{:?}", decision);
        }
    }

    #[test]
    fn the_counts_add_up(members in any_members(), limits in any_limits(), freeze in any_freeze()) {
        let decision = decide(&members, &limits, freeze, SEED);
        prop_assert_eq!(decision.published as usize, published(&members, &decision).len());
        prop_assert_eq!((decision.published + decision.withheld) as usize, members.len());
        prop_assert!(decision.desired as usize <= members.len());
        prop_assert_eq!(decision.rulings.len(), members.len());
    }
}
