use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::Client;
use tokio::{sync::mpsc, time::Instant};

use super::{
    Note, Parts, TICK, WriteKey, Writer,
    send::{Ended, Outcome},
};
use crate::{
    api::HealthCheckStatus,
    check::ObjectKey,
    cluster::{
        lease::Held,
        queue::{Next, Urgency},
        server_state::ServerState,
        status::Acceptance,
    },
    engine::Board,
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
    let uid: Arc<str> = name.into();
    let observed_at = Timestamp::from_second(observed_at).ok();
    let state = ServerState { uid: uid.clone(), epoch: Some(3), observed_at, ..ServerState::default() };
    writer.note(Note::Seen(key(name), Box::new(state)));
    writer.note(Note::Accepted(key(name), Acceptance { uid, generation: 0, problems: vec![], gates: Some(vec![]) }));
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
