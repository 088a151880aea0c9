//! What `session` asks of the owner's daemon and of the owner's own files, each time in a process of its own that
//! becomes the owner: root stays root here, and is neither heard by the daemon nor led below the owner's directories.

use super::Session;
use crate::exit::Stop;
use crate::install::network;
use anyhow::Context;
use holdfast_proto::words::WorkerId;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// The daemon's `status --json`, or nothing where it does not answer.
pub fn ask_status(session: &Session) -> Option<serde_json::Value> {
    if !session.layout.daemon_socket(&session.owner.owner).exists() {
        return None;
    }
    let answer = asking(session).args(["status", "--json"]).stderr(Stdio::null()).output().ok()?;
    answer.status.success().then(|| serde_json::from_slice(&answer.stdout).ok()).flatten()
}

/// Why a program is not healthy, if one is not.
pub fn sick(status: &serde_json::Value) -> Option<String> {
    let programs = status.get("programs")?.as_array()?;
    let sick = programs.iter().find(|program| program["healthy"] == false)?;
    let why = sick["why"].as_str().unwrap_or("it does not say why");
    Some(format!("{}: {why}", sick["name"].as_str().unwrap_or("?")))
}

/// Makes sure that no worker lives: stops them if that was asked for, else refuses.
///
/// # Errors
/// Where some live, or nobody can say.
pub fn quieten(session: &Session, stop_workers: bool) -> anyhow::Result<()> {
    let live = live_workers(session)?;
    if live.is_empty() {
        return Ok(());
    }
    if !stop_workers {
        let text = format!("{} workers live: stop them first, or say --stop-workers", live.len());
        return Err(Stop::refused(text).into());
    }
    tell(&format!("stopping {} workers", live.len()));
    let mut ask = asking(session);
    ask.arg("stop").args(live.iter().map(ToString::to_string)).stdout(Stdio::null());
    anyhow::ensure!(ask.status()?.success() && live_workers(session)?.is_empty(), "not all workers could be stopped");
    Ok(())
}

/// The ids of live workers, from the daemon; who cannot be asked has not said that there are none.
/// Refuses a folder whose programs the owner cannot reach: the launcher opens the shim as the owner.
///
/// # Errors
/// Where it cannot be executed, or nobody can say.
pub fn check_reach(session: &Session, folder: &Path) -> anyhow::Result<()> {
    let shim = folder.join("holdfast-shim");
    let tried = asking(session).arg("probe").arg("--program").arg(&shim).stderr(Stdio::null()).status()?;
    if tried.success() {
        return Ok(());
    }
    let text = format!(
        "{} cannot execute {}: every directory above it has to be open to that user \
         (a release folder below /root is not); put the folder elsewhere, as /opt or /srv",
        session.owner.owner,
        shim.display()
    );
    Err(Stop::refused(text).into())
}

fn live_workers(session: &Session) -> anyhow::Result<Vec<WorkerId>> {
    let answer = asking(session).args(["ps", "--quiet"]).stderr(Stdio::inherit()).output()?;
    anyhow::ensure!(answer.status.success(), "the daemon does not say which workers live, so nothing was stopped");
    let text = String::from_utf8(answer.stdout).context("the daemon's list is damaged")?;
    Ok(text.lines().map(str::parse::<WorkerId>).collect::<Result<_, _>>()?)
}

/// Removes what is gone with the session: all of `run` but its log, or with `purge` everything.
///
/// # Errors
/// Where something cannot be removed.
pub fn remove(session: &Session, purge: bool) -> anyhow::Result<()> {
    let mut clear = asking(session);
    clear.args(["session-clear", "--root"]).arg(session.layout.root());
    if purge {
        clear.arg("--state");
    }
    anyhow::ensure!(clear.status()?.success(), "not all of the session's files could be removed");
    if session.owner.is_root {
        // What the helper keeps for its next start. The session is stopped all the same where that fails.
        let left = network::remove_links(Some(session.owner.uid)).and_then(|()| network::remove_table());
        if let Err(error) = left {
            tell(&format!("the bridge or the table `holdfast` of the session could not be removed: {error}"));
        }
    }
    let layout = &session.layout;
    let owner = &session.owner.owner;
    // Deepest first, empty ones only: whatever else is in there is not ours to remove.
    let _ = std::fs::remove_dir(layout.workers_run(owner));
    let _ = std::fs::remove_dir(layout.owner_run(owner));
    if purge {
        let _ = std::fs::remove_dir(layout.owner_state(owner));
        for top in ["run", "var", "etc"] {
            match std::fs::remove_dir_all(layout.root().join(top)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove {}", layout.root().join(top).display()));
                }
                _ => {}
            }
        }
        let _ = std::fs::remove_dir(layout.root());
    }
    Ok(())
}

/// Progress and prose, on stderr.
pub fn tell(text: &str) {
    // Where stderr is gone, nobody wants to be told.
    let _ = writeln!(std::io::stderr(), "holdfast: {}", crate::view::plain(text));
}

/// This program again, in a process that may become the owner.
fn asking(session: &Session) -> Command {
    let mut command = super::this_program();
    command.args(["--owner", session.owner.owner.as_str()]).stdin(Stdio::null());
    command.env("HOLDFAST_SOCKET", session.layout.daemon_socket(&session.owner.owner));
    command
}
