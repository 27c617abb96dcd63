//! The HTTP probe: one request over a connection of its own, judged by the head of the answer.
//!
//! Nothing is taken from the environment: no proxy, no cookie, no credential that the probe does not name itself.

mod exchange;
mod redirect;
mod request;

use std::net::SocketAddr;

use tokio::time::Instant;

use super::{
    dial::{self, Manner},
    failure::Failure,
    progress::{Phase, Progress},
    tls::TlsClients,
};
use crate::check::{Connection, HttpProbe, Reason, Redirects, Scheme};

pub(super) use request::{Plan, plan};

/// What an attempt that succeeded brought.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub certificate_expires: Option<i64>,
    /// When it was decided; a polite goodbye may take longer.
    pub at: Instant,
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
            None => judge(exchange.probe, head.status.as_u16()),
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
            Ok(()) => Ok(Answer { certificate_expires, at: head.at }),
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
    let Exchange { probe, plan, tls, progress } = exchange;
    let manner = match probe.connection {
        Connection::Reset => Manner::Reset,
        Connection::Polite => Manner::Polite,
    };
    let stream = dial::connect(address, manner).await?;
    match &plan.tls {
        None => Ok((exchange::run(stream, request, probe.connection, progress).await?, None)),
        Some(setting) => {
            progress.reach(Phase::Tls);
            let (stream, expires) = tls.handshake(stream, setting, &plan.server_name(probe, address)?).await?;
            let head = exchange::run(stream, request, probe.connection, progress)
                .await
                .map_err(|failure| Failure { certificate_expires: expires, ..failure })?;
            Ok((head, expires))
        }
    }
}

fn judge(probe: &HttpProbe, status: u16) -> Result<(), Failure> {
    if probe.expected_statuses.iter().any(|range| range.contains(status)) {
        return Ok(());
    }
    let want: Vec<_> = probe.expected_statuses.iter().map(ToString::to_string).collect();
    let message = format!("unexpected status code; got '{status}', want '{}'", want.join(","));
    Err(Failure::new(Reason::UnexpectedStatus, message))
}

const fn scheme_name(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    }
}
