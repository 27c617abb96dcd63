//! `docs/reference/flags.md`, from the program's own help.

use std::fmt::Write as _;

use clap::{Arg, ArgAction, Command};
use healthcheck_operator::cli;

use crate::{cell, hold};

const HEAD: &str = "\
# Commands, flags and exit codes

Written from the program's own help by `UPDATE_REFERENCE=1 cargo test --test reference`; a test holds the two together. A command that goes on
running has an environment variable for every flag; the flag wins.

| exit code | meaning |
|---|---|
| 0 | healthy, or done |
| 1 | unhealthy |
| 2 | a flag, a file, a manifest or an address to listen on is wrong |
| 3 | could not tell: what was asked did not answer, or something broke |
";

#[test]
fn flags_are_the_programs_own() {
    let mut page = HEAD.to_owned();
    let mut command = cli::command();
    command.build();
    let global: Vec<_> = command.get_arguments().filter(|arg| is_told(arg) && arg.is_global_set()).cloned().collect();
    page += "\n## Every command\n";
    table(&mut page, global.iter());
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help" && !sub.is_hide_set()) {
        describe(&mut page, sub);
    }
    hold("flags.md", &page);
}

fn describe(page: &mut String, command: &Command) {
    let name = command.get_bin_name().unwrap_or(command.get_name()).replacen("healthcheck-operator ", "", 1);
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
    let _ = write!(page, "\n## `{name}`\n\n{}\n", about.trim());
    table(page, command.get_arguments().filter(|arg| is_told(arg) && !arg.is_global_set()));
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help" && !sub.is_hide_set()) {
        describe(page, sub);
    }
}

fn is_told(arg: &Arg) -> bool {
    !arg.is_hide_set() && !["help", "version"].contains(&arg.get_id().as_str())
}

fn table<'a>(page: &mut String, args: impl Iterator<Item = &'a Arg>) {
    let rows: String = args.map(row).collect();
    if !rows.is_empty() {
        let _ = write!(page, "\n| flag | environment | default | meaning |\n|---|---|---|---|\n{rows}");
    }
}

fn row(arg: &Arg) -> String {
    let takes = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
    let names = arg.get_value_names().unwrap_or_default().iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let spelt = match (arg.get_short(), arg.get_long()) {
        (Some(short), Some(long)) => format!("-{short}, --{long}"),
        (None, Some(long)) => format!("--{long}"),
        (Some(short), None) => format!("-{short}"),
        (None, None) => String::new(),
    };
    let spelt = if takes && !names.is_empty() { format!("{spelt} {names}") } else { spelt };
    let environment = arg.get_env().map(|name| format!("`{}`", name.to_string_lossy())).unwrap_or_default();
    let default: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let default = match (takes, default.iter().all(|value| value.is_empty())) {
        (true, false) => format!("`{}`", default.join(" ")),
        _ => String::new(),
    };
    let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let values: Vec<_> = match arg.get_action() {
        ArgAction::Set | ArgAction::Append => arg
            .get_possible_values()
            .iter()
            .filter(|value| !value.is_hide_set())
            .map(|value| format!("`{}`", value.get_name()))
            .collect(),
        _ => vec![],
    };
    let values = if values.is_empty() { String::new() } else { format!(": {}", values.join(", ")) };
    format!("| `{}` | {environment} | {default} | {}{values} |\n", cell(spelt.trim()), cell(&help))
}
