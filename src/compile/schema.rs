//! The plain bounds of the schema (types, lengths, patterns, words, required and unknown fields), read from the CRD
//! itself, so that files meet the same ones as the API server applies.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use regex::Regex;
use serde_json::{Map, Value};

use super::Problems;
use crate::api::{Duration, crd, rules};

static SPEC: LazyLock<Schema> = LazyLock::new(|| Schema::read(&crd::schema()["properties"]["spec"]));

/// Checks the value of `spec` against the schema of the CRD.
pub fn check_spec(spec: &Value, problems: &mut Problems) {
    SPEC.check(spec, &mut String::from("spec"), problems);
}

/// Takes away fields that are null, as the API server does: they are as if they were not there.
pub fn drop_nulls(spec: &mut Value) {
    SPEC.drop_nulls(spec);
}

#[derive(Debug, Default)]
struct Schema {
    kind: Kind,
    fields: BTreeMap<String, Schema>,
    required: Vec<String>,
    items: Option<Box<Schema>>,
    values: Option<Box<Schema>>,
    /// Names of the fields that make an item of a list unique.
    keys: Vec<String>,
    words: Vec<String>,
    pattern: Option<Regex>,
    number: Bounds,
    length: Bounds,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Object,
    List,
    Text,
    Integer,
    Bool,
    IntOrText,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bounds {
    min: Option<i64>,
    max: Option<i64>,
}

impl Bounds {
    fn read(schema: &Value, min: &str, max: &str) -> Self {
        // Numbers of the CRD are floats, and all of ours are whole and small.
        let bound = |name: &str| schema[name].as_f64().map(|bound| bound as i64);
        Self { min: bound(min), max: bound(max) }
    }

    fn contain(self, number: i64) -> bool {
        self.min.is_none_or(|min| min <= number) && self.max.is_none_or(|max| number <= max)
    }

    fn describe(self) -> String {
        match (self.min, self.max) {
            (Some(min), Some(max)) => format!("from {min} to {max}"),
            (Some(min), None) => format!("at least {min}"),
            (None, Some(max)) => format!("at most {max}"),
            (None, None) => String::from("any number of"),
        }
    }
}

impl Schema {
    fn read(schema: &Value) -> Self {
        let kind = match schema["type"].as_str() {
            Some("array") => Kind::List,
            Some("string") => Kind::Text,
            Some("integer") => Kind::Integer,
            Some("boolean") => Kind::Bool,
            _ if schema["x-kubernetes-int-or-string"] == Value::Bool(true) => Kind::IntOrText,
            _ => Kind::Object,
        };
        let length = match kind {
            Kind::List => Bounds::read(schema, "minItems", "maxItems"),
            Kind::Object => Bounds::read(schema, "minProperties", "maxProperties"),
            _ => Bounds::read(schema, "minLength", "maxLength"),
        };
        let child = |name: &str| schema[name].is_object().then(|| Box::new(Self::read(&schema[name])));
        let fields = schema["properties"].as_object().into_iter().flatten();
        Self {
            kind,
            fields: fields.map(|(name, field)| (name.clone(), Self::read(field))).collect(),
            required: texts(&schema["required"]),
            items: child("items"),
            values: child("additionalProperties"),
            keys: texts(&schema["x-kubernetes-list-map-keys"]),
            words: texts(&schema["enum"]),
            pattern: schema["pattern"].as_str().and_then(|pattern| Regex::new(pattern).ok()),
            number: Bounds::read(schema, "minimum", "maximum"),
            length,
        }
    }

    /// `path` comes back as it was. Nothing is written for what is well: every object of a cluster passes here.
    fn check(&self, value: &Value, path: &mut String, problems: &mut Problems) {
        match (self.kind, value) {
            (Kind::Object, Value::Object(object)) => self.check_object(object, path, problems),
            (Kind::List, Value::Array(items)) => self.check_list(items, path, problems),
            (Kind::Text | Kind::IntOrText, Value::String(text)) => self.check_text(text, path, problems),
            (Kind::Integer, Value::Number(number)) if number.is_i64() || number.is_u64() => {
                let inside = number.as_i64().is_some_and(|number| self.number.contain(number));
                if !inside {
                    problems.add(&**path, format!("must be {}", self.number.describe()));
                }
            }
            (Kind::IntOrText, Value::Number(number)) if number.is_i64() || number.is_u64() => {
                problems.require(number.is_i64(), &**path, "is out of range");
            }
            (Kind::Bool, Value::Bool(_)) => {}
            (_, Value::Null) => problems.add(&**path, "must not be null: remove it or give a value"),
            (_, found) => problems.add(&**path, self.wrong_type(found)),
        }
    }

    fn check_object(&self, object: &Map<String, Value>, path: &mut String, problems: &mut Problems) {
        for name in self.required.iter().filter(|name| !object.contains_key(*name)) {
            problems.add(format!("{path}.{name}"), "is required: add it");
        }
        let here = path.len();
        for (name, value) in object {
            path.push('.');
            path.push_str(name);
            match (self.fields.get(name), &self.values) {
                (Some(field), _) => field.check(value, path, problems),
                (None, Some(values)) => values.check(value, path, problems),
                (None, None) => {
                    let message = unknown_field(name, self.fields.keys(), SPEC.home_of(name, &path[..here]));
                    problems.add(&**path, message);
                }
            }
            path.truncate(here);
        }
        self.check_length(object.len(), "entries", path, problems);
    }

    fn check_list(&self, items: &[Value], path: &mut String, problems: &mut Problems) {
        self.check_length(items.len(), "items", path, problems);
        let mut seen = BTreeSet::new();
        let here = path.len();
        for (index, item) in items.iter().enumerate() {
            path.push_str(&format!("[{index}]"));
            if let Some(schema) = &self.items {
                schema.check(item, path, problems);
            }
            for key in &self.keys {
                if let Some(text) = item[key].as_str()
                    && !seen.insert((key, text))
                {
                    problems.add(format!("{path}.{key}"), format!("'{text}' is there twice: names must differ"));
                }
            }
            path.truncate(here);
        }
    }

    fn check_text(&self, text: &str, path: &str, problems: &mut Problems) {
        let length = text.chars().count();
        self.check_length(length, "characters", path, problems);
        if !self.words.is_empty() && !self.words.iter().any(|word| word == text) {
            let nearest = nearest(text, self.words.iter());
            let hint = nearest.map(|word| format!("; did you mean {word}?")).unwrap_or_default();
            problems.add(path, format!("must be one of {}, not '{}'{hint}", self.words.join(", "), cut(text)));
        }
        if self.is_duration() && text.parse::<Duration>().is_err_and(|_| self.matches(text)) {
            problems.add(path, "must be at most 99999h");
        }
        // A text that is too long has been told about; the pattern would only say so once more.
        if let Some(pattern) = &self.pattern
            && i64::try_from(length).is_ok_and(|length| self.length.contain(length))
            && !pattern.is_match(text)
        {
            problems.add(path, format!("must be {}; got '{}'", meaning(pattern), cut(text)));
        }
    }

    /// Durations that no field could take match the pattern all the same, and are refused by the type.
    fn is_duration(&self) -> bool {
        self.pattern.as_ref().is_some_and(|pattern| pattern.as_str() == Duration::PATTERN)
    }

    fn matches(&self, text: &str) -> bool {
        self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(text))
    }

    fn check_length(&self, length: usize, unit: &str, path: &str, problems: &mut Problems) {
        let inside = i64::try_from(length).is_ok_and(|length| self.length.contain(length));
        if !inside {
            problems.add(path, format!("must have {} {unit}", self.length.describe()));
        }
    }

    fn wrong_type(&self, found: &Value) -> String {
        let expected = match (self.kind, &self.pattern) {
            (_, Some(pattern)) => meaning(pattern),
            (Kind::Object, _) => "a mapping",
            (Kind::List, _) => "a list",
            (Kind::Text, _) => "a string",
            (Kind::Integer, _) => "a whole number",
            (Kind::Bool, _) => "true or false",
            (Kind::IntOrText, _) => "a whole number or a string",
        };
        let found_kind = match found {
            Value::Null => "null",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "a list",
            Value::Object(_) => "a mapping",
        };
        let mend = match (self.kind, found) {
            (Kind::Text, Value::Number(_) | Value::Bool(_)) if self.pattern.is_none() => ": put it in quotes",
            (Kind::Integer, Value::String(text)) if text.parse::<i64>().is_ok() => ": remove the quotes",
            (Kind::Bool, Value::String(text)) if matches!(text.as_str(), "true" | "false") => ": remove the quotes",
            _ => "",
        };
        format!("must be {expected}, not {found_kind}{mend}")
    }

    /// Where a field that is not known at `here` is: of several places the one with the most in common with it.
    fn home_of(&self, name: &str, here: &str) -> Option<String> {
        fn visit(schema: &Schema, name: &str, at: &[&str], here: &[&str], best: &mut Option<(usize, String)>) {
            if schema.fields.contains_key(name) {
                let common = at.iter().zip(here).take_while(|(at, here)| at == here).count();
                if best.as_ref().is_none_or(|(most, _)| common > *most) {
                    *best = Some((common, at.join(".")));
                }
            }
            for (field, child) in &schema.fields {
                // An item of a list is where the wrong field is, or any.
                let item = here.get(at.len()).filter(|item| item.starts_with(&format!("{field}[")));
                let (list, any) = (child.items.as_deref(), format!("{field}[]"));
                let step = if list.is_some() { item.copied().unwrap_or(&any) } else { field };
                visit(list.unwrap_or(child), name, &[at, &[step]].concat(), here, best);
            }
        }
        let mut best = None;
        visit(self, name, &["spec"], &here.split('.').collect::<Vec<_>>(), &mut best);
        best.map(|(_, path)| path)
    }

    fn drop_nulls(&self, value: &mut Value) {
        match (value, &self.items) {
            (Value::Object(object), _) => {
                object.retain(|name, value| !(value.is_null() && self.fields.contains_key(name)));
                for (name, value) in object {
                    if let Some(field) = self.fields.get(name) {
                        field.drop_nulls(value);
                    }
                }
            }
            (Value::Array(items), Some(schema)) => items.iter_mut().for_each(|item| schema.drop_nulls(item)),
            _ => {}
        }
    }
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

fn meaning(pattern: &Regex) -> &str {
    rules::meaning_of(pattern.as_str()).unwrap_or(pattern.as_str())
}

/// What a message repeats of what was written: enough to find it, never a whole script.
fn cut(text: &str) -> String {
    let mut cut: String = text.chars().take(40).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    cut
}

/// What to say of a field that nobody knows here; `home` is where it would be known.
pub fn unknown_field<'a>(name: &str, known: impl Iterator<Item = &'a String>, home: Option<String>) -> String {
    match (nearest(name, known), home) {
        (Some(nearest), _) => format!("unknown field; did you mean {nearest}?"),
        (None, Some(home)) => format!("unknown field here: it belongs to {home}"),
        (None, None) => "unknown field: remove it".to_owned(),
    }
}

fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a String>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    known
        .map(|known| (strsim::damerau_levenshtein(&word, &known.to_ascii_lowercase()), known.as_str()))
        .filter(|(distance, known)| *distance <= known.len().max(3) / 3)
        .min()
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems_of(spec: &Value) -> Vec<String> {
        let mut problems = Problems::default();
        check_spec(spec, &mut problems);
        problems.into_vec().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_pattern_has_a_meaning_in_words_and_compiles() {
        fn visit(schema: &Value, seen: &mut usize) {
            if let Some(pattern) = schema["pattern"].as_str() {
                *seen += 1;
                assert!(rules::meaning_of(pattern).is_some() && Regex::new(pattern).is_ok(), "{pattern}");
            }
            for child in schema.as_object().into_iter().flat_map(Map::values).filter(|child| child.is_object()) {
                visit(child, seen);
            }
        }
        let mut seen = 0;
        visit(&crd::schema()["properties"]["spec"], &mut seen);
        assert!(seen > 10);
    }

    #[test]
    fn a_field_in_the_wrong_place_is_told_its_own() {
        let spec = json!({
            "path": "/",
            "headers": [],
            "probe": {"interval": "10s"},
            "targets": [{"name": "a"}, {"name": "b", "failureThreshold": 3, "command": ["x"], "nonsense": 1, "path": "/"}],
        });
        assert_eq!(
            problems_of(&spec),
            [
                "spec.headers: unknown field here: it belongs to spec.probe.http",
                "spec.path: unknown field here: it belongs to spec.probe.http",
                "spec.probe.interval: unknown field here: it belongs to spec",
                "spec.targets[1].command: unknown field here: it belongs to spec.targets[1].probe.script",
                "spec.targets[1].failureThreshold: unknown field here: it belongs to spec",
                "spec.targets[1].nonsense: unknown field: remove it",
                "spec.targets[1].path: unknown field here: it belongs to spec.targets[1].probe.http",
            ]
        );
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let spec = json!({
            "intervall": "10s",
            "interval": 10,
            "suspend": "true",
            "failureThreshold": "3",
            "successThreshold": 101,
            "initialState": "healthy",
            "probe": {"http": {"path": null, "host": 5}},
            "targets": [{"name": "A"}, {"name": "b"}, {"name": "b"}, {}],
        });
        assert_eq!(
            problems_of(&spec),
            [
                "spec.failureThreshold: must be a whole number, not a string: remove the quotes",
                "spec.initialState: must be one of Unknown, Healthy, Unhealthy, not 'healthy'; did you mean Healthy?",
                "spec.interval: must be a duration: numbers with the units h, m, s or ms, such as 10s, 1m30s or 500ms, not a number",
                "spec.intervall: unknown field; did you mean interval?",
                "spec.probe.http.host: must be a string, not a number: put it in quotes",
                "spec.probe.http.path: must not be null: remove it or give a value",
                "spec.successThreshold: must be from 1 to 100",
                "spec.suspend: must be true or false, not a string: remove the quotes",
                "spec.targets[0].name: must be a DNS label: lower-case letters, digits and '-', with a letter or digit at both ends; got 'A'",
                "spec.targets[2].name: 'b' is there twice: names must differ",
                "spec.targets[3].name: is required: add it",
            ]
        );
    }

    #[test]
    fn a_field_that_is_null_is_as_if_it_were_absent() {
        let mut spec =
            json!({"interval": null, "timeout": null, "x": null, "targets": [{"name": "a", "optional": null}, null]});
        drop_nulls(&mut spec);
        assert_eq!(spec, json!({"x": null, "targets": [{"name": "a"}, null]}));
    }
}
