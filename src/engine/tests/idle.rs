//! How often what has no traffic is asked.

use super::{reports::listening, *};
use crate::{check::Observed, engine::Fate};

use EndpointState::{Healthy, Unhealthy};

/// Healthy at one second and, without traffic, at ten.
pub(super) fn seldom(name: &str) -> Check {
    let mut check = listening(name, None);
    check.rhythm.no_traffic_interval = Some(seconds(10));
    check
}

/// When `a` was asked, counted from `from`, in whole seconds between one time and the next.
pub(super) fn gaps(bench: &Bench, from: usize) -> Vec<u64> {
    let starts = bench.lane.starts("a").split_off(from);
    starts.windows(2).map(|pair| (pair[1] - pair[0] + Duration::from_millis(10)).as_secs()).collect()
}

#[tokio::test(start_paused = true)]
async fn what_has_no_traffic_is_asked_seldom_and_as_ever_once_there_is_some() {
    let bench = Bench::new();
    bench.run(&seldom("web")).await;
    sleep(seconds(11)).await;
    assert!((10..=12).contains(&bench.lane.hits("a")), "traffic may have been there before we listened");
    let before = bench.lane.hits("a");
    sleep(seconds(100)).await;
    let idle = gaps(&bench, before);
    assert!((9..=11).contains(&(bench.lane.hits("a") - before)), "{idle:?}");
    assert!(idle.iter().all(|gap| *gap == 10), "{idle:?}");
    assert_eq!((bench.health("web").0, bench.metrics.skipped_rounds.get()), (Health::Healthy, 0));

    // One report, whatever it counts as, and not only for the next round.
    assert_eq!(bench.report("web", Observed::Status(404), 1).await, Fate::Accepted);
    let before = bench.lane.hits("a");
    sleep(Duration::from_millis(1010)).await;
    assert_eq!(bench.lane.hits("a"), before + 1, "within one interval");
    for _ in 0..10 {
        sleep(seconds(5)).await;
        bench.report("web", Observed::Status(200), 1).await;
    }
    assert!((50..=52).contains(&(bench.lane.hits("a") - before)), "{:?}", gaps(&bench, before));
    assert!(gaps(&bench, before).iter().all(|gap| *gap == 1), "{:?}", gaps(&bench, before));
    // And once more when there is none again.
    sleep(seconds(10)).await;
    let before = bench.lane.hits("a");
    sleep(seconds(100)).await;
    assert!((9..=11).contains(&(bench.lane.hits("a") - before)), "{:?}", gaps(&bench, before));
    assert_eq!(bench.view("web").transitions[Health::Unknown as usize], 0, "never too old");
}

#[tokio::test(start_paused = true)]
async fn what_is_in_doubt_is_asked_as_ever_without_traffic() {
    let bench = Bench::new();
    let mut check = seldom("web");
    check.rhythm.unhealthy_interval = seconds(3);
    check.rhythm.confirm_interval = Duration::from_millis(500);
    bench.run(&check).await;
    sleep(seconds(45)).await;
    bench.lane.say("a", Answer::Bad(Reason::ConnectionRefused));
    let before = bench.lane.hits("a");
    while bench.lane.hits("a") == before {
        sleep(Duration::from_millis(50)).await;
    }
    // A first failure is looked into at once, and what is down is asked at the pace of what is down.
    sleep(Duration::from_millis(1100)).await;
    assert_eq!((bench.lane.hits("a"), bench.state("web", 0)), (before + 3, Unhealthy));
    sleep(seconds(30)).await;
    assert!((12..=14).contains(&(bench.lane.hits("a") - before)), "{:?}", gaps(&bench, before));
    bench.lane.say("a", Answer::Good);
    sleep(seconds(7)).await;
    assert_eq!(bench.state("web", 0), Healthy, "a recovery takes no longer");
    let before = bench.lane.hits("a");
    sleep(seconds(50)).await;
    assert!((4..=6).contains(&(bench.lane.hits("a") - before)), "{:?}", gaps(&bench, before));
    // Who cannot look does so again soon.
    bench.lane.say("a", Answer::Bad(Reason::NoDescriptors));
    sleep(seconds(10)).await;
    let before = bench.lane.hits("a");
    sleep(seconds(5)).await;
    assert!(bench.lane.hits("a") - before >= 4, "{:?}", gaps(&bench, before));
}

#[tokio::test(start_paused = true)]
async fn the_rounds_of_many_without_traffic_are_spread_over_the_whole_of_it() {
    let bench = Bench::new();
    let mut check = seldom("web");
    check.targets = (0..64).map(|number| target(&format!("t{number}"))).collect();
    bench.run(&check).await;
    sleep(seconds(40)).await;
    let from = Instant::now();
    sleep(seconds(10)).await;
    let mut each = [0; 10];
    for number in 0..64 {
        for at in bench.lane.starts(&format!("t{number}")) {
            if at >= from {
                each[(at - from).as_secs().min(9) as usize] += 1;
            }
        }
    }
    assert_eq!(each.iter().sum::<usize>(), 64, "{each:?}");
    assert!(each.iter().all(|count| (1..=16).contains(count)), "{each:?}");
}

#[tokio::test(start_paused = true)]
async fn the_interval_without_traffic_can_be_changed_at_any_time() {
    let bench = Bench::new();
    bench.run(&seldom("web")).await;
    sleep(seconds(40)).await;
    bench.run(&listening("web", None)).await;
    let before = bench.lane.hits("a");
    sleep(seconds(20)).await;
    assert!((19..=21).contains(&(bench.lane.hits("a") - before)), "{:?}", gaps(&bench, before));
    bench.run(&seldom("web")).await;
    let before = bench.lane.hits("a");
    sleep(seconds(50)).await;
    assert!((4..=6).contains(&(bench.lane.hits("a") - before)), "{:?}", gaps(&bench, before));
}
