//! Wire tests: one probe against real sockets on loopback, well-behaved targets and hostile ones.

mod answers;
mod command;
mod door;
mod grpc;
mod hostile;
mod http;
mod http2;
mod leaks;
mod names;
#[path = "../support/netns.rs"]
#[allow(dead_code)]
mod netns;
mod network;
mod reuse;
mod runner;
mod script;
mod secured;
mod support;
mod talk;
mod tcp;
mod tls;
