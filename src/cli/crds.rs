//! `healthcheck-operator crds`: the CustomResourceDefinitions, for `kubectl apply -f -`.

use std::io::Write as _;

use anyhow::Context as _;

use super::Exit;
use crate::api::crd;

/// Print the CustomResourceDefinitions as YAML.
#[derive(clap::Args, Clone, Debug)]
pub struct CrdsArgs {}

/// Prints the definitions to standard output.
///
/// # Errors
/// When standard output cannot be written.
pub fn run(_: &CrdsArgs) -> anyhow::Result<Exit> {
    let yaml = crd::yaml().context("cannot write the definition as YAML")?;
    std::io::stdout().write_all(yaml.as_bytes()).context("cannot write to standard output")?;
    Ok(Exit::Ok)
}
