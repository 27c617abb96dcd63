//! Both listeners over real sockets on loopback, with a board filled by hand.

mod access_log;
mod admin;
mod blackbox;
mod envoy;
mod fresh;
mod hostile;
mod lane;
mod metrics;
mod on_demand;
mod page;
mod passive;
mod public;
mod schema;
mod stalled;
mod support;
mod tls;
mod wire;
