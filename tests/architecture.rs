//! The rooms of `src` and the arrows between them, as docs/architecture.md has them: nothing is used against an arrow, and
//! no arrows go round in a circle.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

const DOCUMENT: &str = "docs/architecture.md";

/// What each room may use.
type Arrows = BTreeMap<String, BTreeSet<String>>;

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The modules of `src/lib.rs`.
fn rooms() -> BTreeSet<String> {
    let lib = fs::read_to_string(top().join("src/lib.rs")).expect("src/lib.rs");
    lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).map(str::to_owned).collect()
}

/// The table of the document: `| `src/ROOM` | what lives there | a, b (why), c |`.
fn allowed(rooms: &BTreeSet<String>) -> Arrows {
    let text = fs::read_to_string(top().join(DOCUMENT)).expect(DOCUMENT);
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `src/"));
    rows.map(|row| {
        let (room, rest) = row.split_once('`').expect("a room in backticks");
        let arrows = rest.trim_end_matches([' ', '|']).rsplit('|').next().expect("a last column");
        let others: BTreeSet<String> = match arrows.trim() {
            "–" => BTreeSet::new(),
            "everything" => rooms.iter().filter(|other| *other != room).cloned().collect(),
            list => without_parentheses(list).split(',').map(|other| other.trim().to_owned()).collect(),
        };
        (room.to_owned(), others)
    })
    .collect()
}

fn without_parentheses(text: &str) -> String {
    let mut depth = 0;
    let outside = |c: &char| {
        depth += i32::from(*c == '(');
        let outside = depth == 0;
        depth -= i32::from(*c == ')');
        outside
    };
    text.chars().filter(outside).collect()
}

/// Every `.rs` file below `directory`.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let paths = entries.map(|entry| entry.expect("readable").path());
    paths
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

/// Code without its comments: they may speak of anything.
fn code(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The first part of every path that `code` has under `crate::`, those in braces included.
fn used(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, found) in code.match_indices("crate::") {
        let rest = &code[at + found.len()..];
        if let Some(list) = rest.strip_prefix('{') {
            names.extend(firsts(list));
        } else {
            names.insert(word(rest));
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// The first word of each part of a list in braces, up to its end; what is in inner braces belongs to its part.
fn firsts(list: &str) -> Vec<String> {
    let (mut depth, mut start, mut parts) = (0, 0, vec![]);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                parts.push(&list[start..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.into_iter().map(|part| word(part.trim())).collect()
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// Who uses whom: room, other room, and a file that does.
fn uses(rooms: &BTreeSet<String>) -> BTreeMap<(String, String), PathBuf> {
    let mut uses = BTreeMap::new();
    for room in rooms {
        let directory = top().join("src").join(room);
        for path in sources(&directory) {
            let text = fs::read_to_string(&path).expect("a source in UTF-8");
            for other in used(&code(&text)) {
                if other != *room && rooms.contains(&other) {
                    uses.entry((room.clone(), other)).or_insert_with(|| path.clone());
                }
            }
        }
    }
    uses
}

#[test]
fn the_document_knows_every_room() {
    let rooms = rooms();
    let documented: BTreeSet<String> = allowed(&rooms).into_keys().collect();
    assert!(rooms.len() >= 10, "{rooms:?}");
    assert_eq!(documented, rooms, "{DOCUMENT} and src/lib.rs");
    for (room, others) in allowed(&rooms) {
        assert!(others.is_subset(&rooms), "{DOCUMENT}: {room} may depend on {others:?}");
    }
}

#[test]
fn nothing_is_used_against_an_arrow() {
    let rooms = rooms();
    let (allowed, uses) = (allowed(&rooms), uses(&rooms));
    assert!(uses.len() > 15, "too few to be all: {uses:#?}");
    let wrong: Vec<_> = uses
        .iter()
        .filter(|((room, other), _)| !allowed[room].contains(other))
        .map(|((room, other), path)| format!("src/{room} uses src/{other}, in {}", path.display()))
        .collect();
    assert!(wrong.is_empty(), "not allowed by {DOCUMENT}:\n{}", wrong.join("\n"));
}

/// An arrow that nothing needs any more would let in what nobody thought about.
#[test]
fn no_arrow_is_allowed_that_nothing_needs() {
    let rooms = rooms();
    let uses = uses(&rooms);
    for (room, others) in allowed(&rooms).into_iter().filter(|(room, _)| room != "cli") {
        for other in others {
            assert!(
                uses.contains_key(&(room.clone(), other.clone())),
                "{DOCUMENT}: src/{room} does not use src/{other}"
            );
        }
    }
}

#[test]
fn the_arrows_go_round_in_no_circle() {
    let mut left = allowed(&rooms());
    while !left.is_empty() {
        let done: Vec<String> =
            left.iter().filter(|(_, others)| others.is_empty()).map(|(room, _)| room.clone()).collect();
        assert!(!done.is_empty(), "{DOCUMENT}: these go round in a circle: {left:#?}");
        for room in done {
            left.remove(&room);
            for others in left.values_mut() {
                others.remove(&room);
            }
        }
    }
}

#[test]
fn uses_are_found_however_they_are_written() {
    let text = "
        use crate::{
            check::{Check, Host},
            engine, // crate::server
            probe::Lane as _,
        };
        use crate::api::Duration;
        fn f() -> crate::telemetry::Metrics { crate::source::load() }
    ";
    let found: Vec<String> = used(&code(text)).into_iter().collect();
    assert_eq!(found, ["api", "check", "engine", "probe", "source", "telemetry"]);
}
