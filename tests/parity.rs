//! `docs/parity.md` names tests; every one of them is there.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const DOCUMENT: &str = include_str!("../docs/parity.md");

/// Every Rust file below `folder`.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of ours") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The names of all tests: functions that are attributed as such, and trials by what they are called.
fn tests() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![];
    sources(&root.join("src"), &mut files);
    sources(&root.join("tests"), &mut files);
    let mut names = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(file).expect("UTF-8");
        for part in text.split("#[test]").skip(1).chain(text.split("#[tokio::test").skip(1)) {
            if let Some(name) = part.split("fn ").nth(1).and_then(|rest| rest.split('(').next()) {
                names.insert(name.to_owned());
            }
        }
        for start in ["suite.trial(", "suite.show("] {
            names.extend(text.split(start).skip(1).filter_map(|rest| rest.split('"').nth(1)).map(str::to_owned));
        }
    }
    names
}

/// What stands between backquotes and is a name of a test.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split('`').skip(1).step_by(2);
    words.filter(|word| {
        word.len() > 12
            && word.contains('_')
            && word.chars().all(|c| c == ':' || c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit())
    })
}

#[test]
fn every_test_that_the_table_names_is_there() {
    let tests = tests();
    assert!(tests.len() > 500, "{} tests", tests.len());
    let missing: Vec<_> = named(DOCUMENT).filter(|name| !tests.contains(*name)).collect();
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
}

#[test]
fn every_row_names_a_test_or_says_that_it_is_not_yet_there() {
    let mut rows = 0;
    for line in DOCUMENT.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| capability")) {
        rows += 1;
        let cells: Vec<_> = line.trim_matches('|').split(" | ").collect();
        assert_eq!(cells.len(), 3, "{line}");
        assert!(named(cells[2]).next().is_some() || cells[1].contains("**not yet**"), "{line}");
    }
    assert!(rows >= 30, "{rows} rows");
}
