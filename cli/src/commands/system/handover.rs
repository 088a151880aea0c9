//! `holdfast system handover`: the running daemon gives way to one of the installed release, and nobody waits long.

use super::{lock, need_installed, need_root};
use crate::exit::Stop;
use crate::install::command::{Call, Commands};
use crate::install::give_way;
use crate::install::ready;
use crate::out;
use holdfast_proto::layout::Layout;
use std::process::ExitCode;

/// Hands each daemon over, or `owner`'s alone. One whose unit file has changed is restarted instead.
///
/// # Errors
/// Where one does not give way: the old one serves on, and the error says why.
pub fn handover(layout: &Layout, commands: &dyn Commands, owner: Option<&str>) -> anyhow::Result<ExitCode> {
    need_root("system handover")?;
    let installed = need_installed(layout)?;
    let _lock = lock(layout, "system handover")?;
    let named = |name: &str| owner.is_none_or(|owner| owner == name);
    let owners: Vec<_> = installed.owners.iter().map(|owner| &owner.name).filter(|name| named(name.as_str())).collect();
    if owners.is_empty() {
        let text = format!("{:?} is no owner here: nothing to hand over", owner.unwrap_or_default());
        return Err(Stop::refused(text).into());
    }
    for owner in owners {
        let unit = format!("holdfastd@{owner}.service");
        if give_way::is_changed(commands, &unit)? {
            anstream::eprintln!("- restart {unit}: its unit file has changed (workers stay)");
            commands.run(&Call::systemctl(["daemon-reload"]))?;
            commands.run(&Call::systemctl(["restart", &unit]))?;
        } else {
            give_way::hand_over(commands, &unit)?;
        }
        ready::wait(layout, commands, owner, &installed.version, ready::READY_MAX)?;
        out::line(&format!("{owner}: a daemon of version {} serves", installed.version))?;
    }
    Ok(ExitCode::SUCCESS)
}
