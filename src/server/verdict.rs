//! What is asked, and the verdict over it: read off the board, nothing else.

use std::{collections::HashSet, sync::Arc};

use crate::{
    check::{EndpointState, Health, ObjectKey, PodSelector},
    engine::{Board, CheckView, EndpointView, Totals},
};

/// Why nothing on a board that is not current may be believed.
pub(super) const NOT_CURRENT: &str = "the board is not current: not filled yet, or the engine has stalled";

/// What a request asks about.
#[derive(Clone, Debug)]
pub enum Subject {
    All,
    Namespace(String),
    Check(ObjectKey),
    /// All endpoints of one target of a check.
    Target(ObjectKey, String),
}

/// Which checks of a subject count.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub selector: PodSelector,
    pub excluded: HashSet<ObjectKey>,
}

impl Filter {
    fn is_everything(&self) -> bool {
        self.excluded.is_empty() && self.selector == PodSelector::default()
    }
}

/// The verdict over a subject, and what it was made of.
#[derive(Debug)]
pub struct Verdict {
    pub subject: Subject,
    pub health: Health,
    pub totals: Totals,
    /// The checks that were asked about, suspended ones too. Empty where nobody asked for them.
    pub checks: Vec<Arc<CheckView>>,
    /// What was to be left out and is not there; sorted.
    pub missing: Vec<ObjectKey>,
    /// Whether the board may be believed. If not, `health` and every state read as Unknown.
    pub believed: bool,
}

/// There is no such namespace, check or target, or nothing that is labelled so.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotFound(String);

/// Judges `subject`. The checks themselves are gathered only where `listed`: the verdict over everything costs nothing
/// without them, however many there are.
///
/// # Errors
/// When the board is current and does not know the subject. One that is not current cannot tell, and says Unknown.
pub fn judge(board: &Board, subject: Subject, filter: &Filter, listed: bool) -> Result<Verdict, NotFound> {
    let believed = board.is_current();
    let (totals, checks) = match &subject {
        Subject::All if !listed && filter.is_everything() => (board.totals(), Vec::new()),
        Subject::All => filtered(board.all(), filter, believed)?,
        Subject::Namespace(namespace) => {
            let all = board.namespace(namespace);
            if believed && all.is_empty() {
                return Err(NotFound(format!("no HealthCheck in namespace {namespace:?}")));
            }
            filtered(all, filter, believed)?
        }
        Subject::Check(key) | Subject::Target(key, _) => match board.get(key) {
            Some(view) => filtered(vec![view], filter, believed)?,
            None if believed => return Err(NotFound(format!("no HealthCheck {:?}", key.to_string()))),
            None => Default::default(),
        },
    };
    let mut missing: Vec<_> = filter.excluded.iter().filter(|key| board.get(key).is_none()).cloned().collect();
    missing.sort();
    let mut verdict = Verdict { subject, health: Health::Unknown, totals, checks, missing, believed };
    if believed {
        verdict.health = health(&verdict)?;
    }
    Ok(verdict)
}

/// A selector that matches nothing is taken for a name that does not exist: whoever mistyped it must not read health.
/// What is excluded may well have been deleted meanwhile.
fn filtered(
    mut views: Vec<Arc<CheckView>>,
    filter: &Filter,
    believed: bool,
) -> Result<(Totals, Vec<Arc<CheckView>>), NotFound> {
    if filter.selector != PodSelector::default() {
        views.retain(|view| filter.selector.matches(&view.labels));
        if views.is_empty() && believed {
            return Err(NotFound("no HealthCheck asked about matches labelSelector".into()));
        }
    }
    views.retain(|view| !filter.excluded.contains(&view.key));
    let mut totals = Totals::default();
    views.iter().for_each(|view| totals.add(view));
    Ok((totals, views))
}

fn health(verdict: &Verdict) -> Result<Health, NotFound> {
    let Some(view) = verdict.checks.first() else { return Ok(verdict.totals.health()) };
    match &verdict.subject {
        Subject::All | Subject::Namespace(_) => Ok(verdict.totals.health()),
        // Left out of the set, here as everywhere: whoever suspends a check must not take its traffic down with it.
        Subject::Check(_) if view.suspended => Ok(Health::Healthy),
        Subject::Check(_) => Ok(view.health),
        Subject::Target(key, target) => {
            if !view.has_target(target) {
                return Err(NotFound(format!("no target {target:?} in HealthCheck \"{key}\"")));
            }
            if view.suspended {
                return Ok(Health::Healthy);
            }
            let endpoints = view.endpoints.iter().filter(|endpoint| *endpoint.target == **target);
            Ok(worst(endpoints).unwrap_or(view.unlisted))
        }
    }
}

/// Unhealthy beats Unknown beats Healthy, as over objects. `None` of no endpoints.
fn worst<'a>(endpoints: impl Iterator<Item = &'a EndpointView>) -> Option<Health> {
    let rank = |state: EndpointState| match state {
        state if state.is_unhealthy() => 2,
        EndpointState::Unknown => 1,
        _ => 0,
    };
    endpoints.map(|endpoint| rank(endpoint.state)).max().map(|worst| match worst {
        2 => Health::Unhealthy,
        1 => Health::Unknown,
        _ => Health::Healthy,
    })
}

impl Verdict {
    /// Over `checks` as they are given, whatever the board says of them.
    ///
    /// # Errors
    /// When the target asked about is not declared.
    pub fn over(self, checks: Vec<Arc<CheckView>>) -> Result<Self, NotFound> {
        let mut totals = Totals::default();
        checks.iter().for_each(|view| totals.add(view));
        let mut verdict = Self { totals, checks, believed: true, ..self };
        verdict.health = health(&verdict)?;
        Ok(verdict)
    }

    /// Over no checks at all.
    pub fn empty(subject: Subject) -> Self {
        Self {
            subject,
            health: Health::Healthy,
            totals: Totals::default(),
            checks: Vec::new(),
            missing: Vec::new(),
            believed: true,
        }
    }

    /// What may be said of a check of this verdict.
    #[must_use]
    pub fn health_of(&self, view: &CheckView) -> Health {
        if self.believed { view.health } else { Health::Unknown }
    }

    /// What may be said of an endpoint of this verdict.
    #[must_use]
    pub fn state_of(&self, endpoint: &EndpointView) -> EndpointState {
        if self.believed { endpoint.state } else { EndpointState::Unknown }
    }

    /// The endpoints of `view` that were asked about.
    pub fn endpoints<'a>(&self, view: &'a CheckView) -> impl Iterator<Item = &'a EndpointView> + use<'a> {
        let only = match &self.subject {
            Subject::Target(_, target) => Some(target.clone()),
            _ => None,
        };
        view.endpoints.iter().filter(move |endpoint| only.as_deref().is_none_or(|target| *endpoint.target == *target))
    }

    /// Why the health is what it is, in one line for people; empty when nothing is to be told.
    #[must_use]
    pub fn why(&self) -> String {
        if !self.believed {
            return NOT_CURRENT.into();
        }
        match (&self.subject, self.checks.first()) {
            (Subject::Check(_), Some(view)) => check_why(view),
            (Subject::Target(..), Some(view)) => {
                let of_this = |endpoint: &&EndpointView| worst(std::iter::once(*endpoint)) == Some(self.health);
                match self.endpoints(view).next() {
                    None if self.health == Health::Unknown => "no endpoints".into(),
                    _ => self.endpoints(view).find(of_this).map(endpoint_why).unwrap_or_default(),
                }
            }
            _ => self.counts(),
        }
    }

    fn counts(&self) -> String {
        let count = |health: Health| format!("{} {}", self.totals.count(health), health.as_str().to_lowercase());
        let mut text = Health::ALL.map(count).join(", ");
        if self.totals.suspended > 0 {
            text.push_str(&format!(", {} suspended", self.totals.suspended));
        }
        for key in &self.missing {
            text.push_str(&format!("; exclude: no HealthCheck \"{key}\""));
        }
        text
    }
}

/// Why a check is not Healthy: its message, or its reason where it has none; empty when it is.
pub(super) fn check_why(view: &CheckView) -> String {
    match (view.health, view.message.as_str()) {
        (Health::Healthy, "") => String::new(),
        (_, "") => view.reason.as_str().into(),
        (_, message) => message.into(),
    }
}

/// Why the last attempt on an endpoint did not succeed; empty when it did.
pub(super) fn endpoint_why(endpoint: &EndpointView) -> String {
    match (&*endpoint.message, endpoint.reason) {
        ("", None) if endpoint.stale => "stale".into(),
        ("", reason) => reason.map(|reason| reason.as_str().to_owned()).unwrap_or_default(),
        (message, _) => message.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(board: &Board, subject: Subject, filter: &Filter, listed: bool) -> Verdict {
        judge(board, subject, filter, listed).expect("the subject is there")
    }

    #[test]
    fn the_verdict_over_everything_gathers_no_check_unless_asked() {
        let view = |number: usize| CheckView {
            key: ObjectKey::new("shop", &format!("check-{number}")),
            uid: "uid".into(),
            generation: 1,
            labels: Arc::default(),
            suspended: false,
            health: Health::Degraded,
            reason: crate::check::HealthReason::MinimumMet,
            message: String::new(),
            since: jiff::Timestamp::UNIX_EPOCH,
            counts: crate::check::Counts::default(),
            targets: Arc::default(),
            unlisted: Health::Unknown,
            endpoints: Arc::default(),
            outages: Arc::default(),
            probes: "tcp".into(),
            interval: std::time::Duration::from_secs(1),
            idle_interval: std::time::Duration::from_secs(1),
            transitions: [0; 4],
            live: Arc::default(),
        };
        let board = Board::new();
        board.publish((0..100).map(view).collect(), &[]);
        board.set_synced();
        let all = Filter::default();
        let quick = verdict(&board, Subject::All, &all, false);
        assert_eq!((quick.health, quick.checks.len()), (Health::Degraded, 0));
        assert_eq!(verdict(&board, Subject::All, &all, true).checks.len(), 100);
        let filter = Filter { excluded: HashSet::from([ObjectKey::new("shop", "check-7")]), ..Filter::default() };
        let filtered = verdict(&board, Subject::All, &filter, false);
        assert_eq!((filtered.checks.len(), filtered.totals.count(Health::Degraded)), (99, 99));
        assert_eq!(filtered.why(), "0 healthy, 99 degraded, 0 unhealthy, 0 unknown");
        assert_eq!(quick.why(), "0 healthy, 100 degraded, 0 unhealthy, 0 unknown");
    }
}
