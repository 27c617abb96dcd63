use super::*;

/// Decides, and gives the rule, the labels published, and the words.
fn shown(members: &[Member], limits: GateLimits, freeze: Option<Freeze>) -> (Effective, String, String) {
    let decision = decide(members, &limits, freeze, SEED);
    let told = explain(&decision, members, &limits, freeze, None);
    (decision.effective, published(members, &decision).join(" "), told)
}

#[test]
fn verdicts_are_followed_while_nothing_limits_them() {
    let members = [was(true, member("a", Healthy)), was(true, member("b", Unhealthy)), member("c", NeverProbed)];
    let decision = decide(&members, &DEFAULT, None, SEED);
    assert_eq!((decision.desired, decision.published, decision.withheld), (1, 1, 2));
    let (effective, out, told) = shown(&members, DEFAULT, None);
    assert_eq!((effective, &*out), (Effective::Enforced, "a"));
    assert_eq!(told, "1 of 3 published; withheld: b (unhealthy), c (never probed)");
}

#[test]
fn all_down_each_policy_does_what_it_says() {
    let down =
        [was(true, member("a", Unhealthy)), was(false, member("b", Unhealthy)), was(true, member("c", Unhealthy))];
    for (when_below, out, told) in [
        (
            FailOpen,
            "a b c",
            "3 of 3 published; 0 desired, fewer than minReady 1: FailOpen; published all the same: a (unhealthy, whenBelow), b (unhealthy, whenBelow), c (unhealthy, whenBelow)",
        ),
        (
            FailStatic,
            "a c",
            "2 of 3 published; 0 desired, fewer than minReady 1: FailStatic; published all the same: a (unhealthy, whenBelow), c (unhealthy, whenBelow); withheld: b (unhealthy)",
        ),
        (
            FailClosed,
            "",
            "0 of 3 published; 0 desired, fewer than minReady 1: FailClosed; withheld: a (unhealthy), b (unhealthy), c (unhealthy)",
        ),
    ] {
        let limits = GateLimits { when_below, ..DEFAULT };
        assert_eq!(shown(&down, limits, None), (when_below.into(), out.into(), told.into()));
    }
}

#[test]
fn fail_static_lets_in_what_is_healthy_beside_what_it_keeps() {
    let limits = GateLimits { min_ready: MinHealthy::Count(2), when_below: FailStatic, ..DEFAULT };
    let members =
        [was(false, member("a", Healthy)), was(true, member("b", Unhealthy)), was(true, member("c", Unhealthy))];
    assert_eq!(shown(&members, limits, None).1, "a b c");
    let alone = [was(true, member("a", Unhealthy)), was(false, member("b", Unhealthy))];
    assert_eq!(shown(&alone, limits, None).1, "a b", "an endpoint has left, and the floor is kept all the same");
}

#[test]
fn fail_closed_closes_wholly_below_the_floor() {
    let limits = GateLimits { min_ready: MinHealthy::Percent(60), when_below: FailClosed, ..DEFAULT };
    let members = [member("a", Healthy), member("b", Unhealthy), member("c", Unhealthy)];
    assert_eq!(shown(&members, limits, None).1, "");
    let members = [member("a", Healthy), member("b", Healthy), member("c", Unhealthy)];
    assert_eq!(shown(&members, limits, None).1, "a b", "60 % of three, rounded up");
}

#[test]
fn beyond_the_cap_those_healthy_most_recently_stay() {
    let since = |second: i64, member: Member| Member {
        last_healthy: Some(jiff::Timestamp::from_second(second).unwrap()),
        ..was(true, member)
    };
    let limits = GateLimits { max_removed_percent: 50, ..DEFAULT };
    let members = [
        since(10, member("a", Unhealthy)),
        since(30, member("b", Unhealthy)),
        since(20, member("c", Unhealthy)),
        member("d", Healthy),
        member("e", Unhealthy),
    ];
    let (effective, out, told) = shown(&members, limits, None);
    assert_eq!((effective, &*out), (Effective::Capped, "b c d"));
    assert_eq!(
        told,
        "3 of 5 published; no more than maxRemovedPercent 50 is held back; published all the same: b (unhealthy, \
         maxRemovedPercent), c (unhealthy, maxRemovedPercent); withheld: a (unhealthy), e (unhealthy)"
    );
    let closed = GateLimits { when_below: FailClosed, min_ready: MinHealthy::Count(2), ..limits };
    assert_eq!(
        shown(&members, closed, None).1,
        "b c d",
        "the cap holds for FailClosed too, and the desired come first"
    );
}

#[test]
fn without_a_verdict_when_unknown_decides() {
    let members = [was(true, member("a", Stale)), was(false, member("b", Stale)), member("c", Stale)];
    for (when_unknown, out) in [(FailOpen, "a b c"), (FailStatic, "a c")] {
        let limits = GateLimits { when_unknown, ..DEFAULT };
        let (effective, published, _) = shown(&members, limits, None);
        assert_eq!((effective, &*published), (when_unknown.into(), out));
    }
    let limits = GateLimits { when_unknown: FailClosed, min_ready: MinHealthy::Count(0), ..DEFAULT };
    assert_eq!(
        shown(&members, limits, None).2,
        "0 of 3 published; whenUnknown FailClosed; withheld: a (unknown, whenUnknown), b (unknown, whenUnknown), c \
         (unknown, whenUnknown)"
    );
}

#[test]
fn what_only_a_limit_published_is_not_desired_once_it_is_stale() {
    let down = [was(true, member("a", Unhealthy)), was(true, member("b", Unhealthy))];
    let all = decide(&down, &DEFAULT, None, SEED);
    let mut later = fed_back(&down, &all);
    later[1].verdict = Stale;
    assert_eq!(shown(&later, DEFAULT, None).1, "a b", "nothing has become better");
}

#[test]
fn an_endpoint_never_probed_waits_unless_there_is_nothing_else() {
    let new = [member("a", NeverProbed), member("b", NeverProbed)];
    assert_eq!(shown(&new, DEFAULT, None).1, "a b");
    assert_eq!(shown(&new, GateLimits { when_below: FailStatic, ..DEFAULT }, None).1, "a b");
    assert_eq!(shown(&new, GateLimits { when_below: FailClosed, ..DEFAULT }, None).1, "");
    let dead = [member("a", NeverProbed), was(true, member("b", Unhealthy))];
    assert_eq!(shown(&dead, DEFAULT, None).1, "b");
    assert_eq!(shown(&[], DEFAULT, None), (Effective::Enforced, String::new(), "no endpoints".into()));
}

#[test]
fn the_first_verdict_does_not_leave_all_traffic_to_what_is_known_to_be_dead() {
    for when_below in [FailOpen, FailStatic] {
        let limits = GateLimits { when_below, ..DEFAULT };
        let start = ["a", "b", "c"].map(|name| member(name, NeverProbed));
        let mut later = fed_back(&start, &decide(&start, &limits, None, SEED));
        later[1].verdict = Unhealthy;
        assert_eq!(shown(&later, limits, None).1, "a b c", "{when_below:?}");
        later[2].verdict = Healthy;
        assert_eq!(shown(&later, limits, None).1, "c", "one that is good is enough");
    }
}

#[test]
fn a_scale_up_does_not_look_like_a_loss() {
    let limits = GateLimits { min_ready: MinHealthy::Percent(60), max_removed_percent: 40, ..DEFAULT };
    let mut members = vec![member("a", Healthy), member("b", Healthy), member("c", Unhealthy)];
    members.extend(["d", "e", "f", "g"].map(|name| member(name, NeverProbed)));
    assert_eq!(shown(&members, limits, None).1, "a b");
}

#[test]
fn what_flaps_waits_to_come_back_and_never_to_leave() {
    let members = [
        was(true, member("a", Healthy)),
        Member { held_until: jiff::Timestamp::from_second(9).ok(), ..flapping(was(false, member("b", Healthy))) },
        flapping(was(true, member("c", Healthy))),
        flapping(was(true, member("d", Unhealthy))),
    ];
    let (effective, out, told) = shown(&members, DEFAULT, None);
    assert_eq!((effective, &*out), (Effective::Held, "a c"));
    assert_eq!(
        told,
        "2 of 4 published; withheld: b (healthy but flapping, held until 1970-01-01T00:00:09Z), d (unhealthy)"
    );
    let limits = GateLimits { min_ready: MinHealthy::Count(3), ..DEFAULT };
    assert_eq!(shown(&members, limits, None).1, "a b c", "rather what flaps than too few");
    let spoken = members.map(|member| says(Word::Healthy, member));
    assert_eq!(shown(&spoken, DEFAULT, None).1, "a b c d");
}

#[test]
fn an_override_beats_the_verdict_and_not_the_limits() {
    let members = [says(Word::Unhealthy, was(true, member("a", Healthy))), was(true, member("b", Healthy))];
    let (effective, out, told) = shown(&members, DEFAULT, None);
    assert_eq!((effective, &*out), (Effective::Held, "b"));
    assert_eq!(told, "1 of 2 published; withheld: a (overridden as Unhealthy)");
    let all = members.clone().map(|member| says(Word::Unhealthy, member));
    let (effective, out, _) = shown(&all, DEFAULT, None);
    assert_eq!((effective, &*out), (Effective::FailOpen, "a b"));
    let capped = GateLimits { max_removed_percent: 0, ..DEFAULT };
    assert_eq!(shown(&members, capped, None).1, "a b");
    let new = [says(Word::Healthy, member("a", NeverProbed)), was(true, member("b", Healthy))];
    assert_eq!(shown(&new, DEFAULT, None).1, "a b", "the operator vouches for it");
}

#[test]
fn a_frozen_gate_takes_nothing_away_and_lets_in_what_is_new_and_healthy() {
    let freeze = Some(Freeze::CorrelatedFailure);
    let members = [
        was(true, member("a", Unhealthy)),
        was(false, member("b", Healthy)),
        member("c", Healthy),
        member("d", NeverProbed),
        member("e", Unhealthy),
    ];
    let (effective, out, told) = shown(&members, DEFAULT, freeze);
    assert_eq!((effective, &*out), (Effective::Frozen, "a b c"));
    assert_eq!(
        told,
        "3 of 5 published; frozen, since most endpoints of several HealthChecks were lost at once: none is taken out \
         until some are back; an override acts now; published all the same: a (unhealthy, frozen); withheld: \
         d (never probed), e (unhealthy)"
    );
    let decision = decide(&members, &DEFAULT, freeze, SEED);
    let mut later = fed_back(&members, &decision);
    later[3].verdict = Healthy;
    later[4].verdict = Healthy;
    assert_eq!(shown(&later, DEFAULT, freeze).1, "a b c d e", "a rollout goes on");
    assert_eq!(shown(&members, DEFAULT, Some(Freeze::Suspended)).1, "a c", "what nobody looks at stays as it is");
}

#[test]
fn a_frozen_gate_rather_lets_in_what_is_new_than_publish_nothing() {
    let freeze = Some(Freeze::ProberIsolated);
    let members = [was(false, member("a", Unhealthy)), member("b", NeverProbed), member("c", Unhealthy)];
    assert_eq!(shown(&members, DEFAULT, freeze).1, "c");
    assert_eq!(shown(&members[..2], DEFAULT, freeze).1, "b");
    assert_eq!(shown(&members, GateLimits { when_below: FailClosed, ..DEFAULT }, freeze).1, "");
    assert_eq!(shown(&members, GateLimits { when_unknown: FailClosed, ..DEFAULT }, freeze).1, "");
    let none = GateLimits { min_ready: MinHealthy::Count(0), ..DEFAULT };
    assert_eq!(shown(&members, none, freeze).1, "", "none may be the right number");
    assert_eq!(shown(&members[1..], none, freeze).1, "c", "nobody has decided anything yet");
}

#[test]
fn an_override_acts_in_a_frozen_gate_within_the_limits() {
    let freeze = Some(Freeze::CorrelatedFailure);
    let members = [
        says(Word::Unhealthy, was(true, member("a", Unhealthy))),
        was(true, member("b", Unhealthy)),
        says(Word::Healthy, was(false, member("c", Unhealthy))),
    ];
    assert_eq!(shown(&members, DEFAULT, freeze).1, "b c");
    let floor = GateLimits { min_ready: MinHealthy::Count(3), ..DEFAULT };
    assert_eq!(shown(&members, floor, freeze).1, "a b c");
    let capped = GateLimits { max_removed_percent: 20, ..DEFAULT };
    assert_eq!(shown(&members, capped, freeze).1, "a b c");
}

#[test]
fn of_some_that_were_lost_together_none_is_taken_out_and_the_others_follow_their_verdicts() {
    let members = [
        lost(was(true, member("a", Unhealthy))),
        lost(was(false, member("b", Unhealthy))),
        lost(was(false, member("c", Healthy))),
        was(true, member("d", Unhealthy)),
        was(false, member("e", Healthy)),
    ];
    let (effective, out, told) = shown(&members, DEFAULT, None);
    assert_eq!((effective, &*out), (Effective::Frozen, "a c e"));
    assert_eq!(
        told,
        "3 of 5 published; 3 of them frozen, since most endpoints of several HealthChecks were lost at once: none is \
         taken out until some are back; an override acts now; published all the same: a (unhealthy, frozen); withheld: \
         b (unhealthy), d (unhealthy)"
    );
    let closed = GateLimits { min_ready: MinHealthy::Count(4), when_below: FailClosed, ..DEFAULT };
    assert_eq!(shown(&members, closed, None).1, "a c", "not even then");
    let open = GateLimits { min_ready: MinHealthy::Count(4), ..DEFAULT };
    assert_eq!(shown(&members, open, None).1, "a b c d e", "a and c count as healthy, and are too few with e");
    let mut by_hand = members.clone();
    by_hand[0].word = Some(Word::Unhealthy);
    assert_eq!(shown(&by_hand, DEFAULT, None).1, "c e");
    let all: Vec<_> = members.into_iter().map(lost).collect();
    assert_eq!(shown(&all, DEFAULT, None), shown(&all, DEFAULT, Some(Freeze::CorrelatedFailure)));
}

#[test]
fn it_is_told_until_when() {
    let at = Some(jiff::Timestamp::new(1_800_000_000, 1).unwrap());
    let told = |members: &[Member]| {
        let decision = decide(members, &DEFAULT, None, SEED);
        explain(&decision, members, &DEFAULT, None, at)
    };
    let frozen = told(&[lost(was(true, member("a", Unhealthy)))]);
    assert!(frozen.contains("until most are back or, if the others stay well, until 2027-01-15T08:00:01Z"), "{frozen}");
    let held = Member { held_until: at, ..flapping(was(false, member("a", Healthy))) };
    let held = told(&[held, was(true, member("b", Healthy))]);
    assert!(held.contains("a (healthy but flapping, held until 2027-01-15T08:00:01Z)"), "{held}");
}

#[test]
fn what_is_doubted_in_a_freeze_is_not_remembered() {
    let before = [was(true, member("a", Unhealthy)), was(true, member("b", Healthy))];
    let frozen = decide(&before, &DEFAULT, Some(Freeze::CorrelatedFailure), SEED);
    let mut after = fed_back(&before, &frozen);
    after[0].verdict = Stale;
    assert_eq!(shown(&after, DEFAULT, None).1, "a b");
}

#[test]
fn long_lists_are_cut() {
    let members: Vec<_> = (10..30).map(|name| member(&name.to_string(), Unhealthy)).collect();
    let limits = GateLimits { when_below: FailClosed, ..DEFAULT };
    let mut told = shown(&members, limits, None).2;
    assert!(
        told.ends_with(
            "withheld: 10 (unhealthy), 11 (unhealthy), 12 (unhealthy), 13 (unhealthy), 14 (unhealthy), and 15 more"
        ),
        "{told}"
    );
    let reversed: Vec<_> = members.into_iter().rev().collect();
    std::mem::swap(&mut told, &mut shown(&reversed, limits, None).2);
    assert_eq!(told, shown(&reversed, limits, None).2);
}
