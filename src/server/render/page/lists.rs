//! Many checks: those that need somebody in full, the others as lines that fold away.

use std::{
    fmt::{self, Write},
    sync::Arc,
};

use super::{
    Reader,
    card::Card,
    markup::{Escaped, Lasting, Moment, Since, path_to},
    shelves::{Shelf, Shelves},
};
use crate::{
    engine::{CheckView, Outage},
    server::verdict::{Verdict, check_why},
};

/// Up to so many checks nothing is folded away.
pub const FEW: usize = 20;
/// Checks of one shelf in full.
const CARDS: usize = 50;
/// Checks of one shelf as lines.
const LINES: usize = 100;
/// The last outages.
const OUTAGES: usize = 10;

/// A shelf whose checks need somebody.
pub fn in_full(
    html: &mut String,
    verdict: &Verdict,
    reader: &Reader<'_>,
    shelf: Shelf,
    views: &[&Arc<CheckView>],
) -> fmt::Result {
    let (word, count) = (shelf.word(), views.len());
    writeln!(html, "<section id=\"{word}\" class=\"{word}\">\n<h2>{word} <small>{count}</small></h2>")?;
    for view in views.iter().take(CARDS) {
        Card { verdict, reader, view, alone: false }.write(html)?;
    }
    more(html, count, CARDS)?;
    html.push_str("</section>\n");
    Ok(())
}

/// A shelf whose checks need nobody.
pub fn folded(
    html: &mut String,
    verdict: &Verdict,
    reader: &Reader<'_>,
    shelf: Shelf,
    views: &[&Arc<CheckView>],
    open: bool,
) -> fmt::Result {
    let (word, count) = (shelf.word(), views.len());
    let open = if open { " open" } else { "" };
    writeln!(
        html,
        "<details id=\"{word}\" class=\"{word}\"{open}>\n<summary><h2>{word} <small>{count}</small></h2></summary>\n\
         <table class=\"checks\">\n<tbody>"
    )?;
    for view in views.iter().take(LINES) {
        line(html, verdict, reader, view)?;
    }
    html.push_str("</tbody>\n</table>\n");
    more(html, count, LINES)?;
    html.push_str("</details>\n");
    Ok(())
}

fn line(html: &mut String, verdict: &Verdict, reader: &Reader<'_>, view: &CheckView) -> fmt::Result {
    let (key, word) = (&view.key, Shelf::of(verdict, view).word());
    let summary = if view.suspended { String::new() } else { view.counts.summary() };
    writeln!(
        html,
        "<tr class=\"{word}\"><td class=\"check\"><span class=\"dot\"></span><a href=\"{}\"><span \
         class=\"namespace\">{}/</span>{}</a></td><td class=\"number\">{summary}</td><td class=\"since\">{}</td>\
         <td class=\"reason\">{}</td></tr>",
        path_to(reader.base, &[&key.namespace, &key.name]),
        Escaped(&key.namespace),
        Escaped(&key.name),
        Since { at: view.since, now: reader.now },
        Escaped(&if view.suspended { String::new() } else { check_why(view) }),
    )
}

fn more(html: &mut String, count: usize, shown: usize) -> fmt::Result {
    if count <= shown {
        return Ok(());
    }
    writeln!(html, "<p class=\"more\">and {} more; search to find them</p>", count - shown)
}

/// The last stretches of time in which something was Unhealthy, newest first.
pub fn outages(html: &mut String, reader: &Reader<'_>, shelves: &Shelves<'_>, alone: bool) -> fmt::Result {
    let mut all: Vec<_> =
        shelves.all().flat_map(|view| view.outages.iter().map(move |outage| (&**view, outage))).collect();
    all.sort_by_key(|(_, outage)| std::cmp::Reverse(outage.start));
    if all.is_empty() {
        return Ok(());
    }
    let check = if alone { "" } else { "<th>Check</th>" };
    write!(
        html,
        "<section id=\"outages\">\n<h2>Last outages</h2>\n<table class=\"outages\">\n<thead><tr><th>Began</th>\
         <th>Lasted</th>{check}<th>Targets</th><th>Reason</th></tr></thead>\n<tbody>\n",
    )?;
    for (view, one) in all.into_iter().take(OUTAGES) {
        outage(html, reader, view, one, alone)?;
    }
    html.push_str("</tbody>\n</table>\n</section>\n");
    Ok(())
}

fn outage(html: &mut String, reader: &Reader<'_>, view: &CheckView, outage: &Outage, alone: bool) -> fmt::Result {
    let (now, key) = (reader.now, &view.key);
    let lasted = Lasting(outage.end.unwrap_or(now).duration_since(outage.start));
    let (class, ongoing) = if outage.end.is_none() { ("Unhealthy", ", so far") } else { ("", "") };
    write!(
        html,
        "<tr class=\"{class}\"><td>{}</td><td><b>{lasted}</b>{ongoing}</td>",
        Moment { at: outage.start, now }
    )?;
    let name = Escaped(&key.to_string()).to_string();
    if !alone {
        write!(html, "<td><a href=\"{}\">{name}</a></td>", path_to(reader.base, &[&key.namespace, &key.name]))?;
    }
    writeln!(
        html,
        "<td>{}</td><td><code>{}</code></td></tr>",
        Escaped(&outage.targets.join(", ")),
        Escaped(&outage.reason)
    )
}
