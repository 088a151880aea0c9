//! Tries a new release before anything depends on it: as the owners, without a right, without a network, and not for long.

use super::error::UpdateError;
use crate::install::command::{Call, Commands};
use crate::install::record::Account;
use holdfast_proto::layout::Layout;
use holdfast_release::{PROGRAMS, Release};
use std::path::Path;
use std::time::Duration;

/// How long one try may take; a copy of a large database is the longest.
const TRY_MAX: Duration = Duration::from_secs(60);

/// Each program says the release's version, and each owner's state can be taken over by its daemon.
///
/// # Errors
/// Where one of them does not.
pub fn run(
    layout: &Layout,
    commands: &dyn Commands,
    folder: &Path,
    release: &Release,
    owners: &[Account],
) -> Result<(), UpdateError> {
    let Some(first) = owners.first() else { return Ok(()) };
    let version = release.version.to_string();
    for (program, _) in PROGRAMS {
        let path = folder.join(program);
        let said = caged(first, &path, &["--version".to_owned()]);
        let said = commands.run(&said).map_err(|error| UpdateError::Preflight(error.to_string()))?;
        let says = said.split_whitespace().last().unwrap_or_default();
        if says != version {
            let (name, found, wanted) = (program.to_owned(), says.to_owned(), version);
            return Err(holdfast_release::Refusal::VersionMismatch { name, found, wanted }.into());
        }
    }
    check_states(layout, commands, folder, owners)
}

/// Each owner's state can be taken over by the daemon of `folder`.
///
/// # Errors
/// Where one cannot.
pub fn check_states(
    layout: &Layout,
    commands: &dyn Commands,
    folder: &Path,
    owners: &[Account],
) -> Result<(), UpdateError> {
    owners.iter().try_for_each(|owner| check_state(layout, commands, folder, owner))
}

/// The owner's database, copied as its owner and brought to the new form there. Root opens nothing of it.
fn check_state(layout: &Layout, commands: &dyn Commands, folder: &Path, owner: &Account) -> Result<(), UpdateError> {
    let failed = |error: crate::install::command::CallError| UpdateError::Preflight(format!("{}: {error}", owner.name));
    let scratch = Call::new("/usr/bin/mktemp", ["--directory", "/tmp/holdfast-preflight.XXXXXXXX"]);
    let scratch = commands.run(&scratch.run_as(owner.uid, owner.gid)).map_err(failed)?;
    let scratch = Path::new(scratch.trim());
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let state = text(&layout.owner_state(&owner.name).join("holdfast.db"));
    let args = ["--check-state".to_owned(), state, "--scratch".to_owned(), text(&scratch.join("copy.db"))];
    let checked = commands.run(&caged(owner, &folder.join("holdfastd"), &args)).map(drop).map_err(failed);
    let remove = Call::new("/bin/rm", ["-rf".to_owned(), "--".to_owned(), text(scratch)]);
    commands.run(&remove.run_as(owner.uid, owner.gid)).map_err(failed)?;
    checked
}

/// A call of a program that nobody knows yet.
fn caged(owner: &Account, program: &Path, args: &[String]) -> Call {
    let (uid, gid) = (owner.uid.to_string(), owner.gid.to_string());
    let cage = ["--net", "--", "/usr/bin/setpriv", "--reuid", &uid, "--regid", &gid, "--clear-groups"];
    let drop = ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", "--"];
    let words = cage.into_iter().chain(drop).map(str::to_owned);
    let words = words.chain([program.to_string_lossy().into_owned()]).chain(args.iter().cloned());
    Call::new("/usr/bin/unshare", words).within(TRY_MAX)
}
