//! `docs/reference/` says what the program says: flags and fields are written from the program itself, and what people
//! wrote is held against it.

mod fields;
mod flags;
mod tables;

use std::path::PathBuf;

/// Holds a page against what the program says; `UPDATE_REFERENCE=1` writes it.
fn hold(name: &str, expected: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/reference").join(name);
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(&path, expected).expect("docs/reference is writable");
    }
    let found = std::fs::read_to_string(&path).expect("the page is there");
    assert!(
        found == expected,
        "docs/reference/{name} is out of step with the program: run `UPDATE_REFERENCE=1 cargo test --test reference` and look at the difference"
    );
}

/// `text` as a cell of a table.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}
