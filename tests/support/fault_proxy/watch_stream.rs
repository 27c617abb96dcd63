//! The bodies of answers: passed on as they come, and the events of watches one by one.

use std::sync::Arc;

use anyhow::anyhow;
use bytes::{Bytes, BytesMut};
use futures::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::json;
use tokio::sync::mpsc;

use super::forward::{Body, status};
use super::rules::{Fault, Request, Rules};

type Piece = anyhow::Result<Bytes>;

/// A body that is passed on as it comes.
pub(super) fn plain(response: reqwest::Response) -> Body {
    let pieces = stream::try_unfold(response, |mut response| async move {
        let piece = response.chunk().await?;
        anyhow::Ok(piece.map(|piece| (Frame::data(piece), response)))
    });
    StreamBody::new(pieces).boxed_unsync()
}

/// A watch's body: one event a line, each subject to the rules.
pub(super) fn events(response: reqwest::Response, info: Request, rules: Arc<Rules>) -> Body {
    let (sender, receiver) = mpsc::channel::<Piece>(1);
    tokio::spawn(async move {
        let watch = Watch { info, rules, sender };
        if let Err(end) = watch.pump(response).await {
            let _ = watch.sender.send(Err(end)).await;
        }
    });
    let pieces = stream::unfold(receiver, |mut receiver| async move {
        let piece = receiver.recv().await?;
        Some((piece.map(Frame::data), receiver))
    });
    StreamBody::new(pieces).boxed_unsync()
}

struct Watch {
    info: Request,
    rules: Arc<Rules>,
    sender: mpsc::Sender<Piece>,
}

impl Watch {
    /// Passes events on until either side ends; an error cuts the client's connection.
    async fn pump(&self, mut response: reqwest::Response) -> anyhow::Result<()> {
        let mut changes = self.rules.changes();
        // Rules that are there already count as a change.
        changes.mark_changed();
        let mut waiting = BytesMut::new();
        loop {
            tokio::select! {
                // What the rules say comes before what the API server says.
                biased;
                () = self.sender.closed() => return Ok(()),
                Ok(()) = changes.changed() => {
                    changes.mark_unchanged();
                    if self.ended_by_rule().await? {
                        return Ok(());
                    }
                }
                piece = response.chunk() => {
                    let Some(piece) = piece? else { return Ok(()) };
                    waiting.extend_from_slice(&piece);
                    while let Some(end) = waiting.iter().position(|byte| *byte == b'\n') {
                        self.deliver(waiting.split_to(end + 1).freeze()).await?;
                    }
                }
            }
        }
    }

    /// Ends the watch when a rule says so.
    async fn ended_by_rule(&self) -> anyhow::Result<bool> {
        for rule in self.rules.matching(&self.info) {
            if !rule.fault.ends_watches() || !rule.strike() {
                continue;
            }
            if matches!(rule.fault, Fault::Cut) {
                return Err(anyhow!("cut, as told"));
            }
            let event = json!({ "type": "ERROR", "object": status(410) });
            let _ = self.sender.send(Ok(Bytes::from(format!("{event}\n")))).await;
            return Ok(true);
        }
        Ok(false)
    }

    async fn deliver(&self, event: Bytes) -> anyhow::Result<()> {
        let mut times = 1;
        for rule in self.rules.matching(&self.info) {
            match rule.fault {
                Fault::Delay(time) if rule.strike() => tokio::time::sleep(time).await,
                Fault::Hold if rule.strike() => self.rules.lifted(&rule).await,
                Fault::DropEvents if rule.strike() => return Ok(()),
                Fault::RepeatEvents if rule.strike() => times *= 2,
                _ => {}
            }
        }
        for _ in 0..times {
            // A client that went away is noticed by the pump.
            let _ = self.sender.send(Ok(event.clone())).await;
        }
        Ok(())
    }
}
