//! Waiting for the thing itself, with a bound and a message that says what was seen last.

use std::fmt::{Debug, Display};
use std::time::{Duration, Instant};

/// How often a condition is looked at again.
const EVERY: Duration = Duration::from_millis(50);

/// Looks until `look` answers `Ok(value)`, at most for `bound`.
///
/// # Errors
/// After `bound`: "waited … for `what`; seen last: …" with the last `Err` that `look` gave, which
/// should say what it saw instead.
pub async fn wait_until<T, E, F, Fut>(what: &str, bound: Duration, look: F) -> anyhow::Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
    E: Display,
{
    wait_while(|| Ok(()), what, bound, look).await
}

/// Like [`wait_until`], but gives up at once when `alive` fails: what has ended is not waited for.
///
/// # Errors
/// As [`wait_until`], and with the error of `alive`.
pub async fn wait_while<T, E, F, Fut>(
    alive: impl Fn() -> anyhow::Result<()>,
    what: &str,
    bound: Duration,
    mut look: F,
) -> anyhow::Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
    E: Display,
{
    let begun = Instant::now();
    loop {
        alive()?;
        // A look that hangs (a frozen server) must not outlive the bound either.
        let left = bound.saturating_sub(begun.elapsed()).max(EVERY);
        let seen = match tokio::time::timeout(left, look()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(seen)) => format!("{seen:#}"),
            Err(_) => String::from("looking did not come to an end"),
        };
        if begun.elapsed() >= bound {
            anyhow::bail!("waited {bound:?} for {what}; seen last: {seen}");
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Like [`wait_until`] for a value that can be looked at at once: waits until `good` holds for it.
///
/// # Errors
/// After `bound`, with the last value.
pub async fn wait_for<T: Debug>(
    what: &str,
    bound: Duration,
    mut look: impl FnMut() -> T,
    good: impl Fn(&T) -> bool,
) -> anyhow::Result<T> {
    wait_until(what, bound, || {
        let seen = look();
        std::future::ready(if good(&seen) { Ok(seen) } else { Err(format!("{seen:?}")) })
    })
    .await
}
