//! Connections that are kept between the rounds of one endpoint (`reuseConnection`).
//!
//! The lane has the connection, the endpoint a word on which one is its own. Whoever lets go of that word lets go of the
//! connection.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

/// A connection of an endpoint, by the number of its line and the generation of the socket there. It may be gone by now.
#[derive(Debug)]
pub(super) struct Held {
    pub address: SocketAddr,
    pub line: u32,
    pub generation: u32,
    let_go: LetGo,
}

impl Held {
    pub fn new(address: SocketAddr, let_go: &LetGo) -> Box<Self> {
        Box::new(Self { address, line: u32::MAX, generation: 0, let_go: let_go.clone() })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.let_go.lock(|list| list.push((self.line, self.generation)));
    }
}

/// What nobody holds any more, and the lane has not closed yet.
#[derive(Clone, Debug, Default)]
pub(super) struct LetGo(Arc<Mutex<Vec<(u32, u32)>>>);

impl LetGo {
    /// Puts them into `into`, which is empty, and takes its room for the next.
    pub fn take(&self, into: &mut Vec<(u32, u32)>) {
        self.lock(|list| {
            if !list.is_empty() {
                std::mem::swap(list, into);
            }
        });
    }

    fn lock(&self, with: impl FnOnce(&mut Vec<(u32, u32)>)) {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
