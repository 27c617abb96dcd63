//! What reaches the loop from outside: commands, the ends of probes on the ordinary lane, and the word to stop.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{desired::Command, rounds::Ended};

/// How many messages of a kind are taken in at once.
const BATCH: usize = 512;

/// Why the loop was woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Stop,
    /// There is something in `commands`, or in `ended`.
    Mail,
}

pub(super) struct Mail {
    inbox: mpsc::Receiver<Command>,
    endings: mpsc::UnboundedReceiver<Ended>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Somebody may still command.
    open: bool,
    pub commands: Vec<Command>,
    pub ended: Vec<Ended>,
}

impl Mail {
    pub fn new(
        inbox: mpsc::Receiver<Command>,
        endings: mpsc::UnboundedReceiver<Ended>,
        stop: CancellationToken,
    ) -> Self {
        let stop = Box::pin(stop.cancelled_owned());
        Self { inbox, endings, stop, open: true, commands: vec![], ended: vec![] }
    }

    /// Takes in what is there of both kinds: a flood of the one must not keep the other waiting. `Pending`: there is
    /// nothing, and `context` is woken as soon as there is.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Word> {
        if self.stop.as_mut().poll(context).is_ready() {
            return Poll::Ready(Word::Stop);
        }
        let ended = self.endings.poll_recv_many(context, &mut self.ended, BATCH).is_ready();
        let commanded = self.open
            && match self.inbox.poll_recv_many(context, &mut self.commands, BATCH) {
                Poll::Ready(count) => {
                    self.open = count > 0;
                    self.open
                }
                Poll::Pending => false,
            };
        if ended || commanded { Poll::Ready(Word::Mail) } else { Poll::Pending }
    }

    /// Waits until there is something. Cancel-safe.
    pub async fn come(&mut self) -> Word {
        poll_fn(|context| self.poll(context)).await
    }

    /// Waits until every probe that was given up has let go of all else, but not longer than `at_most`: the processes of a
    /// script must not outlive the program because it ended first.
    pub async fn let_go(mut self, at_most: Duration) {
        self.inbox.close();
        // A probe given up holds its sender until then.
        let let_go = async { while self.endings.recv().await.is_some() {} };
        let _ = tokio::time::timeout(at_most, let_go).await;
    }
}
