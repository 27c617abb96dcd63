//! Wire tests: one probe against real sockets on loopback, well-behaved targets and hostile ones.

mod addresses;
mod answers;
mod bombs;
mod burst;
mod command;
mod door;
mod engine;
mod floods;
mod fuzz;
mod grpc;
mod grpc_servers;
mod hostile;
mod http;
mod http2;
mod junk;
mod kept;
mod lanes;
mod leaks;
#[path = "../support/mutate.rs"]
mod mutate;
#[path = "../support/name_server.rs"]
mod name_server;
mod names;
#[path = "../support/netns.rs"]
#[allow(dead_code)]
mod netns;
mod network;
#[path = "../support/programs.rs"]
#[allow(dead_code)]
mod programs;
mod reuse;
mod runner;
mod script;
mod secured;
mod support;
mod talk;
mod tcp;
mod tls;
