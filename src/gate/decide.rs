//! The decision: desired → limited → published. Pure, and the only place that says what a gate publishes.
//!
//! 1. *Desired*, per endpoint: what its verdict says, or, where an operator has spoken, the operator. Without a verdict
//!    that may be believed `whenUnknown` decides. An endpoint that was never probed is not desired.
//! 2. *Floor*: fewer desired than `minReady`, and `whenBelow` decides in place of the verdicts. Under `FailOpen` and
//!    `FailStatic` at least `minReady` are published, as far as there are endpoints: where the last set has become
//!    smaller than that, it is filled up.
//! 3. *Hold*: what flaps waits before it is let in again, unless the floor needs it.
//! 4. *Cap*: more held back than `maxRemovedPercent` allows, and the surplus stays published, whatever `whenBelow` says.
//!
//! Where some of several have to be chosen, the order is: desired; healthy most recently; stable hash; and last of all
//! what an operator called Unhealthy.
//!
//! An operator's word counts as a verdict: it beats the probe and the flap hold, and acts in a frozen gate too, since
//! it does not come from the prober. It still passes floor and cap: a typing error must not take a Service down.
//!
//! A member that was lost together with most others stays as it was, whatever the rest of the gate does: see `frozen`.
//!
//! Floor and cap count the endpoints that were probed, and a percentage is of these: a scale-up must not look like a
//! loss. Where none was probed yet they count all; and where none of those that were is any good, what was let in then
//! counts on, so that the first verdict does not leave all traffic to the one endpoint that is known to be dead.

use super::{Freeze, Last, Member, Verdict, frozen};
use crate::{
    check::{GateLimits, GatePolicy, Word},
    engine::stable_hash,
};

/// The rule that had the last word: status `gates[].effective` and the reason of `GatesApplied`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effective {
    /// The verdicts, and nothing else.
    Enforced,
    /// `whenBelow` or `whenUnknown` says so.
    FailOpen,
    FailStatic,
    FailClosed,
    /// The cap keeps what would be held back.
    Capped,
    /// No verdict is followed for now.
    Frozen,
    /// A flap hold or an operator's override changes what the verdicts say.
    Held,
}

impl Effective {
    pub const ALL: [Self; 7] =
        [Self::Enforced, Self::FailOpen, Self::FailStatic, Self::FailClosed, Self::Capped, Self::Frozen, Self::Held];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enforced => "Enforced",
            Self::FailOpen => "FailOpen",
            Self::FailStatic => "FailStatic",
            Self::FailClosed => "FailClosed",
            Self::Capped => "Capped",
            Self::Frozen => "Frozen",
            Self::Held => "Held",
        }
    }
}

impl From<GatePolicy> for Effective {
    fn from(policy: GatePolicy) -> Self {
        match policy {
            GatePolicy::FailOpen => Self::FailOpen,
            GatePolicy::FailStatic => Self::FailStatic,
            GatePolicy::FailClosed => Self::FailClosed,
        }
    }
}

/// What decided about one endpoint, published or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// Its verdict.
    Verdict,
    /// An operator's override.
    Override,
    /// `whenUnknown`: there is no verdict that may be believed.
    Unknown,
    /// It was never probed.
    NeverProbed,
    /// It flaps, and waits.
    Flapping,
    /// `whenBelow`.
    Below,
    /// The floor needs it, though neither verdict nor hold would have it.
    Floor,
    /// The cap allows no more to be held back.
    Cap,
    /// The gate is frozen.
    Frozen,
}

/// The decision about one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ruling {
    /// To be handed back as [`Member::last`] the next time.
    pub last: Last,
    pub why: Why,
}

impl Ruling {
    /// Whether it is published as ready.
    #[must_use]
    pub const fn published(&self) -> bool {
        self.last.published
    }
}

/// The decision about all endpoints of a gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub effective: Effective,
    /// How many the verdicts, the operator and `whenUnknown` want, before any limit.
    pub desired: u32,
    /// How many are published as ready.
    pub published: u32,
    /// How many are not.
    pub withheld: u32,
    /// How many `minReady` asks for.
    pub floor: u32,
    /// Fewer are desired than that. A frozen gate does not ask.
    pub below: bool,
    /// One per member, in the order given.
    pub rulings: Vec<Ruling>,
}

/// Decides what a gate publishes. `seed` makes the ties of one check fall differently from another's: its UID.
///
/// Handing the rulings back as [`Member::last`] gives the same again, and the order of `members` does not matter.
#[must_use]
pub fn decide(members: &[Member], limits: &GateLimits, freeze: Option<Freeze>, seed: &str) -> Decision {
    let freeze = whole(members, freeze);
    let mut gate = Gate::new(members, limits, freeze, seed);
    // Where there is nothing to publish, no rule decides.
    let below = freeze.is_none() && !members.is_empty() && gate.desired() < gate.floor;
    if let Some(freeze) = freeze {
        frozen::apply(&mut gate, freeze);
    } else {
        if below {
            gate.fall_back()
        } else {
            gate.hold()
        }
        gate.cap();
        gate.note_newcomers();
    }
    let published = gate.rulings.iter().filter(|ruling| ruling.published()).count();
    Decision {
        effective: if freeze.is_some() { Effective::Frozen } else { gate.effective(below) },
        desired: gate.desired() as u32,
        published: published as u32,
        withheld: (members.len() - published) as u32,
        floor: gate.floor as u32,
        below,
        rulings: gate.rulings,
    }
}

/// Why the gate as a whole is frozen: it is where all its members were lost together.
pub(super) fn whole(members: &[Member], freeze: Option<Freeze>) -> Option<Freeze> {
    let all_lost = !members.is_empty() && members.iter().all(|member| member.lost);
    freeze.or(all_lost.then_some(Freeze::CorrelatedFailure))
}

/// A decision in the making.
pub(super) struct Gate<'a> {
    pub(super) members: &'a [Member],
    pub(super) limits: &'a GateLimits,
    seed: &'a str,
    /// Starts as what is desired.
    pub(super) rulings: Vec<Ruling>,
    desired: Vec<bool>,
    /// The endpoints that floor and cap count, in order: see the module's own words.
    pub(super) counted: Vec<usize>,
    pub(super) floor: usize,
    /// How many of the counted ones may be held back.
    pub(super) removable: usize,
}

impl<'a> Gate<'a> {
    fn new(members: &'a [Member], limits: &'a GateLimits, freeze: Option<Freeze>, seed: &'a str) -> Self {
        let desire = |member| {
            let ruling = desire(member, limits.when_unknown);
            if freeze.is_none() && is_frozen(member) {
                frozen::desire(member, ruling)
            } else {
                (ruling, ruling.published())
            }
        };
        let (rulings, desired): (Vec<_>, Vec<bool>) = members.iter().map(desire).unzip();
        let mut counted: Vec<_> = (0..members.len()).filter(|at| was_probed(&members[*at])).collect();
        let mut removable = counted.len() * usize::from(limits.max_removed_percent.min(100)) / 100;
        if counted.is_empty() {
            counted = (0..members.len()).collect();
            // What was never let in is not removed.
            removable = counted.len();
        } else if freeze.is_none()
            && limits.when_below != GatePolicy::FailClosed
            && limits.min_ready.of(counted.len() as u32) > 0
            && !desired.contains(&true)
        {
            let let_in = |at: &usize| members[*at].last.is_some_and(|last| last.published);
            counted.extend((0..members.len()).filter(|at| !was_probed(&members[*at])).filter(let_in));
            counted.sort_unstable();
        }
        Self {
            members,
            limits,
            seed,
            desired,
            rulings,
            floor: limits.min_ready.of(counted.len() as u32) as usize,
            counted,
            removable,
        }
    }

    fn desired(&self) -> usize {
        self.desired.iter().filter(|desired| **desired).count()
    }

    pub(super) fn rule(&mut self, at: usize, published: bool, why: Why) {
        let ruling = &mut self.rulings[at];
        ruling.last.published = published;
        ruling.why = why;
    }

    /// Too few are desired.
    fn fall_back(&mut self) {
        for at in self.counted.clone() {
            let member = &self.members[at];
            let last = member.last;
            let never_decided = member.verdict == Verdict::NeverProbed && is_new(member);
            match self.limits.when_below {
                // Here, where a limit decides and not a verdict, even one that was never probed may be published:
                // it is counted only where nothing else is.
                GatePolicy::FailOpen if !self.rulings[at].published() => self.rule(at, true, Why::Below),
                // What is desired is let in too: a healthy endpoint must not wait behind dead ones.
                GatePolicy::FailStatic
                    if !self.rulings[at].published() && (never_decided || last.is_none_or(|last| last.published)) =>
                {
                    self.rule(at, true, Why::Below);
                }
                // Otherwise `minReady` would mean nothing here: too few is as good as none.
                // What was lost together with most others is taken out by nobody.
                GatePolicy::FailClosed if self.desired[at] && !is_frozen(member) => self.rule(at, false, Why::Below),
                _ => {}
            }
        }
        if self.limits.when_below != GatePolicy::FailClosed {
            self.fill(self.floor, Why::Floor);
        }
    }

    /// Enough are desired: what flaps may wait, as far as the floor can do without it.
    fn hold(&mut self) {
        for at in self.counted.clone() {
            let member = &self.members[at];
            let out = !member.last.is_some_and(|last| last.published);
            if self.desired[at] && member.flapping && out && member.word.is_none() {
                self.rule(at, false, Why::Flapping);
            }
        }
        self.fill(self.floor, Why::Floor);
    }

    fn cap(&mut self) {
        self.fill(self.counted.len() - self.removable, Why::Cap);
    }

    /// Publishes more of the counted ones, in order of preference, until `goal` are.
    fn fill(&mut self, goal: usize, why: Why) {
        let (inside, mut outside): (Vec<usize>, Vec<usize>) =
            self.counted.iter().partition(|at| self.rulings[**at].published());
        let missing = goal.saturating_sub(inside.len());
        if missing == 0 {
            return;
        }
        outside.sort_by_cached_key(|at| self.preference(*at));
        for at in outside.into_iter().take(missing) {
            self.rule(at, true, why);
        }
    }

    /// Less is better. It does not look at what was last published, so that the choice depends on the present alone.
    fn preference(&self, at: usize) -> impl Ord + use<> {
        let member = &self.members[at];
        let class = match (member.word, self.desired[at], member.flapping) {
            (Some(Word::Unhealthy), ..) => 3,
            (_, false, _) => 2,
            (_, true, true) => 1,
            (_, true, false) => 0,
        };
        let healthy = (member.verdict == Verdict::Healthy, member.last_healthy.filter(|_| !is_healthy(member)));
        (class, std::cmp::Reverse(healthy), stable_hash(&[self.seed, &member.identity]), member.identity.clone())
    }

    fn note_newcomers(&mut self) {
        for (ruling, member) in self.rulings.iter_mut().zip(self.members) {
            ruling.last.newcomer = member.verdict == Verdict::NeverProbed && is_new(member) && !ruling.published();
        }
    }

    fn effective(&self, below: bool) -> Effective {
        let any = |why: &[Why]| self.rulings.iter().any(|ruling| why.contains(&ruling.why));
        let spoken = self.members.iter().any(|member| member.word.is_some());
        if any(&[Why::Cap]) {
            Effective::Capped
        } else if below {
            self.limits.when_below.into()
        } else if self.members.iter().any(|member| member.lost) {
            Effective::Frozen
        } else if self.members.iter().any(|member| member.verdict == Verdict::Stale && member.word.is_none()) {
            self.limits.when_unknown.into()
        } else if spoken || any(&[Why::Flapping, Why::Floor]) {
            Effective::Held
        } else {
            Effective::Enforced
        }
    }
}

/// What the verdict, or the operator, asks for.
fn desire(member: &Member, when_unknown: GatePolicy) -> Ruling {
    let (wanted, why) = match member.verdict {
        Verdict::Healthy => (true, Why::Verdict),
        Verdict::Unhealthy => (false, Why::Verdict),
        Verdict::NeverProbed => (false, Why::NeverProbed),
        Verdict::Stale => {
            let wanted = match when_unknown {
                GatePolicy::FailOpen => true,
                GatePolicy::FailStatic => member.last.is_none_or(|last| last.wanted),
                GatePolicy::FailClosed => false,
            };
            (wanted, Why::Unknown)
        }
    };
    let (published, why) = match member.word {
        Some(word) => (word == Word::Healthy, Why::Override),
        None => (wanted, why),
    };
    Ruling { last: Last { published, wanted, newcomer: false }, why }
}

/// Whether it may be published beside others: a probe, or an operator who calls it Healthy, vouches for it.
fn was_probed(member: &Member) -> bool {
    member.verdict != Verdict::NeverProbed || member.word == Some(Word::Healthy)
}

/// Whether a loss of it is not followed. An operator's word is, and what was never probed was not lost.
fn is_frozen(member: &Member) -> bool {
    member.lost && member.word.is_none() && member.verdict != Verdict::NeverProbed
}

fn is_healthy(member: &Member) -> bool {
    member.verdict == Verdict::Healthy
}

/// Whether no decision has let it in or kept it out for a verdict so far.
pub(super) fn is_new(member: &Member) -> bool {
    member.last.is_none_or(|last| last.newcomer)
}
