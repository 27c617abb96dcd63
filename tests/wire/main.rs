//! Wire tests: one probe against real sockets on loopback, well-behaved targets and hostile ones.

mod command;
mod hostile;
mod http;
mod leaks;
mod names;
mod runner;
mod script;
mod support;
mod tcp;
mod tls;
