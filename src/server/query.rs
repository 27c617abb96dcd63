//! The parameters of a health request.

use axum::extract::Query;
use http::Uri;

use super::{respond::Form, verdict::Filter};
use crate::check::ObjectKey;

/// What a request asks for beside its path.
#[derive(Debug, Default)]
pub struct Asked {
    pub filter: Filter,
    pub verbose: bool,
    /// Probe now instead of reading the board.
    pub fresh: bool,
    /// Overrides what the headers say.
    pub form: Option<Form>,
    /// What a page is to show of the set; the verdict is the same whatever is searched for.
    pub search: Search,
    /// Every parameter of ours beside the search that a page is asked for with, for the next search to keep.
    pub kept: Vec<(String, String)>,
}

/// The longest search, in characters: each word is looked for in all that is told of every check.
pub const MAX_SEARCH: usize = 100;

/// Words, all of which have to be in what is shown of a check.
#[derive(Clone, Debug, Default)]
pub struct Search {
    text: String,
    lower: String,
}

impl Search {
    fn parse(text: &str) -> Result<Self, String> {
        if text.chars().count() > MAX_SEARCH {
            return Err(format!("q: longer than {MAX_SEARCH} characters; search for less"));
        }
        let text = text.trim().to_owned();
        Ok(Self { lower: text.to_ascii_lowercase(), text })
    }

    /// As it was typed.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// In lower case.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.lower.split_whitespace()
    }
}

/// Reads the query of `uri`. Parameters we do not know are ignored, because load balancers and caches add their own.
///
/// # Errors
/// The name of the parameter, what is wrong, and the mend.
pub fn parse(uri: &Uri) -> Result<Asked, String> {
    let Query(pairs): Query<Vec<(String, String)>> =
        Query::try_from_uri(uri).map_err(|error| format!("the query cannot be read: {error}"))?;
    let mut asked = Asked::default();
    for (name, value) in pairs {
        if matches!(name.as_str(), "labelSelector" | "exclude" | "format") {
            asked.kept.push((name.clone(), value.clone()));
        }
        match name.as_str() {
            "labelSelector" => {
                let selector: crate::check::PodSelector =
                    value.parse().map_err(|error| format!("labelSelector: {error}"))?;
                asked.filter.selector.match_expressions.extend(selector.match_expressions);
            }
            "exclude" => {
                asked.filter.excluded.insert(object(&value)?);
            }
            "verbose" => asked.verbose = is_set(&value),
            "format" => asked.form = Some(form(&value)?),
            "q" => asked.search = Search::parse(&value)?,
            "fresh" => asked.fresh = is_set(&value),
            other => refuse_misspelt(other)?,
        }
    }
    Ok(asked)
}

/// What is nearly one of ours was meant to be: ignored, it would make the answer one over other checks than were asked
/// for.
fn refuse_misspelt(name: &str) -> Result<(), String> {
    const OURS: [&str; 5] = ["labelSelector", "exclude", "verbose", "format", "fresh"];
    let plain = |name: &str| name.replace(['-', '_'], "").to_ascii_lowercase();
    match OURS.into_iter().find(|ours| *ours != name && plain(ours) == plain(name)) {
        Some(ours) => Err(format!("{name}: no such parameter; did you mean {ours}?")),
        None => Ok(()),
    }
}

/// A parameter that stands alone is set.
fn is_set(value: &str) -> bool {
    !matches!(value, "false" | "0")
}

fn object(value: &str) -> Result<ObjectKey, String> {
    match value.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(ObjectKey::new(namespace, name))
        }
        _ => Err(format!("exclude: {value:?} names no HealthCheck; want <namespace>/<name>")),
    }
}

fn form(value: &str) -> Result<Form, String> {
    match value {
        "json" => Ok(Form::Json),
        "html" => Ok(Form::Html),
        "text" => Ok(Form::Text),
        _ => Err(format!("format: {value:?} is unknown; want json, html or text")),
    }
}
