//! What is found by a search, put where it belongs, worst first.

use std::sync::Arc;

use crate::{
    check::Health,
    engine::CheckView,
    server::{
        config::Details,
        query::Search,
        verdict::{Verdict, check_why, endpoint_why},
    },
};

/// Where a check belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shelf {
    Unhealthy,
    Unknown,
    Degraded,
    Healthy,
    Suspended,
}

/// In the order of the page: the worst word first, as the words beat each other in the aggregate.
pub const SHELVES: [Shelf; 5] = [Shelf::Unhealthy, Shelf::Unknown, Shelf::Degraded, Shelf::Healthy, Shelf::Suspended];

impl Shelf {
    /// Where `view` belongs, if the board may be believed or not.
    pub fn of(verdict: &Verdict, view: &CheckView) -> Self {
        match verdict.health_of(view) {
            _ if view.suspended => Self::Suspended,
            Health::Unhealthy => Self::Unhealthy,
            Health::Unknown => Self::Unknown,
            Health::Degraded => Self::Degraded,
            Health::Healthy => Self::Healthy,
        }
    }

    pub const fn word(self) -> &'static str {
        match self {
            Self::Unhealthy => Health::Unhealthy.as_str(),
            Self::Unknown => Health::Unknown.as_str(),
            Self::Degraded => Health::Degraded.as_str(),
            Self::Healthy => Health::Healthy.as_str(),
            Self::Suspended => "Suspended",
        }
    }

    /// How many checks of `verdict` belong here.
    pub fn count(self, verdict: &Verdict) -> u32 {
        let totals = &verdict.totals;
        match self {
            Self::Suspended => totals.suspended,
            Self::Unknown if !verdict.believed => totals.by_health.iter().sum(),
            _ if !verdict.believed => 0,
            Self::Unhealthy => totals.count(Health::Unhealthy),
            Self::Unknown => totals.count(Health::Unknown),
            Self::Degraded => totals.count(Health::Degraded),
            Self::Healthy => totals.count(Health::Healthy),
        }
    }
}

/// The checks that were found.
#[derive(Debug)]
pub struct Shelves<'a> {
    /// In the order of [`SHELVES`].
    shelves: [Vec<&'a Arc<CheckView>>; 5],
    /// Out of how many they were found.
    pub searched: usize,
}

impl<'a> Shelves<'a> {
    /// Sorts the checks of `verdict` that `search` finds. What has lasted longest comes first: one outage is often the
    /// cause of those that followed it.
    pub fn sort(verdict: &'a Verdict, search: &Search, details: Details) -> Self {
        let mut shelves: [Vec<&Arc<CheckView>>; 5] = Default::default();
        let mut text = String::new();
        for view in &verdict.checks {
            if search.is_empty() || finds(search, &mut text, verdict, view, details) {
                shelves[Shelf::of(verdict, view) as usize].push(view);
            }
        }
        for shelf in [Shelf::Unhealthy, Shelf::Unknown, Shelf::Degraded] {
            // Stable, and they came by namespace and name.
            shelves[shelf as usize].sort_by_key(|view| view.since);
        }
        let searched = verdict.checks.len();
        Self { shelves, searched }
    }

    pub fn on(&self, shelf: Shelf) -> &[&'a Arc<CheckView>] {
        &self.shelves[shelf as usize]
    }

    pub fn len(&self) -> usize {
        self.shelves.iter().map(Vec::len).sum()
    }

    pub fn all(&self) -> impl Iterator<Item = &'a Arc<CheckView>> + use<'_, 'a> {
        self.shelves.iter().flatten().copied()
    }
}

/// Whether `search` finds `view` by what `details` allow to be shown of it: what is hidden is not found either, or it
/// could be guessed. `text` is scratch space.
fn finds(search: &Search, text: &mut String, verdict: &Verdict, view: &CheckView, details: Details) -> bool {
    text.clear();
    let mut add = |part: &str| {
        text.push_str(part);
        text.push('\n');
    };
    add(&view.key.to_string());
    add(Shelf::of(verdict, view).word());
    add(view.reason.as_str());
    add(&check_why(view));
    if details == Details::Full {
        view.labels.iter().for_each(|(key, value)| add(&format!("{key}={value}")));
    }
    for endpoint in verdict.endpoints(view) {
        add(&endpoint.target);
        add(verdict.state_of(endpoint).as_str());
        add(endpoint.reason_word().unwrap_or_default());
        add(&endpoint_why(endpoint));
        if details == Details::Full {
            add(&endpoint.label);
            endpoint.addresses.iter().flat_map(|addresses| addresses.iter()).for_each(|address| add(&address.label));
        }
    }
    text.make_ascii_lowercase();
    search.words().all(|word| text.contains(word))
}
