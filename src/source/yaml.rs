//! YAML with the position of every field.

use std::fmt;

use serde::{Deserialize, Deserializer, de};
use serde_json::{Map, Number, Value};
use serde_saphyr::{Location, Spanned};

/// Where something is in a file: line and column, from 1.
pub type Position = (u64, u64);

/// A part of a document.
#[derive(Clone, Debug)]
pub struct Node {
    pub position: Position,
    pub content: Content,
}

#[derive(Clone, Debug)]
pub enum Content {
    Scalar(Value),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A field of a mapping; its position is that of its key.
#[derive(Clone, Debug)]
pub struct Entry {
    pub key: String,
    pub position: Position,
    pub value: Node,
}

/// What is no YAML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    pub position: Option<Position>,
    pub message: String,
}

/// The documents of `text`, empty ones left out, one after the other as they are asked for: a tree takes many times the room
/// of its text. What comes before an error has been told already.
///
/// Only `true` and `false` are booleans, as in YAML 1.2. Aliases are expanded within tight limits, so that a small
/// document cannot grow into a large one.
pub fn documents<'a>(text: &'a mut &'a [u8]) -> impl Iterator<Item = Result<Node, SyntaxError>> + 'a {
    let options = serde_saphyr::options! {
        strict_booleans: true,
        with_snippet: false,
        budget: serde_saphyr::budget! {
            // Ten thousand checks in one file are a use of ours, each some fifty nodes large.
            max_documents: 100_000,
            max_nodes: 10_000_000,
            max_events: 20_000_000,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 100_000,
        },
    };
    serde_saphyr::read_with_options::<_, Spanned<Content>>(text, options)
        .map(|document| document.map(Node::from).map_err(|error| syntax_error(&error)))
}

fn syntax_error(error: &serde_saphyr::Error) -> SyntaxError {
    let error = error.without_snippet();
    let position = error.location().filter(|location| location.line() > 0).map(|location| position(&location));
    let mut message = told(error);
    // The position stands in front of the message already.
    if let Some((line, column)) = position {
        message = message.replace(&format!(" at line {line}, column {column}"), "");
    }
    SyntaxError { position, message }
}

/// What the parser tells in the words of those who write programs with it, in the words of those who write files.
fn told(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error;
    match error {
        Error::AliasError { error, .. } => told(error.without_snippet()),
        Error::DuplicateMappingKey { key, .. } => {
            let key = key.as_deref().unwrap_or("a key");
            format!("{key} is written twice in one mapping: keep one of them")
        }
        Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => {
            "its aliases (*name) expand to too much: write the values out".to_owned()
        }
        error => match error.to_string() {
            text if text.starts_with("recursion limit exceeded") => "nested too deeply".to_owned(),
            text => text,
        },
    }
}

fn position(location: &Location) -> Position {
    (location.line(), location.column())
}

impl From<Spanned<Content>> for Node {
    fn from(spanned: Spanned<Content>) -> Self {
        Self { position: position(&spanned.referenced), content: spanned.value }
    }
}

impl Node {
    /// The field of this name, where this is a mapping that has it.
    pub fn field(&self, name: &str) -> Option<&Self> {
        match &self.content {
            Content::Map(entries) => entries.iter().find(|entry| entry.key == name).map(|entry| &entry.value),
            Content::Scalar(_) | Content::List(_) => None,
        }
    }

    /// Forgets every other field of a mapping.
    pub fn keep_only(&mut self, name: &str) {
        if let Content::Map(entries) = &mut self.content {
            entries.retain(|entry| entry.key == name);
            entries.shrink_to_fit();
        }
    }

    pub fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Scalar(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// The same without positions.
    pub fn to_value(&self) -> Value {
        match &self.content {
            Content::Scalar(value) => value.clone(),
            Content::List(items) => items.iter().map(Self::to_value).collect(),
            Content::Map(entries) => {
                let fields = entries.iter().map(|entry| (entry.key.clone(), entry.value.to_value()));
                Value::Object(fields.collect::<Map<_, _>>())
            }
        }
    }

    /// Where the field at `path` is; of a field that is not there, where the nearest one around it is.
    pub fn locate(&self, path: &str) -> Position {
        let (mut node, mut found, mut rest) = (self, self.position, path);
        while let Some((position, next, tail)) = node.step(rest) {
            (node, found, rest) = (next, position, tail);
        }
        found
    }

    /// One step along `path`: keys may themselves hold dots, so it is the keys that say where one ends.
    fn step<'a, 'p>(&'a self, path: &'p str) -> Option<(Position, &'a Self, &'p str)> {
        let path = path.strip_prefix('.').unwrap_or(path);
        match &self.content {
            Content::Map(entries) => entries.iter().find_map(|entry| {
                let tail = path.strip_prefix(entry.key.as_str())?;
                let ends = tail.is_empty() || tail.starts_with(['.', '[']);
                ends.then_some((entry.position, &entry.value, tail))
            }),
            Content::List(items) => {
                let (index, tail) = path.strip_prefix('[')?.split_once(']')?;
                let item = items.get(index.parse::<usize>().ok()?)?;
                Some((item.position, item, tail))
            }
            Content::Scalar(_) => None,
        }
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> de::Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping, a list or a scalar")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Content, E> {
        self.visit_f64(value as f64)
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Content, E> {
        self.visit_f64(value as f64)
    }

    fn visit_f64<E>(self, value: f64) -> Result<Content, E> {
        Ok(Content::Scalar(Number::from_f64(value).map_or(Value::Null, Value::Number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Content, E> {
        Ok(Content::Scalar(Value::Null))
    }

    fn visit_none<E: de::Error>(self) -> Result<Content, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Content, D::Error> {
        Content::deserialize(deserializer)
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Content, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element::<Spanned<Content>>()? {
            items.push(item.into());
        }
        Ok(Content::List(items))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Content, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let value = map.next_value::<Spanned<Content>>()?.into();
            entries.push(Entry { position: position(&key.referenced), key: key.value, value });
        }
        Ok(Content::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(text: &str) -> Result<Vec<Node>, SyntaxError> {
        super::documents(&mut text.as_bytes()).collect()
    }

    const TEXT: &str = "a: 1\nb:\n- x: yes\n  app.example/name: v\n---\nc: {d: true}\n";

    #[test]
    fn every_field_knows_where_it_is() {
        let documents = documents(TEXT).expect("YAML");
        let at = |document: usize, path: &str| documents[document].locate(path);
        assert_eq!(at(0, "a"), (1, 1));
        assert_eq!(at(0, "b[0]"), (3, 3));
        assert_eq!(at(0, "b[0].app.example/name"), (4, 3));
        assert_eq!(at(1, "c.d"), (6, 5));
        // What is not there is looked for around its place.
        assert_eq!(at(0, "b[0].missing"), (3, 3));
        assert_eq!(at(0, "b[7]"), (2, 1));
        assert_eq!(at(1, "x"), (6, 1));
    }

    #[test]
    fn only_true_and_false_are_booleans() {
        let documents = documents(TEXT).expect("YAML");
        assert_eq!(documents[0].to_value(), serde_json::json!({"a": 1, "b": [{"x": "yes", "app.example/name": "v"}]}));
        assert_eq!(documents[1].to_value(), serde_json::json!({"c": {"d": true}}));
    }

    #[test]
    fn what_is_no_yaml_is_told_with_its_position() {
        for (text, line) in [("a: [1", 1), ("a: 1\na: 2\n", 2), ("a:\n\t- b", 2), ("a: &x 1\nb: *y\n", 2)] {
            let error = documents(text).expect_err(text);
            assert!(error.position.is_some_and(|(at, _)| at >= line), "{text:?}: {error:?}");
            assert!(!error.message.contains("line") && !error.message.contains('\n'), "{text:?}: {error:?}");
        }
    }

    #[test]
    fn a_small_file_cannot_grow_into_a_large_one() {
        let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for i in 1..9 {
            let list = vec![format!("*a{}", i - 1); 10].join(",");
            text.push_str(&format!("a{i}: &a{i} [{list}]\n"));
        }
        let bomb = documents(&text).expect_err("a bomb");
        assert_eq!(bomb.message, "its aliases (*name) expand to too much: write the values out");
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(documents(&deep).expect_err("a tower").message, "nested too deeply");
    }

    #[test]
    fn a_key_written_twice_is_named() {
        let error = documents("a: {b: 1, b: 2}\n").expect_err("two keys");
        assert_eq!(
            (error.position, error.message.as_str()),
            (Some((1, 11)), "b is written twice in one mapping: keep one of them")
        );
    }
}
