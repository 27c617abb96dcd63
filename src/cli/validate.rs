//! `healthcheck-operator validate`: manifests against schema, rules and each other, offline.

use std::{collections::HashSet, io::Write, path::PathBuf};

use anyhow::Context as _;
use serde::Serialize;

use super::{Exit, output::Output, print::print as print_out};
use crate::{
    check::{ObjectKey, Place},
    compile::Mode,
    source::{Declared, Fault, Loaded, gather, load},
};

/// Check HealthCheck manifests offline: schema, rules, and what they say of each other
#[derive(clap::Args, Clone, Debug)]
pub struct ValidateArgs {
    /// File or directory to check, `-` for standard input; of a directory its *.yaml, *.yml and *.json files
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR", required = true, num_args = 1..)]
    pub filenames: Vec<PathBuf>,

    /// Refuse also what needs a cluster: service and pods targets, Secrets and ConfigMaps
    #[arg(long)]
    pub standalone: bool,

    /// How the result is printed
    #[arg(short = 'o', long, value_enum, default_value_t)]
    pub output: Output,
}

/// Checks the files and prints the result: `ok` lines on standard output, or every fault on standard error. As JSON or
/// YAML all of it goes to standard output.
///
/// # Errors
/// When the result cannot be printed.
pub fn run(args: &ValidateArgs) -> anyhow::Result<Exit> {
    let mode = if args.standalone { Mode::Standalone } else { Mode::Cluster };
    let loaded = examine(&args.filenames, mode);
    print(&loaded, mode, args.output).context("cannot print the result")?;
    Ok(if loaded.faults.is_empty() { Exit::Ok } else { Exit::Usage })
}

fn examine(filenames: &[PathBuf], mode: Mode) -> Loaded {
    let (sources, mut faults) = gather(filenames);
    let mut loaded = load(&sources, mode);
    faults.append(&mut loaded.faults);
    if loaded.declared.is_empty() && faults.is_empty() {
        // Nothing checked is nothing shown to be right: most likely the path is wrong.
        let names: Vec<_> = filenames.iter().map(|path| path.display().to_string()).collect();
        faults.push(Fault::of_file(names.join(", "), "holds no HealthCheck: give a file or directory that does"));
    }
    Loaded { faults, ..loaded }
}

fn print(loaded: &Loaded, mode: Mode, output: Output) -> anyhow::Result<()> {
    match output {
        Output::Text if loaded.faults.is_empty() => {
            let line = |one: &Declared| {
                let note = if mode == Mode::Standalone && !one.check.gates.is_empty() {
                    "; gates do nothing without a cluster"
                } else {
                    ""
                };
                format!("ok {} ({}:{}){note}\n", one.check.key, one.file, one.line)
            };
            print_out(&loaded.declared.iter().map(line).collect::<String>())?;
            let mut stderr = std::io::stderr().lock();
            for warning in warnings(loaded) {
                writeln!(stderr, "warning: {warning}")?;
            }
            Ok(())
        }
        Output::Text => {
            let mut stderr = std::io::stderr().lock();
            for fault in &loaded.faults {
                writeln!(stderr, "{fault}")?;
            }
            Ok(())
        }
        Output::Json => print_out(&(serde_json::to_string_pretty(&Verdict::of(loaded))? + "\n")),
        Output::Yaml => print_out(&serde_saphyr::to_string(&Verdict::of(loaded))?),
    }
}

/// What is taken as it is, and may be a slip: overrides that cannot be read, and members that none of the files declares,
/// which is right where they are in the cluster already.
fn warnings(loaded: &Loaded) -> Vec<String> {
    let known: HashSet<_> = loaded.declared.iter().map(|one| &one.check.key).collect();
    let mut warnings = vec![];
    for Declared { check, file, line, .. } in &loaded.declared {
        warnings.extend(check.overrides.problems.iter().map(|problem| format!("{file}:{line}: {problem}")));
        for target in &check.targets {
            let Place::Check { name } = &target.place else { continue };
            let key = ObjectKey::new(&check.key.namespace, name);
            if !known.contains(&key) {
                let target = &target.name;
                warnings.push(format!(
                    "{file}:{line}: target {target} asks HealthCheck {key}, which no file here declares"
                ));
            }
        }
    }
    warnings
}

/// The result for machines.
#[derive(Serialize)]
struct Verdict<'a> {
    valid: bool,
    checks: Vec<Valid<'a>>,
    warnings: Vec<String>,
    faults: &'a [Fault],
}

#[derive(Serialize)]
struct Valid<'a> {
    namespace: &'a str,
    name: &'a str,
    file: &'a str,
    line: u64,
}

impl<'a> Verdict<'a> {
    fn of(loaded: &'a Loaded) -> Self {
        let checks = loaded.declared.iter().map(|declared| Valid {
            namespace: &declared.check.key.namespace,
            name: &declared.check.key.name,
            file: &declared.file,
            line: declared.line,
        });
        Self {
            valid: loaded.faults.is_empty(),
            checks: checks.collect(),
            warnings: warnings(loaded),
            faults: &loaded.faults,
        }
    }
}
