//! A command line in one argument.

use std::str::FromStr;

/// A program and its arguments, parted at blanks; what stands in quotes is not parted.
///
/// There is no shell: no variable, no pattern and no redirection. A backslash is a backslash, as it was in commands
/// written for the original, but in front of a blank, a quote or another backslash, of which it makes an ordinary
/// character; between `'` and `'` it always is itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    /// Never empty.
    words: Vec<String>,
}

impl Words {
    /// What is run.
    #[must_use]
    pub fn program(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// The program and its arguments.
    #[must_use]
    pub fn all(&self) -> &[String] {
        &self.words
    }
}

impl FromStr for Words {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words = split(text)?;
        match words.first().map(String::as_str) {
            None => {
                Err("it names no program; give a path and its arguments, such as '/usr/local/bin/check.sh --all'"
                    .into())
            }
            Some("") => Err("its program is empty; the path of one comes first".into()),
            Some(_) => Ok(Self { words }),
        }
    }
}

/// What a backslash makes ordinary, outside of `'` and `'`.
const ESCAPED: [char; 5] = ['\\', '\'', '"', ' ', '\t'];

fn split(text: &str) -> Result<Vec<String>, String> {
    let mut words = vec![];
    // `None` between two words: one in quotes may be empty and is there nevertheless.
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        match (quote, character) {
            (Some(open), _) if character == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, _) if character.is_whitespace() => words.extend(word.take()),
            (open, '\\') if open != Some('\'') => {
                let ordinary = rest.next_if(|next| ESCAPED.contains(next)).unwrap_or('\\');
                word.get_or_insert_default().push(ordinary);
            }
            _ => word.get_or_insert_default().push(character),
        }
    }
    if let Some(quote) = quote {
        return Err(format!("a {quote} is not closed; close it, or write \\{quote} for the character itself"));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_part_words_and_quotes_hold_them_together() {
        for (text, words) in [
            ("/bin/check", &["/bin/check"][..]),
            ("check --port 8080", &["check", "--port", "8080"]),
            ("  check   a\tb\n", &["check", "a", "b"]),
            ("sh -c 'exit 3'", &["sh", "-c", "exit 3"]),
            (r#"sh -c "echo 'a b'""#, &["sh", "-c", "echo 'a b'"]),
            (r#"check --name="a b" c"#, &["check", "--name=a b", "c"]),
            ("check '' \"\" x", &["check", "", "", "x"]),
            ("check a''b", &["check", "ab"]),
            (r"check a\ b \' \\ \d \n", &["check", "a b", "'", r"\", r"\d", r"\n"]),
            (r#"check "a\"b" '\' x"#, &["check", "a\"b", r"\", "x"]),
            ("'/opt/my checks/one' é", &["/opt/my checks/one", "é"]),
            ("check $HOME *.sh | # >x", &["check", "$HOME", "*.sh", "|", "#", ">x"]),
            (r"check \", &["check", r"\"]),
        ] {
            assert_eq!(
                text.parse::<Words>().map(|words| words.words),
                Ok(words.iter().map(ToString::to_string).collect()),
                "{text}"
            );
        }
    }

    #[test]
    fn what_cannot_be_run_is_refused_with_the_mend() {
        for (text, part) in [
            ("", "names no program"),
            ("  ", "names no program"),
            ("'' x", "its program is empty"),
            ("echo it's", "a ' is not closed"),
            ("echo \"a", "a \" is not closed"),
            (r"sh -c 'it\'s'", "a ' is not closed"),
        ] {
            let error = text.parse::<Words>().expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
