//! The open connections of one listener: how many there are, and which goes when there are too many.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use tokio_util::sync::CancellationToken;

/// Bounded, and never full for a newcomer: silent clients cannot shut load balancers out, they only push each other
/// out.
#[derive(Debug)]
pub struct Connections {
    limit: usize,
    born: Instant,
    open: Mutex<(u64, HashMap<u64, Arc<Activity>>)>,
}

#[derive(Debug)]
struct Activity {
    /// An answer is being made, or it has proved of use.
    busy: AtomicBool,
    /// When it was opened, or gave its last answer: milliseconds after the listener's birth.
    last: AtomicU64,
    close: CancellationToken,
}

/// One open connection; dropping it makes room.
#[derive(Debug)]
pub struct Connection {
    all: Arc<Connections>,
    id: u64,
    activity: Arc<Activity>,
}

impl Connections {
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, born: Instant::now(), open: Mutex::default() })
    }

    /// Enters a new connection. Where there are as many as may be, the one that has been idle for longest is told to
    /// close; where none is idle, the one whose answer takes longest.
    pub fn enter(self: &Arc<Self>) -> Connection {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.1.len() >= self.limit {
            let longest =
                open.1.iter().min_by_key(|(_, activity)| (activity.busy.load(Relaxed), activity.last.load(Relaxed)));
            if let Some(id) = longest.map(|(id, _)| *id)
                && let Some(activity) = open.1.remove(&id)
            {
                activity.close.cancel();
                tracing::debug!("too many connections; closed the one that was idle for longest");
            }
        }
        let activity = Arc::new(Activity {
            busy: AtomicBool::new(false),
            last: AtomicU64::new(self.now()),
            close: CancellationToken::new(),
        });
        open.0 += 1;
        let id = open.0;
        open.1.insert(id, activity.clone());
        drop(open);
        Connection { all: self.clone(), id, activity }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Connection {
    /// An answer is being made from now on.
    pub fn begin(&self) {
        self.activity.busy.store(true, Relaxed);
    }

    /// The answer is made.
    pub fn end(&self) {
        self.activity.last.store(self.all.now(), Relaxed);
        self.activity.busy.store(false, Relaxed);
    }

    /// It has brought something that was wanted: it makes room after all that have not.
    pub fn prove(&self) {
        self.activity.last.store(self.all.now(), Relaxed);
        self.activity.busy.store(true, Relaxed);
    }

    /// Waits until this connection has to make room.
    pub async fn closed(&self) {
        self.activity.close.cancelled().await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.all.open.lock().unwrap_or_else(PoisonError::into_inner).1.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_idle_connection_makes_room() {
        let all = Connections::new(3);
        let open: Vec<_> = (0..3).map(|_| all.enter()).collect();
        // Times of a millisecond's width would tie: set them.
        for (age, connection) in [5, 1, 9].into_iter().zip(&open) {
            connection.activity.last.store(age, Relaxed);
        }
        open[1].begin();
        let closed = |index: usize| open[index].activity.close.is_cancelled();
        let newcomer = all.enter();
        assert_eq!([closed(0), closed(1), closed(2)], [true, false, false], "the oldest idle one, not the busy one");
        newcomer.activity.last.store(20, Relaxed);
        newcomer.begin();
        open[2].begin();
        let _another = all.enter();
        assert_eq!([closed(0), closed(1), closed(2)], [true, true, false], "all are busy: the longest answer");
    }

    #[test]
    fn newcomers_push_each_other_out_and_not_what_has_proved_of_use() {
        let all = Connections::new(3);
        let proved = [all.enter(), all.enter()];
        proved.iter().for_each(Connection::prove);
        let strangers: Vec<_> = (0..10).map(|_| all.enter()).collect();
        assert!(proved.iter().all(|connection| !connection.activity.close.is_cancelled()));
        assert_eq!(strangers.iter().filter(|stranger| stranger.activity.close.is_cancelled()).count(), 9);
    }

    #[test]
    fn a_closed_connection_leaves_its_place() {
        let all = Connections::new(2);
        let kept = all.enter();
        for _ in 0..10 {
            drop(all.enter());
        }
        assert!(!kept.activity.close.is_cancelled());
    }
}
