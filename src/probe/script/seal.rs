//! What a script may not touch though it is the same user: the socket of the runner that runs it.
//!
//! By Landlock, which needs no privilege. A kernel without it (or a sandbox such as gVisor) leaves out what it lacks; then
//! the runner still sees when its socket is replaced, and ends.

use std::{error::Error, fs, path::Path};

use landlock::{
    AccessFs, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset, RulesetAttr as _, RulesetCreated,
    RulesetCreatedAttr as _, Scope, make_bitflags,
};

/// What it takes to put another socket in the place of one. Moving things between folders (`Refer`) is forbidden
/// everywhere unless it is allowed, so it is named as well.
const REPLACING: BitFlags<AccessFs> = make_bitflags!(AccessFs::{RemoveFile | RemoveDir | MakeSock | Refer});

/// Whether this kernel can keep scripts from replacing the socket.
#[must_use]
pub fn can_seal() -> bool {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::RemoveFile)
        .is_ok_and(|ruleset| ruleset.create().is_ok())
}

/// From now on this process and all it starts can neither remove what is in `folder`, nor put a socket there, nor send
/// signals to others than what comes of this process.
///
/// What is not allowed is forbidden: the rules allow every folder that is there now, but for `folder` and those above it.
/// In these, things can be made and written but not removed, and so in what is put into them later.
///
/// # Errors
/// The folder does not exist, or the kernel refuses.
pub(super) fn keep_off(folder: &Path) -> Result<(), Box<dyn Error>> {
    let folder = folder.canonicalize()?;
    let mut rules = Ruleset::default()
        .handle_access(REPLACING)?
        .scope(Scope::Signal)?
        .scope(Scope::AbstractUnixSocket)?
        .create()?;
    let mut inner = folder.as_path();
    while let Some(outer) = inner.parent() {
        rules = allow_all_but(rules, outer, inner)?;
        inner = outer;
    }
    rules.restrict_self()?;
    Ok(())
}

/// Allows the folders in `outer`, without `inner`. A link is passed over: it may lead to what is forbidden, and what it
/// leads to is allowed under its own name.
fn allow_all_but(mut rules: RulesetCreated, outer: &Path, inner: &Path) -> Result<RulesetCreated, Box<dyn Error>> {
    for entry in fs::read_dir(outer).into_iter().flatten().flatten() {
        let path = entry.path();
        if path == inner || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        // Gone in the meantime, or not for us.
        let Ok(opened) = PathFd::new(&path) else { continue };
        rules = rules.add_rule(PathBeneath::new(opened, REPLACING))?;
    }
    Ok(rules)
}
