//! What is wrong with a file, and where in it.

use std::fmt;

use serde::Serialize;

/// One thing that is wrong, in the way compilers tell it: `file:line:column: field.path: message`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// As the file was named by whoever gave it.
    pub file: String,
    /// From 1; absent where the file as a whole is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// From 1, in characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u64>,
    /// As in `spec.targets[0].port`; absent where no field is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field_path: Option<String>,
    /// What is wrong, and the mend.
    pub message: String,
}

impl Fault {
    /// A fault of the file as a whole.
    #[must_use]
    pub fn of_file(file: impl Into<String>, message: impl Into<String>) -> Self {
        Self { file: file.into(), line: None, column: None, field_path: None, message: message.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, ":{line}:{column}")?;
        }
        if let Some(path) = &self.field_path {
            write!(f, ": {}", Visible(path))?;
        }
        write!(f, ": {}", Visible(&self.message))
    }
}

/// What files say goes to terminals and logs, where a control character would be obeyed. Line ends are our own.
struct Visible<'a>(&'a str);

impl fmt::Display for Visible<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            c if c.is_control() && c != '\n' => write!(f, "{}", c.escape_default()),
            c => write!(f, "{c}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_obeys_nothing_in_it() {
        let fault = Fault {
            line: Some(3),
            column: Some(7),
            field_path: Some("spec.int\u{1b}[31mx".into()),
            ..Fault::of_file("a.yaml", "unknown\r\u{9b}2J field é\nnext")
        };
        assert_eq!(fault.to_string(), "a.yaml:3:7: spec.int\\u{1b}[31mx: unknown\\r\\u{9b}2J field é\nnext");
    }
}
