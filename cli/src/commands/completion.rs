//! `holdfast completion`.

use crate::args::{Args, CompletionArgs};
use clap::CommandFactory;
use std::process::ExitCode;

/// Prints a completion script; verbs and options are known without asking a daemon.
///
/// # Errors
/// Where stdout cannot be written.
pub fn run(args: &CompletionArgs) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    let mut command = visible(Args::command());
    clap_complete::generate(args.shell, &mut command, "holdfast", &mut script);
    crate::out::text(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}

/// The command without its hidden verbs, which nobody types.
fn visible(full: clap::Command) -> clap::Command {
    let mut command = clap::Command::new("holdfast").args(full.get_arguments().cloned());
    for verb in full.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        command = command.subcommand(verb.clone());
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_verbs_are_not_offered() {
        let names: Vec<String> =
            visible(Args::command()).get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
        assert!(names.contains(&"run".to_owned()) && !names.iter().any(|name| name == "session-exec"));
    }
}
