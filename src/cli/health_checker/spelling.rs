//! Arguments as the original takes them: it has Go's ways with flags.

use std::{
    ffi::{OsStr, OsString},
    path::Path,
};

/// The name of the command, and of a program that is nothing else.
pub const NAME: &str = "health-checker";
/// Its flags, which Go takes with one dash as well as with two.
const FLAGS: [&str; 8] =
    ["port", "script", "script-timeout", "singleflight", "listener", "log-level", "help", "version"];

/// Whether the program was started by the name of the original, or of one of its release files, such as
/// `health-checker_linux_amd64`.
pub fn is_called(program: Option<&OsString>) -> bool {
    let name = program.and_then(|program| Path::new(program).file_name()).and_then(OsStr::to_str).unwrap_or_default();
    name.strip_prefix(NAME).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}

/// `words`, the program's name first, with every flag of this command in two dashes, where it is this command that they
/// are for.
pub fn spell(words: Vec<OsString>) -> Vec<OsString> {
    let skip = match (is_called(words.first()), words.get(1)) {
        (true, _) => 1,
        (false, Some(command)) if command == NAME => 2,
        _ => return words,
    };
    words.into_iter().enumerate().map(|(index, word)| if index < skip { word } else { two_dashes(word) }).collect()
}

fn two_dashes(word: OsString) -> OsString {
    let name = word.to_str().and_then(|text| text.strip_prefix('-')).and_then(|rest| rest.split('=').next());
    match name {
        Some(name) if FLAGS.contains(&name) => {
            let mut spelled = OsString::from("-");
            spelled.push(word);
            spelled
        }
        _ => word,
    }
}

/// A truth value as Go reads it.
pub fn boolean(text: &str) -> Result<bool, &'static str> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("want true or false"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn the_name_decides() {
        for (name, called) in [
            ("health-checker", true),
            ("/usr/local/bin/health-checker", true),
            ("./health-checker_linux_amd64", true),
            ("health-checkers", false),
            ("my-health-checker", false),
            ("healthcheck-operator", false),
            ("/opt/health-checker/healthcheck-operator", false),
        ] {
            assert_eq!(is_called(Some(&name.into())), called, "{name}");
        }
        assert!(!is_called(None));
    }

    #[test]
    fn one_dash_becomes_two_for_this_command_alone() {
        for (line, spelled) in [
            ("health-checker -port 80 -singleflight=true -h", "health-checker --port 80 --singleflight=true -h"),
            ("op health-checker -script-timeout=3 --port 80", "op health-checker --script-timeout=3 --port 80"),
            ("op health-checker -prot 80 -1", "op health-checker -prot 80 -1"),
            ("op probe script -- health-checker -port 80", "op probe script -- health-checker -port 80"),
        ] {
            assert_eq!(spell(words(line)), words(spelled));
        }
    }

    #[test]
    fn truth_as_go_reads_it() {
        assert_eq!(
            ["t", "1", "True", "f", "0", "FALSE"].map(boolean),
            [Ok(true), Ok(true), Ok(true), Ok(false), Ok(false), Ok(false)]
        );
        assert!(boolean("yes").is_err() && boolean("").is_err());
    }
}
