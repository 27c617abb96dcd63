//! From the states of members to one word for the check. Pure.

use crate::check::{Counts, EndpointState, Health, HealthReason, MinHealthy};

/// One member as aggregation sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// What may be believed now.
    pub state: EndpointState,
    pub optional: bool,
    /// No verdict yet, and none was ever there.
    pub undecided: bool,
    /// There was a verdict; it is too old.
    pub stale: bool,
    /// The last attempt could not look.
    pub blind: bool,
    /// That, because the prober is isolated.
    pub isolated: bool,
    /// Undecided for less than `staleAfter`. Once the check has had a verdict, such a newcomer is left out of the count:
    /// a pod that has just been added must not make a healthy check Unknown.
    pub newcomer: bool,
}

/// The verdict over all members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub health: Health,
    pub reason: HealthReason,
    pub counts: Counts,
}

/// What is asked of the members of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    pub min: MinHealthy,
    /// Whether any target that is declared is not optional; such a target may have no endpoint at the moment.
    pub mandatory: bool,
    /// The check has had a verdict already.
    pub decided: bool,
}

/// Judges a check by its members.
#[must_use]
pub fn aggregate(members: &[Member], demand: Demand) -> Verdict {
    let left_out = |member: &&Member| demand.decided && member.undecided && member.newcomer;
    let newcomers = members.iter().filter(left_out).filter(|member| !member.optional).count() as u32;
    let counted = || members.iter().filter(|member| !left_out(member));
    let mandatory = || counted().filter(|member| !member.optional);
    let mut counts = count(mandatory());
    // Newcomers may yet turn out healthy, so they stand against certainty.
    let hopeful = counts.healthy + counts.unknown + newcomers;
    if counts.total == 0 {
        // Nobody else to ask.
        counts = Counts { total: newcomers, unknown: newcomers, ..counts };
    }
    let min = demand.min.of(counts.total);
    let undecided = || mandatory().filter(|member| member.undecided);
    let optional_down = counted().any(|member| member.optional && !member.undecided && !member.state.is_healthy());
    let optional_pending = || counted().any(|member| member.optional && member.undecided);

    let (health, reason) = if members.is_empty() || (demand.mandatory && counts.total == 0) {
        (Health::Unknown, HealthReason::NoTargets)
    } else if hopeful < min && demand.mandatory {
        (Health::Unhealthy, HealthReason::TargetsUnhealthy)
    } else if undecided().next().is_some() {
        let reason = if undecided().all(|member| member.isolated) {
            HealthReason::ProberIsolated
        } else if undecided().all(|member| member.blind) {
            HealthReason::ProbeError
        } else {
            HealthReason::Pending
        };
        (Health::Unknown, reason)
    } else if (newcomers > 0 && counts.healthy < min) || (!demand.mandatory && optional_pending()) {
        (Health::Unknown, HealthReason::Pending)
    } else if counts.healthy == counts.total {
        if optional_down {
            (Health::Degraded, HealthReason::MinimumMet)
        } else {
            (Health::Healthy, HealthReason::AllTargetsHealthy)
        }
    } else if counts.healthy >= min {
        (Health::Degraded, HealthReason::MinimumMet)
    } else {
        let unknown = || mandatory().filter(|member| member.state == EndpointState::Unknown);
        let reason = if unknown().all(|member| member.isolated) {
            HealthReason::ProberIsolated
        } else if unknown().any(|member| member.stale) {
            HealthReason::Stale
        } else {
            HealthReason::ProbeError
        };
        (Health::Unknown, reason)
    };
    Verdict { health, reason, counts }
}

fn count<'a>(members: impl Iterator<Item = &'a Member>) -> Counts {
    let mut counts = Counts::default();
    for member in members {
        counts.total += 1;
        if member.state.is_healthy() {
            counts.healthy += 1;
        } else if member.state.is_unhealthy() {
            counts.unhealthy += 1;
        } else {
            counts.unknown += 1;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use EndpointState::{Healthy, MostlyHealthy, MostlyUnhealthy, Unhealthy, Unknown};

    const ALL: MinHealthy = MinHealthy::Percent(100);

    fn member(state: EndpointState) -> Member {
        Member {
            state,
            optional: false,
            undecided: false,
            stale: state == Unknown,
            blind: false,
            isolated: false,
            newcomer: false,
        }
    }

    fn optional(state: EndpointState) -> Member {
        Member { optional: true, ..member(state) }
    }

    fn pending() -> Member {
        Member { undecided: true, stale: false, newcomer: true, ..member(Unknown) }
    }

    fn isolated(member: Member) -> Member {
        Member { blind: true, isolated: true, ..member }
    }

    fn demand(min: MinHealthy) -> Demand {
        Demand { min, mandatory: true, decided: false }
    }

    fn decided(min: MinHealthy) -> Demand {
        Demand { decided: true, ..demand(min) }
    }

    fn word(members: &[Member], min: MinHealthy) -> (Health, HealthReason) {
        let verdict = aggregate(members, demand(min));
        (verdict.health, verdict.reason)
    }

    #[test]
    fn the_words() {
        use Health as H;
        use HealthReason as R;
        let one = MinHealthy::Count(1);
        for (members, min, expected) in [
            (vec![], ALL, (H::Unknown, R::NoTargets)),
            (vec![member(Healthy), member(MostlyHealthy)], ALL, (H::Healthy, R::AllTargetsHealthy)),
            (vec![member(Healthy), member(Unhealthy)], ALL, (H::Unhealthy, R::TargetsUnhealthy)),
            (vec![member(Healthy), member(MostlyUnhealthy)], one, (H::Degraded, R::MinimumMet)),
            (vec![member(Unhealthy), pending()], ALL, (H::Unhealthy, R::TargetsUnhealthy)),
            (vec![member(Unhealthy), pending()], one, (H::Unknown, R::Pending)),
            (vec![member(Healthy), pending()], one, (H::Unknown, R::Pending)),
            (vec![Member { blind: true, ..pending() }], one, (H::Unknown, R::ProbeError)),
            (vec![isolated(pending()), isolated(pending())], one, (H::Unknown, R::ProberIsolated)),
            (vec![isolated(pending()), Member { blind: true, ..pending() }], one, (H::Unknown, R::ProbeError)),
            (vec![member(Healthy), member(Unknown)], ALL, (H::Unknown, R::Stale)),
            (vec![member(Healthy), isolated(member(Unknown))], ALL, (H::Unknown, R::ProberIsolated)),
            (vec![member(Unknown), isolated(member(Unknown))], ALL, (H::Unknown, R::Stale)),
            (vec![member(Unhealthy), isolated(member(Healthy))], ALL, (H::Unhealthy, R::TargetsUnhealthy)),
            (vec![member(Healthy), member(Unknown)], one, (H::Degraded, R::MinimumMet)),
            (vec![member(Healthy), optional(Unhealthy)], ALL, (H::Degraded, R::MinimumMet)),
            (vec![member(Healthy), optional(Unknown)], ALL, (H::Degraded, R::MinimumMet)),
            (vec![member(Healthy), Member { optional: true, ..pending() }], ALL, (H::Healthy, R::AllTargetsHealthy)),
            (vec![member(Unhealthy), optional(Healthy)], ALL, (H::Unhealthy, R::TargetsUnhealthy)),
            (vec![member(Unhealthy), optional(Healthy)], MinHealthy::Count(0), (H::Degraded, R::MinimumMet)),
        ] {
            assert_eq!(word(&members, min), expected, "{members:?} with {min:?}");
        }
    }

    #[test]
    fn a_newcomer_does_not_unsettle_a_decided_check() {
        let members = [member(Healthy), member(Healthy), pending()];
        let verdict = aggregate(&members, decided(ALL));
        assert_eq!((verdict.health, verdict.counts.summary()), (Health::Healthy, "2/2".into()));
        let overdue = [member(Healthy), Member { newcomer: false, blind: true, ..pending() }];
        assert_eq!(
            aggregate(&overdue, decided(ALL)).health,
            Health::Unknown,
            "one that never could be probed shows in time"
        );
    }

    #[test]
    fn newcomers_alone_are_pending_and_never_a_certain_outage() {
        let only = aggregate(&[pending(), pending()], decided(ALL));
        assert_eq!((only.reason, only.counts.summary()), (HealthReason::Pending, "0/2".into()));
        let two = decided(MinHealthy::Count(2));
        assert_eq!(aggregate(&[member(Healthy), pending()], two).reason, HealthReason::Pending);
        assert_eq!(aggregate(&[member(Healthy), member(Healthy), pending()], two).health, Health::Healthy);
        assert_eq!(aggregate(&[member(Unhealthy), pending()], two).health, Health::Unhealthy, "not even with it");
        assert_eq!(
            aggregate(&[pending(), optional(Healthy)], decided(ALL)).reason,
            HealthReason::Pending,
            "an optional member speaks for nobody"
        );
        let one = decided(MinHealthy::Count(2));
        assert_eq!(aggregate(&[member(Unhealthy)], one).health, Health::Unhealthy);
    }

    #[test]
    fn a_mandatory_target_without_endpoints_is_not_healthy() {
        for demand in [demand(ALL), decided(ALL), decided(MinHealthy::Count(1))] {
            assert_eq!(aggregate(&[optional(Healthy)], demand).reason, HealthReason::NoTargets);
        }
    }

    #[test]
    fn a_check_of_optional_targets_is_healthy_or_degraded() {
        let demand = Demand { mandatory: false, ..demand(ALL) };
        let waiting = Member { optional: true, ..pending() };
        assert_eq!(aggregate(&[waiting], demand).reason, HealthReason::Pending);
        assert_eq!(aggregate(&[optional(Healthy)], demand).health, Health::Healthy);
        let one = Demand { min: MinHealthy::Count(1), ..demand };
        assert_eq!(aggregate(&[optional(Unhealthy)], one).health, Health::Degraded);
    }

    #[test]
    fn percentages_round_up() {
        assert_eq!(MinHealthy::Percent(50).of(3), 2);
        assert_eq!(MinHealthy::Percent(100).of(3), 3);
        assert_eq!(MinHealthy::Percent(1).of(3), 1);
        assert_eq!(MinHealthy::Percent(0).of(3), 0);
        assert_eq!(MinHealthy::Count(2).of(1), 2);
    }

    fn any_member() -> impl Strategy<Value = Member> {
        (prop::sample::select(&EndpointState::ALL[..]), any::<bool>())
            .prop_map(|(state, optional)| Member { optional, ..member(state) })
    }

    proptest! {
        #[test]
        fn better_members_never_make_a_worse_word(
            members in prop::collection::vec(any_member(), 1..8), min in 0..8_u32, at in any::<prop::sample::Index>(),
        ) {
            let rank = |members: &[Member]| match word(members, MinHealthy::Count(min)).0 {
                Health::Healthy => 3, Health::Degraded => 2, Health::Unknown => 1, Health::Unhealthy => 0,
            };
            let before = rank(&members);
            let mut better = members.clone();
            better[at.index(members.len())].state = Healthy;
            prop_assert!(rank(&better) >= before);
        }

        #[test]
        fn optional_members_never_make_a_check_unhealthy(members in prop::collection::vec(any_member(), 1..8), min in 0..4_u32) {
            let mandatory: Vec<_> = members.iter().copied().filter(|member| !member.optional).collect();
            prop_assume!(!mandatory.is_empty());
            let with = word(&members, MinHealthy::Count(min)).0 == Health::Unhealthy;
            let without = word(&mandatory, MinHealthy::Count(min)).0 == Health::Unhealthy;
            prop_assert_eq!(with, without);
        }

        #[test]
        fn counts_add_up(members in prop::collection::vec(any_member(), 0..20)) {
            let counts = aggregate(&members, decided(ALL)).counts;
            prop_assert_eq!(counts.total, counts.healthy + counts.unhealthy + counts.unknown);
        }
    }
}
