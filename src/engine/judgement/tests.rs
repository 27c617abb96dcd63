use super::*;
use crate::check::{Reason, Text};

const THRESHOLDS: Thresholds = Thresholds { success: 2, failure: Some(2), connect: None, http: None, timeout: None };

fn success() -> Report {
    Report::new(Outcome::Success, Duration::from_millis(3))
}

fn failure() -> Report {
    Report::new(Outcome::from_reason(Reason::ConnectionRefused, "connection refused"), Duration::from_millis(3))
}

fn local() -> Report {
    Report::new(Outcome::from_reason(Reason::NoDescriptors, "no descriptors"), Duration::ZERO)
}

fn fresh() -> Judgement {
    Judgement::new(0, Timestamp::UNIX_EPOCH)
}

fn take(judgement: &mut Judgement, report: &Report, now: u64) -> bool {
    let span = Span { began: now, ended: now };
    judgement.take(report, &THRESHOLDS, span, Timestamp::from_millisecond(now.cast_signed()).unwrap())
}

fn told(judgement: &Judgement) -> Text {
    judgement.remarks().map(|remarks| remarks.message.clone()).unwrap_or_default()
}

#[test]
fn a_local_outcome_counts_for_nothing_and_freshens_nothing() {
    let mut judgement = fresh();
    take(&mut judgement, &success(), 10);
    for now in 11..50 {
        take(&mut judgement, &local(), now);
    }
    assert_eq!(judgement.shown(InitialState::Unknown), EndpointState::Healthy);
    assert_eq!(judgement.live.counters().success, 1);
    assert_eq!(judgement.expires(1000), Some(1010), "from the last look that saw something");
    assert!(judgement.blind && judgement.reason() == Some(Reason::NoDescriptors));
}

#[test]
fn a_neutral_outcome_counts_for_nothing_and_keeps_what_is_known_fresh() {
    let mut judgement = fresh();
    take(&mut judgement, &success(), 10);
    take(&mut judgement, &failure(), 20);
    let counters = judgement.live.counters();
    take(
        &mut judgement,
        &Report::new(Outcome::Neutral { message: "got '404'".to_owned() }, Duration::from_millis(3)),
        500,
    );
    assert_eq!(judgement.live.counters(), counters);
    assert_eq!(judgement.shown(InitialState::Unknown), EndpointState::MostlyHealthy);
    assert_eq!(judgement.expires(1000), Some(1500), "somebody answered");
}

#[test]
fn a_stale_verdict_reads_unknown_until_decided_again() {
    let mut judgement = fresh();
    take(&mut judgement, &success(), 10);
    judgement.expire(Timestamp::UNIX_EPOCH);
    assert_eq!((judgement.shown(InitialState::Healthy), judgement.stale), (EndpointState::Unknown, true));
    assert!(!judgement.is_undecided());
    take(&mut judgement, &failure(), 20);
    assert_eq!(judgement.shown(InitialState::Unknown), EndpointState::Unknown, "one failure decides nothing");
    assert!(judgement.stale, "still nothing that may be believed");
    take(&mut judgement, &success(), 30);
    assert_eq!((judgement.shown(InitialState::Unknown), judgement.stale), (EndpointState::Healthy, false));
}

#[test]
fn the_initial_state_is_shown_until_the_first_verdict() {
    let mut judgement = fresh();
    assert_eq!(judgement.shown(InitialState::Healthy), EndpointState::Healthy);
    assert_eq!(judgement.shown(InitialState::Unhealthy), EndpointState::Unhealthy);
    take(&mut judgement, &failure(), 1);
    assert_eq!(judgement.shown(InitialState::Healthy), EndpointState::Healthy);
    take(&mut judgement, &failure(), 2);
    assert_eq!(judgement.shown(InitialState::Healthy), EndpointState::Unhealthy);
}

#[test]
fn the_initial_state_is_believed_no_longer_than_a_verdict_would_be() {
    let mut judgement = fresh();
    take(&mut judgement, &local(), 5);
    assert_eq!(judgement.shown(InitialState::Healthy), EndpointState::Healthy);
    judgement.expire(Timestamp::UNIX_EPOCH);
    assert_eq!(judgement.shown(InitialState::Healthy), EndpointState::Unknown);
    assert!(judgement.is_undecided());
}

#[test]
fn since_moves_with_the_verdict_and_not_with_doubt() {
    let mut judgement = fresh();
    take(&mut judgement, &success(), 1000);
    let decided = judgement.since();
    take(&mut judgement, &failure(), 2000);
    assert_eq!(judgement.shown(InitialState::Unknown), EndpointState::MostlyHealthy);
    assert_eq!(judgement.since(), decided);
    take(&mut judgement, &failure(), 3000);
    assert_eq!(judgement.since().time().as_millisecond(), 3000);
}

#[test]
fn a_changed_question_keeps_the_verdict_marked_until_decided_anew() {
    let mut judgement = fresh();
    take(&mut judgement, &success(), 1);
    judgement.supersede();
    assert_eq!(judgement.shown(InitialState::Unknown), EndpointState::Healthy);
    assert!(told(&judgement).contains("before the probe was changed"));
    assert!(take(&mut judgement, &success(), 2), "readers are told that it holds again");
    assert_eq!(&*told(&judgement), "");
    // Too old, it is nobody's verdict any more, whatever was asked.
    judgement.supersede();
    judgement.expire(Timestamp::UNIX_EPOCH);
    assert_eq!(&*told(&judgement), "");
}

#[test]
fn the_cadence_follows_the_state() {
    let rhythm = Rhythm {
        interval: Duration::from_secs(10),
        unhealthy_interval: Duration::from_secs(2),
        confirm_interval: Duration::from_secs(1),
        no_traffic_interval: None,
        jitter_percent: 0,
    };
    let mut judgement = fresh();
    let mut seen = vec![];
    for report in [success(), failure(), failure(), success(), success()] {
        take(&mut judgement, &report, 1);
        seen.push(judgement.cadence(&rhythm).as_secs());
    }
    assert_eq!(seen, [10, 1, 2, 2, 10]);
}
