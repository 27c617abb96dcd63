//! `-o`, the same for every command that has it.

use clap::ValueEnum;

/// How a result is printed.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// For people
    #[default]
    Text,
    Json,
    Yaml,
}
