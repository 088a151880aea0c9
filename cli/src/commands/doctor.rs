//! `holdfast doctor`.

use crate::args::JsonArgs;
use crate::doctor::{Check, Level, checks, facts};
use crate::exit;
use crate::out;
use crate::view::cell;
use serde::Serialize;
use std::io::IsTerminal;
use std::process::ExitCode;

/// Widest text of one line.
const TEXT_CHARS_MAX: usize = 600;

/// `doctor --json`.
#[derive(Debug, Serialize)]
struct DoctorJson {
    result: Level,
    checks: Vec<Check>,
}

/// Looks at the host and at what runs; fails where something does not work.
///
/// # Errors
/// Where stdout cannot be written.
pub fn run(args: &JsonArgs, owner: Option<&str>) -> anyhow::Result<ExitCode> {
    // `sudo holdfast doctor` is about whoever typed it.
    let is_root = nix::unistd::Uid::effective().is_root();
    let sudo_user = is_root.then(|| std::env::var("SUDO_USER").ok()).flatten().filter(|user| user != "root");
    let checks = checks::examine(&facts::gather(owner.or(sudo_user.as_deref())));
    let result = checks::worst(&checks);
    if args.json {
        out::json(&DoctorJson { result, checks })?;
    } else {
        let coloured = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let lines: String = checks.iter().map(|check| line(check, coloured)).collect();
        out::text(&lines)?;
    }
    Ok(match result {
        Level::Fail => ExitCode::from(exit::FAILED),
        Level::Ok | Level::Warn => ExitCode::SUCCESS,
    })
}

fn line(check: &Check, coloured: bool) -> String {
    use owo_colors::OwoColorize;
    let word = format!("{:<5}", check.level.as_str());
    let word = match check.level {
        _ if !coloured => word,
        Level::Ok => word.green().to_string(),
        Level::Warn => word.yellow().to_string(),
        Level::Fail => word.red().to_string(),
    };
    let advice = check.advice.iter().map(|advice| format!("     {:<18} -> {}\n", "", cell(advice, TEXT_CHARS_MAX)));
    let advice: String = advice.collect();
    format!("{word}{:<18} {}\n{advice}", check.name, cell(&check.found, TEXT_CHARS_MAX))
}
