//! The status page: what is down first, since when and why.
//!
//! Whole without a script: the search is a form, and the browser asks again by itself. With one, the same page is
//! fetched and what differs is put in its place. Nothing comes from elsewhere. However many checks there are, only so
//! many rows are written; the rest is counted, and found by the search.

mod card;
mod lists;
mod markup;
mod policy;
mod shelves;

use std::fmt::{self, Write};

use jiff::Timestamp;

pub use policy::content_security_policy;

use self::{
    card::Card,
    markup::{Escaped, path_to},
    shelves::{SHELVES, Shelf, Shelves},
};
use crate::server::{
    config::Details,
    query::{Asked, MAX_SEARCH, Search},
    verdict::{NOT_CURRENT, Subject, Verdict},
};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// How often a browser without scripts asks again, in seconds: seldom enough to type a word in between.
const RELOAD: u32 = 15;

/// For whom a page is made, and what was asked.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    pub details: Details,
    pub now: Timestamp,
    /// The path under which narrower pages are.
    pub base: &'static str,
    /// The board holds what another replica wrote.
    pub standby: bool,
    pub asked: &'a Asked,
}

/// The page of `verdict`.
#[must_use]
pub fn page(verdict: &Verdict, reader: &Reader<'_>) -> String {
    let mut html = String::with_capacity(32 * 1024);
    // Writing into a String cannot fail.
    let _ = Page { verdict, reader }.write(&mut html);
    html
}

struct Page<'a> {
    verdict: &'a Verdict,
    reader: &'a Reader<'a>,
}

impl Page<'_> {
    fn write(&self, html: &mut String) -> fmt::Result {
        self.head(html)?;
        let told = self.reader.details != Details::None;
        self.banner(html)?;
        if told && !self.alone() {
            self.search(html)?;
        }
        html.push_str("<main id=\"main\">\n");
        self.notes(html)?;
        if told {
            self.checks(html)?;
        }
        write!(html, "</main>\n<footer><p>Times are UTC.</p></footer>\n<script>{SCRIPT}</script>\n</body>\n</html>\n")
    }

    /// Whether it is about one check: there is nothing to search then.
    const fn alone(&self) -> bool {
        matches!(self.verdict.subject, Subject::Check(_) | Subject::Target(..))
    }

    fn subject(&self) -> String {
        match &self.verdict.subject {
            Subject::All => "all health checks".into(),
            Subject::Namespace(namespace) => format!("namespace {namespace}"),
            Subject::Check(key) => key.to_string(),
            Subject::Target(key, target) => format!("{key}/{target}"),
        }
    }

    fn head(&self, html: &mut String) -> fmt::Result {
        let health = self.verdict.health;
        write!(
            html,
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <noscript><meta http-equiv=\"refresh\" content=\"{RELOAD}\"></noscript>\n\
             <title>{health}: {subject}</title>\n\
             <link id=\"icon\" rel=\"icon\" href=\"{icon}\">\n<style>{STYLE}</style>\n</head>\n<body>\n",
            subject = Escaped(&self.subject()),
            icon = markup::icon(health),
        )
    }

    fn banner(&self, html: &mut String) -> fmt::Result {
        let (health, now) = (self.verdict.health, self.reader.now);
        write!(
            html,
            "<header id=\"banner\" class=\"{health}\">\n<div class=\"verdict\" role=\"status\"><h1 class=\"word\">\
             {health}</h1> "
        )?;
        self.crumbs(html)?;
        html.push_str("</div>\n");
        if self.reader.details != Details::None {
            self.counts(html)?;
        }
        writeln!(
            html,
            "<p id=\"live\">as of <time datetime=\"{now:.0}\">{}</time></p>\n</header>",
            now.strftime("%H:%M:%S"),
        )
    }

    /// The way up from a narrower page.
    fn crumbs(&self, html: &mut String) -> fmt::Result {
        let base = self.reader.base;
        let link = |parts: &[&str]| path_to(base, parts);
        let (namespace, name, target) = match &self.verdict.subject {
            Subject::All => return writeln!(html, "<p class=\"subject\">all health checks</p>"),
            Subject::Namespace(namespace) => (namespace.as_str(), None, None),
            Subject::Check(key) => (&*key.namespace, Some(&*key.name), None),
            Subject::Target(key, target) => (&*key.namespace, Some(&*key.name), Some(target.as_str())),
        };
        write!(html, "<nav class=\"subject\"><a href=\"{base}\">all</a> / ")?;
        match name {
            None => write!(html, "namespace {}", Escaped(namespace))?,
            Some(_) => write!(html, "<a href=\"{}\">{}</a>", link(&[namespace]), Escaped(namespace))?,
        }
        match (name, target) {
            (Some(name), Some(target)) => {
                let up = link(&[namespace, name]);
                write!(html, " / <a href=\"{up}\">{}</a> / {}", Escaped(name), Escaped(target))?;
            }
            (Some(name), None) => write!(html, " / {}", Escaped(name))?,
            _ => {}
        }
        html.push_str("</nav>\n");
        Ok(())
    }

    /// How many are on which shelf, whatever was searched for.
    fn counts(&self, html: &mut String) -> fmt::Result {
        if self.alone() {
            return Ok(());
        }
        html.push_str("<ul class=\"counts\">\n");
        for shelf in SHELVES {
            let count = shelf.count(self.verdict);
            if count > 0 {
                let word = shelf.word();
                let lower = word.to_lowercase();
                writeln!(html, "<li class=\"{word}\"><a href=\"#{word}\"><b>{count}</b> {lower}</a></li>")?;
            }
        }
        html.push_str("</ul>\n");
        Ok(())
    }

    /// A form that every browser can send; a script sends it while it is typed.
    fn search(&self, html: &mut String) -> fmt::Result {
        let asked = self.reader.asked;
        html.push_str("<form id=\"search\" role=\"search\" method=\"get\">\n");
        for (name, value) in &asked.kept {
            writeln!(html, "<input type=\"hidden\" name=\"{}\" value=\"{}\">", Escaped(name), Escaped(value))?;
        }
        writeln!(
            html,
            "<input type=\"search\" id=\"q\" name=\"q\" value=\"{}\" maxlength=\"{}\" autocomplete=\"off\" \
             spellcheck=\"false\" placeholder=\"Search names, targets, reasons\" aria-label=\"Search\">\
             <button type=\"submit\">Search</button>\n</form>",
            Escaped(asked.search.text()),
            MAX_SEARCH,
        )
    }

    /// What must be known before anything below is believed.
    fn notes(&self, html: &mut String) -> fmt::Result {
        if !self.verdict.believed {
            let below = if self.verdict.checks.is_empty() { "" } else { " What is below was true once." };
            writeln!(
                html,
                "<p id=\"stale\" class=\"note Unknown\"><b>Not to be believed:</b> {NOT_CURRENT}.{below}</p>"
            )?;
        }
        if self.reader.details == Details::None {
            return Ok(());
        }
        if self.reader.standby {
            html.push_str(
                "<p id=\"standby\" class=\"note\">This replica is on standby: it shows what the active one wrote \
                 last, without latencies.</p>\n",
            );
        }
        for key in &self.verdict.missing {
            writeln!(html, "<p class=\"note\">exclude: no HealthCheck {}</p>", Escaped(&key.to_string()))?;
        }
        for (name, value) in self.reader.asked.kept.iter().filter(|(name, _)| name != "format") {
            writeln!(html, "<p class=\"note\">Only these: {} {}</p>", Escaped(name), Escaped(value))?;
        }
        Ok(())
    }

    fn checks(&self, html: &mut String) -> fmt::Result {
        let (verdict, reader, alone) = (self.verdict, self.reader, self.alone());
        let nothing = Search::default();
        let search = if alone { &nothing } else { &reader.asked.search };
        let shelves = Shelves::sort(verdict, search, reader.details);
        let (found, searched) = (shelves.len(), !search.is_empty());
        if searched {
            let of = shelves.searched;
            let text = Escaped(search.text());
            writeln!(html, "<p id=\"found\" class=\"note\">{found} of {of} match “{text}”.</p>")?;
        } else if found == 0 && verdict.believed {
            html.push_str("<p id=\"none\" class=\"note\">There is no health check here.</p>\n");
        }
        // A few are shown as they are; of many only what needs somebody.
        let open = alone || searched || found <= lists::FEW;
        for shelf in SHELVES {
            let views = shelves.on(shelf);
            if views.is_empty() {
                continue;
            }
            match shelf {
                _ if alone => views.iter().try_for_each(|view| Card { verdict, reader, view, alone }.write(html))?,
                Shelf::Healthy | Shelf::Suspended => lists::folded(html, verdict, reader, shelf, views, open)?,
                _ => lists::in_full(html, verdict, reader, shelf, views)?,
            }
        }
        if reader.details == Details::Full {
            lists::outages(html, reader, &shelves, alone)?;
        }
        Ok(())
    }
}
