//! The written form of a label selector, as `kubectl -l` takes it.

use super::{PodSelector, SelectorOperator, SelectorRequirement};

/// The longest selector read, in bytes.
const MAX_LENGTH: usize = 4096;
/// The longest name part of a key, and the longest value, in characters (Kubernetes' label syntax).
const MAX_NAME: usize = 63;
/// The longest prefix of a key (a DNS subdomain, RFC 1123).
const MAX_PREFIX: usize = 253;

/// What is wrong with a selector. The text names the part and the mend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(String);

impl std::str::FromStr for PodSelector {
    type Err = SelectorError;

    /// Reads Kubernetes' label selector syntax: requirements parted by commas, each `key=value`, `key==value`,
    /// `key!=value`, `key in (a,b)`, `key notin (a,b)`, `key` or `!key`. The empty text matches everything. The
    /// numeric `>` and `<` are refused: no HealthCheck selector has them.
    ///
    /// # Errors
    /// Names the first part that is not of this form.
    fn from_str(text: &str) -> Result<Self, SelectorError> {
        if text.len() > MAX_LENGTH {
            return fail(format!("a selector has at most {MAX_LENGTH} bytes, this one has {}", text.len()));
        }
        let tokens = tokens(text);
        let mut parser = Parser { tokens: tokens.iter().peekable() };
        let mut match_expressions = Vec::new();
        if parser.tokens.peek().is_some() {
            match_expressions.push(parser.requirement()?);
            while let Some(token) = parser.tokens.next() {
                if *token != "," {
                    return fail(format!("found '{token}' where ',' or the end is expected"));
                }
                match_expressions.push(parser.requirement()?);
            }
        }
        Ok(Self { match_expressions, ..Self::default() })
    }
}

/// Words, and the marks `, ( ) ! = == != > <`.
fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let is_mark = |c: char| ",()!=<>".contains(c);
        let length = if rest.starts_with("==") || rest.starts_with("!=") {
            2
        } else if rest.starts_with(is_mark) {
            1
        } else {
            rest.find(|c: char| is_mark(c) || c.is_whitespace()).unwrap_or(rest.len())
        };
        let (token, after) = rest.split_at(length);
        tokens.push(token);
        rest = after.trim_start();
    }
    tokens
}

struct Parser<'a> {
    tokens: std::iter::Peekable<std::slice::Iter<'a, &'a str>>,
}

impl Parser<'_> {
    fn requirement(&mut self) -> Result<SelectorRequirement, SelectorError> {
        let negated = self.tokens.next_if(|token| **token == "!").is_some();
        let key = self.word().ok_or_else(|| self.unexpected("a label key"))?;
        check_key(&key)?;
        let Some(token) = self.tokens.next_if(|token| **token != ",") else {
            let operator = if negated { SelectorOperator::DoesNotExist } else { SelectorOperator::Exists };
            return Ok(SelectorRequirement { key, operator, values: Vec::new() });
        };
        if negated {
            return fail(format!("found '{token}' after '!{key}'; '!key' stands alone"));
        }
        let (operator, values) = match *token {
            "=" | "==" => (SelectorOperator::In, vec![self.word().unwrap_or_default()]),
            "!=" => (SelectorOperator::NotIn, vec![self.word().unwrap_or_default()]),
            "in" => (SelectorOperator::In, self.values()?),
            "notin" => (SelectorOperator::NotIn, self.values()?),
            ">" | "<" => return fail(format!("'{token}' is not supported; use =, !=, in, notin, key or !key")),
            other => return fail(format!("found '{other}' after '{key}', want one of =, ==, !=, in, notin")),
        };
        values.iter().try_for_each(|value| check_value(value))?;
        Ok(SelectorRequirement { key, operator, values })
    }

    /// `(a,b)`; an empty place between commas is the empty value.
    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        self.mark("(")?;
        let mut values = vec![self.word().unwrap_or_default()];
        while self.tokens.next_if(|token| **token == ",").is_some() {
            values.push(self.word().unwrap_or_default());
        }
        self.mark(")")?;
        Ok(values)
    }

    fn mark(&mut self, mark: &str) -> Result<(), SelectorError> {
        match self.tokens.next_if(|token| **token == mark) {
            Some(_) => Ok(()),
            None => Err(self.unexpected(&format!("'{mark}'"))),
        }
    }

    fn word(&mut self) -> Option<String> {
        self.tokens.next_if(|token| !token.starts_with([',', '(', ')', '!', '=', '<', '>'])).map(ToString::to_string)
    }

    fn unexpected(&mut self, wanted: &str) -> SelectorError {
        SelectorError(match self.tokens.peek() {
            Some(token) => format!("found '{token}' where {wanted} is expected"),
            None => format!("it ends where {wanted} is expected"),
        })
    }
}

fn fail<T>(message: String) -> Result<T, SelectorError> {
    Err(SelectorError(message))
}

fn check_key(key: &str) -> Result<(), SelectorError> {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    if !is_label_name(name) {
        return fail(format!(
            "'{key}' is no label key: the name has 1 to {MAX_NAME} of A-Z a-z 0-9 - _ . and begins and ends with a \
             letter or digit"
        ));
    }
    if prefix.is_some_and(|prefix| !is_subdomain(prefix)) {
        return fail(format!("'{key}' is no label key: what stands before '/' is a lower-case DNS name"));
    }
    Ok(())
}

fn check_value(value: &str) -> Result<(), SelectorError> {
    if value.is_empty() || is_label_name(value) {
        return Ok(());
    }
    fail(format!(
        "'{value}' is no label value: it is empty, or has at most {MAX_NAME} of A-Z a-z 0-9 - _ . and begins and ends \
         with a letter or digit"
    ))
}

fn is_label_name(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= MAX_NAME
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

fn is_subdomain(text: &str) -> bool {
    text.len() <= MAX_PREFIX
        && text.split('.').all(|part| {
            !part.is_empty()
                && !part.starts_with('-')
                && !part.ends_with('-')
                && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels: BTreeMap<_, _> = labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        selector.parse::<PodSelector>().unwrap_or_else(|error| panic!("{selector}: {error}")).matches(&labels)
    }

    #[test]
    fn every_form_matches_what_kubectl_would() {
        let shop = [("app", "shop"), ("tier", "web"), ("example.com/owner", "")];
        for (selector, expected) in [
            ("", true),
            (" ", true),
            ("app=shop", true),
            ("app==shop", true),
            (" app = shop , tier = web ", true),
            ("app=shop,tier=db", false),
            ("app!=shop", false),
            ("missing!=x", true),
            ("app in (shop, bank)", true),
            ("app in(bank)", false),
            ("app notin (shop,bank)", false),
            ("missing notin (x)", true),
            ("app", true),
            ("missing", false),
            ("!missing", true),
            ("! app", false),
            ("example.com/owner=", true),
            ("example.com/owner in (,x)", true),
            ("app=", false),
            ("in in (in)", false),
        ] {
            assert_eq!(matches(selector, &shop), expected, "{selector}");
        }
    }

    #[test]
    fn a_bad_selector_is_refused_with_the_part_that_is_wrong() {
        for (selector, part) in [
            ("app=shop,", "ends where a label key"),
            (",app", "found ','"),
            ("app shop", "found 'shop' after 'app'"),
            ("app in shop", "found 'shop' where '('"),
            ("app in (a", "ends where ')'"),
            ("app in (a b)", "found 'b' where ')'"),
            ("!app=shop", "'!key' stands alone"),
            ("app>3", "'>' is not supported"),
            ("app=a=b", "found '=' where ','"),
            ("-app", "no label key"),
            ("Example.com/app", "DNS name"),
            ("/app", "DNS name"),
            ("a/b/c", "no label key"),
            ("app=-x", "no label value"),
            ("app=é", "no label value"),
        ] {
            let error = selector.parse::<PodSelector>().expect_err(selector).to_string();
            assert!(error.contains(part), "{selector}: {error}");
        }
        let longest = format!("app={}", "a".repeat(63));
        assert!(longest.parse::<PodSelector>().is_ok());
        assert!(format!("{longest}a").parse::<PodSelector>().is_err());
        assert!("app".repeat(2000).parse::<PodSelector>().is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-z=!,() <>./é]{0,40}") {
            let _ = text.parse::<PodSelector>();
        }
    }
}
