//! The HTTP probe: one request, judged by the head of the answer; over a connection of its own, or one that is kept from
//! round to round.
//!
//! Nothing is taken from the environment: no proxy, no cookie, no credential that the probe does not name itself.

mod exchange;
mod kept;
mod redirect;
mod request;

use std::{net::SocketAddr, pin::pin, time::Duration};

use http::StatusCode;
use tokio::time::{Instant, timeout};

use super::{
    ask::{Answer, Ask, Asked},
    dial::Manner,
    exchange::{Opened, Tls, open},
    failure::{Broken, Failure},
    http2,
    progress::{Phase, Progress},
    tls::{Protocol, TlsClients, Trust},
};
use crate::check::{Connection, HttpProbe, HttpVersion, Reason, Redirects, Scheme, StatusRange};

use exchange::One;
use kept::{Line, Shelved};

#[cfg(all(target_os = "linux", not(without_fast_lane)))]
pub(super) use exchange::{MAX_HEAD, MAX_HEADERS, MAX_READ, closed, malformed, too_large};
pub use kept::KeptConnections;
pub(super) use kept::Shelf;
#[cfg(all(target_os = "linux", not(without_fast_lane)))]
pub(super) use kept::{MAX_AGE, Place};
pub(super) use request::{Plan, plan};

/// Everything one address is asked with.
pub(super) struct Exchange<'a> {
    pub probe: &'a HttpProbe,
    pub plan: &'a Plan,
    pub clients: &'a TlsClients,
    pub shelf: &'a Shelf<'a>,
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
            None => judge(exchange.probe, (head.status, &head.body), head.at - progress.started, certificate_expires),
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
        let status = Some(head.status.as_u16());
        return match judged {
            Ok(judged) => {
                let neutral = (judged == Judged::Neither).then(|| head.status.as_u16());
                Ok(Answer { certificate_expires, status, neutral, at: head.at })
            }
            Err(failure) => Err(Failure { certificate_expires, status, ..failure }),
        };
    }
    unreachable!("the last hop returns")
}

type Head = Result<(exchange::Head, Option<i64>), Failure>;

/// One request: the head of the answer, and when the certificate shown expires. Over the connection that was kept, where
/// there is one.
async fn once(exchange: &Exchange<'_>, address: SocketAddr, request: &request::Request, progress: &Progress) -> Head {
    match exchange.shelf.take(address).filter(|kept| exchange.still_trusts(kept)) {
        None => fresh(exchange, address, request, progress).await,
        // A box of its own: few probes keep their connection.
        Some(kept) => Box::pin(again(exchange, kept, address, request, progress)).await,
    }
}

/// On a connection that is opened for it.
async fn fresh(exchange: &Exchange<'_>, address: SocketAddr, request: &request::Request, progress: &Progress) -> Head {
    let Exchange { probe, plan, clients, shelf } = *exchange;
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
    let opened = Instant::now();
    let shown = |failure| Failure { certificate_expires, ..failure };
    let two = match (probe.version, http2::is_agreed(&stream)) {
        (HttpVersion::Http2, false) if secured => return Err(shown(http2::not_offered())),
        (HttpVersion::Http2, _) | (HttpVersion::Auto, true) => true,
        (HttpVersion::Auto, false) | (HttpVersion::Http11, _) => false,
    };
    let keeps = shelf.keeps();
    let asked = if two {
        let mut line = http2::Line::open(stream, progress).await.map_err(shown)?;
        let asked = exchange::ask_two(&mut line, request, probe, progress, keeps).await;
        asked.map(|(head, again)| (head, again.then(|| Line::Two(Box::new(line)))))
    } else {
        let mut line = One::open(stream, probe.connection).await.map_err(shown)?;
        let asked = line.ask(request, probe, progress, keeps).await;
        asked.map(|(head, again)| (head, again.then(|| Line::One(Box::new(line)))))
    };
    let (head, line) = asked.map_err(|broken| shown(broken.failure))?;
    if let Some(line) = line {
        shelf.put(address, Shelved { line, opened, certificate_expires });
    }
    Ok((head, certificate_expires))
}

/// Over a connection that was kept; and where that was closed meanwhile, over a fresh one. Without an answer in half of
/// the time a fresh one is asked beside it: somebody on the way may have forgotten the connection and told nobody.
async fn again(
    exchange: &Exchange<'_>,
    mut kept: Shelved,
    address: SocketAddr,
    request: &request::Request,
    progress: &Progress,
) -> Head {
    let Exchange { probe, shelf, .. } = *exchange;
    let asked = {
        let mut old = pin!(over(&mut kept.line, request, probe, progress));
        match timeout(progress.remaining() / 2, &mut old).await {
            Ok(asked) => asked,
            Err(_) => {
                progress.restart(Phase::Connect);
                let mut new = pin!(fresh(exchange, address, request, progress));
                tokio::select! {
                    biased;
                    asked = &mut old => match asked {
                        Err(Broken { unheard: true, .. }) => {
                            shelf.lost();
                            return new.await;
                        }
                        asked => asked,
                    },
                    head = &mut new => {
                        shelf.lost();
                        return head;
                    }
                }
            }
        }
    };
    match asked {
        // What a server says before it closes a connection that was idle too long (RFC 9110, 15.5.9).
        Ok((head, _)) if head.status == StatusCode::REQUEST_TIMEOUT => {}
        Ok((head, may_be_asked)) => {
            let certificate_expires = kept.certificate_expires;
            if may_be_asked {
                shelf.put(address, kept);
            }
            return Ok((head, certificate_expires));
        }
        Err(Broken { unheard: true, .. }) => {}
        Err(Broken { failure, .. }) => {
            return Err(Failure { certificate_expires: kept.certificate_expires, ..failure });
        }
    }
    shelf.lost();
    drop(kept);
    progress.restart(Phase::Connect);
    fresh(exchange, address, request, progress).await
}

async fn over(
    line: &mut Line,
    request: &request::Request,
    probe: &HttpProbe,
    progress: &Progress,
) -> Result<(exchange::Head, bool), Broken> {
    match line {
        Line::One(line) => line.ask(request, probe, progress, true).await,
        Line::Two(line) => exchange::ask_two(line, request, probe, progress, true).await,
    }
}

impl Exchange<'_> {
    /// Whether the certificate that was shown when the connection began would still do. If not, a fresh connection shows
    /// whether there is another by now.
    fn still_trusts(&self, kept: &Shelved) -> bool {
        let verified = self.plan.tls.as_ref().is_some_and(|tls| tls.trust != Trust::SkipVerify);
        let wanted = self.probe.min_certificate_validity.or(verified.then_some(Duration::ZERO));
        match wanted.zip(kept.certificate_expires) {
            Some((wanted, expires)) => long_enough(expires, wanted, jiff::Timestamp::now()).is_ok(),
            None => true,
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
fn judge(
    probe: &HttpProbe,
    (status, body): (StatusCode, &[u8]),
    took: Duration,
    certificate_expires: Option<i64>,
) -> Result<Judged, Failure> {
    let status = status.as_u16();
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
        rule.check(body).map_err(|message| Failure::new(Reason::UnexpectedBody, message))?;
    }
    if let Some(limit) = probe.max_latency.filter(|limit| took > *limit) {
        let message = format!("too slow; took {}, want at most {limit:?}", in_millis(took));
        return Err(Failure::new(Reason::TooSlow, message));
    }
    match probe.min_certificate_validity.zip(certificate_expires) {
        Some((wanted, expires)) => long_enough(expires, wanted, jiff::Timestamp::now()).map(|()| Judged::Expected),
        None => Ok(Judged::Expected),
    }
}

/// What an answer with `status` means that was there at `at`, after `took`, over plain HTTP and without a look at its body.
#[cfg(all(target_os = "linux", not(without_fast_lane)))]
pub(super) fn answered(probe: &HttpProbe, status: StatusCode, at: Instant, took: Duration) -> Asked {
    let code = Some(status.as_u16());
    match judge(probe, (status, &[]), took, None) {
        Ok(judged) => {
            let neutral = code.filter(|_| judged == Judged::Neither);
            Ok(Answer { certificate_expires: None, status: code, neutral, at })
        }
        Err(failure) => Err(Failure { status: code, ..failure }),
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
