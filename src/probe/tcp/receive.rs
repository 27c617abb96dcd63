//! Blocks of bytes, awaited one after the other with anything between them.

use std::sync::Arc;

/// What of the blocks has come.
#[derive(Debug)]
pub struct Awaited<'a> {
    blocks: &'a [Arc<[u8]>],
    found: usize,
    /// Where the next block may begin: behind the one before it, and where what has been searched cannot hold it.
    from: usize,
}

impl<'a> Awaited<'a> {
    /// None of `blocks` is empty.
    pub const fn new(blocks: &'a [Arc<[u8]>]) -> Self {
        Self { blocks, found: 0, from: 0 }
    }

    /// How many have come.
    pub const fn found(&self) -> usize {
        self.found
    }

    /// Looks on in `heard`, everything that has come since the beginning. Whether all blocks are there.
    pub fn found_all(&mut self, heard: &[u8]) -> bool {
        while let Some(block) = self.blocks.get(self.found) {
            let rest = heard.get(self.from..).unwrap_or_default();
            match rest.windows(block.len()).position(|window| *window == **block) {
                Some(at) => {
                    self.found += 1;
                    self.from += at + block.len();
                }
                None => {
                    // Its beginning may have come already.
                    self.from += (rest.len() + 1).saturating_sub(block.len());
                    return false;
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn blocks(texts: &[&str]) -> Vec<Arc<[u8]>> {
        texts.iter().map(|text| text.as_bytes().into()).collect()
    }

    #[test]
    fn blocks_come_in_order_with_anything_between() {
        for (texts, heard, found) in [
            (&["+PONG"][..], "+PONG\r\n", 1),
            (&["220", "ESMTP"], "220 mail.example ESMTP ready", 2),
            (&["ESMTP", "220"], "220 mail.example ESMTP ready", 1),
            (&["aa", "aa"], "aaa", 1),
            (&["aa", "aa"], "aaaa", 2),
            (&["ab", "b"], "ab", 1),
            (&["x"], "", 0),
        ] {
            let blocks = blocks(texts);
            let mut awaited = Awaited::new(&blocks);
            assert_eq!(awaited.found_all(heard.as_bytes()), found == blocks.len(), "{texts:?} in {heard}");
            assert_eq!(awaited.found(), found, "{texts:?} in {heard}");
        }
    }

    /// As one would say it: the first place of the first block, then the rest behind it.
    fn naive(blocks: &[Arc<[u8]>], heard: &[u8]) -> bool {
        let Some((first, rest)) = blocks.split_first() else { return true };
        (0..heard.len())
            .find(|at| heard[*at..].starts_with(first))
            .is_some_and(|at| naive(rest, &heard[at + first.len()..]))
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_answer_is_the_same(
            texts in prop::collection::vec("[ab]{1,3}", 1..4), heard in "[ab]{0,24}", cuts in prop::collection::vec(0..24_usize, 0..6),
        ) {
            let blocks: Vec<Arc<[u8]>> = texts.iter().map(|text| text.as_bytes().into()).collect();
            let mut ends: Vec<_> = cuts.into_iter().map(|cut| cut.min(heard.len())).chain([heard.len()]).collect();
            ends.sort_unstable();
            let mut awaited = Awaited::new(&blocks);
            let found = ends.into_iter().map(|end| awaited.found_all(&heard.as_bytes()[..end])).last();
            prop_assert_eq!(found, Some(naive(&blocks, heard.as_bytes())));
        }
    }
}
