//! When to stop.

use tokio::signal::unix::{SignalKind, signal};

/// Completes on SIGTERM or SIGINT.
///
/// # Errors
/// When the signals cannot be listened for.
pub fn stop() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
