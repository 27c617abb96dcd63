//! The HTTP probe: one request over a connection of its own, judged by the head of the answer.
//!
//! Nothing is taken from the environment: no proxy, no cookie, no credential that the probe does not name itself.

mod exchange;
mod redirect;
mod request;

use std::{net::SocketAddr, time::Duration};

use tokio::time::Instant;

use super::{
    dial::{self, Manner},
    failure::Failure,
    progress::{Phase, Progress},
    tls::{Protocol, TlsClients},
};
use crate::check::{Connection, HttpProbe, Reason, Redirects, Scheme, StatusRange};

pub(super) use request::{Plan, plan};

/// What an attempt that succeeded brought.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub certificate_expires: Option<i64>,
    /// It says neither good nor bad of the target.
    pub neutral: bool,
    /// When it was decided; a polite goodbye may take longer.
    pub at: Instant,
}

impl Answer {
    /// A success now, with nothing more to tell.
    pub fn plain() -> Self {
        Self { certificate_expires: None, neutral: false, at: Instant::now() }
    }
}

/// Everything one address is asked with.
pub(super) struct Exchange<'a> {
    pub probe: &'a HttpProbe,
    pub plan: &'a Plan,
    pub tls: &'a TlsClients,
    pub progress: &'a Progress,
}

/// The most redirects that are followed.
const MAX_REDIRECTS: usize = 3;

/// Asks `address`, redirects included, and judges the answer.
pub(super) async fn probe(exchange: Exchange<'_>, address: SocketAddr) -> Result<Answer, Failure> {
    let mut request = exchange.plan.first(address);
    for hop in 0.. {
        if hop == 0 {
            exchange.progress.reach(Phase::Connect);
        } else {
            exchange.progress.restart(Phase::Connect);
        }
        let (head, certificate_expires) = once(&exchange, address, &request).await?;
        let redirected = match exchange.probe.redirects {
            Redirects::None => None,
            Redirects::SameHost => redirect::follow(&request, &head),
        };
        let judged = match redirected {
            None => judge(&exchange, &head, certificate_expires),
            Some(Ok(_)) if hop == MAX_REDIRECTS => {
                let message =
                    format!("redirected more than {MAX_REDIRECTS} times; got '{}' again", head.status.as_u16());
                Err(Failure::new(Reason::RedirectRefused, message))
            }
            Some(Ok(next)) => {
                request = next;
                continue;
            }
            Some(Err(failure)) => Err(failure),
        };
        return match judged {
            Ok(judged) => Ok(Answer { certificate_expires, neutral: judged == Judged::Neither, at: head.at }),
            Err(failure) => Err(Failure { certificate_expires, ..failure }),
        };
    }
    unreachable!("the last hop returns")
}

/// One request on one connection: the head of the answer, and when the certificate shown expires.
async fn once(
    exchange: &Exchange<'_>,
    address: SocketAddr,
    request: &request::Request,
) -> Result<(exchange::Head, Option<i64>), Failure> {
    let Exchange { probe, plan, tls, progress, .. } = exchange;
    let manner = match probe.connection {
        Connection::Reset => Manner::Reset,
        Connection::Polite => Manner::Polite,
    };
    let stream = dial::connect(address, manner).await?;
    match &plan.tls {
        None => Ok((exchange::run(stream, request, probe, progress).await?, None)),
        Some(setting) => {
            progress.reach(Phase::Tls);
            let (stream, expires) =
                tls.handshake(stream, setting, Protocol::Http1, &plan.server_name(probe, address)?).await?;
            let head = exchange::run(stream, request, probe, progress)
                .await
                .map_err(|failure| Failure { certificate_expires: expires, ..failure })?;
            Ok((head, expires))
        }
    }
}

/// What a status says of the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judged {
    Expected,
    /// Neither good nor bad.
    Neither,
    Bad,
}

fn judge_status(probe: &HttpProbe, status: u16) -> Judged {
    let among = |ranges: &[StatusRange]| ranges.iter().any(|range| range.contains(status));
    if among(&probe.unhealthy_statuses) {
        Judged::Bad
    } else if among(&probe.expected_statuses) {
        Judged::Expected
    } else if probe.unhealthy_statuses.is_empty() {
        Judged::Bad
    } else {
        Judged::Neither
    }
}

/// Status, body, time and certificate, in this order: what the target itself says comes first.
fn judge(exchange: &Exchange<'_>, head: &exchange::Head, certificate_expires: Option<i64>) -> Result<Judged, Failure> {
    let probe = exchange.probe;
    let status = head.status.as_u16();
    match judge_status(probe, status) {
        Judged::Expected => {}
        Judged::Neither => return Ok(Judged::Neither),
        Judged::Bad if !probe.unhealthy_statuses.is_empty() => {
            let message = format!("unexpected status code; got '{status}', one of unhealthyStatuses");
            return Err(Failure::new(Reason::UnexpectedStatus, message));
        }
        Judged::Bad => {
            let want: Vec<_> = probe.expected_statuses.iter().map(ToString::to_string).collect();
            let message = format!("unexpected status code; got '{status}', want '{}'", want.join(","));
            return Err(Failure::new(Reason::UnexpectedStatus, message));
        }
    }
    if let Some(rule) = &probe.expected_body {
        rule.check(&head.body).map_err(|message| Failure::new(Reason::UnexpectedBody, message))?;
    }
    let took = head.at - exchange.progress.started;
    if let Some(limit) = probe.max_latency.filter(|limit| took > *limit) {
        let message = format!("too slow; took {}, want at most {limit:?}", in_millis(took));
        return Err(Failure::new(Reason::TooSlow, message));
    }
    match probe.min_certificate_validity.zip(certificate_expires) {
        Some((wanted, expires)) => long_enough(expires, wanted, jiff::Timestamp::now()).map(|()| Judged::Expected),
        None => Ok(Judged::Expected),
    }
}

fn in_millis(time: Duration) -> String {
    // What is above a limit must not read as the limit.
    format!("{}ms", time.as_micros().div_ceil(1000))
}

/// Whether a certificate that ends at `expires`, in seconds since the epoch, will do.
fn long_enough(expires: i64, wanted: Duration, now: jiff::Timestamp) -> Result<(), Failure> {
    let left = expires.saturating_sub(now.as_second());
    if i64::try_from(wanted.as_secs()).is_ok_and(|wanted| left >= wanted) {
        return Ok(());
    }
    let (days, hours) = (left / 86_400, left % 86_400 / 3_600);
    let message =
        format!("certificate expires in {days}d{hours}h, want at least {}h", wanted.as_secs().div_ceil(3_600));
    Err(Failure::new(Reason::CertificateExpiring, message))
}

const fn scheme_name(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    }
}
