//! `session-clear`: removes what is the owner's in a session, as the owner: root opens nothing below a directory that
//! an owner can write to.

use super::Session;
use clap::Args;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What `session stop` asks for.
#[derive(Debug, Args)]
pub struct ClearArgs {
    /// The session's directory
    #[arg(long)]
    pub root: PathBuf,
    /// Also what workers left: database, records, output
    #[arg(long)]
    pub state: bool,
}

/// Empties the owner's directories.
///
/// # Errors
/// Where something in them cannot be removed.
pub fn run(args: &ClearArgs, owner: Option<&str>) -> anyhow::Result<ExitCode> {
    let session = Session::of_process(args.root.clone(), owner)?;
    let owner = &session.owner.owner;
    session.owner.become_owner()?;
    empty(&session.layout.workers_run(owner))?;
    if args.state {
        empty(&session.layout.owner_state(owner))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn empty(directory: &Path) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => std::fs::remove_dir_all(entry.path())?,
            false => std::fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}
