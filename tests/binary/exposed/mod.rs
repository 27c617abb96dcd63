//! The operator behind what people run: Prometheus with a configuration made for blackbox_exporter, HAProxy, and nginx as
//! Debian has it.

mod fresh;
mod haproxy;
mod nginx;
mod own_health;
mod prometheus;
