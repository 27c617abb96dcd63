use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use Population::{Address, Named};

const ALL: Frozen = Frozen { named: true, address: true };
const NONE: Frozen = Frozen { named: false, address: false };

fn ms(at: u64) -> Duration {
    Duration::from_millis(at)
}

fn loss(endpoint: u64, check: u64, population: Population) -> Loss {
    Loss { endpoint, place: endpoint, check, population, interval: ms(1000) }
}

fn detector(named: usize, address: usize) -> Detector {
    let mut detector = Detector::default();
    detector.watch(Watched { named, address }, ms(0));
    detector
}

/// Turns `count` addresses bad at once, of two checks by turns.
fn lose(detector: &mut Detector, count: u64, at: u64) {
    for endpoint in 0..count {
        detector.turned_bad(loss(endpoint, endpoint % 2, Address), ms(at));
    }
}

#[test]
fn a_share_of_55_percent_freezes_and_less_does_not() {
    let mut watching = detector(0, 20);
    lose(&mut watching, 10, 5);
    assert_eq!(watching.frozen(ms(5)), NONE);
    watching.turned_bad(loss(10, 0, Address), ms(5));
    assert_eq!(watching.frozen(ms(5)), Frozen { named: false, address: true });
}

#[test]
fn two_endpoints_are_no_correlated_loss_and_three_are() {
    let mut watching = detector(0, 3);
    lose(&mut watching, 2, 5);
    assert_eq!(watching.frozen(ms(5)), NONE);
    lose(&mut watching, 3, 5);
    assert!(watching.frozen(ms(5)).address);
}

#[test]
fn one_check_that_loses_everything_is_left_to_the_floor() {
    let mut watching = detector(0, 10);
    for endpoint in 0..10 {
        watching.turned_bad(loss(endpoint, 7, Address), ms(5));
    }
    assert_eq!(watching.frozen(ms(5)), NONE);
}

#[test]
fn losses_more_than_two_intervals_apart_do_not_add_up() {
    for (second, frozen) in [(1999, true), (2000, false)] {
        let mut watching = detector(0, 10);
        lose(&mut watching, 5, 0);
        for endpoint in 5..8 {
            watching.turned_bad(loss(endpoint, 0, Address), ms(second));
        }
        assert_eq!(watching.frozen(ms(second)).address, frozen, "{second}");
    }
}

#[test]
fn a_freeze_lasts_until_things_have_been_good_for_two_intervals() {
    let mut watching = detector(0, 10);
    lose(&mut watching, 8, 0);
    let start = 200_000;
    assert!(watching.frozen(ms(start)).address, "nothing has returned");
    for endpoint in 0..3 {
        watching.turned_good(endpoint, ms(start));
    }
    assert_eq!(watching.next_change(), Some(ms(start + 2000)));
    watching.turned_bad(loss(1, 1, Address), ms(start + 1500));
    assert_eq!(watching.next_change(), Some(ms(300_000)), "not good after all");
    watching.turned_good(1, ms(start + 1600));
    assert!(watching.frozen(ms(start + 3599)).address);
    assert_eq!(watching.frozen(ms(start + 3600)), NONE);
    for endpoint in 20..22 {
        watching.turned_bad(loss(endpoint, 0, Address), ms(start + 3700));
    }
    assert_eq!(watching.frozen(ms(start + 3700)), NONE, "those of the old loss count no more");
}

#[test]
fn a_dead_resolver_freezes_only_what_is_named() {
    let mut watching = detector(4, 40);
    for endpoint in 0..4 {
        watching.turned_bad(loss(endpoint, endpoint % 2, Named), ms(5));
    }
    assert_eq!(watching.frozen(ms(5)), Frozen { named: true, address: false });
    assert!(watching.frozen(ms(5)).of(Named) && !watching.frozen(ms(5)).of(Address));

    let mut watching = detector(8, 4);
    for endpoint in 0..8 {
        watching.turned_bad(loss(endpoint, endpoint % 2, Named), ms(5));
    }
    watching.turned_bad(loss(100, 3, Address), ms(5));
    assert_eq!(watching.frozen(ms(5)), Frozen { named: true, address: false }, "most addresses are well");
    for endpoint in 101..103 {
        watching.turned_bad(loss(endpoint, 3, Address), ms(5));
    }
    assert_eq!(watching.frozen(ms(5)), ALL);
}

#[test]
fn endpoints_that_are_gone_are_neither_lost_nor_watched() {
    let mut watching = detector(0, 10);
    lose(&mut watching, 6, 0);
    assert!(watching.frozen(ms(0)).address);
    for endpoint in 0..6 {
        watching.turned_good(endpoint, ms(10));
    }
    watching.watch(Watched { named: 0, address: 4 }, ms(10));
    assert_eq!(watching.frozen(ms(2010)), NONE);
    lose(&mut watching, 3, 3000);
    assert!(watching.frozen(ms(3000)).address, "three of four");
}

#[test]
fn many_endpoints_leave_nothing_behind() {
    let mut watching = detector(0, 10_000);
    for round in 0..20 {
        for endpoint in 0..10_000 {
            watching.turned_bad(loss(endpoint, endpoint % 50, Address), ms(round * 10_000));
        }
        assert!(watching.frozen(ms(round * 10_000)).address);
        for endpoint in 0..10_000 {
            watching.turned_good(endpoint, ms(round * 10_000 + 100));
        }
        assert_eq!(watching.frozen(ms(round * 10_000 + 2100 + 1000)), NONE);
    }
    assert_eq!(watching.address.len(), 0);
    assert_eq!(watching.next_change(), None);
}

/// What is lost of a hundred addresses that are probed each second: `lost`, at a moment of no importance.
fn lost_of_a_hundred(lost: u64) -> Detector {
    let mut watching = detector(0, 100);
    lose(&mut watching, lost, 1000);
    assert!(watching.frozen(ms(1000)).address);
    watching
}

/// When the freeze ends that is there now, in seconds.
fn end(watching: &mut Detector, within: u64) -> Option<u64> {
    (1..=within).find(|second| !watching.frozen(ms(second * 1000)).address)
}

#[test]
fn a_loss_is_believed_when_the_others_have_been_well_for_long_enough() {
    let mut watching = lost_of_a_hundred(60);
    assert_eq!(watching.ends_at(Address), Some(ms(301_000)));
    assert_eq!(end(&mut watching, 1000), Some(301), "five minutes, for thirty intervals are less");
    assert!(!watching.frozen(ms(7_200_000)).address, "the same loss freezes nothing again");
    let mut slow = detector(0, 100);
    for endpoint in 0..60 {
        slow.turned_bad(Loss { interval: ms(60_000), ..loss(endpoint, endpoint % 2, Address) }, ms(0));
    }
    assert_eq!(slow.ends_at(Address), Some(ms(1_800_000)), "thirty intervals");
    slow.turned_bad(Loss { interval: ms(86_400_000), ..loss(70, 0, Address) }, ms(1));
    assert_eq!(slow.ends_at(Address), Some(ms(3_600_001)), "and an hour at most");
}

#[test]
fn a_loss_is_not_believed_while_the_others_fail_too() {
    let mut watching = lost_of_a_hundred(60);
    for endpoint in 60..80 {
        watching.turned_bad(loss(endpoint, 0, Address), ms(2000 * endpoint));
        watching.turned_good(endpoint, ms(2000 * endpoint + 500));
    }
    assert_eq!(end(&mut watching, 2000), Some(601), "half of forty is not most");
    let mut watching = lost_of_a_hundred(60);
    for second in 100..280 {
        watching.turned_bad(loss(60, 0, Address), ms(second * 1000));
        watching.turned_good(60, ms(second * 1000 + 500));
    }
    assert_eq!(end(&mut watching, 2000), Some(301), "one that always fails says nothing of the others");
}

#[test]
fn a_loss_is_not_believed_where_nothing_is_left_or_our_own_side_is_in_doubt() {
    let mut watching = lost_of_a_hundred(100);
    assert_eq!((watching.ends_at(Address), end(&mut watching, 20_000)), (None, None));
    watching.turned_good(0, ms(20_000_000));
    assert_eq!(watching.ends_at(Address), Some(ms(20_300_000)), "from then on there is one to tell by");
    let mut watching = lost_of_a_hundred(60);
    watching.doubt(ms(250_000));
    assert_eq!(end(&mut watching, 2000), Some(550));
}

#[test]
fn a_place_that_several_checks_probe_counts_once() {
    // Three hosts, of which one is probed by eight checks.
    let mut watching = detector(0, 3);
    for check in 0..8 {
        watching.turned_bad(Loss { place: 1, ..loss(check, check, Address) }, ms(0));
    }
    assert_eq!(watching.frozen(ms(0)), NONE);
    watching.turned_bad(loss(20, 0, Address), ms(0));
    assert_eq!(watching.frozen(ms(0)), NONE, "two hosts are few");
    watching.turned_bad(loss(30, 0, Address), ms(0));
    assert!(watching.frozen(ms(0)).address);
    for check in 0..7 {
        watching.turned_good(check, ms(10));
    }
    assert_eq!(watching.address.len(), 3, "lost as long as one of its checks says so");
}

/// The rule told from the whole history at every millisecond, with nothing counted along.
#[derive(Default)]
struct Naive {
    watched: Watched,
    /// Every endpoint that is bad, since when.
    bad: BTreeMap<u64, (Loss, u64)>,
    frozen: [Option<NaiveFreeze>; 2],
}

/// The endpoints a freeze counts, since when things are good, and the longest interval.
type NaiveFreeze = (Vec<u64>, Option<u64>, Duration);

impl Naive {
    /// The losses of a population that count at `now`.
    fn lost(&self, which: usize, now: u64) -> Vec<Loss> {
        let counts = |(endpoint, (loss, since)): (&u64, &(Loss, u64))| {
            let own = usize::from(loss.population == Address) == which;
            let fresh = ms(now) < ms(*since) + loss.interval * 2;
            let part = self.frozen[which].as_ref().is_some_and(|(parts, ..)| parts.contains(endpoint));
            (own && (fresh || part)).then_some(*loss)
        };
        self.bad.iter().filter_map(counts).collect()
    }

    fn judge(&mut self, now: u64) {
        let lost = [self.lost(0, now), self.lost(1, now)];
        let both: Vec<Loss> = lost.concat();
        let places = |lost: &[Loss]| lost.iter().map(|loss| loss.place).collect::<BTreeSet<_>>().len();
        let share = |lost: &[Loss], watched: usize| !lost.is_empty() && places(lost) as f64 / watched as f64 >= 0.55;
        let large = |lost: &[Loss], watched: usize| {
            let several = lost.iter().any(|loss| loss.check != lost[0].check);
            places(lost) > 2 && share(lost, watched) && several
        };
        let all = large(&both, self.watched.named + self.watched.address);
        let hit = [
            large(&lost[0], self.watched.named) || (all && share(&lost[0], self.watched.named)),
            all && share(&lost[1], self.watched.address),
        ];
        for which in 0..2 {
            let longest = lost[which].iter().map(|loss| loss.interval).max().unwrap_or_default();
            let (mut parts, good, before) = match self.frozen[which].take() {
                None if !hit[which] => continue,
                None => (vec![], None, ms(0)),
                Some(freeze) => freeze,
            };
            parts.extend(lost[which].iter().map(|loss| loss.endpoint));
            parts.retain(|endpoint| self.bad.contains_key(endpoint));
            let good = if hit[which] { None } else { good.or(Some(now)) };
            self.frozen[which] = Some((parts, good, before.max(longest)));
        }
    }

    fn tick(&mut self, now: u64) {
        for freeze in &mut self.frozen {
            let over = |(_, good, longest): &NaiveFreeze| good.is_some_and(|good| ms(good) + *longest * 2 <= ms(now));
            if freeze.as_ref().is_some_and(over) {
                *freeze = None;
            }
        }
        self.judge(now);
    }

    fn answer(&self) -> Frozen {
        Frozen { named: self.frozen[0].is_some(), address: self.frozen[1].is_some() }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Bad(u64),
    Good(u64),
    Pass(u64),
    Watch(usize, usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..12_u64).prop_map(Step::Bad),
        2 => (0..12_u64).prop_map(Step::Good),
        3 => (1..14_u64).prop_map(Step::Pass),
        1 => (1..8_usize, 1..8_usize).prop_map(|(named, address)| Step::Watch(named, address)),
    ]
}

/// What the endpoint of this number is: a third are named, of three checks and three intervals.
fn numbered(endpoint: u64) -> Loss {
    let population = if endpoint.is_multiple_of(3) { Named } else { Address };
    // Two or three of a kind are at one place.
    let place = if population == Named { 100 + endpoint / 6 } else { endpoint / 4 };
    Loss { endpoint, place, check: endpoint % 5 / 2, population, interval: ms(3 + endpoint % 4) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_detector_agrees_with_a_recount(steps in prop::collection::vec(any_step(), 0..60), coarse: bool) {
        let mut detector = detector(4, 6);
        let mut naive = Naive { watched: Watched { named: 4, address: 6 }, ..Naive::default() };
        let mut now = 0;
        let mut froze = NONE;
        for step in steps {
            match step {
                // Bad is bad: only changes are fed.
                Step::Bad(endpoint) if !naive.bad.contains_key(&endpoint) => {
                    naive.bad.insert(endpoint, (numbered(endpoint), now));
                    naive.judge(now);
                    detector.turned_bad(numbered(endpoint), ms(now));
                }
                Step::Bad(_) => {}
                Step::Good(endpoint) => {
                    naive.bad.remove(&endpoint);
                    naive.judge(now);
                    detector.turned_good(endpoint, ms(now));
                }
                Step::Watch(named, address) => {
                    naive.watched = Watched { named, address };
                    naive.judge(now);
                    detector.watch(Watched { named, address }, ms(now));
                }
                Step::Pass(time) => {
                    for _ in 0..time {
                        now += 1;
                        let due = detector.next_change();
                        naive.tick(now);
                        if !coarse {
                            prop_assert_eq!(detector.frozen(ms(now)), naive.answer(), "at {}", now);
                            let told = due.is_some_and(|due| due <= ms(now));
                            prop_assert!(told || naive.answer() == froze, "changed without being told, at {}", now);
                            froze = naive.answer();
                        }
                    }
                }
            }
            froze = naive.answer();
            prop_assert_eq!(detector.frozen(ms(now)), froze, "after {:?} at {}", step, now);
        }
    }
}
