//! Reports that tell of a while ago.

use jiff::Timestamp;

use super::{
    idle::{gaps, seldom},
    reports::listening,
    *,
};
use crate::{
    check::Observed,
    engine::{Fate, When},
};

use EndpointState::{Healthy, MostlyUnhealthy, Unhealthy, Unknown};

/// Something that took no time, so long ago.
fn ago(age: Duration) -> Option<When> {
    let at = Timestamp::now() - age;
    Some(When { began: at, ended: at })
}

/// A log that is told late speaks of what is over.
#[tokio::test(start_paused = true)]
async fn what_was_seen_before_a_recovery_ejects_nobody_after_it() {
    let bench = Bench::new();
    bench.run(&listening("web", None)).await;
    sleep(seconds(60)).await;
    let refused = async |age| bench.report_of("web", Observed::ConnectFailure, 2, ago(age)).await;
    // Ejected by traffic, let back by its probes.
    assert_eq!(refused(Duration::ZERO).await, Fate::Accepted);
    assert_eq!(bench.state("web", 0), Unhealthy);
    sleep(seconds(10)).await;
    assert_eq!(bench.state("web", 0), Healthy);
    assert_eq!((refused(seconds(11)).await, bench.state("web", 0)), (Fate::Late, Healthy));
    // A request that began before, and has failed since then, is one of before.
    let long = Some(When::lasting(Timestamp::now() - seconds(11), seconds(10)));
    assert_eq!(bench.report_of("web", Observed::Timeout, 7, long).await, Fate::Late);
    assert_eq!((refused(seconds(1)).await, bench.state("web", 0)), (Fate::Accepted, Unhealthy));
    // Found dead by its probes, and well again by them.
    bench.lane.say("a", Answer::Bad(Reason::ConnectionRefused));
    sleep(seconds(5)).await;
    bench.lane.say("a", Answer::Good);
    sleep(seconds(10)).await;
    assert_eq!((refused(seconds(12)).await, bench.state("web", 0)), (Fate::Late, Healthy));
    assert_eq!(bench.view("web").endpoints[0].live.traffic().map(|traffic| traffic.connect), Some(0));
}

#[tokio::test(start_paused = true)]
async fn without_probes_what_was_seen_before_an_ejection_ended_does_not_begin_another() {
    let bench = Bench::new();
    bench.run(&listening("web", Some(seconds(20)))).await;
    sleep(seconds(60)).await;
    bench.report("web", Observed::ConnectFailure, 2).await;
    sleep(seconds(21)).await;
    assert_eq!(bench.state("web", 0), Healthy);
    assert_eq!(bench.report_of("web", Observed::ConnectFailure, 2, ago(seconds(5))).await, Fate::Late);
    assert_eq!(bench.state("web", 0), Healthy);
    assert_eq!(bench.report_of("web", Observed::ConnectFailure, 2, ago(Duration::ZERO)).await, Fate::Accepted);
    assert_eq!(bench.state("web", 0), Unhealthy);
}

#[tokio::test(start_paused = true)]
async fn what_was_seen_before_an_ejection_neither_ends_nor_prolongs_it() {
    let bench = Bench::new();
    let mut slow = listening("web", None);
    slow.rhythm.unhealthy_interval = seconds(10);
    bench.run(&slow).await;
    sleep(seconds(60)).await;
    bench.report("web", Observed::ConnectFailure, 2).await;
    sleep(seconds(1)).await;
    assert_eq!(bench.report_of("web", Observed::Status(200), 5, ago(seconds(3))).await, Fate::Late);
    assert_eq!(bench.state("web", 0), Unhealthy);
    while bench.state("web", 0) == Unhealthy {
        sleep(Duration::from_millis(100)).await;
    }
    // One proof is there, and failures of before the ejection take nothing of it.
    assert_eq!(bench.state("web", 0), MostlyUnhealthy);
    assert_eq!(bench.report_of("web", Observed::ConnectFailure, 9, ago(seconds(20))).await, Fate::Accepted);
    assert_eq!(bench.state("web", 0), MostlyUnhealthy);
    assert_eq!(bench.report_of("web", Observed::ConnectFailure, 1, ago(Duration::ZERO)).await, Fate::Accepted);
    assert_eq!(bench.state("web", 0), Unhealthy, "one of now does");
}

#[tokio::test(start_paused = true)]
async fn what_is_older_than_a_verdict_may_be_is_late_and_the_future_is_now() {
    let bench = Bench::new();
    bench.run(&seldom("web")).await;
    sleep(seconds(100)).await;
    assert_eq!(bench.report_of("web", Observed::ConnectFailure, 2, ago(seconds(31))).await, Fate::Late);
    assert_eq!((bench.state("web", 0), bench.view("web").endpoints[0].live.traffic()), (Healthy, None));
    // It is no traffic of now either.
    let before = bench.lane.hits("a");
    sleep(seconds(20)).await;
    assert!(bench.lane.hits("a") - before <= 3, "{:?}", gaps(&bench, before));
    // A connection that was held for an hour and broke just now.
    let long = Some(When::lasting(Timestamp::now() - seconds(60), seconds(59)));
    assert_eq!(bench.report_of("web", Observed::ConnectFailure, 1, long).await, Fate::Accepted);
    let ahead = Timestamp::now() + seconds(3600);
    let ahead = Some(When { began: ahead, ended: ahead });
    assert_eq!(bench.report_of("web", Observed::ConnectFailure, 1, ahead).await, Fate::Accepted);
    assert_eq!(bench.state("web", 0), Unhealthy);
    sleep(seconds(10)).await;
    assert_eq!(bench.state("web", 0), Healthy, "the probes since then count, for it was now");
}

/// What was seen a while ago confirms a verdict as of then.
#[tokio::test(start_paused = true)]
async fn an_old_report_keeps_a_verdict_fresh_from_when_it_was_made() {
    let bench = Bench::new();
    bench.run(&listening("web", None)).await;
    sleep(seconds(60)).await;
    bench.lane.say("a", Answer::Bad(Reason::NoDescriptors));
    sleep(seconds(25)).await;
    // Ten seconds before now: believed until twenty from now, and not thirty.
    assert_eq!(bench.report_of("web", Observed::Status(200), 1, ago(seconds(10))).await, Fate::Accepted);
    sleep(seconds(18)).await;
    assert_eq!(bench.state("web", 0), Healthy);
    sleep(seconds(4)).await;
    assert_eq!(bench.state("web", 0), Unknown);
}
