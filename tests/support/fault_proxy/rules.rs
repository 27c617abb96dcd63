//! Which requests meet which fault.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

/// What a rule does to a request or a watch.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Waits before the request is passed on, and before each event of a watch.
    Delay(Duration),
    /// Holds requests and events back until the rule is lifted, and passes them on then, even
    /// when the client has given up meanwhile: the write that lands late.
    Hold,
    /// Cuts the connection without an answer; the API server does not see the request.
    Cut,
    /// Passes the request on and cuts the connection before the answer: the client cannot know
    /// whether it was carried out.
    LoseAnswer,
    /// Answers this HTTP status, as a `Status` object, with `Retry-After: N` seconds when given.
    Answer { status: u16, retry_after: Option<u32> },
    /// Answers `410 Expired`, as for a resourceVersion that is too old.
    Gone,
    /// Ends a watch, open or new, by an `ERROR` event with `410 Expired`.
    GoneEvent,
    /// Drops events of watches, bookmarks too, so that a client which watches again from what it
    /// last saw gets them after all.
    DropEvents,
    /// Sends each event of a watch twice.
    RepeatEvents,
}

impl Fault {
    /// Whether the fault acts on what flows in a watch rather than on requests.
    pub(super) fn is_of_events(&self) -> bool {
        matches!(self, Self::GoneEvent | Self::DropEvents | Self::RepeatEvents)
    }

    /// Whether it breaks a watch that is open.
    pub(super) fn ends_watches(&self) -> bool {
        matches!(self, Self::GoneEvent | Self::Cut)
    }
}

/// A request as the API server would read it; parts that do not apply are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; for
    /// what is no resource (`/readyz`) the HTTP method in lower case.
    pub verb: String,
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub path: String,
}

impl Request {
    /// Reads method and path as the API server's request info resolver does.
    pub(super) fn parse(method: &http::Method, uri: &http::Uri) -> Self {
        let path = uri.path();
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (group, rest) = match segments.as_slice() {
            ["api", _version, rest @ ..] => ("", rest),
            ["apis", group, _version, rest @ ..] => (*group, rest),
            _ => ("", [].as_slice()),
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() && !is_subresource(rest) => (*namespace, rest),
            rest => ("", rest),
        };
        let part = |index: usize| rest.get(index).copied().unwrap_or_default().to_owned();
        let (resource, name) = (part(0), part(1));
        let verb = if resource.is_empty() {
            method.as_str().to_lowercase()
        } else {
            verb(method, uri.query().unwrap_or_default(), !name.is_empty()).to_owned()
        };
        Self {
            verb,
            group: group.to_owned(),
            resource,
            subresource: part(2),
            namespace: namespace.to_owned(),
            name,
            path: path.to_owned(),
        }
    }
}

/// `/namespaces/x/status` is about the namespace, not about a resource in it.
fn is_subresource(rest: &[&str]) -> bool {
    matches!(rest, ["status" | "finalize"])
}

fn verb(method: &http::Method, query: &str, named: bool) -> &'static str {
    let watches = query.split('&').any(|pair| matches!(pair, "watch=true" | "watch=1"));
    match method.as_str() {
        "GET" | "HEAD" if watches => "watch",
        "GET" | "HEAD" if named => "get",
        "GET" | "HEAD" => "list",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" if named => "delete",
        "DELETE" => "deletecollection",
        _ => "other",
    }
}

/// A set of requests: those that agree in every part that is given.
#[derive(Clone, Debug, Default)]
pub struct Match {
    verb: Option<String>,
    resource: Option<String>,
    subresource: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
}

impl Match {
    /// All requests.
    pub fn any() -> Self {
        Self::default()
    }

    /// The requests with a verb.
    pub fn verb(verb: &str) -> Self {
        Self { verb: Some(verb.to_owned()), ..Self::default() }
    }

    /// Narrows to a resource, by its plural.
    pub fn resource(mut self, resource: &str) -> Self {
        self.resource = Some(resource.to_owned());
        self
    }

    /// Narrows to a subresource; "" means the object itself.
    pub fn subresource(mut self, subresource: &str) -> Self {
        self.subresource = Some(subresource.to_owned());
        self
    }

    /// Narrows to a namespace; "" means requests across namespaces.
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }

    /// Narrows to one object.
    pub fn name(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    pub(super) fn holds(&self, request: &Request) -> bool {
        let agree = |wanted: &Option<String>, found: &String| wanted.as_ref().is_none_or(|wanted| wanted == found);
        agree(&self.verb, &request.verb)
            && agree(&self.resource, &request.resource)
            && agree(&self.subresource, &request.subresource)
            && agree(&self.namespace, &request.namespace)
            && agree(&self.name, &request.name)
    }
}

/// A fault at work. Lifted when dropped.
#[must_use = "a rule holds only as long as its handle"]
pub struct Rule {
    active: Arc<Active>,
    rules: watch::Sender<Vec<Arc<Active>>>,
}

impl Rule {
    /// How often it struck so far.
    pub fn hits(&self) -> u64 {
        self.active.hits.load(Ordering::Relaxed)
    }

    /// Ends it: what it holds goes on.
    pub fn lift(self) {}
}

impl Drop for Rule {
    fn drop(&mut self) {
        self.rules.send_modify(|rules| rules.retain(|rule| !Arc::ptr_eq(rule, &self.active)));
    }
}

/// A rule as the proxy sees it.
#[derive(Debug)]
pub(super) struct Active {
    which: Match,
    pub(super) fault: Fault,
    left: AtomicU64,
    hits: AtomicU64,
}

impl Active {
    /// Takes one of the times that the rule has left.
    pub(super) fn strike(&self) -> bool {
        let took = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        if took {
            self.hits.fetch_add(1, Ordering::Relaxed);
        }
        took
    }
}

/// All rules, and all requests seen.
pub(super) struct Rules {
    active: watch::Sender<Vec<Arc<Active>>>,
    seen: Mutex<Vec<Request>>,
}

impl Default for Rules {
    fn default() -> Self {
        Self { active: watch::Sender::new(Vec::new()), seen: Mutex::default() }
    }
}

impl Rules {
    pub(super) fn add(&self, which: Match, fault: Fault, times: u64) -> Rule {
        let active = Arc::new(Active { which, fault, left: AtomicU64::new(times), hits: AtomicU64::new(0) });
        self.active.send_modify(|rules| rules.push(Arc::clone(&active)));
        Rule { active, rules: self.active.clone() }
    }

    pub(super) fn record(&self, request: &Request) {
        self.seen.lock().expect("no holder of this lock panics").push(request.clone());
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.seen.lock().expect("no holder of this lock panics").clone()
    }

    /// Rules that concern a request, in the order they were made.
    pub(super) fn matching(&self, request: &Request) -> Vec<Arc<Active>> {
        self.active.borrow().iter().filter(|rule| rule.which.holds(request)).cloned().collect()
    }

    /// Tells of every change of the rules.
    pub(super) fn changes(&self) -> watch::Receiver<Vec<Arc<Active>>> {
        self.active.subscribe()
    }

    /// Waits until a rule is lifted.
    pub(super) async fn lifted(&self, rule: &Arc<Active>) {
        let mut changes = self.changes();
        // The sender lives as long as the rules do, so this cannot fail.
        let _ = changes.wait_for(|rules| !rules.iter().any(|other| Arc::ptr_eq(other, rule))).await;
    }
}
