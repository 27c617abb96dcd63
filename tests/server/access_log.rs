//! One line a request, and none for the paths that are left out.

use std::{
    io,
    sync::{Arc, Mutex},
};

use healthcheck_operator::server::Access;
use serde_json::Value;

use crate::support::{Fixture, config, raw};

/// What was logged, to be read by the test that logged it.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn read(&self) -> Vec<Value> {
        let bytes = self.0.lock().expect("no panic").clone();
        let text = String::from_utf8(bytes).expect("UTF-8");
        let lines = text.lines().map(|line| serde_json::from_str(line).expect("JSON"));
        lines.filter(|line: &Value| line["target"] == "access").collect()
    }
}

// One subscriber for all tests of this process, so what the others log is here too: the paths tell them apart.
#[tokio::test]
async fn requests_are_logged_but_for_the_paths_left_out() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || writer.clone()).finish();
    tracing::subscriber::set_global_default(subscriber).expect("no other test logs");
    let flags = ["--access-log-skip", "/healthz/left-out", "--access-log-skip", "/left-out"];
    let fixture = Fixture::with(&config(&flags), Access::Open).await;

    for skipped in ["/healthz/left-out", "/healthz/left-out/", "/healthz/left-out?verbose"] {
        assert_eq!(fixture.get(skipped).await.code, 404);
    }
    fixture.admin("/left-out").await;
    fixture.get("/healthz/left-out/logged/?labelSelector=secret").await;
    raw(fixture.public, "OPTIONS /left-out/logged HTTP/1.0\r\n\r\n").await;
    fixture.admin("/left-out/logged").await;

    let lines: Vec<_> = lines
        .read()
        .into_iter()
        .filter(|line| line["path"].as_str().is_some_and(|path| path.contains("left-out")))
        .collect();
    let told: Vec<_> = lines
        .iter()
        .map(|line| format!("{} {} {} {}", line["listener"], line["method"], line["path"], line["status"]))
        .collect();
    let expected = [
        r#""public" "GET" "/healthz/left-out/logged" 404"#,
        r#""public" "OPTIONS" "/left-out/logged" 404"#,
        r#""admin" "GET" "/left-out/logged" 404"#,
    ];
    assert_eq!(told, expected);
    let first = &lines[0];
    assert!(first["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{first}");
    assert!(first["micros"].is_u64() && !first.to_string().contains("secret"), "{first}");
}
