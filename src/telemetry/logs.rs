//! Our log: one line an event, on standard error.

use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use tracing_subscriber::{EnvFilter, fmt::format::FmtSpan, util::SubscriberInitExt};

/// `--log-level` and `--log-format`, for every command.
#[derive(Args, Clone, Debug)]
pub struct LogArgs {
    /// What is logged: a level (error, warn, info, debug, trace, off), or levels by target like `info,access=off`
    #[arg(
        long, value_name = "LEVEL", default_value = "info", global = true, value_parser = parse_filter,
        env = "HEALTHCHECK_OPERATOR_LOG_LEVEL", help_heading = "Logs"
    )]
    log_level: String,
    /// How a line looks
    #[arg(
        long, value_enum, default_value_t = LogFormat::Text, global = true,
        env = "HEALTHCHECK_OPERATOR_LOG_FORMAT", help_heading = "Logs"
    )]
    log_format: LogFormat,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people; coloured on a terminal unless `NO_COLOR` is set
    #[default]
    Text,
    /// One JSON object a line, for machines
    Json,
}

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("invalid --log-level: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    #[error("cannot start logging: {0}")]
    Start(#[from] tracing_subscriber::util::TryInitError),
}

impl LogArgs {
    /// Sends the events of this process to standard error from now on. Once per process.
    ///
    /// # Errors
    /// When the level does not parse, or when logging was started before.
    pub fn init(&self) -> Result<(), LogError> {
        let mut filter = EnvFilter::builder().parse(&self.log_level)?;
        // The client library logs an error for every attempt; whoever makes the attempts says so once.
        if !self.log_level.contains("kube_client")
            && let Ok(quiet) = "kube_client::client::builder=off".parse()
        {
            filter = filter.add_directive(quiet);
        }
        let builder = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            // They would be told on the same broken standard error, where telling them panics.
            .log_internal_errors(false)
            .with_span_events(FmtSpan::NONE)
            .with_ansi(std::io::stderr().is_terminal() && !no_color() && !is_dumb());
        match self.log_format {
            LogFormat::Text => builder.finish().try_init()?,
            LogFormat::Json => builder.json().flatten_event(true).finish().try_init()?,
        }
        Ok(())
    }
}

/// <https://no-color.org>: set and not empty.
fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// A terminal that would print the colours as text, as an editor's may.
fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|value| value == "dumb")
}

fn parse_filter(text: &str) -> Result<String, String> {
    let text = translate(text);
    let known = |level: &str| level.parse::<tracing::level_filters::LevelFilter>().is_ok();
    // A lone word that is no level would be taken for the name of a target, and silence everything else.
    if text.is_empty() || !text.contains(['=', ',', '[']) && !known(text) {
        return Err("want error, warn, info, debug, trace or off, or levels by target like info,access=off".into());
    }
    EnvFilter::builder().parse(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// The level's name with us, where other programs, the one that `health-checker` stands in for among them, have another.
/// Nothing of ours is as bad as `fatal`: what ends the process is told in any case.
fn translate(text: &str) -> &str {
    match text.to_ascii_lowercase().as_str() {
        "warning" => "warn",
        "fatal" | "panic" => "off",
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_is_none_is_refused() {
        for good in ["info", "debug", "off", "WARN", "info,access=off", "healthcheck_operator::engine=trace"] {
            assert!(parse_filter(good).is_ok(), "{good}");
        }
        for (theirs, ours) in [("warning", "warn"), ("Warning", "warn"), ("fatal", "off"), ("panic", "off")] {
            assert_eq!(parse_filter(theirs).as_deref(), Ok(ours));
        }
        for bad in ["", "loud", "info,access=loud", "==", "warnings"] {
            assert!(parse_filter(bad).is_err(), "{bad}");
        }
    }
}
