//! One check as the engine keeps it: its members, and the word over them.

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;

use super::{
    aggregate::{self, Demand, Verdict},
    belief::Belief,
    desired::Prior,
    scheduler::GRACE,
    spoken::Spoken,
    stretch::Stretch,
    view::{CheckLive, CheckView, EndpointView, Live, Outage, Remarks},
};
use crate::check::{Check, Dial, EndpointState, Health, HealthReason, Kind, ObjectKey, Reason, Text, clean_message};

/// How many outages a check remembers.
const OUTAGES: usize = 5;
/// How many targets an outage names, at most. The schema of the status says the same.
pub const OUTAGE_TARGETS: usize = 8;
/// How many members the message of a check names.
const NAMED_MEMBERS: usize = 3;

/// A member that is another check.
#[derive(Debug)]
pub(super) struct Composed {
    /// How many endpoints of the check stand before it in declared order.
    pub after: usize,
    pub target: Text,
    pub key: ObjectKey,
    pub optional: bool,
    pub since: Timestamp,
}

/// An endpoint that left, kept for a while in case it returns.
#[derive(Debug)]
pub(super) struct Departed {
    pub target: Text,
    pub identity: Text,
    pub belief: Belief,
    pub dial: Option<Dial>,
    pub probe: Arc<crate::check::Probe>,
    pub at: u64,
}

#[derive(Debug)]
pub(super) struct Group {
    pub check: Arc<Check>,
    /// The records of its endpoints, in declared order.
    pub endpoints: Vec<u32>,
    /// The members that are other checks, in declared order.
    pub composed: Vec<Composed>,
    /// Its endpoints by what a data plane may call them; `None` until somebody asks, and after every change.
    pub places: Option<HashMap<Text, u32>>,
    pub departed: Vec<Departed>,
    pub dirty: bool,
    pub live: Arc<CheckLive>,
    /// Of its rounds lately.
    stretch: Stretch,
    targets: Arc<[Text]>,
    probes: Text,
    pub health: Health,
    pub reason: HealthReason,
    since: Timestamp,
    /// Until then the word of an earlier life stands in for rows that its status had no room for.
    held_until: Option<Timestamp>,
    /// The check has had a verdict.
    pub decided: bool,
    outages: Arc<[Outage]>,
    transitions: [u64; 4],
    /// What operators say of its targets by hand.
    pub spoken: Spoken,
}

/// A member with what is known of it now.
pub(super) struct Row {
    pub view: EndpointView,
    pub undecided: bool,
    pub newcomer: bool,
    pub blind: bool,
}

impl Group {
    pub fn new(check: Arc<Check>, prior: Option<&Prior>, wall: Timestamp) -> Self {
        let mut group = Self {
            endpoints: vec![],
            composed: vec![],
            places: None,
            departed: vec![],
            dirty: false,
            live: Arc::default(),
            stretch: Stretch::default(),
            targets: Arc::default(),
            probes: Text::default(),
            health: Health::Unknown,
            reason: HealthReason::Pending,
            since: wall,
            held_until: None,
            decided: false,
            outages: Arc::default(),
            transitions: [0; 4],
            spoken: Spoken::new(prior),
            check: check.clone(),
        };
        group.set_check(check);
        if let Some(prior) = prior {
            group.health = prior.health;
            group.reason = prior.reason;
            group.since = prior.since;
            let had_one =
                matches!(prior.reason, HealthReason::Stale | HealthReason::ProbeError | HealthReason::ProberIsolated);
            group.decided = prior.health != Health::Unknown || had_one;
            if prior.leaves_out_unknown_rows() {
                group.held_until = Some(wall + group.check.stale_after);
            }
            if !prior.outages.is_empty() {
                group.outages = prior.outages.iter().take(OUTAGES).cloned().collect();
            }
        }
        group
    }

    /// Whether time alone may change it: operators speak of it, or an endpoint has left.
    pub fn passes(&self) -> bool {
        !self.check.overrides.is_empty() || !self.spoken.is_silent() || !self.departed.is_empty()
    }

    /// Drops what left so long ago that it may not come back to its state.
    pub fn forget_departed(&mut self, now: u64) {
        self.departed.retain(|departed| now.saturating_sub(departed.at) < GRACE);
    }

    pub fn set_check(&mut self, check: Arc<Check>) {
        self.targets = check.target_names();
        self.probes = check.probe_kinds();
        self.check = check;
    }

    /// A round of one of its endpoints began, or so many were skipped.
    pub fn note_round(&mut self, note: impl FnOnce(&mut Stretch)) {
        note(&mut self.stretch);
        if self.stretch.is_known(u32::try_from(self.endpoints.len()).unwrap_or(u32::MAX)) {
            self.live.set_stretch(self.stretch.take());
        }
    }

    /// Judges anew from `rows`, and draws the picture for readers.
    pub fn refresh(&mut self, rows: Vec<Row>, wall: Timestamp) -> CheckView {
        let members: Vec<_> = rows
            .iter()
            .map(|row| aggregate::Member {
                state: row.view.state,
                optional: row.view.optional,
                undecided: row.undecided && row.view.state == EndpointState::Unknown,
                stale: row.view.stale,
                blind: row.blind,
                isolated: row.blind && row.view.reason == Some(Reason::ProberIsolated),
                newcomer: row.newcomer,
            })
            .collect();
        let demand = Demand {
            min: self.check.min_healthy,
            mandatory: self.check.targets.iter().any(|target| !target.optional),
            decided: self.decided,
        };
        let mut verdict = aggregate::aggregate(&members, demand);
        if verdict.health == Health::Unknown
            && self.held_until.is_some_and(|until| wall < until)
            && rows.iter().any(|row| row.view.stale)
        {
            verdict = Verdict { health: self.health, reason: self.reason, ..verdict };
        }
        if self.check.suspend {
            verdict = Verdict { health: Health::Unknown, reason: HealthReason::Suspended, ..verdict };
        } else if !matches!(verdict.reason, HealthReason::Pending | HealthReason::NoTargets) {
            self.decided |= verdict.health != Health::Unknown;
        }
        if verdict.health != self.health {
            self.since = wall;
            self.transitions[verdict.health as usize] += 1;
        }
        self.health = verdict.health;
        self.reason = verdict.reason;
        let endpoints: Arc<[EndpointView]> = rows.into_iter().map(|row| row.view).collect();
        self.note_outage(&endpoints, wall);
        CheckView {
            key: self.check.key.clone(),
            uid: self.check.uid.clone(),
            generation: self.check.generation,
            labels: self.check.labels.clone(),
            suspended: self.check.suspend,
            health: verdict.health,
            reason: verdict.reason,
            message: message(verdict.reason, &endpoints),
            since: self.since,
            counts: verdict.counts,
            targets: self.targets.clone(),
            unlisted: Health::Unknown,
            endpoints,
            outages: self.outages.clone(),
            probes: self.probes.clone(),
            interval: self.check.rhythm.interval,
            idle_interval: self.check.rhythm.idle(),
            transitions: self.transitions,
            live: self.live.clone(),
        }
    }

    /// An outage begins when the check becomes Unhealthy and ends when it is known to be better.
    fn note_outage(&mut self, endpoints: &[EndpointView], wall: Timestamp) {
        let open = self.outages.first().is_some_and(|outage| outage.end.is_none());
        match self.health {
            Health::Unhealthy if !open => {
                let failing = || endpoints.iter().filter(|row| !row.optional && row.state.is_unhealthy());
                let mut targets: Vec<String> = failing().map(|row| row.target.to_string()).collect();
                targets.dedup();
                targets.truncate(OUTAGE_TARGETS);
                let reason = failing().find_map(EndpointView::reason_word).unwrap_or(self.reason.as_str());
                let outage = Outage { start: wall, end: None, reason: reason.to_owned(), targets };
                self.outages = std::iter::once(outage).chain(self.outages.iter().cloned()).take(OUTAGES).collect();
            }
            Health::Healthy | Health::Degraded if open => {
                let mut outages = self.outages.to_vec();
                outages[0].end = Some(wall);
                self.outages = outages.into();
            }
            _ => {}
        }
    }
}

/// What is wrong, in one line: the members that are not healthy, failing ones first, and those that are by an operator's
/// word alone.
fn message(reason: HealthReason, endpoints: &[EndpointView]) -> String {
    match reason {
        HealthReason::Suspended => return "suspended".to_owned(),
        HealthReason::NoTargets => return "no endpoints".to_owned(),
        _ => {}
    }
    // An optional member that is yet undecided takes nothing from a check in which all is well.
    let well = reason == HealthReason::AllTargetsHealthy;
    let unknown = endpoints.iter().filter(|row| !well && row.state == EndpointState::Unknown);
    let said = endpoints.iter().filter(|row| row.overridden.is_some() && row.state.is_healthy());
    let bad: Vec<_> = endpoints.iter().filter(|row| row.state.is_unhealthy()).chain(unknown).chain(said).collect();
    let mut text = String::new();
    for row in bad.iter().take(NAMED_MEMBERS) {
        if !text.is_empty() {
            text.push_str("; ");
        }
        text.push_str(&row.target);
        // One target may have many endpoints; which one is it?
        let siblings = endpoints.iter().filter(|other| other.target == row.target).take(2).count();
        if siblings > 1 {
            text.push(' ');
            text.push_str(&row.label);
        }
        text.push_str(": ");
        text.push_str(match (&*row.message, row.stale) {
            ("", true) => "verdict is too old",
            ("", false) => "no verdict yet",
            (message, _) => message,
        });
    }
    if bad.len() > NAMED_MEMBERS {
        text.push_str(&format!("; and {} more", bad.len() - NAMED_MEMBERS));
    }
    clean_message(&text)
}

/// The row of a member that is another check.
pub(super) fn member_row(composed: &Composed, member: Option<&Group>) -> Row {
    let Composed { target, optional, since, .. } = composed;
    let (state, decided, pending, told, since) = match member {
        None => (EndpointState::Unknown, false, false, "no such HealthCheck".to_owned(), *since),
        Some(group) => {
            let state = match group.health {
                Health::Healthy | Health::Degraded => EndpointState::Healthy,
                Health::Unhealthy => EndpointState::Unhealthy,
                Health::Unknown => EndpointState::Unknown,
            };
            let told = match group.health {
                Health::Healthy => String::new(),
                health => format!("HealthCheck {} is {health} ({})", group.check.key.name, group.reason),
            };
            let pending = group.reason == HealthReason::Pending;
            (state, group.decided || group.check.suspend, pending, told, group.since)
        }
    };
    Row {
        view: EndpointView {
            target: target.clone(),
            label: Text::default(),
            identity: target.clone(),
            kind: Kind::HealthCheck,
            optional: *optional,
            state,
            stale: decided && state == EndpointState::Unknown,
            measured: decided,
            since: since.into(),
            named: false,
            remarks: Remarks { message: told.into(), ..Remarks::default() }.kept(),
            live: Live::default(),
        },
        undecided: !decided,
        // One that is not pending and yet undecided has nothing that could decide it.
        newcomer: pending && !decided,
        blind: false,
    }
}
