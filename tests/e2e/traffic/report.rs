//! What became of all requests.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;

use super::Record;
use crate::support::run_dir::sub_dir;

/// How long after a verdict was written requests may still be sent in vain: kube-proxy's own pace, which is a second,
/// and as much for a busy machine. A request counts when it was sent: how long its client waits in vain is the client's
/// choice. The loss before the verdict is the price of thresholds: it is printed, never judged.
pub const GRACE: Duration = Duration::from_secs(2);

/// How many of the late failures are told one by one.
const TOLD: usize = 12;

/// A sum over all requests of a client.
pub struct Report {
    title: String,
    records: Vec<Record>,
    file: PathBuf,
}

impl Report {
    /// # Errors
    /// When its file cannot be written.
    pub fn new(title: &str, records: Vec<Record>) -> anyhow::Result<Self> {
        let file = sub_dir("traffic").join(format!("{}.jsonl", title.replace([' ', ':', '/'], "-")));
        let mut lines = String::new();
        let start = records.iter().map(|record| record.begun).min();
        for record in &records {
            let at = start.map_or(0.0, |start| (record.begun - start).as_secs_f64());
            let took = (record.ended - record.begun).as_secs_f64();
            let (who, failure) = (record.result.as_ref().ok(), record.result.as_ref().err());
            let line = json!({"at": at, "took": took, "who": who, "failure": failure});
            let _ = writeln!(lines, "{line}");
        }
        std::fs::write(&file, lines)?;
        Ok(Self { title: title.to_owned(), records, file })
    }

    pub fn failures(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(|record| record.result.is_err())
    }

    /// Who answered requests that were begun after `since`, and how many each.
    pub fn answers(&self, since: Instant) -> BTreeMap<&str, usize> {
        let mut answers = BTreeMap::new();
        for who in
            self.records.iter().filter(|record| record.begun >= since).filter_map(|record| record.result.as_ref().ok())
        {
            *answers.entry(who.as_str()).or_default() += 1;
        }
        answers
    }

    /// Fails when any request did: nothing was broken.
    ///
    /// # Errors
    /// With the failures.
    pub fn lossless(&self) -> anyhow::Result<()> {
        println!("  {}: {} requests, {} failed", self.title, self.records.len(), self.failures().count());
        ensure!(!self.records.is_empty(), "{}: no request was sent", self.title);
        ensure!(self.failures().next().is_none(), "{}: {} ({})", self.title, self.kinds(), self.file.display());
        Ok(())
    }

    /// Fails when a request failed that was sent later than [`GRACE`] after `verdict`, the moment at which the verdict
    /// was written; prints the loss. `fault` is when something was broken.
    ///
    /// # Errors
    /// With the failures that came too late.
    pub fn over_by(&self, fault: Instant, verdict: Instant) -> anyhow::Result<()> {
        let failed: Vec<Instant> = self.failures().map(|record| record.begun).collect();
        let (first, last) = (failed.iter().min(), failed.iter().max());
        let window = first.zip(last).map_or(0.0, |(first, last)| (*last - *first).as_secs_f64());
        println!(
            "  {}: {} requests, {} failed within {window:.2} s; verdict {:+.2} s after the fault, last failure sent {} after the verdict",
            self.title,
            self.records.len(),
            failed.len(),
            seconds(fault, verdict),
            last.map_or(String::from("-"), |last| format!("{:+.2} s", seconds(verdict, *last))),
        );
        // Without requests there are no failures either.
        let after = self.records.iter().filter(|record| record.begun >= verdict + GRACE).count();
        ensure!(after >= 50, "{}: only {after} requests were sent after the verdict's {GRACE:?}", self.title);
        let late = |record: &&Record| record.begun > verdict + GRACE;
        let late: Vec<_> = self.failures().filter(late).map(|record| told(verdict, record)).collect();
        ensure!(
            late.is_empty(),
            "{}: {} requests failed that were sent later than {GRACE:?} after the verdict: {}{} ({})",
            self.title,
            late.len(),
            late[..late.len().min(TOLD)].join(", "),
            if late.len() > TOLD { ", …" } else { "" },
            self.file.display()
        );
        Ok(())
    }

    fn kinds(&self) -> String {
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        for failure in self.records.iter().filter_map(|record| record.result.as_ref().err()) {
            *kinds.entry(failure).or_default() += 1;
        }
        kinds.iter().map(|(kind, count)| format!("{count} × {kind}")).collect::<Vec<_>>().join(", ")
    }
}

/// When a request was sent, and what became of it.
fn told(verdict: Instant, record: &Record) -> String {
    let result = record.result.as_ref().err().map_or("answered", String::as_str);
    format!("{:+.3} s {result}", seconds(verdict, record.begun))
}

/// From one moment to another, which may be the earlier.
fn seconds(from: Instant, to: Instant) -> f64 {
    if to >= from { (to - from).as_secs_f64() } else { -(from - to).as_secs_f64() }
}
