//! The HTTP probe: one request over a connection of its own, judged by the head of the answer.
//!
//! Nothing is taken from the environment: no proxy, no cookie, no credential that the probe does not name itself.

mod exchange;
mod redirect;
mod request;

use std::{net::SocketAddr, time::Duration};

use super::{
    ask::{Answer, Ask, Asked},
    dial::Manner,
    exchange::{Opened, Tls, open},
    failure::Failure,
    http2,
    progress::{Phase, Progress},
    tls::{Protocol, TlsClients},
};
use crate::check::{Connection, HttpProbe, HttpVersion, Reason, Redirects, Scheme, StatusRange};

pub(super) use request::{Plan, plan};

/// Everything one address is asked with.
pub(super) struct Exchange<'a> {
    pub probe: &'a HttpProbe,
    pub plan: &'a Plan,
    pub clients: &'a TlsClients,
}

/// The most redirects that are followed.
const MAX_REDIRECTS: usize = 3;

/// Redirects included.
impl Ask for Exchange<'_> {
    async fn ask(&self, address: SocketAddr, progress: &Progress) -> Asked {
        probe(self, address, progress).await
    }
}

async fn probe(exchange: &Exchange<'_>, address: SocketAddr, progress: &Progress) -> Asked {
    let mut request = exchange.plan.first(address);
    for hop in 0.. {
        if hop > 0 {
            progress.restart(Phase::Connect);
        }
        let (head, certificate_expires) = once(exchange, address, &request, progress).await?;
        let redirected = match exchange.probe.redirects {
            Redirects::None => None,
            Redirects::SameHost => redirect::follow(&request, &head),
        };
        let judged = match redirected {
            None => judge(exchange, &head, certificate_expires, progress),
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
            Ok(judged) => {
                let neutral = (judged == Judged::Neither).then(|| head.status.as_u16());
                Ok(Answer { certificate_expires, neutral, at: head.at })
            }
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
    progress: &Progress,
) -> Result<(exchange::Head, Option<i64>), Failure> {
    let Exchange { probe, plan, clients } = *exchange;
    let manner = match probe.connection {
        Connection::Reset => Manner::Reset,
        Connection::Polite => Manner::Polite,
    };
    let tls = plan.tls.as_ref().map(|setting| Tls { clients, setting, server_name: None });
    let name = match &tls {
        Some(_) => Some(plan.server_name(probe, address)?),
        None => None,
    };
    let protocol = match probe.version {
        HttpVersion::Auto => Protocol::Http,
        HttpVersion::Http11 => Protocol::Http1,
        HttpVersion::Http2 => Protocol::Http2,
    };
    let secured = tls.is_some();
    let tls = tls.as_ref().zip(name.as_ref()).map(|(tls, name)| (tls, protocol, name));
    let Opened { stream, certificate_expires } = open(address, manner, tls, progress).await?;
    let ran = match (probe.version, http2::is_agreed(&stream)) {
        (HttpVersion::Http2, false) if secured => Err(http2::not_offered()),
        (HttpVersion::Http2, _) | (HttpVersion::Auto, true) => exchange::run2(stream, request, probe, progress).await,
        (HttpVersion::Auto, false) | (HttpVersion::Http11, _) => exchange::run(stream, request, probe, progress).await,
    };
    match ran {
        Ok(head) => Ok((head, certificate_expires)),
        Err(failure) => Err(Failure { certificate_expires, ..failure }),
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
fn judge(
    exchange: &Exchange<'_>,
    head: &exchange::Head,
    certificate_expires: Option<i64>,
    progress: &Progress,
) -> Result<Judged, Failure> {
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
    let took = head.at - progress.started;
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
    let tenths = time.as_nanos().div_ceil(100_000);
    format!("{}.{}ms", tenths / 10, tenths % 10)
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
