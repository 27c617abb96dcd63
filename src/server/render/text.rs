//! The plain text form. It begins with the verdict word.

use std::fmt::Write;

use crate::{
    check::{EndpointState, Health},
    engine::{CheckView, EndpointView},
    server::{
        config::Details,
        verdict::{Subject, Verdict, check_why, endpoint_why},
    },
};

/// One line: the word and, where strangers may know, why.
#[must_use]
pub fn line(verdict: &Verdict, details: Details) -> String {
    let mut text = verdict.health.to_string();
    let why = if details == Details::None { String::new() } else { verdict.why() };
    if !why.is_empty() {
        text.push_str("; ");
        text.push_str(&why);
    }
    text.push('\n');
    text
}

/// The line, and one more for each check (each endpoint, where a target was asked about). With full details every
/// check is followed by its endpoints.
#[must_use]
pub fn verbose(verdict: &Verdict, details: Details) -> String {
    let mut text = line(verdict, details);
    if details == Details::None {
        return text;
    }
    for view in &verdict.checks {
        if matches!(verdict.subject, Subject::Target(..)) {
            verdict.endpoints(view).for_each(|endpoint| endpoint_line(&mut text, verdict, endpoint, details));
            continue;
        }
        check_line(&mut text, verdict, view);
        if details == Details::Full {
            for endpoint in verdict.endpoints(view) {
                text.push_str("    ");
                endpoint_line(&mut text, verdict, endpoint, details);
            }
        }
    }
    text
}

// Writing into a String cannot fail.
fn check_line(text: &mut String, verdict: &Verdict, view: &CheckView) {
    let (key, summary) = (&view.key, view.counts.summary());
    let _ = match verdict.health_of(view) {
        _ if view.suspended => writeln!(text, "[~]{key} suspended"),
        Health::Unknown if !verdict.believed => writeln!(text, "[?]{key} unknown: not current"),
        Health::Healthy if view.message.is_empty() => writeln!(text, "[+]{key} ok ({summary})"),
        Health::Healthy => writeln!(text, "[+]{key} ok ({summary}): {}", check_why(view)),
        Health::Degraded => writeln!(text, "[+]{key} degraded ({summary}): {}", check_why(view)),
        Health::Unhealthy => writeln!(text, "[-]{key} failed: {}", check_why(view)),
        Health::Unknown => writeln!(text, "[?]{key} unknown: {}", check_why(view)),
    };
}

fn endpoint_line(text: &mut String, verdict: &Verdict, endpoint: &EndpointView, details: Details) {
    let state = verdict.state_of(endpoint);
    let mark = match state {
        EndpointState::Unknown => "[?]",
        state if state.is_healthy() => "[+]",
        _ => "[-]",
    };
    let _ = write!(text, "{mark}{}", endpoint.target);
    if details == Details::Full && !endpoint.label.is_empty() {
        let _ = write!(text, " {}", endpoint.label);
    }
    let _ = write!(text, " {state}");
    if details == Details::Full {
        let _ = write!(text, " since {:.0}", endpoint.since.time());
    }
    let why = if verdict.believed { endpoint_why(endpoint) } else { "not current".into() };
    let _ = if why.is_empty() || state == EndpointState::Healthy { writeln!(text) } else { writeln!(text, ": {why}") };
}
