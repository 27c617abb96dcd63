//! `healthcheck-operator crds`: the CustomResourceDefinitions, for `kubectl apply -f -`.

use anyhow::Context as _;

use super::{Exit, print::print};
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
    print(&yaml)?;
    Ok(Exit::Ok)
}
