//! A daemon that runs gives way to its successor: `systemctl reload` of its unit starts it and waits for it.

use super::command::{Call, Commands};
use anyhow::anyhow;

/// Whether the unit's file is another one than systemd has loaded: a handover would keep what the old one said.
///
/// # Errors
/// Where systemd does not answer.
pub fn is_changed(commands: &dyn Commands, unit: &str) -> anyhow::Result<bool> {
    let said = commands.ask(&Call::systemctl(["show", "--value", "--property", "NeedDaemonReload", unit]))?;
    Ok(said.out.trim() == "yes")
}

/// Hands over.
///
/// # Errors
/// Where the old daemon serves on: in the successor's words.
pub fn hand_over(commands: &dyn Commands, unit: &str) -> anyhow::Result<()> {
    match commands.run(&Call::systemctl(["reload", unit])) {
        Ok(_) => Ok(()),
        Err(error) => Err(anyhow!("{unit} was not handed over, its daemon serves on: {}", why(commands, unit, &error))),
    }
}

/// The last word of the successor's starter in the journal.
fn why(commands: &dyn Commands, unit: &str, error: &dyn std::fmt::Display) -> String {
    let call = Call::new("/usr/bin/journalctl", ["--unit", unit, "--lines", "30", "--output", "cat", "--no-pager"]);
    let said = commands.ask(&call).map(|said| said.out).unwrap_or_default();
    let word = said.lines().rev().find_map(|line| line.strip_prefix("holdfastd: "));
    word.map_or_else(|| error.to_string(), str::to_owned)
}
