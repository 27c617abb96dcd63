//! One check in full: the word, since when, why, and each of its targets.

use std::{
    fmt::{self, Write},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

use super::{
    Reader,
    markup::{Escaped, Lasting, Since, latency, path_to},
    shelves::Shelf,
};
use crate::{
    check::{EndpointState, HealthReason},
    engine::{CheckView, EndpointView},
    server::{
        config::Details,
        verdict::{Verdict, check_why, endpoint_why},
    },
};

/// Rows of one check, among others and on its own page.
const ROWS: usize = 5;
const ROWS_ALONE: usize = 1000;
/// Addresses of one endpoint, likewise.
const ADDRESSES: usize = 3;
const ADDRESSES_ALONE: usize = 50;
/// A certificate that lasts longer than this is no news.
const CERTIFICATE_NEWS: SignedDuration = SignedDuration::from_hours(30 * 24);

/// See the module's own words.
pub struct Card<'a> {
    pub verdict: &'a Verdict,
    pub reader: &'a Reader<'a>,
    pub view: &'a CheckView,
    /// The page is about this one.
    pub alone: bool,
}

/// Endpoints that look the same, where what tells them apart is not shown.
struct Row<'a> {
    endpoint: &'a EndpointView,
    state: EndpointState,
    why: String,
    times: usize,
}

impl Card<'_> {
    pub fn write(&self, html: &mut String) -> fmt::Result {
        let Self { verdict, reader, view, .. } = *self;
        let word = Shelf::of(verdict, view).word();
        let (key, now) = (&view.key, reader.now);
        let (namespace, name) = (Escaped(&key.namespace), Escaped(&key.name));
        let link = path_to(reader.base, &[&key.namespace, &key.name]);
        write!(
            html,
            "<article id=\"check:{namespace}/{name}\" class=\"card {word}\">\n<h3><span class=\"word\">{word}</span> \
             <a href=\"{link}\"><span class=\"namespace\">{namespace}/</span>{name}</a></h3>\n<p class=\"facts\">"
        )?;
        if verdict.believed {
            write!(html, "<span>{}</span> ", Since { at: view.since, now })?;
        }
        if view.counts.total > 0 && verdict.believed {
            write!(html, "<span>{} healthy</span> ", view.counts.summary())?;
        }
        if reader.details == Details::Full {
            write!(html, "<span>{} every {}</span>", Escaped(&view.probes.replace(',', ", ")), every(view.interval))?;
            if let Some(last) = view.live.last_beat() {
                write!(html, " <span>last probe {} ago</span>", Lasting(now.duration_since(last)))?;
            }
        }
        html.push_str("</p>\n");
        let rows = self.rows();
        if !self.says_the_same(&rows) {
            self.why(html)?;
        }
        self.table(html, &rows)?;
        html.push_str("</article>\n");
        Ok(())
    }

    fn why(&self, html: &mut String) -> fmt::Result {
        let (view, why) = (self.view, check_why(self.view));
        if !self.verdict.believed {
            write!(html, "<p class=\"why\">last known: <b>{}</b>, ", view.health)?;
            write!(html, "{}", Since { at: view.since, now: self.reader.now })?;
            if !why.is_empty() {
                write!(html, "; {}", Escaped(&why))?;
            }
            html.push_str("</p>\n");
        } else if why == view.reason.as_str() {
            writeln!(html, "<p class=\"why\"><code>{why}</code></p>", why = Escaped(&why))?;
        } else if !why.is_empty() {
            writeln!(html, "<p class=\"why\"><code>{}</code> {}</p>", view.reason, Escaped(&why))?;
        }
        Ok(())
    }

    /// The rows, worst first, in declared order among equals.
    fn rows(&self) -> Vec<Row<'_>> {
        let mut endpoints: Vec<_> = self.verdict.endpoints(self.view).collect();
        endpoints.sort_by_key(|endpoint| self.verdict.state_of(endpoint).severity());
        let mut rows: Vec<Row<'_>> = Vec::new();
        for endpoint in endpoints {
            let state = self.verdict.state_of(endpoint);
            let why = if self.verdict.believed { endpoint_why(endpoint) } else { String::new() };
            let same =
                |row: &&mut Row<'_>| row.endpoint.target == endpoint.target && row.state == state && row.why == why;
            match rows.last_mut().filter(same) {
                Some(row) if self.reader.details != Details::Full => row.times += 1,
                _ => rows.push(Row { endpoint, state, why, times: 1 }),
            }
        }
        rows
    }

    const fn limit(&self) -> usize {
        if self.alone { ROWS_ALONE } else { ROWS }
    }

    /// Whether the rows that are shown say all that the check's own message does: that is made of theirs.
    fn says_the_same(&self, rows: &[Row<'_>]) -> bool {
        let made = matches!(self.view.reason, HealthReason::TargetsUnhealthy | HealthReason::MinimumMet);
        let told = |row: &&Row<'_>| !row.state.is_healthy() && !row.why.is_empty();
        let bad = rows.iter().filter(|row| !row.state.is_healthy()).count();
        made && self.verdict.believed && bad > 0 && bad <= self.limit() && rows.iter().filter(told).count() == bad
    }

    fn table(&self, html: &mut String, rows: &[Row<'_>]) -> fmt::Result {
        if rows.is_empty() {
            let why = if self.alone { self.verdict.why() } else { String::new() };
            let told = check_why(self.view);
            return if why.is_empty() || why == told { Ok(()) } else { writeln!(html, "<p>{}</p>", Escaped(&why)) };
        }
        let full = self.reader.details == Details::Full;
        let columns = if full { "<th>Endpoint</th><th>Since</th><th class=\"number\">Latency</th>" } else { "" };
        writeln!(
            html,
            "<table class=\"targets{}\">\n<thead><tr><th>Target</th><th>State</th>{columns}<th>Why</th></tr></thead>\n\
             <tbody>",
            if full { " full" } else { "" },
        )?;
        let limit = self.limit();
        for row in rows.iter().take(limit) {
            self.row(html, row, "")?;
            if full {
                self.addresses(html, row.endpoint)?;
            }
        }
        html.push_str("</tbody>\n</table>\n");
        self.rest(html, rows.get(limit..).unwrap_or_default())
    }

    /// What is not shown, counted: a row of ours may have been left out of a standby's status as well.
    fn rest(&self, html: &mut String, left_out: &[Row<'_>]) -> fmt::Result {
        if left_out.is_empty() {
            return Ok(());
        }
        let count: usize = left_out.iter().map(|row| row.times).sum();
        let bad: usize = left_out.iter().filter(|row| !row.state.is_healthy()).map(|row| row.times).sum();
        let link = path_to(self.reader.base, &[&self.view.key.namespace, &self.view.key.name]);
        let what = if bad > 0 { format!(", {bad} of them not healthy") } else { String::new() };
        if self.alone {
            writeln!(html, "<p class=\"more\">and {count} more{what}</p>")
        } else {
            writeln!(html, "<p class=\"more\"><a href=\"{link}\">and {count} more{what}</a></p>")
        }
    }

    fn addresses(&self, html: &mut String, endpoint: &EndpointView) -> fmt::Result {
        let Some(addresses) = &endpoint.addresses else { return Ok(()) };
        let mut shown: Vec<_> = addresses.iter().collect();
        shown.sort_by_key(|address| self.verdict.state_of(address).severity());
        let limit = if self.alone { ADDRESSES_ALONE } else { ADDRESSES };
        for address in shown.iter().take(limit) {
            let state = self.verdict.state_of(address);
            let why = if self.verdict.believed { endpoint_why(address) } else { String::new() };
            self.row(html, &Row { endpoint: address, state, why, times: 1 }, " address")?;
        }
        if shown.len() > limit {
            let more = shown.len() - limit;
            writeln!(html, "<tr class=\"address\"><td></td><td></td><td colspan=\"4\">and {more} more</td></tr>")?;
        }
        Ok(())
    }

    fn row(&self, html: &mut String, row: &Row<'_>, kind: &str) -> fmt::Result {
        let Row { endpoint, state, why, times } = row;
        let name = if kind.is_empty() { &*endpoint.target } else { "" };
        write!(html, "<tr class=\"{state}{kind}\"><td class=\"target\">{}", Escaped(name))?;
        if *times > 1 {
            write!(html, " <small>× {times}</small>")?;
        }
        if endpoint.optional && kind.is_empty() {
            html.push_str(" <small>optional</small>");
        }
        write!(html, "</td><td><span class=\"word\">{state}</span></td>")?;
        if self.reader.details == Details::Full {
            self.measured(html, endpoint)?;
        }
        html.push_str("<td class=\"reason\">");
        if let Some(reason) = endpoint.reason_word().filter(|_| self.verdict.believed) {
            write!(html, "<code>{}</code> ", Escaped(reason))?;
        }
        // Without a message the reason is all there is, and it is written already.
        if endpoint.reason_word().is_none_or(|reason| !why.eq_ignore_ascii_case(reason)) {
            write!(html, "{}", Escaped(why))?;
        }
        if let Some(left) = self.certificate(endpoint) {
            write!(html, " <small>certificate ends in {}</small>", Lasting(left))?;
        }
        html.push_str("</td></tr>\n");
        Ok(())
    }

    fn measured(&self, html: &mut String, endpoint: &EndpointView) -> fmt::Result {
        let now = self.reader.now;
        let took = endpoint.live.latency().filter(|_| self.verdict.believed).map(latency).unwrap_or_default();
        write!(html, "<td class=\"endpoint\">{}</td><td class=\"since\">", Escaped(&endpoint.label))?;
        if endpoint.measured {
            write!(html, "{}", Since { at: endpoint.since.time(), now })?;
        }
        write!(html, "</td><td class=\"number\">{took}</td>")
    }

    /// What is left of a certificate that ends soon, where that may be told.
    fn certificate(&self, endpoint: &EndpointView) -> Option<SignedDuration> {
        let ends = endpoint.certificate_expires.filter(|_| self.reader.details == Details::Full)?;
        let left = Timestamp::from_second(ends).ok()?.duration_since(self.reader.now);
        (left < CERTIFICATE_NEWS).then_some(left)
    }
}

/// An interval: as it is declared below a minute, `1h 00m` above.
fn every(interval: Duration) -> String {
    match SignedDuration::try_from(interval) {
        Ok(long) if interval.as_secs() >= 60 => Lasting(long).to_string(),
        _ => format!("{interval:?}"),
    }
}
