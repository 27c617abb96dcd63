//! The board of current verdicts: one writer, any number of readers who never wait.
//!
//! The board is level-triggered. A subscriber is told *which* checks changed and reads what they are now; a check
//! that changed twice before it looked is told once. Nothing is lost, because nothing but the key is queued.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::view::CheckView;
use crate::check::{Health, ObjectKey};

/// A writer silent for longer than this has stalled, and nothing on the board may be believed. The
/// default `staleAfter` is never shorter; a check that asks for less has it kept by the engine, while that lives.
pub const WRITER_SILENCE: Duration = Duration::from_secs(30);

type Entries = BTreeMap<ObjectKey, Arc<ArcSwap<CheckView>>>;

/// How many checks are in which word. Suspended ones are left out of all but `suspended`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// In the order of [`Health::ALL`].
    pub by_health: [u32; 4],
    pub suspended: u32,
}

impl Totals {
    pub fn add(&mut self, view: &CheckView) {
        *self.slot(view) += 1;
    }

    fn subtract(&mut self, view: &CheckView) {
        *self.slot(view) -= 1;
    }

    fn slot(&mut self, view: &CheckView) -> &mut u32 {
        if view.suspended { &mut self.suspended } else { &mut self.by_health[view.health as usize] }
    }

    #[must_use]
    pub const fn count(&self, health: Health) -> u32 {
        self.by_health[health as usize]
    }

    /// Unhealthy beats Unknown beats Degraded beats Healthy; an empty set is Healthy.
    #[must_use]
    pub fn health(&self) -> Health {
        [Health::Unhealthy, Health::Unknown, Health::Degraded]
            .into_iter()
            .find(|health| self.count(*health) > 0)
            .unwrap_or(Health::Healthy)
    }
}

/// See the module's own words.
#[derive(Debug)]
pub struct Board {
    entries: ArcSwap<Entries>,
    totals: ArcSwap<Totals>,
    /// Held by writers only, and never across an await.
    writing: Mutex<()>,
    subscribers: Mutex<Vec<Arc<Mailbox>>>,
    synced: AtomicBool,
    born: Instant,
    /// Milliseconds after `born`.
    last_beat: AtomicU64,
}

#[derive(Debug, Default)]
struct Mailbox {
    dirty: Mutex<HashSet<ObjectKey>>,
    notify: Notify,
}

/// Tells which checks changed. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Subscription {
    mailbox: Arc<Mailbox>,
}

impl Subscription {
    /// Waits until at least one check changed, and takes all keys that did. A key that is no longer on the board was
    /// removed. Cancel-safe: keys are taken only when they are returned.
    pub async fn changed(&mut self) -> Vec<ObjectKey> {
        loop {
            let waiting = self.mailbox.notify.notified();
            // Taken whole: a set that once held every key would keep room for them.
            let keys: Vec<_> = std::mem::take(&mut *lock(&self.mailbox.dirty)).into_iter().collect();
            if !keys.is_empty() {
                return keys;
            }
            waiting.await;
        }
    }
}

impl Default for Board {
    fn default() -> Self {
        Self::new()
    }
}

impl Board {
    #[must_use]
    pub fn new() -> Self {
        Self {
            entries: ArcSwap::default(),
            totals: ArcSwap::default(),
            writing: Mutex::new(()),
            subscribers: Mutex::default(),
            synced: AtomicBool::new(false),
            born: Instant::now(),
            last_beat: AtomicU64::new(0),
        }
    }

    /// Starts a subscription; every check now on the board counts as changed.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        let mailbox = Arc::new(Mailbox::default());
        // Registered first: what is published from here on is told, and what was there already is added below.
        lock(&self.subscribers).push(mailbox.clone());
        lock(&mailbox.dirty).extend(self.entries.load().keys().cloned());
        mailbox.notify.notify_one();
        Subscription { mailbox }
    }

    /// Puts `views` on the board and takes `removed` off it, in one step for the set of keys.
    pub fn publish(&self, views: Vec<CheckView>, removed: &[ObjectKey]) {
        if views.is_empty() && removed.is_empty() {
            return;
        }
        let _writing = lock(&self.writing);
        let changed: Vec<ObjectKey> =
            views.iter().map(|view| view.key.clone()).chain(removed.iter().cloned()).collect();
        let mut totals = **self.totals.load();
        let current = self.entries.load_full();
        let grows = views.iter().any(|view| !current.contains_key(&view.key));
        let shrinks = removed.iter().any(|key| current.contains_key(key));
        let mut next = (grows || shrinks).then(|| Entries::clone(&current));
        for view in views {
            totals.add(&view);
            match current.get(&view.key) {
                Some(entry) => totals.subtract(&entry.swap(Arc::new(view))),
                None => {
                    let entry = next
                        .as_mut()
                        .and_then(|map| map.insert(view.key.clone(), Arc::new(ArcSwap::from_pointee(view))));
                    // The same new key twice in one batch: the later one stands.
                    if let Some(earlier) = entry {
                        totals.subtract(&earlier.load());
                    }
                }
            }
        }
        if let Some(mut map) = next {
            for key in removed {
                if let Some(entry) = map.remove(key) {
                    totals.subtract(&entry.load());
                }
            }
            self.entries.store(Arc::new(map));
        }
        self.totals.store(Arc::new(totals));
        self.tell(&changed);
    }

    fn tell(&self, changed: &[ObjectKey]) {
        lock(&self.subscribers).retain(|mailbox| {
            let alive = Arc::strong_count(mailbox) > 1;
            if alive {
                lock(&mailbox.dirty).extend(changed.iter().cloned());
                mailbox.notify.notify_one();
            }
            alive
        });
    }

    /// The current view of one check.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<CheckView>> {
        self.entries.load().get(key).map(|entry| entry.load_full())
    }

    /// All current views, by namespace and name.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<CheckView>> {
        self.entries.load().values().map(|entry| entry.load_full()).collect()
    }

    /// All current views of one namespace, by name.
    #[must_use]
    pub fn namespace(&self, namespace: &str) -> Vec<Arc<CheckView>> {
        let first = ObjectKey::new(namespace, "");
        let entries = self.entries.load();
        entries
            .range(first..)
            .take_while(|(key, _)| &*key.namespace == namespace)
            .map(|(_, entry)| entry.load_full())
            .collect()
    }

    /// How many checks are in which word, kept up to date by the writer: reading costs nothing.
    #[must_use]
    pub fn totals(&self) -> Totals {
        **self.totals.load()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.load().len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.load().is_empty()
    }

    /// The writer lives. To be called at least every few seconds.
    pub fn beat(&self) {
        let millis = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_beat.store(millis, Relaxed);
    }

    /// Everything there was to know at the start is on the board.
    pub fn set_synced(&self) {
        self.beat();
        self.synced.store(true, Relaxed);
    }

    /// Whether the board may be believed: it was filled once, and its writer is alive. Otherwise every answer from it
    /// is Unknown.
    #[must_use]
    pub fn is_current(&self) -> bool {
        let beat = Duration::from_millis(self.last_beat.load(Relaxed));
        self.synced.load(Relaxed) && self.born.elapsed().saturating_sub(beat) < WRITER_SILENCE
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A panic while one was held leaves a set of keys or nothing at all: both are valid.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
