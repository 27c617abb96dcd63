//! The built binary as a black box: `standalone` against targets that do as they are told, and every command's
//! words and exit codes, `health-checker` among them.

#[path = "../support/mod.rs"]
mod support;

mod bad_input;
mod browser;
mod checks;
mod chromium;
#[cfg(feature = "cluster")]
mod clusterless;
mod commands;
mod environment;
mod exposed;
mod health_checker;
mod lifecycle;
mod many;
mod neighbours;
mod once;
mod passive;
mod probe_files;
mod processes;
mod reload;
