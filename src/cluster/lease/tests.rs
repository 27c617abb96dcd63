use std::sync::{Arc, atomic::Ordering::Relaxed};

use super::{silence::COUNTED_GAP, *};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn silence_counts_only_while_reads_succeed() {
    let mut silence = Silence::default();
    assert_eq!(silence.read("1", seconds(10)), Duration::ZERO);
    assert_eq!(silence.read("1", seconds(11)), seconds(1));
    silence.failed();
    assert_eq!(silence.read("1", seconds(40)), seconds(1), "nobody was looking");
    assert_eq!(silence.read("1", seconds(42)), seconds(3));
    assert_eq!(silence.read("2", seconds(43)), Duration::ZERO, "it was renewed");
}

#[test]
fn a_gap_of_our_own_is_not_the_holders_silence() {
    let mut silence = Silence::default();
    silence.read("1", seconds(10));
    // Suspended for an hour.
    assert_eq!(silence.read("1", seconds(3610)), COUNTED_GAP);
}

#[test]
fn a_lease_ends_by_the_boot_clock() {
    let held = Held::default();
    assert!(!held.now());
    held.until(boottime::now() + seconds(60));
    assert!(held.now());
    held.until(boottime::now().saturating_sub(Duration::from_millis(1)));
    assert!(!held.now());
}

#[test]
fn a_call_has_to_end_under_the_lease() {
    let held = Held::default();
    held.keeps(seconds(15), seconds(10));
    assert_eq!(held.for_a_call(), None);
    held.until(boottime::now() + seconds(2));
    assert_eq!((held.now(), held.for_a_call()), (true, None), "it would be over before the answer is there");
    held.until(boottime::now() + seconds(4));
    assert!(held.for_a_call().is_some_and(|most| most <= seconds(4)));
    held.until(boottime::now() + seconds(60));
    assert_eq!(held.for_a_call(), Some(crate::cluster::client::CALL_DEADLINE));
}

#[tokio::test]
async fn a_call_that_was_begun_does_not_go_on_when_the_lease_is_over() {
    let held = Held::default();
    let lost = held.fenced(async { panic!("nothing may be sent") as Result<(), CallError> }).await;
    assert!(matches!(&lost, Err(error) if error.is_outage()), "{lost:?}");
    held.until(boottime::now() + seconds(60));
    assert!(matches!(held.fenced(async { Ok(7) }).await, Ok(7)));
    let mut steps = 0;
    let call = std::future::poll_fn(|cx| {
        steps += 1;
        // As if it was stopped here, for longer than the Lease.
        held.end();
        cx.waker().wake_by_ref();
        std::task::Poll::<Result<(), CallError>>::Pending
    });
    let lost = held.fenced(call).await;
    assert!(matches!(&lost, Err(error) if error.is_outage()), "{lost:?}");
    assert_eq!(steps, 1);
}

#[test]
fn identities_differ_and_begin_with_the_pod() {
    let (one, other) = (identity(Some("hco-0")), identity(Some("hco-0")));
    assert_ne!(one, other);
    assert!(one.starts_with("hco-0_"));
}

/// A replica that is `hco-0` and has seen nothing change for as long as it needs, before a Lease of `holder`, who
/// promised to be back within `promised` seconds; whether it takes it at its next look.
async fn takes(holder: &str, promised: u64, first: bool) -> bool {
    takes_marked(holder, promised, first, None).await
}

/// The same where the Lease bears a release marker. The installation is called `u/`.
async fn takes_marked(holder: &str, promised: u64, first: bool, marker: Option<&str>) -> bool {
    use std::sync::atomic::AtomicBool;
    let (taken, holder) = (Arc::new(AtomicBool::new(false)), holder.to_owned());
    let annotations = marker.map(|marker| serde_json::json!({release_marker(): marker}));
    let service = tower::service_fn({
        let taken = taken.clone();
        move |request: http::Request<kube::client::Body>| {
            taken.fetch_or(request.method() == http::Method::PUT, Relaxed);
            let lease = serde_json::json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {
                    "name": "l", "namespace": "n", "uid": "u", "resourceVersion": "1", "annotations": annotations,
                },
                "spec": {"holderIdentity": holder, "leaseDurationSeconds": promised},
            });
            let body = kube::client::Body::from(lease.to_string().into_bytes());
            async move { Ok::<_, tower::BoxError>(http::Response::new(body)) }
        }
    });
    let options = LeaseOptions {
        namespace: "n".into(),
        name: "l".into(),
        pod: Some("hco-0".into()),
        duration: seconds(15),
        renew: seconds(10),
    };
    let (mut elector, role, held) =
        Elector::new(Client::new(service, "n"), options, Beats::default(), Surroundings::default());
    elector.first = first;
    if !first {
        elector.silence = Silence { version: "1".into(), witnessed: seconds(20), last_read: Some(boottime::now()) };
    }
    elector.turn().await;
    let taken = taken.load(Relaxed);
    assert_eq!((taken, taken), (*role.borrow() == Role::Leader, held.now()));
    taken
}

#[tokio::test]
async fn a_lease_is_taken_when_its_holder_is_silent_for_as_long_as_it_promised() {
    assert!(takes("hco-1_1", 15, false).await, "silent for longer than its duration and ours");
    assert!(!takes("hco-1_1", 60, false).await, "it promised to be back later than we would");
    assert!(!takes("hco-1_1", 15, true).await, "nothing was witnessed yet");
}

#[tokio::test]
async fn a_predecessor_in_the_same_pod_is_not_waited_for() {
    assert!(takes("hco-0_1", 15, true).await);
    assert!(takes("", 15, true).await, "given up");
    for other in ["hco-01_1", "hco-0", "hco-1_1"] {
        assert!(!takes(other, 15, true).await, "{other}");
    }
}

#[tokio::test]
async fn what_an_uninstall_has_freed_is_for_the_next_installation() {
    assert!(!takes_marked("", 15, true, Some("u/")).await, "who held it may not know yet");
    assert!(takes_marked("", 15, false, Some("u/")).await, "it could have run out");
    assert!(takes_marked("", 15, true, Some("former/1")).await, "another installation");
    assert!(!takes_marked("hco-1_1", 15, true, Some("former/1")).await, "it is held");
}

/// Whether a replica that has seen a Lease makes it anew when somebody deletes it: each entry is what it does at a look, and
/// how long after the former one.
#[tokio::test]
async fn a_lease_that_is_deleted_is_made_anew_by_its_holder_alone_for_as_long_as_he_may_believe_in_it() {
    let made = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let service = tower::service_fn({
        let made = made.clone();
        move |request: http::Request<kube::client::Body>| {
            let (status, body) = if request.method() == http::Method::POST {
                made.fetch_add(1, Relaxed);
                let lease = serde_json::json!({"metadata": {"name": "l", "namespace": "n", "resourceVersion": "1"}});
                (201, lease.to_string())
            } else {
                let gone = serde_json::json!({
                    "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404,
                    "message": "leases \"l\" not found", "metadata": {},
                });
                (404, gone.to_string())
            };
            let response = http::Response::builder().status(status).body(kube::client::Body::from(body.into_bytes()));
            async move { response.map_err(tower::BoxError::from) }
        }
    });
    let elector = || {
        let options = LeaseOptions {
            namespace: "n".into(),
            name: "l".into(),
            pod: None,
            duration: seconds(15),
            renew: seconds(10),
        };
        Elector::new(Client::new(service.clone(), "n"), options, Beats::default(), Surroundings::default())
    };
    let (mut new, _role, _held) = elector();
    new.turn().await;
    assert_eq!(made.load(Relaxed), 1, "there was never one");
    new.turn().await;
    assert_eq!(made.load(Relaxed), 2, "it is the holder");

    let (mut standby, role, _held) = elector();
    standby.first = false;
    standby.silence.read("7", boottime::now());
    standby.turn().await;
    assert_eq!((made.load(Relaxed), *role.borrow()), (2, Role::Unknown), "who held it may not know yet");
    standby.silence = Silence { version: GONE.into(), witnessed: seconds(15), last_read: Some(boottime::now()) };
    standby.turn().await;
    assert_eq!((made.load(Relaxed), *role.borrow()), (3, Role::Leader), "nobody can believe in it any more");
}
