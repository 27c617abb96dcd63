//! The API server's own account of who asked for what.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::Value;

/// What the API server writes down: bodies of writes, except where they are secret, and the bare
/// facts of everything else. A request that runs long (a watch) is written twice, when its answer
/// starts and when it ends; all others once, when their answer is complete.
pub const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  resources:
  - group: ""
    resources: [secrets, configmaps, serviceaccounts/token]
  - group: authentication.k8s.io
- level: Request
  verbs: [create, update, patch, delete, deletecollection]
- level: Metadata
"#;

/// The log file of one API server.
#[derive(Clone, Debug)]
pub struct AuditLog(PathBuf);

/// A place in the log.
#[derive(Clone, Copy, Debug)]
pub struct Mark(u64);

/// One request, as the API server saw it. Fields that do not apply are empty.
#[derive(Clone, Debug)]
pub struct Entry {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: String,
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    /// `system:serviceaccount:NAMESPACE:NAME` for a ServiceAccount.
    pub user: String,
    pub user_agent: String,
    /// The answer's HTTP status.
    pub code: u64,
    /// `ResponseComplete`, `ResponseStarted` (a watch that goes on) or `Panic`.
    pub stage: String,
    /// The whole entry, `requestObject` of a write included.
    pub raw: Value,
}

impl Entry {
    /// Whether the request changed, or was to change, something.
    pub fn is_write(&self) -> bool {
        matches!(self.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection")
    }

    fn parse(line: &str) -> anyhow::Result<Self> {
        let raw: Value = serde_json::from_str(line)?;
        let text = |pointer: &str| raw.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(Self {
            verb: text("/verb"),
            group: text("/objectRef/apiGroup"),
            resource: text("/objectRef/resource"),
            subresource: text("/objectRef/subresource"),
            namespace: text("/objectRef/namespace"),
            name: text("/objectRef/name"),
            user: text("/user/username"),
            user_agent: text("/userAgent"),
            code: raw.pointer("/responseStatus/code").and_then(Value::as_u64).unwrap_or_default(),
            stage: text("/stage"),
            raw,
        })
    }
}

impl AuditLog {
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// The end of the log as it is now. An entry is written just *after* its answer was sent, so
    /// a request answered right before the mark may still come behind it: mark at a quiet time
    /// or look for particular entries.
    ///
    /// # Errors
    /// When there is no log.
    pub fn mark(&self) -> anyhow::Result<Mark> {
        Ok(Mark(std::fs::metadata(&self.0)?.len()))
    }

    /// All entries since a mark, oldest first.
    ///
    /// # Errors
    /// When the log cannot be read or holds what is no entry.
    pub fn since(&self, mark: Mark) -> anyhow::Result<Vec<Entry>> {
        let mut file = std::fs::File::open(&self.0)?;
        // From the byte before it on: the mark may have been made while a line was being written. That line came first.
        file.seek(SeekFrom::Start(mark.0.saturating_sub(1)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let newline = |bytes: &[u8]| bytes.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
        let start = if mark.0 == 0 { 0 } else { newline(&bytes).unwrap_or(bytes.len()) };
        // A line that is still being written is not there yet.
        let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(start, |at| at + 1);
        std::str::from_utf8(&bytes[start..end])?.lines().map(Entry::parse).collect()
    }

    /// The writes since a mark by one user, refused ones included.
    ///
    /// # Errors
    /// As [`AuditLog::since`].
    pub fn writes_by(&self, user: &str, mark: Mark) -> anyhow::Result<Vec<Entry>> {
        let mut entries = self.since(mark)?;
        entries.retain(|entry| entry.is_write() && entry.user == user);
        Ok(entries)
    }
}

#[test]
fn a_mark_in_the_middle_of_a_line_counts_from_the_next() -> anyhow::Result<()> {
    // In here: binaries with a harness of their own leave tests out, and would have no use for it.
    use std::io::Write;
    let mut file = tempfile::NamedTempFile::new()?;
    let log = AuditLog::new(file.path());
    let verbs = |mark: Mark| -> anyhow::Result<Vec<String>> {
        Ok(log.since(mark)?.into_iter().map(|entry| entry.verb).collect())
    };
    let start = log.mark()?;
    file.write_all(b"{\"verb\": \"create\"}\n{\"verb\": ")?;
    let middle = log.mark()?;
    assert_eq!((verbs(start)?, verbs(middle)?), (vec!["create".to_owned()], vec![]));
    file.write_all(b"\"patch\"}\n")?;
    let end = log.mark()?;
    file.write_all(b"{\"verb\": \"delete\"}\n")?;
    assert_eq!(verbs(start)?, ["create", "patch", "delete"]);
    assert_eq!((verbs(middle)?, verbs(end)?), (vec!["delete".to_owned()], vec!["delete".to_owned()]));
    Ok(())
}
