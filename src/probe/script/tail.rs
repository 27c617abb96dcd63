//! The end of a stream of any length.

use std::collections::VecDeque;

/// Keeps the last bytes that were pushed.
#[derive(Debug)]
pub(super) struct Tail {
    bytes: VecDeque<u8>,
    limit: usize,
}

impl Tail {
    pub const fn new(limit: usize) -> Self {
        Self { bytes: VecDeque::new(), limit }
    }

    pub fn push(&mut self, chunk: &[u8]) {
        let chunk = &chunk[chunk.len().saturating_sub(self.limit)..];
        let over = (self.bytes.len() + chunk.len()).saturating_sub(self.limit);
        self.bytes.drain(..over);
        self.bytes.extend(chunk);
    }

    /// As text; what is no UTF-8, or was cut in the middle of a character, is replaced.
    pub fn into_text(self) -> String {
        String::from_utf8_lossy(&Vec::from(self.bytes)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_bytes_stay_however_they_come() {
        let all: Vec<u8> = (0..=255).cycle().take(1000).collect();
        for step in [1, 3, 7, 8, 9, 100, 1000] {
            let mut tail = Tail::new(8);
            all.chunks(step).for_each(|chunk| tail.push(chunk));
            assert_eq!(Vec::from(tail.bytes), all[992..], "in steps of {step}");
        }
    }
}
