//! Reads the corpus of refusals; `README.md` beside this file says what is in it.
#![allow(dead_code)]

use std::path::Path;

use healthcheck_operator::api::{API_VERSION, KIND};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// A file of the corpus.
pub struct File {
    pub name: String,
    pub cases: Vec<Case>,
}

/// A refusal and its near miss.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Case {
    pub rule: String,
    pub field: String,
    pub message: String,
    /// A part of the API server's own message, for the plain bounds that it words itself.
    pub server: Option<String>,
    /// Where the API server and kube-cel see it, if that is not `field`.
    server_field: Option<String>,
    /// Other messages may come with it.
    #[serde(default)]
    pub among: bool,
    /// The patches are for `metadata` instead of `spec`.
    #[serde(default)]
    metadata: bool,
    refused: Value,
    accepted: Value,
}

impl Case {
    pub fn refused(&self) -> Value {
        self.manifest(&self.refused)
    }

    pub fn accepted(&self) -> Value {
        self.manifest(&self.accepted)
    }

    /// Whether `path`, where the API server or kube-cel has an error, is where this case says that they have it.
    pub fn is_at(&self, path: &str) -> bool {
        let wanted = self.server_field.as_deref().unwrap_or(&self.field);
        // A rule over the whole object has no path, which the API server writes as `<nil>`.
        path.trim_start_matches('.').replace("<nil>", "") == wanted
    }

    fn manifest(&self, patch: &Value) -> Value {
        let mut manifest = json!({
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": "case"},
            "spec": {"targets": [{"name": "a", "host": "db.example", "port": 5432}]},
        });
        let part = if self.metadata { "metadata" } else { "spec" };
        merge(&mut manifest[part], &expand(patch));
        manifest
    }
}

/// Every file of the corpus, in order of their names.
pub fn read() -> Vec<File> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut files: Vec<_> = std::fs::read_dir(&directory)
        .expect("the corpus is there")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no corpus in {}", directory.display());
    let read = |path: &std::path::PathBuf| {
        let text = std::fs::read_to_string(path).expect("readable");
        let options = serde_saphyr::options! { strict_booleans: true };
        File {
            name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            cases: serde_saphyr::from_str_with_options(&text, options)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display())),
        }
    };
    files.iter().map(read).collect()
}

/// RFC 7396: null removes; an explicit null is `{$null: true}`.
fn merge(into: &mut Value, patch: &Value) {
    let (Value::Object(into), Value::Object(patch)) = (&mut *into, patch) else {
        into.clone_from(patch);
        return;
    };
    for (name, value) in patch {
        match value {
            Value::Null => drop(into.remove(name)),
            Value::Object(object) if object.contains_key("$null") => drop(into.insert(name.clone(), Value::Null)),
            Value::Object(_) => merge(into.entry(name).or_insert_with(|| json!({})), value),
            _ => drop(into.insert(name.clone(), value.clone())),
        }
    }
}

/// Writes `$repeat` and `$keys` out.
fn expand(value: &Value) -> Value {
    let times = || value["times"].as_u64().expect("times of a repetition") as usize;
    match value {
        Value::Object(object) if object.contains_key("$repeat") => match &object["$repeat"] {
            Value::String(text) => Value::String(text.repeat(times())),
            Value::Array(items) => (0..times()).flat_map(|i| items.iter().map(move |item| number(item, i))).collect(),
            item => (0..times()).map(|i| number(item, i)).collect(),
        },
        Value::Object(object) if object.contains_key("$keys") => {
            let key = object["$keys"].as_str().expect("a prefix of keys");
            Value::Object((0..times()).map(|i| (format!("{key}{i}"), "v".into())).collect())
        }
        Value::Object(object) => {
            let fields = object.iter().map(|(name, value)| (name.clone(), expand(value)));
            Value::Object(fields.collect::<Map<_, _>>())
        }
        Value::Array(items) => items.iter().map(expand).collect(),
        other => other.clone(),
    }
}

/// `$i` in texts becomes `index`.
fn number(value: &Value, index: usize) -> Value {
    match value {
        Value::String(text) => Value::String(text.replace("$i", &index.to_string())),
        Value::Object(object) => {
            Value::Object(object.iter().map(|(name, value)| (name.clone(), number(value, index))).collect())
        }
        other => other.clone(),
    }
}
