//! A frozen gate: no verdict of a loss is followed.
//!
//! What was published stays, and what was withheld stays withheld, with three exceptions, none of which takes the
//! prober's word for a loss:
//! - an endpoint that is new and healthy is let in. A success is no sign of our own fault, and the mend for a large loss
//!   is often a rollout, which would otherwise wait for the end of the freeze, and the freeze for the rollout. In a
//!   correlated loss one that has come back is let in too: the prober sees, and a freeze may last as long as the loss;
//! - where nothing at all would be published, what is new is let in, as far as the policies allow it;
//! - an operator's override acts. Those that call something Unhealthy act together or, if floor or cap forbid it, wait.
//!
//! Where only some members were lost together, it is these that are frozen: see [`desire`]. The limits then look at all,
//! and a lost one counts as desired where it was both published and wanted before.

use super::{
    Freeze, Last, Member, Verdict,
    decide::{Gate, Ruling, Why, is_new},
};
use crate::check::{GatePolicy, Word};

pub(super) fn apply(gate: &mut Gate<'_>, freeze: Freeze) {
    for at in 0..gate.members.len() {
        let member = &gate.members[at];
        let desired = gate.rulings[at].published();
        let stays = member.last.is_some_and(|last| last.published);
        let joins = is_good(member) && (freeze.believes_success() || is_new(member));
        let published = stays || joins || member.word == Some(Word::Healthy);
        if published != desired {
            gate.rule(at, published, Why::Frozen);
        }
    }
    obey_removals(gate);
    admit_new_rather_than_none(gate);
    remember(gate);
}

/// Healthy, and nothing speaks against letting it in.
fn is_good(member: &Member) -> bool {
    member.verdict == Verdict::Healthy && !member.flapping && member.word.is_none()
}

/// What is asked for of a member that was lost, in a gate of which others were not. `ruling` is what its verdict asks
/// for. It stays as it was, and its successes are followed.
pub(super) fn desire(member: &Member, ruling: Ruling) -> (Ruling, bool) {
    let last = member.last.filter(|_| !is_new(member));
    let was = last.is_some_and(|last| last.published);
    let joins = is_good(member);
    // What a limit published against the verdict does not count as desired, now or later.
    let wanted = joins || last.is_some_and(|last| last.published && last.wanted);
    let kept = Last { wanted, ..ruling.last };
    let published = joins || was;
    let why = if published == ruling.published() { ruling.why } else { Why::Frozen };
    (Ruling { last: Last { published, ..kept }, why }, wanted)
}

/// Whether an operator asks to take it out of what was published.
fn is_removal(member: &Member) -> bool {
    member.word == Some(Word::Unhealthy) && member.last.is_some_and(|last| last.published)
}

fn obey_removals(gate: &mut Gate<'_>) {
    let removals: Vec<_> = (0..gate.members.len()).filter(|at| is_removal(&gate.members[*at])).collect();
    let before = gate.rulings.iter().filter(|ruling| ruling.published()).count();
    let enough = before - removals.len() >= gate.floor.min(before);
    let out = |at: &&usize| !gate.rulings[**at].published();
    let held_back = gate.counted.iter().filter(out).count();
    let counted = removals.iter().filter(|at| gate.counted.binary_search(at).is_ok()).count();
    let within = held_back + counted <= gate.removable.max(held_back);
    if enough && within {
        for at in removals {
            gate.rule(at, false, Why::Override);
        }
    }
}

fn admit_new_rather_than_none(gate: &mut Gate<'_>) {
    let nothing = !gate.rulings.iter().any(|ruling| ruling.published());
    let allowed = gate.limits.when_unknown != GatePolicy::FailClosed
        && if gate.floor == 0 {
            // None may be the right number, unless nobody has decided anything yet.
            gate.members.iter().all(is_new)
        } else {
            gate.limits.when_below != GatePolicy::FailClosed
        };
    if !nothing || !allowed {
        return;
    }
    let new = |at: &usize| is_new(&gate.members[*at]) && gate.members[*at].word.is_none();
    let new: Vec<_> = (0..gate.members.len()).filter(new).collect();
    let probed = |at: &usize| gate.members[*at].verdict != Verdict::NeverProbed;
    let any_probed = new.iter().any(probed);
    for at in new {
        if !any_probed || gate.members[at].verdict != Verdict::NeverProbed {
            gate.rule(at, true, Why::Frozen);
        }
    }
}

/// What is doubted now must not be what `FailStatic` remembers later.
fn remember(gate: &mut Gate<'_>) {
    for (ruling, member) in gate.rulings.iter_mut().zip(gate.members) {
        if let Some(last) = member.last.filter(|_| !is_new(member)) {
            ruling.last.wanted = last.wanted;
        }
        ruling.last.newcomer = is_new(member) && !ruling.published();
    }
}
