//! The loopback canary: a connection to ourselves, which nothing but our own side can break.

use std::{io, net::Ipv4Addr, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    time::{MissedTickBehavior, timeout},
};
use tokio_util::sync::CancellationToken;

/// How often it is tried.
const EVERY: Duration = Duration::from_secs(1);
/// How long one attempt may take: a busy machine is none that is cut off.
const WITHIN: Duration = Duration::from_secs(5);
/// How many attempts in a row have to fail.
const FAILURES: u32 = 3;

/// Tries again and again until `stop`, and tells `failed` after each attempt whether the canary counts as failed.
pub async fn watch(failed: impl Fn(bool), stop: CancellationToken) {
    watch_with(connect_to_ourselves, failed, stop).await;
}

async fn watch_with(attempt: impl AsyncFn() -> io::Result<()>, failed: impl Fn(bool), stop: CancellationToken) {
    let mut in_a_row = 0_u32;
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let ended = timeout(WITHIN, attempt()).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        match ended {
            Ok(()) => in_a_row = 0,
            Err(error) => {
                in_a_row = in_a_row.saturating_add(1);
                tracing::debug!(%error, in_a_row, "loopback canary failed");
            }
        }
        failed(in_a_row >= FAILURES);
    }
}

async fn connect_to_ourselves() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    // Closed by a reset, so that no port is left waiting for each attempt.
    let stream = TcpStream::connect(listener.local_addr()?).await?;
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use std::{
        cell::RefCell,
        sync::atomic::{AtomicU32, Ordering::Relaxed},
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn three_failures_in_a_row_are_one_and_a_success_ends_it() {
        let (said, stop, count) = (RefCell::new(vec![]), CancellationToken::new(), AtomicU32::new(0));
        let attempt = async || match count.fetch_add(1, Relaxed) {
            2 | 4 | 5 => Err(io::ErrorKind::ConnectionRefused.into()),
            // Nobody answers: that takes its time and is a failure too.
            6 | 7 => std::future::pending().await,
            _ => Ok(()),
        };
        let failed = |failed| {
            said.borrow_mut().push(failed);
            if said.borrow().len() == 10 {
                stop.cancel();
            }
        };
        watch_with(attempt, failed, stop.clone()).await;
        let expected = [false, false, false, false, false, false, true, true, false, false];
        assert_eq!(*said.borrow(), expected);
    }

    #[tokio::test]
    async fn loopback_answers() {
        connect_to_ourselves().await.expect("loopback");
    }
}
