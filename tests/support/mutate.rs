//! Bytes as a target sends them, changed at random. The seeds are in `tests/corpus/bytes/KIND/`.

use std::path::Path;

use proptest::{collection::vec, prelude::*, sample::Index};

/// Every file of `kind`.
pub fn seeds(kind: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/bytes").join(kind);
    let mut files: Vec<_> =
        std::fs::read_dir(&directory).expect("seeds").map(|entry| entry.expect("readable").path()).collect();
    files.sort();
    assert!(!files.is_empty(), "no seeds in {}", directory.display());
    files.iter().map(|file| std::fs::read(file).expect("readable")).collect()
}

#[derive(Clone, Debug)]
enum Change {
    Set(Index, u8),
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Repeat(Index, usize, usize),
    /// What is between two places comes from another seed.
    Splice(Index, Index),
    Cut(Index),
}

/// A seed of `kind` with up to eight changes.
pub fn mutated(kind: &str) -> impl Strategy<Value = Vec<u8>> + use<> {
    let seeds = seeds(kind);
    let change = prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (any::<Index>(), 0..8_u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        (any::<Index>(), vec(any::<u8>(), 1..16)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (any::<Index>(), 1..32_usize).prop_map(|(at, length)| Change::Remove(at, length)),
        (any::<Index>(), 1..32_usize, 1..200_usize).prop_map(|(at, length, times)| Change::Repeat(at, length, times)),
        (any::<Index>(), any::<Index>()).prop_map(|(seed, at)| Change::Splice(seed, at)),
        any::<Index>().prop_map(Change::Cut),
    ];
    (any::<Index>(), vec(change, 0..8)).prop_map(move |(seed, changes)| {
        let mut bytes = seed.get(&seeds).clone();
        changes.iter().for_each(|change| apply(change, &mut bytes, &seeds));
        bytes
    })
}

fn apply(change: &Change, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
    // One beyond the end is a place to insert at, and to cut.
    let place = |at: &Index, bytes: &Vec<u8>| at.index(bytes.len() + 1);
    match change {
        Change::Set(at, byte) => {
            let at = place(at, bytes);
            if let Some(old) = bytes.get_mut(at) {
                *old = *byte;
            }
        }
        Change::Flip(at, bit) => {
            let at = place(at, bytes);
            if let Some(old) = bytes.get_mut(at) {
                *old ^= 1 << bit;
            }
        }
        Change::Insert(at, more) => {
            let at = place(at, bytes);
            bytes.splice(at..at, more.iter().copied());
        }
        Change::Remove(at, length) => {
            let at = place(at, bytes);
            bytes.drain(at..(at + length).min(bytes.len()));
        }
        Change::Repeat(at, length, times) => {
            let at = place(at, bytes);
            let again = bytes[at..(at + length).min(bytes.len())].repeat(*times);
            bytes.splice(at..at, again);
        }
        Change::Splice(seed, at) => {
            let other = seed.get(seeds);
            bytes.truncate(place(at, bytes));
            bytes.extend(other.iter().skip(place(at, other)));
        }
        Change::Cut(at) => bytes.truncate(place(at, bytes)),
    }
}
