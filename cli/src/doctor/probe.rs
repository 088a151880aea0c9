//! `probe`: really makes the namespaces that a worker's cage needs, as the owner, in a process that ends at once.
//! Sysctls tell half of it; security modules and seccomp filters of containers the rest.

use crate::caller::Caller;
use anyhow::Context;
use clap::Args;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::AccessFlags;
use std::path::PathBuf;
use std::process::ExitCode;

/// What is tried.
#[derive(Debug, Args)]
pub struct ProbeArgs {
    /// Only whether the owner can execute this program
    #[arg(long)]
    program: Option<PathBuf>,
}

/// Makes them; a failure names the step.
///
/// # Errors
/// The first step that the kernel refuses.
pub fn run(args: &ProbeArgs, owner: Option<&str>) -> anyhow::Result<ExitCode> {
    let caller = Caller::of_process(owner)?;
    caller.become_owner()?;
    if let Some(program) = &args.program {
        nix::unistd::access(program, AccessFlags::X_OK).with_context(|| format!("execute {}", program.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    unshare(CloneFlags::CLONE_NEWUSER).context("unshare(CLONE_NEWUSER)")?;
    std::fs::write("/proc/self/setgroups", "deny").context("write /proc/self/setgroups")?;
    let map = |id: u32| format!("{id} {id} 1");
    std::fs::write("/proc/self/uid_map", map(caller.uid)).context("write /proc/self/uid_map")?;
    std::fs::write("/proc/self/gid_map", map(caller.gid)).context("write /proc/self/gid_map")?;
    let rest = [
        (CloneFlags::CLONE_NEWNS, "CLONE_NEWNS"),
        (CloneFlags::CLONE_NEWNET, "CLONE_NEWNET"),
        (CloneFlags::CLONE_NEWIPC, "CLONE_NEWIPC"),
        (CloneFlags::CLONE_NEWUTS, "CLONE_NEWUTS"),
        (CloneFlags::CLONE_NEWPID, "CLONE_NEWPID"),
        (CloneFlags::CLONE_NEWCGROUP, "CLONE_NEWCGROUP"),
    ];
    for (flag, name) in rest {
        unshare(flag).with_context(|| format!("unshare({name})"))?;
    }
    // AppArmor's restriction lets the namespace be made and takes the capabilities in it away: so one is used.
    rustix::system::sethostname(b"probe").context("sethostname in a UTS namespace of its own")?;
    Ok(ExitCode::SUCCESS)
}
