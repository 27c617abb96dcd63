//! Targets that are DNS names: each address is published by its own verdict.

use std::net::SocketAddr;

use super::*;

use crate::check::Text;

const NAME: &str = "db.corp.example";

fn named(gate: Value) -> Value {
    let mut named = spec(1, gate);
    named["targets"][0]["host"] = json!(NAME);
    named
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn leads_to(addresses: Option<Arc<[EndpointView]>>) -> Option<Arc<Remarks>> {
    Remarks { addresses, ..Remarks::default() }.kept()
}

impl World {
    /// The board comes to say `state` of the name, and these of its addresses; `None`: nobody has looked yet.
    fn finds(&mut self, state: Option<EndpointState>, addresses: Option<&[(&str, Option<EndpointState>)]>) {
        let target = self.reconciler.accepted(&key("a")).expect("accepted").targets[0].clone();
        let of = |(address, state): &(&str, Option<EndpointState>)| {
            let label: Text = SocketAddr::new(ip(address), 80).to_string().into();
            EndpointView { label: label.clone(), identity: label, ..self.row(&target, *state) }
        };
        let addresses = addresses.map(|addresses| addresses.iter().map(of).collect());
        let row = EndpointView { remarks: leads_to(addresses), ..self.row(&target, state) };
        self.shows("a", vec![row]);
    }
}

#[test]
fn each_address_of_a_name_is_published_by_its_own_verdict() {
    let mut world = World::new();
    world.check("a", 1, json!({}), named(json!({})));
    world.finds(None, None);
    assert_eq!((world.settle(), world.reported("a").effective), (0, GateReason::Pending));
    world.finds(UP, Some(&[("10.9.0.1", UP), ("10.9.0.2", DOWN), ("fd00::1", UP), ("127.0.0.1", UP)]));
    assert_eq!(world.settle(), 2, "a slice for each family");
    assert_eq!(world.published(), [(ip("10.9.0.1"), true), (ip("10.9.0.2"), false), (ip("fd00::1"), true)].into());
    let report = world.reported("a");
    assert_eq!((report.desired, report.published, report.withheld), (2, 2, 1), "{}", report.message);
    assert!(report.message.contains("127.0.0.1"), "{}", report.message);
    // One that the name did not lead to before waits for its own verdict, and one that it leads to no longer goes.
    world.finds(UP, Some(&[("10.9.0.1", UP), ("10.9.0.3", None), ("fd00::1", UP)]));
    world.settle();
    assert_eq!(world.published(), [(ip("10.9.0.1"), true), (ip("10.9.0.3"), false), (ip("fd00::1"), true)].into());
}

#[test]
fn a_name_keeps_its_addresses_until_a_new_life_has_looked() {
    let mut world = World::new();
    world.check("a", 1, json!({}), named(json!({})));
    world.finds(UP, Some(&[("10.9.0.1", UP), ("10.9.0.2", DOWN)]));
    world.settle();
    let there = world.published();
    let slices = world.reconciler.index.sources.slices[&key("db")].values().cloned().collect();
    let mut reborn = World::with(slices);
    reborn.check("a", 1, json!({}), named(json!({})));
    reborn.finds(STALE, None);
    assert_eq!((reborn.settle(), reborn.published()), (0, there), "no name server answers yet");
    reborn.finds(UP, Some(&[("10.9.0.3", UP)]));
    reborn.settle();
    assert_eq!(reborn.published(), [(ip("10.9.0.3"), true)].into());
}

#[test]
fn all_addresses_of_a_name_that_is_gone_are_withheld_like_any_other() {
    let mut world = World::new();
    world.check("a", 1, json!({}), named(json!({"whenBelow": "FailClosed"})));
    world.finds(UP, Some(&[("10.9.0.1", UP)]));
    world.settle();
    world.finds(DOWN, Some(&[("10.9.0.1", DOWN)]));
    world.settle();
    assert_eq!(
        (world.published(), world.reported("a").effective),
        ([(ip("10.9.0.1"), false)].into(), GateReason::FailClosed)
    );
}

/// What is not yet known of one name keeps nobody from acting on the others.
#[test]
fn a_name_nobody_has_looked_up_yet_holds_up_no_other_target() {
    let mut world = World::new();
    let mut both = spec(2, json!({}));
    both["targets"][1]["host"] = json!(NAME);
    world.check("a", 1, json!({}), both);
    let target = |world: &World, at: usize| world.reconciler.accepted(&key("a")).expect("accepted").targets[at].clone();
    let (address, name) = (target(&world, 0), target(&world, 1));
    let rows = vec![world.row(&address, UP), world.row(&name, None)];
    world.shows("a", rows);
    world.settle();
    assert_eq!((world.ready(), world.reported("a").effective), (vec![true], GateReason::Enforced));
    // It leads nowhere that anybody may go: what it had is gone.
    let gone = EndpointView { remarks: leads_to(Some([].into())), ..world.row(&name, None) };
    let rows = vec![world.row(&address, UP), gone];
    world.shows("a", rows);
    assert_eq!((world.settle(), world.ready()), (0, vec![true]));
}
