//! TLS on both listeners, and a certificate that changes.

use std::{path::Path, time::Duration};

use healthcheck_operator::server::{Access, Servers, State};
use tempfile::TempDir;

use crate::support::{Fixture, LONG, config};

/// A self-signed certificate for 127.0.0.1: the certificate and its key, both PEM.
fn pair() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    (made.cert.pem(), made.signing_key.serialize_pem())
}

fn write(folder: &TempDir, (certificate, key): (&str, &str)) {
    // Whole files in one step, as mounted Secrets change.
    for (name, text) in [("tls.key", key), ("tls.crt", certificate)] {
        let new = folder.path().join("new");
        std::fs::write(&new, text).expect("a file");
        std::fs::rename(new, folder.path().join(name)).expect("a file");
    }
}

async fn start(folder: &TempDir) -> Fixture {
    let path = |name| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let mut config = config(&["--tls-cert", &path("tls.crt"), "--tls-key", &path("tls.key")]);
    config.tls.as_mut().expect("TLS is on").poll = Duration::from_millis(20);
    Fixture::with(&config, Access::Open).await
}

/// Who trusts `certificate` and nothing else.
fn trusting(certificate: &str) -> reqwest::Client {
    let certificate = reqwest::Certificate::from_pem(certificate.as_bytes()).expect("PEM");
    let builder = reqwest::Client::builder().no_proxy().timeout(LONG).pool_max_idle_per_host(0);
    builder.tls_certs_only([certificate]).build().expect("a client")
}

async fn is_served(client: &reqwest::Client, fixture: &Fixture) -> bool {
    client.get(format!("https://{}/healthz", fixture.public)).send().await.is_ok_and(|answer| answer.status() == 200)
}

async fn until_served(client: &reqwest::Client, fixture: &Fixture) {
    let wait = async {
        while !is_served(client, fixture).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, wait).await.expect("the new certificate is served");
}

#[tokio::test]
async fn both_listeners_speak_tls_and_take_a_new_certificate() {
    let folder = tempfile::tempdir().expect("a folder");
    let (first, first_key) = pair();
    write(&folder, (&first, &first_key));
    let fixture = start(&folder).await;
    let old = trusting(&first);
    assert!(is_served(&old, &fixture).await);
    let livez = old.get(format!("https://{}/livez", fixture.admin)).send().await.expect("TLS there too");
    assert_eq!(livez.status(), 200);

    let (second, second_key) = pair();
    let new = trusting(&second);
    assert!(!is_served(&new, &fixture).await);
    write(&folder, (&second, &second_key));
    until_served(&new, &fixture).await;
    // A new client: the first one may resume its session, in which no certificate is shown.
    assert!(!is_served(&trusting(&first), &fixture).await, "the old certificate is gone");
}

#[tokio::test]
async fn a_broken_pair_leaves_the_old_one_until_a_good_one_comes() {
    let folder = tempfile::tempdir().expect("a folder");
    let (first, first_key) = pair();
    write(&folder, (&first, &first_key));
    let fixture = start(&folder).await;
    let old = trusting(&first);
    let (second, second_key) = pair();
    for broken in [("no PEM", first_key.as_str()), (&second, &first_key), (&first, "")] {
        write(&folder, broken);
        // Several looks of the watch, on several connections: the old pair answers each.
        for _ in 0..10 {
            assert!(is_served(&old, &fixture).await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    write(&folder, (&second, &second_key));
    until_served(&trusting(&second), &fixture).await;
}

#[tokio::test]
async fn a_pair_that_cannot_be_used_is_refused_at_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let (first, first_key) = pair();
    let (_, other_key) = pair();
    let refused = |certificate: &Path, key: &Path| {
        let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let config = config(&["--tls-cert", &text(certificate), "--tls-key", &text(key)]);
        let state = State {
            board: Default::default(),
            beats: Default::default(),
            readiness: Default::default(),
            metrics: Default::default(),
            access: Access::Open,
            on_demand: None,
            passive: Default::default(),
        };
        Servers::bind(&config, state).expect_err("refused").to_string()
    };
    let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    let missing = refused(&certificate, &key);
    assert!(missing.starts_with("cannot read --tls-cert ") && missing.contains("tls.crt"), "{missing}");
    write(&folder, (&first, &other_key));
    assert!(refused(&certificate, &key).contains("do not work together"));
    write(&folder, ("", &first_key));
    assert!(refused(&certificate, &key).contains("holds no certificate"));
    write(&folder, (&first, "nonsense"));
    assert!(refused(&certificate, &key).contains("--tls-key"));
}
