//! What the body of an answer must hold.

use std::{
    borrow::Cow,
    hash::{Hash, Hasher},
};

use regex::bytes::{Regex, RegexBuilder};

use super::Text;

/// The most that a compiled expression may take, in bytes.
const PATTERN_SIZE: usize = 1 << 20;

/// Asked of the bytes as they came: nothing is decompressed, and no character set assumed but UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BodyRule {
    Contains(Text),
    Matches(Pattern),
    /// The value at `pointer` (RFC 6901) of a JSON body is `equals`: a string as it is, anything else as JSON writes it.
    Json {
        pointer: Text,
        equals: Text,
    },
}

impl BodyRule {
    /// # Errors
    /// What the body lacks, for people; never a part of the body.
    pub fn check(&self, body: &[u8]) -> Result<(), String> {
        match self {
            Self::Contains(text) if contains(body, text.as_bytes()) => Ok(()),
            Self::Contains(text) => Err(format!("unexpected body; does not contain '{text}'")),
            Self::Matches(pattern) if pattern.regex.is_match(body) => Ok(()),
            Self::Matches(pattern) => Err(format!("unexpected body; does not match '{}'", pattern.text)),
            Self::Json { pointer, equals } => {
                let document: serde_json::Value =
                    serde_json::from_slice(body).map_err(|_| "unexpected body; it is not JSON".to_owned())?;
                let found = document
                    .pointer(pointer)
                    .ok_or_else(|| format!("unexpected body; has nothing at '{pointer}', want '{equals}'"))?;
                let written = found.as_str().map_or_else(|| Cow::Owned(found.to_string()), Cow::Borrowed);
                if written == **equals {
                    Ok(())
                } else {
                    Err(format!("unexpected body; another value at '{pointer}', want '{equals}'"))
                }
            }
        }
    }
}

fn contains(body: &[u8], text: &[u8]) -> bool {
    text.is_empty() || body.windows(text.len()).any(|window| window == text)
}

/// A regular expression over bytes, with classes of ASCII as RE2 has them; those of the same text are equal.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: Text,
    regex: Regex,
}

impl Pattern {
    /// # Errors
    /// Why `text` is no regular expression, in one line.
    pub fn new(text: &str) -> Result<Self, String> {
        match RegexBuilder::new(text).unicode(false).size_limit(PATTERN_SIZE).build() {
            Ok(regex) => Ok(Self { text: text.into(), regex }),
            Err(regex::Error::CompiledTooBig(_)) => Err("it would take over 1 MiB: make it simpler".into()),
            // The last line says why; those before it repeat the expression and point into it.
            Err(error) => {
                let text = error.to_string();
                let last = text.lines().last().unwrap_or_default().trim();
                Err(last.trim_start_matches("error: ").to_owned())
            }
        }
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl Hash for Pattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(pointer: &str, equals: &str) -> BodyRule {
        BodyRule::Json { pointer: pointer.into(), equals: equals.into() }
    }

    fn matches(pattern: &str) -> BodyRule {
        BodyRule::Matches(Pattern::new(pattern).expect("a pattern"))
    }

    #[test]
    fn a_body_holds_what_is_asked_or_says_what_it_lacks() {
        let body = br#"{"status": "ok", "db": {"up": true, "lag": 3, "a/b": null}, "nodes": ["x", "y"]}"#;
        for (rule, lacks) in [
            (BodyRule::Contains("\"ok\"".into()), None),
            (BodyRule::Contains("OK".into()), Some("unexpected body; does not contain 'OK'")),
            (matches("\"lag\": [0-4]\\b"), None),
            (matches("(?i)OK"), None),
            (matches("^ok$"), Some("unexpected body; does not match '^ok$'")),
            (json("/status", "ok"), None),
            (json("/db/up", "true"), None),
            (json("/db/lag", "3"), None),
            (json("/db/a~1b", "null"), None),
            (json("/nodes/1", "y"), None),
            (json("/nodes", "[\"x\",\"y\"]"), None),
            (json("/status", "fine"), Some("unexpected body; another value at '/status', want 'fine'")),
            (json("/db/down", "true"), Some("unexpected body; has nothing at '/db/down', want 'true'")),
        ] {
            assert_eq!(rule.check(body), lacks.map_or(Ok(()), |lacks| Err(lacks.to_owned())), "{rule:?}");
        }
        assert_eq!(json("", "7").check(b" 7 "), Ok(()));
        assert_eq!(json("/a", "b").check(b"<html>"), Err("unexpected body; it is not JSON".to_owned()));
        assert!(BodyRule::Contains("x".into()).check(b"").is_err());
        assert_eq!(matches(r"^\xff.é$").check(&[0xff, 0xfe, 0xc3, 0xa9]), Ok(()), "bytes, whatever they mean");
    }

    #[test]
    fn what_is_no_expression_says_why_in_one_line() {
        for (pattern, why) in [
            ("(", "unclosed group"),
            ("a{2,1}", "invalid repetition count range"),
            (r"(?=x)", "look-around"),
            (r"(a)\1", "backreferences are not supported"),
            ("((a{100}){100}){100}", "over 1 MiB"),
        ] {
            let told = Pattern::new(pattern).expect_err(pattern);
            assert!(told.contains(why) && !told.contains('\n'), "{pattern}: {told}");
        }
    }

    #[test]
    fn patterns_of_the_same_text_are_equal() {
        assert_eq!(matches("a+"), matches("a+"));
        assert_ne!(matches("a+"), matches("a*"));
    }
}
