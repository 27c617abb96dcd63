//! What an operator decided by hand: the override annotation of a HealthCheck.
//!
//! `healthcheck-operator.dev/override: "<target>=Healthy|Unhealthy until <RFC 3339>"`, several parted by `;`, `*` for
//! every target. What does not parse is left out and told; the rest holds. Every override ends. Of several for one
//! target the one that ends first holds, and then the next: one that has ended is in nobody's way.

use jiff::Timestamp;

use super::{Text, clean_message};

/// How many problems are told.
const TOLD: usize = 8;

/// What an operator says about an endpoint, in place of its verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Word {
    Healthy,
    Unhealthy,
}

impl Word {
    pub const ALL: [Self; 2] = [Self::Healthy, Self::Unhealthy];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "Healthy",
            Self::Unhealthy => "Unhealthy",
        }
    }
}

/// One override.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// The name of a target; `None` for all of them.
    pub target: Option<Text>,
    pub word: Word,
    /// It holds before this time and no more at it.
    pub until: Timestamp,
}

/// The overrides of one check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Those that end first come first; those that have ended are included.
    pub entries: Vec<Override>,
    /// What does not parse, each with its mend, for people: the message of `InvalidOverride`. At most nine.
    pub problems: Vec<String>,
}

impl Overrides {
    /// Reads the value of the annotation, for a check with these targets.
    #[must_use]
    pub fn parse(text: &str, targets: &[Text]) -> Self {
        let mut overrides = Self::default();
        let mut untold = 0_usize;
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            match parse_part(part, targets).and_then(|entry| overrides.once(entry)) {
                Ok(entry) => overrides.entries.push(entry),
                Err(mend) if overrides.problems.len() < TOLD => {
                    overrides.problems.push(format!("override '{}': {mend}", shortened(part)));
                }
                Err(_) => untold += 1,
            }
        }
        if untold > 0 {
            overrides.problems.push(format!("and {untold} more"));
        }
        overrides.entries.sort_by_key(|entry| entry.until);
        overrides
    }

    /// What is said about `target` at `now`, and until when. Its own override beats the one for all.
    #[must_use]
    pub fn in_force(&self, target: &str, now: Timestamp) -> Option<(Word, Timestamp)> {
        let holds = |entry: &&Override| now < entry.until;
        let named = self.entries.iter().filter(holds).find(|entry| entry.target.as_deref() == Some(target));
        let entry = named.or_else(|| self.entries.iter().filter(holds).find(|entry| entry.target.is_none()))?;
        Some((entry.word, entry.until))
    }

    /// Whether nothing is said at all.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// When the next of those in force at `now` ends: when to look again.
    #[must_use]
    pub fn next_end(&self, now: Timestamp) -> Option<Timestamp> {
        self.entries.iter().map(|entry| entry.until).filter(|until| now < *until).min()
    }

    fn once(&self, entry: Override) -> Result<Override, String> {
        let contrary =
            |other: &Override| other.target == entry.target && other.until == entry.until && other.word != entry.word;
        if self.entries.iter().any(contrary) {
            let name = entry.target.as_deref().unwrap_or("*");
            return Err(format!("the contrary is said of {name} for as long, further left: keep one of the two"));
        }
        Ok(entry)
    }
}

fn parse_part(part: &str, targets: &[Text]) -> Result<Override, String> {
    const FORM: &str = "write <target>=Healthy|Unhealthy until <RFC 3339 time>";
    let (target, said) = part.split_once('=').ok_or_else(|| format!("no '='; {FORM}"))?;
    let target = parse_target(target.trim(), targets)?;
    let (word, end) = said.trim().split_once(char::is_whitespace).unwrap_or((said.trim(), ""));
    let word = Word::ALL
        .into_iter()
        .find(|known| known.as_str() == word)
        .ok_or_else(|| format!("'{}' is neither Healthy nor Unhealthy; {FORM}", shortened(word)))?;
    let end = end.trim().strip_prefix("until").filter(|rest| rest.starts_with(char::is_whitespace));
    let end = end.ok_or_else(|| format!("it has no end; {FORM}"))?.trim();
    let until = end.parse::<Timestamp>().map_err(|_| {
        format!("'{}' is not a time of RFC 3339 with its offset; write it as 2030-01-31T18:00:00Z", shortened(end))
    })?;
    Ok(Override { target, word, until })
}

fn parse_target(name: &str, targets: &[Text]) -> Result<Option<Text>, String> {
    if name == "*" {
        return Ok(None);
    }
    if let Some(target) = targets.iter().find(|target| &***target == name) {
        return Ok(Some(target.clone()));
    }
    let near = targets
        .iter()
        .map(|target| (strsim::damerau_levenshtein(&shortened(name), target), target))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= 2);
    Err(match near {
        Some((_, near)) => format!("there is no target '{}'; did you mean {near}?", shortened(name)),
        None => format!("there is no target '{}'; name one of spec.targets, or * for all", shortened(name)),
    })
}

/// At most 80 characters of what somebody wrote, on one line.
fn shortened(text: &str) -> String {
    let start: String = text.chars().take(81).collect();
    let mut clean = clean_message(&start);
    if clean.chars().count() > 80 {
        clean = clean.chars().take(79).chain(['…']).collect();
    }
    clean
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn parse(text: &str) -> Overrides {
        Overrides::parse(text, &["pg-a".into(), "pg-b".into()])
    }

    #[test]
    fn several_hold_at_once_each_with_its_end() {
        let overrides = parse("pg-a=Healthy until 2030-01-01T00:00:00Z; *=Unhealthy until 2031-01-01T02:00:00+02:00 ;");
        assert_eq!(overrides.problems, Vec::<String>::new());
        let (first, second) = (at("2030-01-01T00:00:00Z"), at("2031-01-01T00:00:00Z"));
        let before = at("2029-12-31T23:59:59Z");
        assert_eq!(overrides.in_force("pg-a", before), Some((Word::Healthy, first)));
        assert_eq!(overrides.in_force("pg-b", before), Some((Word::Unhealthy, second)));
        assert_eq!(overrides.next_end(before), Some(first));
        assert_eq!(overrides.in_force("pg-a", first), Some((Word::Unhealthy, second)), "the one for all is next");
        assert_eq!(overrides.next_end(first), Some(second));
        assert_eq!((overrides.in_force("pg-a", second), overrides.next_end(second)), (None, None));
    }

    #[test]
    fn what_does_not_parse_is_told_with_its_mend_and_the_rest_holds() {
        let form = "write <target>=Healthy|Unhealthy until <RFC 3339 time>";
        for (bad, told) in [
            ("pg-a", format!("override 'pg-a': no '='; {form}")),
            ("pg-c=Healthy until 2030-01-01T00:00:00Z", "there is no target 'pg-c'; did you mean pg-a?".into()),
            (
                "web=Healthy until 2030-01-01T00:00:00Z",
                "no target 'web'; name one of spec.targets, or * for all".into(),
            ),
            ("pg-a=healthy until 2030-01-01T00:00:00Z", format!("'healthy' is neither Healthy nor Unhealthy; {form}")),
            ("pg-a=Healthy", format!("it has no end; {form}")),
            ("pg-a=Healthy 2030-01-01T00:00:00Z", format!("it has no end; {form}")),
            ("pg-a=Healthy until tomorrow", "'tomorrow' is not a time of RFC 3339".into()),
            ("pg-a=Healthy until 2030-01-01", "'2030-01-01' is not a time of RFC 3339 with its offset".into()),
            ("pg-a=Healthy until 2030-01-01T00:00:00", "is not a time of RFC 3339 with its offset".into()),
            ("pg-a=Healthy until 2030-13-01T00:00:00Z", "write it as 2030-01-31T18:00:00Z".into()),
            ("=Healthy until 2030-01-01T00:00:00Z", "there is no target ''".into()),
            ("pg-b=Healthy until 2030-01-01T00:00:00Z", "the contrary is said of pg-b for as long".into()),
        ] {
            let overrides = parse(&format!("pg-b=Unhealthy until 2030-01-01T00:00:00Z; {bad}"));
            assert_eq!(overrides.problems.len(), 1, "{bad}");
            assert!(overrides.problems[0].contains(&told), "{bad}: {:?}", overrides.problems);
            assert_eq!(overrides.entries.len(), 1, "{bad}");
            let now = at("2029-01-01T00:00:00Z");
            assert_eq!(overrides.in_force("pg-b", now).map(|(word, _)| word), Some(Word::Unhealthy));
        }
    }

    #[test]
    fn of_several_for_one_target_the_one_that_ends_first_holds() {
        let overrides = parse("pg-a=Healthy until 2031-01-01T00:00:00Z; pg-a=Unhealthy until 2030-01-01T00:00:00Z");
        assert_eq!(overrides.problems, Vec::<String>::new());
        let word = |now| overrides.in_force("pg-a", at(now)).map(|(word, _)| word);
        assert_eq!(word("2029-01-01T00:00:00Z"), Some(Word::Unhealthy));
        assert_eq!(word("2030-06-01T00:00:00Z"), Some(Word::Healthy), "one that has ended is in nobody's way");
        assert_eq!(word("2031-01-01T00:00:00Z"), None);
    }

    #[test]
    fn nothing_is_said_by_nothing() {
        assert_eq!(parse(" ; "), Overrides::default());
        assert!(parse(" ; ").is_empty());
    }

    #[test]
    fn a_flood_of_problems_is_told_in_brief() {
        let overrides = parse(&"x".repeat(500).repeat(3).replace("xxxxx", "\u{7}bad;"));
        assert_eq!(overrides.problems.len(), TOLD + 1);
        assert_eq!(overrides.problems[TOLD], "and 292 more");
        let long = parse(&"y".repeat(200_000));
        assert!(long.problems[0].chars().count() < 250, "{}", long.problems[0]);
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read_or_told(text in "(pg-a|pg-b|\\*|x|=|Healthy|Unhealthy| |until|2030-01-01T00:00:00Z|;|\\PC){0,20}") {
            let overrides = parse(&text);
            let parts = text.split(';').filter(|part| !part.trim().is_empty()).count();
            prop_assert!(overrides.entries.len() + overrides.problems.len() >= parts.min(TOLD));
            prop_assert!(overrides.problems.iter().all(|problem| !problem.contains(char::is_control)));
        }

        #[test]
        fn what_is_written_well_is_read_back(a in any::<bool>(), seconds in 0..4_000_000_000_i64, spaces in " {0,3}") {
            let word = if a { Word::Healthy } else { Word::Unhealthy };
            let until = Timestamp::from_second(seconds).unwrap();
            let overrides = parse(&format!("{spaces}pg-b{spaces}={spaces}{}  until {until}{spaces}", word.as_str()));
            prop_assert_eq!(&overrides.problems, &Vec::<String>::new());
            prop_assert_eq!(&overrides.entries[..], &[Override { target: Some("pg-b".into()), word, until }]);
        }
    }
}
