//! `?fresh=true`: the same answer, over probes that are made now instead of the board.
//!
//! Whoever may probe on demand may ask it, since it is the same load on the targets. The board is none the wiser.

use std::{collections::HashMap, sync::Arc, time::Duration, time::Instant};

use axum::response::Response;
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;

use super::{
    auth::AccessRequest,
    probe_now::again,
    public::Public,
    query::Asked,
    respond::{self, Form},
    verdict::{Subject, Verdict, judge},
};
use crate::{
    check::{Health, Reason},
    engine::{CheckView, EndpointLive, EndpointView, Live, Remarks},
    on_demand::{EndpointAnswer, Fresh, FreshSet, Refusal, state},
};

/// Answers once everything asked about has, within the time that probing on demand has.
pub async fn answer(public: &Public, subject: Subject, asked: &Asked, headers: &HeaderMap, form: Form) -> Response {
    // Who may not probe is not told what there is to be probed.
    let who = match public.access.check(headers, request(&subject), &public.home).await {
        Ok(who) => who,
        Err(refused) => return refused.plain(),
    };
    let Some(on_demand) = &public.on_demand else {
        return respond::text(StatusCode::NOT_FOUND, "fresh: nothing is probed on demand here\n");
    };
    let verdict = match judge(&public.board, subject.clone(), &asked.filter, true) {
        Ok(verdict) => verdict,
        Err(why) => return respond::text(StatusCode::NOT_FOUND, format!("{why}\n")),
    };
    let keys: Vec<_> = verdict.checks.iter().filter(|view| !view.suspended).map(|view| view.key.clone()).collect();
    // Without a board nobody knows what is to be asked.
    if keys.is_empty() || !verdict.believed {
        return public.render(&verdict, form, asked);
    }
    let target = match &subject {
        Subject::Target(_, target) => Some(target.clone()),
        Subject::All | Subject::Namespace(_) | Subject::Check(_) => None,
    };
    let (count, begun) = (keys.len(), Instant::now());
    let (answered, joined) = on_demand.fresh(keys, target).await;
    tracing::info!(
        target: "audit", who = who.as_deref().unwrap_or("-"), checks = count, result = result(&answered), joined,
        micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX), "health asked for fresh"
    );
    match answered {
        Ok(fresh) => told(public, verdict, &fresh, asked, form),
        Err(refusal) => refused(refusal),
    }
}

fn request(subject: &Subject) -> AccessRequest<'_> {
    let (namespace, name) = match subject {
        Subject::All => ("", ""),
        Subject::Namespace(namespace) => (namespace.as_str(), ""),
        Subject::Check(key) | Subject::Target(key, _) => (&*key.namespace, &*key.name),
    };
    AccessRequest { verb: "create", namespace, name, subresource: "probe" }
}

fn result(answered: &Result<FreshSet, Refusal>) -> &'static str {
    match answered {
        Ok(_) => "answered",
        Err(_) => "refused",
    }
}

fn told(public: &Public, verdict: Verdict, fresh: &FreshSet, asked: &Asked, form: Form) -> Response {
    let now = Timestamp::now();
    let views = verdict.checks.iter().map(|view| match fresh.get(&view.key) {
        Some(fresh) => Arc::new(renewed(view, fresh, now)),
        None => view.clone(),
    });
    let views = views.collect();
    match verdict.over(views) {
        Ok(verdict) => public.render(&verdict, form, asked),
        Err(why) => respond::text(StatusCode::NOT_FOUND, format!("{why}\n")),
    }
}

fn refused(refusal: Refusal) -> Response {
    let (code, why) = match refusal {
        Refusal::Busy => (StatusCode::TOO_MANY_REQUESTS, "too many probes are asked for at once; try again".into()),
        Refusal::NotProbing => {
            (StatusCode::SERVICE_UNAVAILABLE, "nothing is probed by this replica at the moment; try again".into())
        }
        Refusal::NotFound(why) | Refusal::Invalid(why) | Refusal::Unavailable(why) => {
            (StatusCode::SERVICE_UNAVAILABLE, why)
        }
    };
    again(respond::text(code, format!("fresh: {why}\n")))
}

/// `view` as it is by `fresh`: what was counted before says nothing here.
fn renewed(view: &CheckView, fresh: &Fresh, now: Timestamp) -> CheckView {
    let former: HashMap<_, _> = view.endpoints.iter().map(|row| ((&*row.target, &*row.label), row)).collect();
    let renewed =
        |answer: &EndpointAnswer| row(answer, former.get(&(&*answer.target, &*answer.endpoint)).copied(), now);
    CheckView {
        health: fresh.health,
        reason: fresh.reason,
        message: fresh.message.clone(),
        since: if view.health == fresh.health { view.since } else { now },
        counts: fresh.counts,
        unlisted: Health::Unknown,
        endpoints: fresh.endpoints.iter().map(renewed).collect(),
        ..view.clone()
    }
}

fn row(answer: &EndpointAnswer, former: Option<&EndpointView>, now: Timestamp) -> EndpointView {
    let state = state(answer.healthy);
    let live = EndpointLive::default();
    let counters = former.map(|row| row.live.counters()).unwrap_or_default();
    live.set(counters, Some(Duration::from_secs_f64(answer.latency_seconds)));
    let same = |row: &&EndpointView| {
        row.state.is_healthy() == state.is_healthy() && row.state.is_unhealthy() == state.is_unhealthy()
    };
    EndpointView {
        target: answer.target.as_str().into(),
        label: answer.endpoint.as_str().into(),
        identity: answer.endpoint.as_str().into(),
        kind: answer.kind,
        optional: answer.optional,
        state,
        stale: false,
        measured: answer.healthy.is_some(),
        since: former.filter(same).map_or_else(|| now.into(), |row| row.since),
        remarks: Remarks {
            reason: answer.reason.and_then(Reason::parse),
            message: answer.error.as_str().into(),
            certificate_expires: answer.certificate_expires,
            ..Remarks::default()
        }
        .kept(),
        named: former.is_some_and(|row| row.named),
        live: Live::new(live),
    }
}
