//! The TCP probe: that somebody listens.

use std::net::SocketAddr;

use super::{
    dial::{self, Manner},
    failure::Failure,
    progress::{Phase, Progress},
};
use crate::check::Handshake;

/// Connects and lets go. The SYN/ACK is the proof either way; only `Full` is ever accepted by the target.
pub(super) async fn probe(address: SocketAddr, handshake: Handshake, progress: &Progress) -> Result<(), Failure> {
    progress.reach(Phase::Connect);
    let manner = match handshake {
        Handshake::HalfOpen => Manner::HalfOpen,
        Handshake::Full => Manner::Polite,
    };
    dial::connect(address, manner).await.map(drop)
}
