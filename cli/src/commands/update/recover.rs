//! What undoes an update that was cut off: run by `holdfast-recover.service`, or by the next update.

use super::{announce, tell};
use crate::exit::Stop;
use crate::install::command::{Call, Commands};
use crate::install::record::Installed;
use crate::update::error::UpdateError;
use crate::update::receipt::Receipt;
use crate::update::swap::Swap;
use crate::update::txn::Txn;
use holdfast_proto::layout::Layout;
use nix::unistd::Uid;
use std::process::ExitCode;
use std::time::Duration;

/// Run by the unit that comes before the others, so it can wait for none of them: at boot it flips the link alone, later
/// it has the work done beside itself.
///
/// # Errors
/// Where even that fails.
pub fn recover(layout: &Layout, commands: &dyn Commands) -> anyhow::Result<ExitCode> {
    let Some((installed, txn, lock)) = cut_off(layout)? else { return Ok(ExitCode::SUCCESS) };
    if boots(commands)? {
        let swap = Swap { layout, commands, installed: &installed, soak: Duration::ZERO };
        return swap.recover_link(&txn).map(|()| ExitCode::SUCCESS);
    }
    drop(lock);
    let program = std::env::current_exe()?.to_string_lossy().into_owned();
    let own = ["--unit=holdfast-recover-now", "--collect", "--no-block", "--quiet", "--"].map(str::to_owned);
    let words = own.into_iter().chain([program, "update".to_owned(), "--recover-now".to_owned()]);
    // One that is at it already has the name; the timer comes again.
    commands.ask(&Call::new("/usr/bin/systemd-run", words))?;
    Ok(ExitCode::SUCCESS)
}

/// Brings everything back.
///
/// # Errors
/// Where it does not come back; the record stays.
pub fn recover_now(layout: &Layout, commands: &dyn Commands) -> anyhow::Result<ExitCode> {
    let Some((installed, txn, _lock)) = cut_off(layout)? else { return Ok(ExitCode::SUCCESS) };
    go_back(layout, commands, &installed, &txn).map(|()| ExitCode::SUCCESS)
}

/// The update that nobody is at any more, if there is one, and the lock.
fn cut_off(layout: &Layout) -> anyhow::Result<Option<(Installed, Txn, std::fs::File)>> {
    if !Uid::effective().is_root() {
        return Err(Stop::from(UpdateError::NoRoot).into());
    }
    let Some(installed) = crate::install::facts::installed(layout)? else { return Ok(None) };
    // Whoever holds it is at it.
    let Ok(lock) = crate::commands::system::lock(layout, "recovery") else { return Ok(None) };
    Ok(Txn::read(layout)?.map(|txn| (installed, txn, lock)))
}

/// Whether the machine is still starting: units that wait for us cannot be waited for.
fn boots(commands: &dyn Commands) -> anyhow::Result<bool> {
    let said = commands.ask(&Call::systemctl(["is-system-running"]))?.out;
    Ok(["initializing", "starting"].contains(&said.trim()))
}

/// Brings everything back, and keeps a receipt of it.
///
/// # Errors
/// Where it does not come back; the record stays.
pub fn go_back(layout: &Layout, commands: &dyn Commands, installed: &Installed, txn: &Txn) -> anyhow::Result<()> {
    tell(&format!("an update to {} was cut off: going back to {}", txn.to, txn.from));
    let swap = Swap { layout, commands, installed, soak: Duration::ZERO };
    swap.recover(txn, &mut |step| announce(step))?;
    let mut receipt = Receipt::new("recovered", Some(txn.to.clone()), Some(txn.from.clone()));
    receipt.probes.rollback = Some("ok".to_owned());
    receipt.keep(layout)
}
