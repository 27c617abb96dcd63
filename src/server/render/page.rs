//! The status page: plain HTML that needs no script, no font and no image.

use std::fmt::{self, Write};

use jiff::Timestamp;

use crate::{
    check::Health,
    engine::{CheckView, EndpointView},
    server::{
        config::Details,
        verdict::{Subject, Verdict, check_why, endpoint_why},
    },
};

/// Nothing may be loaded, framed, sent or run; the one style sheet is named by its hash.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; \
     style-src 'sha256-1oxQUN9lhULjmQFQQVxTvuS3/M1hSk7zAQsMUxNnGEo='; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;\
color:#1b1b1b;background:#fff}table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.3rem .6rem;\
border-bottom:1px solid #ccc;vertical-align:top}td{overflow-wrap:anywhere}tr.endpoint td{color:#555;font-size:.9em;\
border-bottom-style:dotted}.Healthy{color:#176117}.Degraded{color:#7a4d00}.Unhealthy{color:#a11212}\
.Unknown,.Suspended{color:#555}";

/// Text from outside, safe in element content and in quoted attributes.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// The page of `verdict`, which the reader's browser asks for again every 10 s.
#[must_use]
pub fn page(verdict: &Verdict, details: Details, now: Timestamp) -> String {
    let mut html = String::with_capacity(2048 + verdict.checks.len() * 256);
    // Writing into a String cannot fail.
    let _ = write_page(&mut html, verdict, details, now);
    html
}

fn write_page(html: &mut String, verdict: &Verdict, details: Details, now: Timestamp) -> fmt::Result {
    let health = verdict.health;
    let subject = match &verdict.subject {
        Subject::All => "all health checks".into(),
        Subject::Namespace(namespace) => format!("namespace {namespace}"),
        Subject::Check(key) => key.to_string(),
        Subject::Target(key, target) => format!("{key}/{target}"),
    };
    write!(
        html,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<meta http-equiv=\"refresh\" content=\"10\">\n\
         <title>{health}: {subject}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <h1><span class=\"{health}\">{health}</span>: {subject}</h1>\n",
        subject = Escaped(&subject),
    )?;
    let why = verdict.why();
    if details != Details::None && !why.is_empty() {
        writeln!(html, "<p>{}</p>", Escaped(&why))?;
    }
    if details != Details::None && !verdict.checks.is_empty() {
        html.push_str("<table>\n<thead><tr><th>Check</th><th>Health</th><th>Targets</th><th>Since</th><th>Why</th></tr></thead>\n<tbody>\n");
        for view in &verdict.checks {
            check_row(html, verdict, view)?;
            if details == Details::Full || !matches!(verdict.subject, Subject::All | Subject::Namespace(_)) {
                verdict.endpoints(view).try_for_each(|endpoint| endpoint_row(html, verdict, endpoint, details))?;
            }
        }
        html.push_str("</tbody>\n</table>\n");
    }
    writeln!(html, "<p><small>as of {now:.0}</small></p>\n</body>\n</html>")
}

fn check_row(html: &mut String, verdict: &Verdict, view: &CheckView) -> fmt::Result {
    let word = match verdict.health_of(view) {
        Health::Unknown if view.suspended => "Suspended",
        health => health.as_str(),
    };
    let why = if verdict.believed { check_why(view) } else { "not current".into() };
    writeln!(
        html,
        "<tr><td>{}</td><td class=\"{word}\">{word}</td><td>{}</td><td>{:.0}</td><td>{}</td></tr>",
        Escaped(&view.key.to_string()),
        view.counts.summary(),
        view.since,
        Escaped(&why),
    )
}

fn endpoint_row(html: &mut String, verdict: &Verdict, endpoint: &EndpointView, details: Details) -> fmt::Result {
    let state = verdict.state_of(endpoint);
    let label = if details == Details::Full { &*endpoint.label } else { "" };
    let why = if verdict.believed { endpoint_why(endpoint) } else { "not current".into() };
    writeln!(
        html,
        "<tr class=\"endpoint\"><td>{}</td><td>{state}</td><td>{}</td><td>{:.0}</td><td>{}</td></tr>",
        Escaped(&endpoint.target),
        Escaped(label),
        endpoint.since,
        Escaped(&why),
    )
}

#[cfg(test)]
mod tests {
    use base64::{Engine, prelude::BASE64_STANDARD};

    use super::*;

    #[test]
    fn the_policy_allows_this_style_and_no_other() {
        let hash = crate::server::auth::sha256().expect("the provider has SHA-256").hash(STYLE.as_bytes());
        let source = format!("'sha256-{}'", BASE64_STANDARD.encode(hash.as_ref()));
        assert!(CONTENT_SECURITY_POLICY.contains(&source), "the style is now {source}");
    }

    #[test]
    fn what_comes_from_outside_is_only_text() {
        assert_eq!(Escaped("<a href='x'>\"&").to_string(), "&lt;a href=&#39;x&#39;&gt;&quot;&amp;");
    }
}
