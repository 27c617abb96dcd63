//! One value for all that are equal: what thousands of checks repeat (the namespace, the names of targets, labels, the
//! probe) is kept once.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, HashSet},
    hash::Hash,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use super::Probe;

/// A text that many hold: a name, a label, an identity. Cheap to clone, and one word where `Arc<str>` is two: each endpoint
/// has half a dozen of them, in the engine and on the board.
pub type Text = arcstr::ArcStr;

/// Labels as the API has them. Cheap to clone.
pub type Labels = Arc<BTreeMap<String, String>>;

/// Fewer values than these are not looked through for what nobody uses.
const FEW: usize = 64;

static TEXTS: LazyLock<Pool<Text>> = LazyLock::new(Pool::default);
static LABELS: LazyLock<Pool<Labels>> = LazyLock::new(Pool::default);
static NAMES: LazyLock<Pool<Arc<[Text]>>> = LazyLock::new(Pool::default);
static PROBES: LazyLock<Pool<Arc<Probe>>> = LazyLock::new(Pool::default);

/// `text`, shared with all who share the same one.
#[must_use]
pub fn text(text: &str) -> Text {
    TEXTS.share(text)
}

/// `labels`, shared with all who share the same ones.
#[must_use]
pub fn labels(labels: BTreeMap<String, String>) -> Labels {
    LABELS.share(labels)
}

/// `names`, shared with all who share the same ones in the same order.
#[must_use]
pub fn names(names: Vec<Text>) -> Arc<[Text]> {
    NAMES.share(names)
}

/// `probe`, shared with all who ask the same question.
#[must_use]
pub fn probe(probe: Probe) -> Arc<Probe> {
    PROBES.share(probe)
}

/// Values that are in use, each once. What nobody uses any more is let go when their number has doubled.
#[derive(Debug)]
pub struct Pool<T>(Mutex<Kept<T>>);

#[derive(Debug)]
struct Kept<T> {
    values: HashSet<T>,
    /// At how many values they are looked through.
    full: usize,
}

/// What leads to a value, and is cheap to clone.
pub trait Leads: Clone + Eq + Hash + Borrow<Self::To> {
    type To: Eq + Hash + ?Sized;

    /// Whether another leads to the same one.
    fn is_shared(&self) -> bool;
}

impl<T: Eq + Hash + ?Sized> Leads for Arc<T> {
    type To = T;

    fn is_shared(&self) -> bool {
        Self::strong_count(self) > 1
    }
}

impl Leads for Text {
    type To = str;

    fn is_shared(&self) -> bool {
        // What is part of the program has no count.
        Self::strong_count(self).is_none_or(|count| count > 1)
    }
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self(Mutex::new(Kept { values: HashSet::new(), full: FEW }))
    }
}

impl<T: Leads> Pool<T> {
    /// The one that equals `value`; `value` itself where there is none.
    pub fn share(&self, value: impl Borrow<T::To> + Into<T>) -> T {
        // Whoever panicked while holding it left a whole set.
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = kept.values.get(value.borrow()) {
            return known.clone();
        }
        if kept.values.len() >= kept.full {
            kept.values.retain(Leads::is_shared);
            kept.full = (2 * kept.values.len()).max(FEW);
        }
        let value = value.into();
        kept.values.insert(value.clone());
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one_and_those_that_nobody_uses_go() {
        let pool = Pool::<Text>::default();
        let kept = pool.share("shop");
        assert!(Text::ptr_eq(&kept, &pool.share(String::from("shop").as_str())));
        for number in 0..10 * FEW {
            assert_eq!(&*pool.share(number.to_string().as_str()), number.to_string());
        }
        assert!(pool.0.lock().expect("nobody panicked").values.len() <= 2 * FEW);
        assert!(Text::ptr_eq(&kept, &pool.share("shop")), "what is in use stays");
    }
}
