use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::Client;
use tokio::{sync::mpsc, time::Instant};

use super::{
    Note, Parts, TICK, WriteKey, Writer,
    send::{Ended, Outcome, guarded},
};
use crate::{
    api::HealthCheckStatus,
    check::{Counts, Health, HealthReason, ObjectKey, Text},
    cluster::{
        client::CallError,
        lease::Held,
        queue::{Next, Urgency},
        server_state::ServerState,
        status::{Acceptance, headline},
    },
    engine::{Board, CheckView},
    telemetry::Beats,
};

fn writer() -> (Writer, Arc<Board>) {
    let service = tower::service_fn(|_: http::Request<kube::client::Body>| {
        std::future::pending::<Result<http::Response<kube::client::Body>, tower::BoxError>>()
    });
    let board = Arc::new(Board::new());
    let parts = Parts {
        client: Client::new(service, "default"),
        board: board.clone(),
        held: Held::default(),
        prober: "p".to_owned(),
        refresh: Duration::from_secs(60),
        events: mpsc::channel(1).0,
        annotated: mpsc::unbounded_channel().0,
        gated: mpsc::unbounded_channel().0,
        beats: Beats::default(),
    };
    (Writer::new(parts), board)
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("shop", name)
}

/// `name` as a former owner left it, and accepted.
fn take_over(writer: &mut Writer, name: &str, observed_at: i64) {
    let uid: Text = name.into();
    let observed_at = Timestamp::from_second(observed_at).ok();
    let state = ServerState { uid: uid.clone(), epoch: Some(3), observed_at, ..ServerState::default() };
    writer.note(Note::Seen(key(name), Box::new(state)));
    writer.note(Note::Accepted(key(name), Acceptance { uid, gates: Some(vec![]), ..Acceptance::default() }));
}

#[tokio::test]
async fn a_write_that_panics_ends_like_one_that_failed() {
    let ended: Result<(), _> = guarded(async { panic!("a bug") }).await;
    assert!(matches!(&ended, Err(CallError::Other(message)) if message.contains("panicked")), "{ended:?}");
    assert!(matches!(guarded(async { Ok(7) }).await, Ok(7)));
}

#[tokio::test]
async fn nothing_is_confirmed_from_a_board_that_nobody_looks_after() {
    let (mut writer, board) = writer();
    take_over(&mut writer, "young", 20);
    take_over(&mut writer, "old", 10);
    writer.tick();
    assert_eq!(writer.queue.len(), 0);
    board.set_synced();
    writer.tick();
    assert_eq!(writer.queue.len(), 2);
    let first = writer.queue.next(Instant::now());
    assert_eq!(first, Next::Write(WriteKey::Status(key("old"))), "the oldest first");
    writer.urgency.remove(&WriteKey::Status(key("old")));
    writer.tick();
    assert!(!writer.urgency.contains_key(&WriteKey::Status(key("old"))), "under way already");
}

#[tokio::test]
async fn an_answer_is_that_of_the_object_that_was_written_to() {
    let (mut writer, _board) = writer();
    take_over(&mut writer, "a", 10);
    let written = |uid: &str| Ended {
        key: WriteKey::Status(key("a")),
        urgency: Urgency::Transition,
        outcome: Outcome::Status {
            uid: uid.into(),
            status: Box::new(HealthCheckStatus { epoch: Some(4), ..HealthCheckStatus::default() }),
            claim: false,
            result: Ok("9".to_owned()),
            now_there: None,
        },
    };
    writer.ended(Ok(written("a former one")));
    let known = |writer: &Writer| (writer.records[&key("a")].known.epoch, writer.records[&key("a")].ours);
    assert_eq!(known(&writer), (Some(3), false));
    writer.ended(Ok(written("a")));
    assert_eq!(known(&writer), (Some(4), true));
    let (now, period) = (Instant::now(), Duration::from_secs(60));
    let refresh = writer.records[&key("a")].refresh;
    assert!(refresh > now && refresh <= now + period, "confirmed within its period");
}

#[tokio::test(start_paused = true)]
async fn a_deaf_watch_proves_no_edit() {
    let (mut writer, _board) = writer();
    take_over(&mut writer, "a", 10);
    let (key, now) = (key("a"), Instant::now());
    if let Some(record) = writer.records.get_mut(&key) {
        (record.sent, record.written) = (Some(now + TICK), Some(now + TICK));
    }
    let later = now + Duration::from_secs(3600);
    assert!(!writer.records[&key].is_echoed(later), "nothing was shown since");
    tokio::time::advance(TICK * 2).await;
    let state = ServerState { uid: "a".into(), epoch: Some(3), ..ServerState::default() };
    writer.note(Note::Seen(key.clone(), Box::new(state)));
    assert!(writer.records[&key].is_echoed(later));
    assert!(!writer.records[&key].is_echoed(now + TICK), "it may be older than the write");
}

#[tokio::test]
async fn a_write_of_our_own_that_is_seen_before_its_answer_is_nobody_elses_claim() {
    let (mut writer, board) = writer();
    board.set_synced();
    for name in ["written", "idle"] {
        take_over(&mut writer, name, 10);
    }
    writer.push(WriteKey::Status(key("written")), Urgency::Transition);
    assert_eq!(writer.queue.next(Instant::now()), Next::Write(WriteKey::Status(key("written"))));
    for name in ["written", "idle"] {
        let state = ServerState { uid: name.into(), epoch: Some(4), ..ServerState::default() };
        writer.note(Note::Seen(key(name), Box::new(state)));
    }
    assert_eq!(writer.records[&key("written")].known.epoch, Some(3), "its answer tells");
    assert_eq!(writer.records[&key("idle")].known.epoch, Some(4), "somebody claimed it");
}

/// A check that is well.
fn well(name: &str) -> CheckView {
    CheckView {
        key: key(name),
        uid: name.into(),
        generation: 0,
        labels: Arc::default(),
        suspended: false,
        health: Health::Healthy,
        reason: HealthReason::AllTargetsHealthy,
        message: String::new(),
        since: Timestamp::UNIX_EPOCH,
        counts: Counts { total: 1, healthy: 1, unhealthy: 0, unknown: 0 },
        targets: Arc::default(),
        unlisted: Health::Unknown,
        endpoints: Arc::from([]),
        outages: Arc::from([]),
        probes: "tcp".into(),
        interval: Duration::from_secs(1),
        idle_interval: Duration::from_secs(1),
        transitions: [0; 4],
        live: Arc::default(),
    }
}

#[tokio::test(start_paused = true)]
async fn small_changes_are_gathered_and_a_change_of_the_verdict_is_not() {
    let (mut writer, board) = writer();
    board.set_synced();
    let (small, verdict) = (key("small"), key("verdict"));
    for name in ["small", "verdict"] {
        take_over(&mut writer, name, 10);
        board.publish(vec![well(name)], &[]);
        writer.forget(&WriteKey::Status(key(name)));
        let said = writer.wanted(&key(name), &writer.records[&key(name)], Timestamp::now()).expect("decided");
        let record = writer.records.get_mut(&key(name)).expect("taken over");
        record.written = Some(Instant::now());
        record.known.headline = headline(&said);
    }
    let unhealthy = CheckView { health: Health::Unhealthy, reason: HealthReason::TargetsUnhealthy, ..well("verdict") };
    board.publish(vec![unhealthy], &[]);
    writer.consider(&small);
    writer.consider(&verdict);
    assert_eq!(writer.queue.next(Instant::now()), Next::Write(WriteKey::Status(verdict)));
    assert_eq!(writer.queue.next(Instant::now()), Next::Idle, "written a moment ago");
    tokio::time::advance(Duration::from_secs(6)).await;
    writer.consider(&small);
    assert_eq!(writer.queue.next(Instant::now()), Next::Write(WriteKey::Status(small)));
}
