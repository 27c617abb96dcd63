use serde_json::{Value, json};

use super::*;
use crate::check::{Health, HealthReason};
use crate::{
    api,
    cluster::{
        checks::{Object, facts},
        index::{Scope, SourceKind},
    },
};

fn object(name: &str, uid: &str, generation: i64, spec: &Value) -> CheckFacts {
    let object = json!({
        "apiVersion": api::API_VERSION, "kind": api::KIND,
        "metadata": {"name": name, "namespace": "shop", "uid": uid, "generation": generation, "resourceVersion": "1"},
        "spec": spec,
    });
    facts(serde_json::from_value::<Object>(object).expect("an object")).expect("with a name")
}

fn host() -> Value {
    json!({"targets": [{"name": "t", "host": "10.0.0.1", "port": 80}]})
}

fn member(of: &str) -> Value {
    json!({"targets": [{"name": "m", "healthCheck": {"name": of}}]})
}

fn reconciler() -> Reconciler {
    Reconciler::new(&Selection::default(), false, Duration::from_secs(300))
}

fn list(reconciler: &mut Reconciler, objects: Vec<CheckFacts>) {
    reconciler.check(0, Told::Begin);
    for object in objects {
        reconciler.check(0, Told::Is(object));
    }
    reconciler.check(0, Told::Complete);
}

/// What was done: `run db (1)` with its endpoints, `end db`, `db: what is wrong`.
fn done(reconciler: &mut Reconciler) -> Vec<String> {
    let told = |action| match action {
        Action::Upsert(desired) => Some(format!("run {} ({})", desired.check.key.name, desired.endpoints.len())),
        Action::Remove(key) => Some(format!("end {}", key.name)),
        Action::Note(note) => match *note {
            Note::Accepted(key, acceptance) if !acceptance.problems.is_empty() => {
                let kinds: Vec<_> = acceptance.problems.iter().map(|problem| problem.kind.as_str()).collect();
                Some(format!("{}: {}", key.name, kinds.join(",")))
            }
            _ => None,
        },
        Action::LookUp(key, _, references) => Some(format!("look up {} of {}", references.len(), key.name)),
    };
    reconciler.settle().into_iter().filter_map(told).collect()
}

#[test]
fn nothing_runs_before_the_list_is_complete_and_members_run_first() {
    let mut reconciler = reconciler();
    reconciler.check(0, Told::Begin);
    reconciler.check(0, Told::Is(object("a", "1", 1, &member("b"))));
    reconciler.check(0, Told::Is(object("b", "2", 1, &member("c"))));
    reconciler.check(0, Told::Is(object("c", "3", 1, &host())));
    assert!(done(&mut reconciler).is_empty());
    reconciler.check(0, Told::Complete);
    assert_eq!(done(&mut reconciler), ["run c (1)", "run b (0)", "run a (0)"]);
    assert!(reconciler.is_settled());
    // Nothing new, nothing done.
    list(
        &mut reconciler,
        vec![object("a", "1", 1, &member("b")), object("b", "2", 1, &member("c")), object("c", "3", 1, &host())],
    );
    assert!(done(&mut reconciler).is_empty());
}

#[test]
fn a_check_waits_for_what_it_refers_to_and_so_does_who_has_it_as_a_member() {
    let mut reconciler = reconciler();
    let pods = json!({"targets": [{"name": "p", "pods": {"selector": {"matchLabels": {"a": "b"}}}, "port": 1}]});
    list(
        &mut reconciler,
        vec![object("a", "1", 1, &member("p")), object("p", "2", 1, &pods), object("h", "3", 1, &host())],
    );
    assert_eq!(done(&mut reconciler), ["run h (1)"]);
    let board = Board::new();
    let views = reconciler.undecided(&board, Timestamp::UNIX_EPOCH);
    let undecided: Vec<_> = views.iter().map(|view| (&*view.key.name, view.health, view.reason)).collect();
    let nobodys = |name| (name, Health::Unknown, HealthReason::ProbeError);
    assert_eq!(undecided, [nobodys("a"), nobodys("p")]);
    board.publish(views, &[]);
    assert!(reconciler.undecided(&board, Timestamp::MAX).is_empty(), "said already");
    let scope = Scope { kind: SourceKind::Pods, namespace: "shop".into() };
    reconciler.source(SourceChange::Pod(scope.clone(), Told::Begin));
    reconciler.source(SourceChange::Pod(scope, Told::Complete));
    assert_eq!(done(&mut reconciler), ["run p (0)", "run a (0)"]);
    assert!(reconciler.undecided(&Board::new(), Timestamp::UNIX_EPOCH).is_empty());
}

#[test]
fn what_waits_is_said_anew_when_it_changes_and_goes_with_its_object() {
    let mut reconciler = reconciler();
    let (board, key) = (Board::new(), ObjectKey::new("shop", "p"));
    let pods = |suspend: bool| {
        let targets = json!([{"name": "p", "pods": {"selector": {"matchLabels": {"a": "b"}}}, "port": 1}]);
        json!({"suspend": suspend, "targets": targets})
    };
    list(&mut reconciler, vec![]);
    reconciler.check(0, Told::Is(object("p", "1", 1, &pods(false))));
    assert!(done(&mut reconciler).is_empty() && reconciler.is_undecided(&key));
    board.publish(reconciler.undecided(&board, Timestamp::UNIX_EPOCH), &[]);
    let said = |uid: &str, suspended: bool, reason| {
        let view = board.get(&key).expect("on the board");
        assert_eq!((&*view.uid, view.suspended, view.reason), (uid, suspended, reason));
        view
    };
    said("1", false, HealthReason::ProbeError);

    reconciler.check(0, Told::Is(object("p", "1", 2, &pods(true))));
    assert!(done(&mut reconciler).is_empty());
    board.publish(reconciler.undecided(&board, Timestamp::MAX), &[]);
    let view = said("1", true, HealthReason::Suspended);
    assert_eq!(view.since, Timestamp::UNIX_EPOCH, "it was Unknown before");

    // Another object of the same name.
    reconciler.check(0, Told::Is(object("p", "2", 1, &pods(false))));
    assert!(done(&mut reconciler).is_empty());
    board.publish(reconciler.undecided(&board, Timestamp::MAX), &[]);
    assert_eq!(said("2", false, HealthReason::ProbeError).since, Timestamp::MAX);

    reconciler.check(0, Told::Gone(object("p", "2", 1, &pods(false))));
    assert!(done(&mut reconciler).is_empty() && !reconciler.is_undecided(&key) && !reconciler.knows(&key));
}

#[test]
fn a_circle_runs_as_nothing_until_it_is_broken() {
    let mut reconciler = reconciler();
    list(&mut reconciler, vec![object("a", "1", 1, &member("b")), object("b", "2", 1, &member("a"))]);
    assert_eq!(done(&mut reconciler), ["run a (0)", "a: Cycle", "run b (0)", "b: Cycle"]);
    reconciler.check(0, Told::Is(object("b", "2", 2, &host())));
    let mut mended = done(&mut reconciler);
    mended.sort();
    assert_eq!(mended, ["run a (0)", "run b (1)"]);
}

#[test]
fn a_missing_member_is_told_and_found_when_it_comes() {
    let mut reconciler = reconciler();
    list(&mut reconciler, vec![object("a", "1", 1, &member("b"))]);
    assert_eq!(done(&mut reconciler), ["run a (0)", "a: InvalidReference"]);
    reconciler.check(0, Told::Is(object("b", "2", 1, &host())));
    let mut found = done(&mut reconciler);
    found.sort();
    assert_eq!(found, ["run a (0)", "run b (1)"]);
    reconciler.check(0, Told::Gone(object("b", "2", 1, &host())));
    assert_eq!(done(&mut reconciler), ["end b", "run a (0)", "a: InvalidReference"]);
}

#[test]
fn what_cannot_be_read_or_is_wrong_is_told_on_itself_and_stops_nobody() {
    let mut reconciler = reconciler();
    let unreadable = json!({"targets": "all"});
    let wrong = json!({"targets": [{"name": "t", "host": "10.0.0.1"}]});
    list(
        &mut reconciler,
        vec![
            object("unreadable", "1", 1, &unreadable),
            object("wrong", "2", 1, &wrong),
            object("right", "3", 1, &host()),
        ],
    );
    assert_eq!(
        done(&mut reconciler),
        ["run right (1)", "run unreadable (0)", "unreadable: InvalidSpec", "run wrong (0)", "wrong: InvalidSpec",]
    );
}

#[test]
fn an_object_made_again_is_another_one() {
    let mut reconciler = reconciler();
    list(&mut reconciler, vec![object("a", "1", 1, &host())]);
    assert_eq!(done(&mut reconciler), ["run a (1)"]);
    // The deletion was missed.
    reconciler.check(0, Told::Is(object("a", "2", 1, &host())));
    assert_eq!(done(&mut reconciler), ["end a", "run a (1)"]);
    list(&mut reconciler, vec![]);
    assert_eq!(done(&mut reconciler), ["end a"]);
}

#[test]
fn scripts_that_are_off_and_references_are_told() {
    let mut reconciler = reconciler();
    let script = json!({"targets": [{"name": "s", "probe": {"script": {"command": ["true"]}}}]});
    let secret = json!({"targets": [{"name": "t", "host": "10.0.0.1", "port": 80, "probe": {"http": {"headers": [
        {"name": "X-A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
    ]}}}]});
    list(&mut reconciler, vec![object("script", "1", 1, &script), object("secret", "2", 1, &secret)]);
    assert_eq!(
        done(&mut reconciler),
        ["run script (1)", "script: ScriptsDisabled", "look up 1 of secret", "run secret (1)"]
    );
    let key = ObjectKey::new("shop", "secret");
    let missing = Problem { kind: ProblemKind::InvalidReference, path: String::new(), message: "missing".to_owned() };
    // What was found for another object, or an earlier spec, says nothing of this one.
    for (uid, generation) in [("2", 0), ("1", 1)] {
        reconciler.references(&key, &(uid.into(), generation), vec![missing.clone()]);
        assert!(done(&mut reconciler).is_empty());
    }
    let version = ("2".into(), 1);
    reconciler.references(&key, &version, vec![missing.clone()]);
    assert_eq!(done(&mut reconciler), ["run secret (1)", "secret: InvalidReference"]);
    reconciler.references(&key, &version, vec![missing]);
    assert!(done(&mut reconciler).is_empty(), "the same again");
    reconciler.references(&key, &version, vec![]);
    assert_eq!(done(&mut reconciler), ["run secret (1)"]);
}

/// Labels choose the set at `/healthz`, and no generation counts them.
#[test]
fn a_check_with_other_labels_is_handed_on_though_its_generation_is_the_same() {
    let mut reconciler = reconciler();
    list(&mut reconciler, vec![object("a", "1", 1, &host())]);
    assert_eq!(done(&mut reconciler), ["run a (1)"]);
    reconciler.check(0, Told::Is(object("a", "1", 1, &host())));
    assert!(done(&mut reconciler).is_empty(), "nothing is other");
    let mut labelled = object("a", "1", 1, &host());
    labelled.labels = std::sync::Arc::new([("team".to_owned(), "shop".to_owned())].into());
    reconciler.check(0, Told::Is(labelled));
    assert_eq!(done(&mut reconciler), ["run a (1)"]);
}
