//! HealthChecks from YAML: every file read whole, every fault told with file, line and field path.

use std::collections::HashMap;

use serde_json::Value;

use super::{
    Fault, Source,
    yaml::{self, Content, Node},
};
use crate::{
    api::{API_VERSION, HealthCheck, KIND},
    check::{Check, ObjectKey, Place},
    compile::{self, Mode, Problem, Problems, graph, metadata, schema},
};

/// A check as a file declares it.
#[derive(Clone, Debug)]
pub struct Declared {
    pub check: Check,
    /// The file, as it was named.
    pub file: String,
    /// Where the object begins in it, from 1.
    pub line: u64,
}

/// What a set of files declares.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The checks that have no fault, in the order of the files.
    pub declared: Vec<Declared>,
    /// Everything that is wrong, in the order of the files.
    pub faults: Vec<Fault>,
}

/// Reads the checks that `sources` declare.
///
/// A check with a fault is left out and takes no other with it; a file that is no YAML gives none at all.
#[must_use]
pub fn load(sources: &[Source], mode: Mode) -> Loaded {
    let mut loading = Loading { mode, candidates: Vec::new(), faults: Vec::new() };
    for source in sources {
        loading.read_source(source);
    }
    loading.finish()
}

struct Loading {
    mode: Mode,
    candidates: Vec<Candidate>,
    faults: Vec<Fault>,
}

/// An object that is right by itself; what it is among the others is not known yet.
struct Candidate {
    declared: Declared,
    /// As much of it as what may still be found wrong can be about.
    node: Node,
    /// In front of every path: `items[3].` in a List.
    prefix: String,
}

impl Candidate {
    fn fault(&self, problem: Problem) -> Fault {
        located(&self.declared.file, &self.node, &self.prefix, problem)
    }
}

impl Loading {
    fn read_source(&mut self, source: &Source) {
        let (candidates, faults) = (self.candidates.len(), self.faults.len());
        for document in yaml::documents(&mut source.text.as_bytes()) {
            match document {
                Ok(document) => self.read_document(&source.name, document),
                Err(error) => {
                    self.candidates.truncate(candidates);
                    self.faults.truncate(faults);
                    self.faults.push(Fault {
                        file: source.name.clone(),
                        line: error.position.map(|(line, _)| line),
                        column: error.position.map(|(_, column)| column),
                        field_path: None,
                        message: format!("not YAML: {}", error.message),
                    });
                    break;
                }
            }
        }
    }

    fn read_document(&mut self, file: &str, document: Node) {
        let kind = document.field("kind").and_then(Node::text).unwrap_or_default();
        if kind != "List" && kind != "HealthCheckList" {
            return self.read_object(file, document, String::new());
        }
        let Some(Node { content: Content::List(items), .. }) = document.field("items") else {
            return self.refuse(file, &document, "", "items", "must be a list of HealthChecks");
        };
        for (index, item) in items.iter().enumerate() {
            self.read_object(file, item.clone(), format!("items[{index}]."));
        }
    }

    fn read_object(&mut self, file: &str, mut node: Node, prefix: String) {
        if let Err((path, message)) = check_kind(&node) {
            return self.refuse(file, &node, &prefix, path, &message);
        }
        match read(node.to_value(), self.mode) {
            Ok(check) => {
                // Thousands of trees would be kept until the last is read. A circle leads through checks that are targets.
                if !check.targets.iter().any(|target| matches!(target.place, Place::Check { .. })) {
                    node.keep_only("metadata");
                }
                let declared = Declared { check, file: file.to_owned(), line: node.position.0 };
                self.candidates.push(Candidate { declared, node, prefix });
            }
            Err(problems) => {
                let mut faults: Vec<_> =
                    problems.into_iter().map(|problem| located(file, &node, &prefix, problem)).collect();
                faults.sort_by_key(|fault| (fault.line, fault.column));
                self.faults.append(&mut faults);
            }
        }
    }

    fn refuse(&mut self, file: &str, node: &Node, prefix: &str, path: &str, message: &str) {
        let problem = Problem { field_path: path.to_owned(), message: message.to_owned() };
        self.faults.push(located(file, node, prefix, problem));
    }

    /// What only shows among all: names declared twice, and circles.
    fn finish(mut self) -> Loaded {
        let mut first: HashMap<ObjectKey, (String, u64)> = HashMap::new();
        self.candidates.retain(|candidate| {
            let Declared { check, file, line, .. } = &candidate.declared;
            let Some((other, at)) = first.get(&check.key) else {
                first.insert(check.key.clone(), (file.clone(), *line));
                return true;
            };
            let message = format!("{} is declared in {other}:{at} already: rename or remove one", check.key);
            self.faults.push(candidate.fault(Problem { field_path: "metadata.name".to_owned(), message }));
            false
        });
        let mut circles = graph::problems(self.candidates.iter().map(|candidate| &candidate.declared.check));
        self.candidates.retain(|candidate| {
            let problems = circles.remove(&candidate.declared.check.key).unwrap_or_default();
            let sound = problems.is_empty();
            self.faults.extend(problems.into_iter().map(|problem| candidate.fault(problem)));
            sound
        });
        let declared = self.candidates.into_iter().map(|candidate| candidate.declared).collect();
        Loaded { declared, faults: self.faults }
    }
}

/// Whether this is an object of ours at all.
fn check_kind(node: &Node) -> Result<(), (&'static str, String)> {
    if !matches!(node.content, Content::Map(_)) {
        return Err(("", format!("must be a mapping with apiVersion, kind, metadata and spec of a {KIND}")));
    }
    let Some(kind) = node.field("kind").and_then(Node::text) else {
        return Err(("kind", format!("is missing: write kind: {KIND}")));
    };
    if kind != KIND {
        return Err(("kind", format!("{kind} is not read here: only {KIND} is")));
    }
    match node.field("apiVersion").and_then(Node::text) {
        Some(API_VERSION) => Ok(()),
        Some(other) => Err(("apiVersion", format!("must be {API_VERSION}, not {other}"))),
        None => Err(("apiVersion", format!("is missing: write apiVersion: {API_VERSION}"))),
    }
}

/// The check, or everything that is wrong with it.
fn read(mut value: Value, mode: Mode) -> Result<Check, Vec<Problem>> {
    let mut problems = Problems::default();
    metadata::check_top(&value, &mut problems);
    if let Some(spec) = value.get_mut("spec") {
        schema::drop_nulls(spec);
        schema::check_spec(spec, &mut problems);
    }
    if let Some(object) = value.as_object_mut() {
        // A file may be a dump of a cluster's object; what it measured there says nothing here.
        object.remove("status");
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.entry("namespace").or_insert_with(|| compile::DEFAULT_NAMESPACE.into());
        }
    }
    let object = match serde_path_to_error::deserialize::<_, HealthCheck>(value) {
        Ok(object) => object,
        Err(error) => {
            // The schema has told everything already, or else the types know something that it does not.
            if problems.is_empty() {
                problems.add(error.path().to_string(), error.inner().to_string());
            }
            return Err(problems.into_vec());
        }
    };
    match compile::compile(&object, mode) {
        Ok(check) if problems.is_empty() => return Ok(check),
        Ok(_) => {}
        Err(found) => problems.extend(found),
    }
    Err(problems.into_vec())
}

fn located(file: &str, node: &Node, prefix: &str, problem: Problem) -> Fault {
    let (line, column) = node.locate(&problem.field_path);
    let path = format!("{prefix}{}", problem.field_path);
    Fault {
        file: file.to_owned(),
        line: Some(line),
        column: Some(column),
        field_path: Some(path.trim_end_matches('.').to_owned()).filter(|path| !path.is_empty()),
        message: problem.message,
    }
}

#[cfg(test)]
mod tests;
