//! The listeners answer whatever else the process is busy with.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{Arc, Mutex, mpsc},
};

use futures::future::BoxFuture;
use healthcheck_operator::{
    engine::Board,
    server::{Access, AccessRequest, Authorizer, Decision},
};
use tokio::runtime::{Builder, Handle, Id};

use crate::support::{Fixture, LONG, config, rest};

const WORKERS: usize = 2;

/// The whole answer to GET, on threads alone.
fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect_timeout(&address, LONG).expect("the listener accepts");
    stream.set_read_timeout(Some(LONG)).expect("a socket");
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").expect("the listener reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap_or_else(|error| panic!("no answer from {path}: {error}"));
    answer
}

/// As probes beyond what the machine can do: no worker of the runtime comes to anything else.
#[test]
fn answers_come_while_no_worker_of_the_runtime_is_free() {
    let runtime = Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build().expect("a runtime");
    let fixture = runtime.block_on(Fixture::start());
    let (blocked, seen) = mpsc::channel();
    let mut release = Vec::new();
    for _ in 0..WORKERS {
        let (done, wait) = mpsc::channel::<()>();
        release.push(done);
        let blocked = blocked.clone();
        runtime.spawn(async move {
            blocked.send(()).expect("the test waits for it");
            // Until the test drops the other end.
            let _ = wait.recv();
        });
    }
    for _ in 0..WORKERS {
        seen.recv_timeout(LONG).expect("each worker takes a task");
    }
    for (address, path) in [
        (fixture.public, "/healthz"),
        (fixture.public, "/healthz?verbose"),
        (fixture.public, "/__health"),
        (fixture.admin, "/livez"),
        (fixture.admin, "/readyz"),
        (fixture.admin, "/metrics"),
        (fixture.admin, "/v1/healthchecks"),
    ] {
        let answer = get(address, path);
        assert!(answer.starts_with("HTTP/1.0 200"), "{path}: {answer}");
    }
    drop(release);
    fixture.stop.cancel();
    let ended = runtime.block_on(async { tokio::time::timeout(LONG, fixture.served).await });
    ended.expect("the drain is bounded").expect("no panic");
}

/// Notes on which runtime it is asked.
#[derive(Debug, Default)]
struct Where(Mutex<Option<Id>>);

impl Authorizer for Where {
    fn authorize<'a>(&'a self, token: &'a str, request: AccessRequest<'a>) -> BoxFuture<'a, Decision> {
        Box::pin(async move {
            *self.0.lock().expect("nobody panicked") = Some(Handle::current().id());
            assert_ne!(token, "panic", "as asked");
            let AccessRequest { verb, namespace, name, .. } = request;
            Decision::Forbidden(format!("{verb} {namespace}/{name}"))
        })
    }
}

/// Its client is shared with the rest of the process, and so are the connections that it opens.
#[tokio::test]
async fn an_authorizer_is_asked_on_the_runtime_of_its_client() {
    let asked = Arc::new(Where::default());
    let fixture = Fixture::with(&config(&[]), Access::Cluster(asked.clone())).await;
    let ask = |token: &str| {
        let url = format!("http://{}/v1/healthchecks/shop/web", fixture.admin);
        let request = fixture.http.get(url).bearer_auth(token);
        async move { crate::support::answer(request).await }
    };
    let refused = ask("abc").await;
    assert_eq!((refused.code, refused.body.as_str()), (403, "{\"error\":\"get shop/web\"}\n"));
    assert_eq!(*asked.0.lock().expect("nobody panicked"), Some(Handle::current().id()));
    // What breaks there is an answer here, and the next one is served.
    assert_eq!(ask("panic").await.code, 503);
    assert_eq!(fixture.admin("/livez").await.code, 200);
}

#[tokio::test]
async fn listeners_that_nobody_waits_for_end_and_free_their_ports() {
    let fixture = Fixture::on(Arc::new(Board::new()), &config(&[]), Access::Open).await;
    let mut idle = tokio::net::TcpStream::connect(fixture.public).await.expect("the listener accepts");
    fixture.served.abort();
    assert_eq!(rest(&mut idle).await, "", "closed");
    let freed = async {
        while TcpStream::connect(fixture.public).is_ok() || TcpStream::connect(fixture.admin).is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, freed).await.expect("the ports are freed");
}
