//! `?fresh=true`, with the engine behind it and a lane that answers as told.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::future::{BoxFuture, join_all};
use healthcheck_operator::{
    api::HealthCheck,
    check::{EndpointState, Health, ObjectKey},
    compile::{Mode, compile},
    engine::Declared,
    on_demand::{Declares, OnDemand, Refusal, Settings},
    server::{Access, AccessRequest, Authorizer, Decision},
};
use serde_json::{Value, json};

use crate::{
    on_demand::{Asked, Bench, specs},
    support::{Answer, LONG, answer},
};

/// The engine has probed everything once, and will not again while the test lasts.
async fn probed(access: Access) -> Bench {
    let bench = Bench::with(access, &specs(), json!({"interval": "1h"})).await;
    bench.board.set_synced();
    tokio::time::timeout(LONG, async {
        let decided = || {
            let view = |name: &str| bench.board.get(&ObjectKey::new("shop", name));
            ["well", "both", "tcp", "other"].iter().all(|name| {
                view(name)
                    .is_some_and(|view| matches!(view.health, Health::Healthy | Health::Unknown | Health::Degraded))
            }) && bench.told.asking.load(Ordering::SeqCst) >= 6
                && view("other").is_some_and(|view| view.health == Health::Healthy)
        };
        while !decided() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("decided in time");
    bench.told.asked.lock().expect("no panic").clear();
    bench
}

async fn ask(bench: &Bench, path: &str, token: Option<&str>) -> Answer {
    let request = bench.fixture.http.get(format!("http://{}{path}", bench.fixture.public));
    answer(match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    })
    .await
}

#[tokio::test]
async fn what_is_found_now_is_told_and_the_board_stays_as_it_is() {
    let bench = probed(Access::Open).await;
    let get = |path: &'static str| ask(&bench, path, None);
    assert_eq!(get("/healthz/shop/well?fresh=true").await.code, 200);
    bench.told.sick.store(true, Ordering::SeqCst);
    let seen = get("/healthz/shop/well?fresh").await;
    assert_eq!((seen.code, seen.body.as_str()), (503, "Unhealthy; connection refused\n"));
    let seen = get("/healthz/shop/other?fresh=true").await;
    assert_eq!(seen.code, 503, "what it follows is asked: {}", seen.body);
    assert_eq!(get("/healthz/shop/both/fine?fresh=true").await.code, 503);
    assert_eq!(get("/healthz/shop/both/nothing?fresh=true").await.code, 404);
    assert_eq!(get("/healthz/shop/nothing?fresh=true").await.code, 404);
    let all = get("/healthz?fresh=true&verbose").await;
    assert_eq!(all.code, 503);
    assert!(all.body.starts_with("Unhealthy; 0 healthy, 0 degraded, 6 unhealthy, 0 unknown\n"), "{}", all.body);
    assert!(all.body.contains("\n[-]shop/well failed: connection refused\n"), "{}", all.body);
    let json = get("/healthz/shop/well?fresh=true&format=json").await;
    let document: Value = serde_json::from_str(&json.body).expect("JSON");
    assert_eq!((json.code, &document["status"]), (503, &json!("fail")));
    // Two thresholds away from anything, and nothing of it was counted.
    for path in ["/healthz/shop/well", "/healthz/shop/other"] {
        assert_eq!(get(path).await.code, 200, "{path}");
    }
    let view = bench.board.get(&ObjectKey::new("shop", "well")).expect("there");
    assert_eq!((view.endpoints[0].state, view.endpoints[0].live.counters().connect), (EndpointState::Healthy, 0));
    assert_eq!(bench.fixture.admin("/v1/healthchecks?fresh=true").await.code, 400, "not promised there");
}

#[tokio::test]
async fn a_set_asks_each_endpoint_once_and_says_what_is_well_of_it() {
    let bench = probed(Access::Open).await;
    let all = ask(&bench, "/healthz?fresh=true&verbose", None).await;
    for line in [
        "[+]shop/well ok (1/1)",
        "[+]shop/other ok (1/1)",
        "[+]shop/both degraded (1/2): sick",
        "[-]shop/sick failed: ",
        "[?]shop/blind unknown",
    ] {
        assert!(all.body.contains(line), "{line}: {}", all.body);
    }
    let asked = bench
        .told
        .asked
        .lock()
        .expect("no panic")
        .iter()
        .map(|one| (one.check.to_string(), one.target.to_string()))
        .collect::<Vec<_>>();
    assert_eq!((asked.len(), asked.iter().collect::<BTreeSet<_>>().len()), (6, 6), "{asked:?}");
    let some = ask(&bench, "/healthz?fresh=true&exclude=shop/sick&exclude=shop/blind", None).await;
    assert_eq!((some.code, some.body.as_str()), (200, "Degraded; 3 healthy, 1 degraded, 0 unhealthy, 0 unknown\n"));
}

#[tokio::test]
async fn what_is_suspended_is_not_asked() {
    let bench = Bench::new(Access::Open, &specs()).await;
    bench.board.set_synced();
    assert_eq!(ask(&bench, "/healthz?fresh=true", None).await.code, 200);
    assert_eq!(ask(&bench, "/healthz/shop/sick?fresh=true", None).await.code, 200, "left out, as without it");
    assert_eq!(bench.told.asking.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn in_a_cluster_it_takes_the_right_to_probe() {
    let asked = Arc::new(Asked::default());
    let bench = probed(Access::Cluster(asked.clone())).await;
    let seen = ask(&bench, "/healthz/shop/well?fresh=true", None).await;
    assert_eq!(seen.code, 401);
    assert!(seen.headers.contains_key("www-authenticate") && seen.content_type.starts_with("text/plain"), "{seen:?}");
    for path in [
        "/healthz?fresh=true",
        "/healthz/shop?fresh=true",
        "/healthz/shop/sick?fresh=true",
        "/healthz/shop/x/y?fresh=1",
    ] {
        assert_eq!(ask(&bench, path, Some("good")).await.code, 403, "{path}");
    }
    assert_eq!(ask(&bench, "/healthz/shop/well?fresh=true", Some("good")).await.code, 200);
    assert_eq!(bench.told.asked.lock().expect("no panic").len(), 1, "nobody else had anything asked");
    let wanted = [
        "create //probe",
        "create shop//probe",
        "create shop/sick/probe",
        "create shop/x/probe",
        "create shop/well/probe",
    ];
    assert_eq!(*asked.0.lock().expect("no panic"), wanted);
    assert_eq!(ask(&bench, "/healthz?fresh=false", None).await.code, 503, "who reads the board needs nothing");
}

#[tokio::test]
async fn who_asks_for_the_same_set_shares_one_run_and_too_many_sets_are_refused() {
    let bench = probed(Access::Open).await;
    bench.told.free.send_replace(false);
    let before = bench.told.asking.load(Ordering::SeqCst);
    let keys = |names: &[&str]| names.iter().map(|name| ObjectKey::new("shop", name)).collect::<Vec<_>>();
    let sets = [["well", "sick"], ["well", "blind"], ["well", "both"], ["well", "tcp"]];
    let asking = join_all((0..20).map(|number| bench.on_demand.fresh(keys(&sets[number % 4]), None)));
    let release = async {
        bench.told.has_asked(before + 6).await;
        let refused = ask(&bench, "/healthz?fresh=true", None).await;
        assert_eq!((refused.code, &refused.headers["retry-after"]), (429, &"1".parse().expect("a value")));
        bench.told.free.send_replace(true);
    };
    let (answers, ()) = tokio::join!(asking, release);
    assert!(answers.iter().all(|(answer, _)| answer.as_ref().is_ok_and(|set| set.len() == 2)));
    assert_eq!(answers.iter().filter(|(_, joined)| *joined).count(), 16);
    assert_eq!(bench.told.asking.load(Ordering::SeqCst), before + 6, "a check in several sets is asked once");
    assert_eq!(ask(&bench, "/healthz/shop?fresh=true", None).await.code, 503);
}

#[tokio::test]
async fn what_does_not_answer_in_time_is_unknown() {
    let bench = probed(Access::Open).await;
    bench.told.free.send_replace(false);
    let hurried = OnDemand::with(Settings { deadline: Duration::from_millis(300), ..Settings::default() });
    hurried.begin(Arc::new(bench.told.clone()), bench.engine.clone());
    let (fresh, _) = hurried.fresh(vec![ObjectKey::new("shop", "well")], None).await;
    let fresh = fresh.expect("an answer");
    let well = &fresh[&ObjectKey::new("shop", "well")];
    assert_eq!((well.health, well.message.as_str()), (Health::Unknown, "not answered within 300ms"));
    hurried.end();
    let (refused, _) = hurried.fresh(vec![ObjectKey::new("shop", "well")], None).await;
    assert_eq!(refused.err(), Some(Refusal::NotProbing));
}

/// A namespace where nobody has looked whether its checks can work: what an API server holds, for a standby to ask.
struct Unlooked(Vec<(&'static str, Value)>);

impl Declares for Unlooked {
    fn declared<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<Option<Declared>, String>> {
        let spec = self.0.iter().find(|(name, _)| *name == &*key.name).map(|(_, spec)| spec);
        let declared = spec.map(|spec| {
            let object = json!({
                "apiVersion": "healthcheck-operator.dev/v1alpha1", "kind": "HealthCheck",
                "metadata": {"name": *key.name, "namespace": *key.namespace}, "spec": spec,
            });
            let object: HealthCheck = serde_json::from_value(object).expect("a HealthCheck");
            let check = Arc::new(compile(&object, Mode::Standalone).expect("a check"));
            let endpoints = check.targets.iter().filter_map(|target| target.own_endpoint()).collect();
            Declared { check, endpoints }
        });
        Box::pin(async move { Ok(declared) })
    }
}

fn following(name: &str, own: bool) -> Value {
    let own = own.then(|| json!({"name": "own", "host": "10.0.0.1", "port": 80}));
    let others = (0..63).map(|at| json!({"name": format!("t{at}"), "healthCheck": {"name": name}}));
    json!({"minHealthy": 1, "targets": own.into_iter().chain(others).collect::<Vec<_>>()})
}

/// 63^7 ways lead down the one, and 63^8 around the other.
#[tokio::test]
async fn what_many_targets_follow_is_judged_once_and_a_circle_is_unknown() {
    let bench = Bench::new(Access::Open, &specs()).await;
    let checks = vec![
        ("c0", following("c1", false)),
        ("c1", following("c2", false)),
        ("c2", following("c3", false)),
        ("c3", following("c4", false)),
        ("c4", following("c5", false)),
        ("c5", following("c6", false)),
        ("c6", json!({"targets": [{"name": "own", "host": "10.0.0.1", "port": 80}]})),
        ("a", following("b", true)),
        ("b", following("a", true)),
        ("over", following("a", true)),
    ];
    let keys: Vec<_> = checks.iter().map(|(name, _)| ObjectKey::new("shop", name)).collect();
    let on_demand = OnDemand::new();
    on_demand.begin(Arc::new(bench.told.clone()), Unlooked(checks));
    let asking = tokio::spawn(async move { on_demand.fresh(keys, None).await.0 });
    let fresh = tokio::time::timeout(LONG, asking).await.expect("at once").expect("no panic").expect("an answer");
    for (key, fresh) in fresh.iter() {
        let wanted = match &*key.name {
            "a" | "b" => Health::Unknown,
            "over" => Health::Degraded,
            _ => Health::Healthy,
        };
        assert_eq!(fresh.health, wanted, "{key}: {}", fresh.message);
    }
    assert_eq!(fresh[&ObjectKey::new("shop", "a")].message, "HealthChecks follow one another in a circle");
    assert_eq!(bench.told.asking.load(Ordering::SeqCst), 4, "each endpoint once");
}

#[tokio::test]
async fn an_answer_that_counts_for_nothing_leaves_what_the_board_has() {
    let bench = Bench::with(Access::Open, &specs(), json!({"interval": "1h", "failureThreshold": 1})).await;
    let on_demand = OnDemand::with(Settings { board: Some(bench.board.clone()), ..Settings::default() });
    on_demand.begin(Arc::new(bench.told.clone()), bench.engine.clone());
    let keys: Vec<_> = ["well", "other", "both", "sick", "blind"].map(|name| ObjectKey::new("shop", name)).into();
    let wanted = [Health::Healthy, Health::Healthy, Health::Degraded, Health::Unhealthy, Health::Unknown];
    let boarded = || keys.iter().map(|key| bench.board.get(key).map(|view| view.health)).collect::<Vec<_>>();
    tokio::time::timeout(LONG, async {
        while boarded() != wanted.map(Some) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("decided in time");
    bench.told.neutral.store(true, Ordering::SeqCst);
    let fresh = on_demand.fresh(keys.clone(), None).await.0.expect("an answer");
    assert_eq!(keys.iter().map(|key| fresh[key].health).collect::<Vec<_>>(), wanted);
    // Without a board there is nothing to stand.
    let alone = OnDemand::new();
    alone.begin(Arc::new(bench.told.clone()), bench.engine.clone());
    let fresh = alone.fresh(keys.clone(), None).await.0.expect("an answer");
    assert_eq!(fresh[&keys[0]].health, Health::Unknown);
    assert_eq!(fresh[&keys[0]].message, "got '404', which counts for nothing");
}

#[tokio::test]
async fn no_more_endpoints_are_asked_at_once_than_there_are_descriptors_for() {
    let bench = probed(Access::Open).await;
    bench.told.free.send_replace(false);
    let before = bench.told.asking.load(Ordering::SeqCst);
    let few = OnDemand::with(Settings { attempts: 2, ..Settings::default() });
    few.begin(Arc::new(bench.told.clone()), bench.engine.clone());
    let key = |name: &str| ObjectKey::new("shop", name);
    let sets = [vec![key("both"), key("sick")], vec![key("well"), key("blind")], vec![key("tcp")]];
    let asking = join_all(sets.map(|keys| few.fresh(keys, None)));
    let release = async {
        bench.told.has_asked(before + 2).await;
        // Whoever asks elsewhere goes on, so that by then the others would have gone too.
        let (answer, ()) = tokio::join!(bench.on_demand.fresh(vec![key("well")], None), async {
            bench.told.has_asked(before + 3).await;
            assert_eq!(bench.told.asking.load(Ordering::SeqCst), before + 3);
            bench.told.free.send_replace(true);
        });
        assert!(answer.0.is_ok());
    };
    let (answers, ()) = tokio::join!(asking, release);
    assert!(answers.iter().all(|(answer, _)| answer.is_ok()));
    assert_eq!(bench.told.asking.load(Ordering::SeqCst), before + 7, "all of them in the end");
}

/// Has no time for strangers.
#[derive(Debug)]
struct Guarded {
    strangers: bool,
}

impl Authorizer for Guarded {
    fn authorize<'a>(&'a self, _: &'a str, _: AccessRequest<'a>) -> BoxFuture<'a, Decision> {
        Box::pin(async { if self.strangers { Decision::Busy } else { Decision::Allowed(None) } })
    }

    fn for_strangers(&self) -> Option<Arc<dyn Authorizer>> {
        Some(Arc::new(Self { strangers: true }))
    }
}

#[tokio::test]
async fn strangers_are_told_to_come_back_and_the_admin_listener_is_none_the_worse() {
    let bench = probed(Access::Cluster(Arc::new(Guarded { strangers: false }))).await;
    let refused = ask(&bench, "/healthz/shop/well?fresh=true", Some("good")).await;
    assert_eq!((refused.code, &refused.headers["retry-after"]), (429, &"1".parse().expect("a value")));
    assert!(!refused.headers.contains_key("www-authenticate"), "{refused:?}");
    assert_eq!(ask(&bench, "/healthz/shop/well", None).await.code, 200, "the board is for everybody");
    assert_eq!(bench.post("well", "").await.code, 200);
}
