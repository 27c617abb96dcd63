//! What operators say of a check's targets by hand, and what follows for what is shown of them.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{
    desired::Prior,
    group::Row,
    view::{Overridden, Remarks},
};
use crate::check::{EndpointState, Overrides, Text, Word, clean_message};

/// The words in force at the last look, by target.
#[derive(Debug, Default)]
pub(super) struct Spoken {
    words: BTreeMap<Text, Said>,
    /// Since when an earlier life has shown each target as it did.
    earlier: Vec<(String, EndpointState, Timestamp)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Said {
    word: Word,
    since: Timestamp,
    until: Timestamp,
}

/// What a look has found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    /// Targets whose override has ended, or says something else now.
    pub ended: Vec<Text>,
    /// Whether anything is to be shown otherwise.
    pub changed: bool,
}

impl Spoken {
    pub fn new(prior: Option<&Prior>) -> Self {
        let rows = prior.into_iter().flat_map(|prior| &prior.endpoints);
        let earlier = rows.map(|row| (row.target.clone(), row.state, row.since)).collect();
        Self { words: BTreeMap::new(), earlier }
    }

    /// No word is in force.
    pub fn is_silent(&self) -> bool {
        self.words.is_empty()
    }

    /// Takes in what of `overrides` is in force at `wall`.
    pub fn look<'a>(
        &mut self,
        overrides: &Overrides,
        targets: impl Iterator<Item = &'a Text>,
        wall: Timestamp,
    ) -> Look {
        let earlier = std::mem::take(&mut self.earlier);
        if overrides.is_empty() && self.words.is_empty() {
            return Look::default();
        }
        let mut now = BTreeMap::new();
        for target in targets {
            let Some((word, until)) = overrides.in_force(target, wall) else { continue };
            let before = self.words.get(target).filter(|said| said.word == word).map(|said| said.since);
            let shown =
                |(name, state, _): &&(String, EndpointState, Timestamp)| *name == **target && *state == state_of(word);
            let since = before.or_else(|| earlier.iter().find(shown).map(|(_, _, since)| *since)).unwrap_or(wall);
            now.insert(target.clone(), Said { word, since, until });
        }
        let over = |(target, said): &(&Text, &Said)| now.get(*target).is_none_or(|now| now.word != said.word);
        let ended = self.words.iter().filter(over).map(|(target, _)| target.clone()).collect();
        let changed = self.words != now;
        self.words = now;
        Look { ended, changed }
    }

    /// Shows `row` as an operator says it is, and tells what is measured.
    pub fn show(&self, row: &mut Row) {
        let Some(said) = self.words.get(&row.view.target) else { return };
        let view = &mut row.view;
        let told = match (&*view.message, view.state) {
            ("", EndpointState::Unknown) => "nothing yet".to_owned(),
            ("", state) => state.to_string(),
            (message, state) => format!("{state}: {message}"),
        };
        let until = said.until;
        let message = format!("overridden as {} until {until:.0}; measured: {told}", said.word.as_str());
        let remarks = Remarks {
            reason: None,
            message: clean_message(&message).into(),
            overridden: Some(Overridden { measured: view.state, until }),
            ..Remarks::clone(view)
        };
        view.remarks = remarks.kept();
        view.state = state_of(said.word);
        view.since = said.since.into();
        view.stale = false;
        (row.undecided, row.newcomer, row.blind) = (false, false, false);
    }
}

const fn state_of(word: Word) -> EndpointState {
    match word {
        Word::Healthy => EndpointState::Healthy,
        Word::Unhealthy => EndpointState::Unhealthy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn look(spoken: &mut Spoken, text: &str, second: i64) -> Look {
        let targets: [Text; 2] = ["a".into(), "b".into()];
        spoken.look(&Overrides::parse(text, &targets), targets.iter(), at(second))
    }

    #[test]
    fn an_end_is_seen_once_and_so_is_a_word_that_changes() {
        let mut spoken = Spoken::default();
        assert_eq!(look(&mut spoken, "", 1), Look::default());
        let first = "a=Unhealthy until 1970-01-01T00:00:10Z; a=Healthy until 1970-01-01T00:00:20Z";
        assert_eq!(look(&mut spoken, first, 5), Look { ended: vec![], changed: true });
        assert_eq!(spoken.words.keys().map(|target| &**target).collect::<Vec<_>>(), ["a"]);
        assert_eq!(look(&mut spoken, first, 6), Look::default());
        assert_eq!(look(&mut spoken, first, 10), Look { ended: vec!["a".into()], changed: true }, "the other one");
        assert_eq!(look(&mut spoken, first, 20), Look { ended: vec!["a".into()], changed: true });
        assert_eq!(look(&mut spoken, first, 21), Look::default());
        let longer = "*=Healthy until 1970-01-01T00:01:00Z";
        assert_eq!(look(&mut spoken, longer, 30), Look { ended: vec![], changed: true });
        assert_eq!(look(&mut spoken, "", 31).ended, ["a".into(), "b".into()] as [Text; 2]);
    }

    #[test]
    fn a_restart_knows_since_when() {
        let mut spoken = Spoken {
            earlier: vec![("a".into(), EndpointState::Unhealthy, at(3)), ("b".into(), EndpointState::Healthy, at(4))],
            ..Spoken::default()
        };
        look(&mut spoken, "*=Unhealthy until 1970-01-01T00:01:00Z", 30);
        let since = |target: &str| spoken.words[target].since;
        assert_eq!((since("a"), since("b")), (at(3), at(30)));
    }
}
