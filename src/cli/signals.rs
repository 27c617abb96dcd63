//! When to stop, and when to look again.

use tokio::signal::unix::{Signal, SignalKind, signal};

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

/// SIGHUP, which would end the process, is what service managers send for "read your files again".
///
/// # Errors
/// When the signal cannot be listened for.
pub fn hangup() -> anyhow::Result<Signal> {
    Ok(signal(SignalKind::hangup())?)
}
