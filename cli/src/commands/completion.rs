//! `holdfast completion`.

use crate::args::CompletionArgs;
use crate::exit::Stop;
use clap_complete::env::Shells;
use std::process::ExitCode;

/// Prints a script that has the shell ask this program at each TAB, so that it knows the workers that are there.
///
/// # Errors
/// Where stdout cannot be written.
pub fn run(args: &CompletionArgs) -> anyhow::Result<ExitCode> {
    let shells = Shells::builtins();
    let name = args.shell.to_string();
    let shell = shells.completer(&name).ok_or_else(|| Stop::usage(format!("{name}: no completion for this shell")))?;
    let mut script = Vec::new();
    shell.write_registration("COMPLETE", "holdfast", "holdfast", "holdfast", &mut script)?;
    crate::out::text(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
