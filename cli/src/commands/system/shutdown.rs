//! Stops all workers of the host in a bounded time.

use crate::caller::Caller;
use crate::client::{self, ANSWER_MAX, answer};
use crate::exit;
use crate::install::command::{Call, Commands, HostCommands};
use crate::install::record::Account;
use crate::install::workers;
use holdfast_proto::daemon::{ListRequest, StopRequest};
use holdfast_proto::layout::Layout;
use nix::unistd::Uid;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;
use tokio::task::JoinSet;

/// Grace where nobody said another.
pub const GRACE_SECS: u32 = 10;
/// What asking takes beyond the grace: one program started per owner, SIGKILL, records.
const SLACK: Duration = Duration::from_secs(3);

/// Asks each owner's daemon, all at once, and ends what is left by its cgroup.
///
/// # Errors
/// Where a worker lives still.
pub fn stop_all(layout: &Layout, commands: &dyn Commands, owners: &[Account], grace: u32) -> anyhow::Result<()> {
    let limit = Duration::from_secs(grace.into()) + SLACK;
    let program = std::env::current_exe()?;
    let program = if program.exists() { program } else { layout.current().join("holdfast") };
    thread::scope(|scope| {
        for owner in owners {
            let args = ["system", "stop-workers", "--owner", owner.name.as_str(), "--grace", &grace.to_string()];
            let call = Call::new(&program.to_string_lossy(), args).within(limit);
            // A daemon that does not answer does not keep its workers alive: the cgroups follow.
            scope.spawn(move || {
                if let Err(error) = HostCommands.run(&call) {
                    exit::say(&anyhow::Error::from(error));
                }
            });
        }
    });
    let mut left = Vec::new();
    for owner in owners {
        left.extend(workers::live(commands, &owner.name)?);
    }
    if left.is_empty() { Ok(()) } else { workers::kill(&left) }
}

/// Asks one owner's daemon to stop all of its workers, all at once. As root, root's rights are given up before.
///
/// # Errors
/// Where no daemon answers, or a worker could not be stopped.
pub fn stop_of(owner: &str, grace: u32) -> anyhow::Result<ExitCode> {
    let caller =
        if Uid::effective().is_root() { Caller::by_name(owner, true)? } else { Caller::of_process(Some(owner))? };
    client::with_daemon(&caller, async |mut daemon| {
        let limit = Duration::from_secs(grace.into()) + SLACK;
        let live = answer(ANSWER_MAX, daemon.rpc.list(ListRequest::default())).await?.workers;
        let mut stops = JoinSet::new();
        for worker in live {
            let mut daemon = daemon.clone();
            stops.spawn(async move {
                let request = StopRequest { worker: worker.id, timeout_secs: Some(grace), for_shutdown: true };
                answer(limit, daemon.rpc.stop(request)).await
            });
        }
        let mut code = ExitCode::SUCCESS;
        while let Some(outcome) = stops.join_next().await {
            if let Err(error) = outcome? {
                exit::say(&anyhow::Error::from(error));
                code = ExitCode::from(exit::FAILED);
            }
        }
        Ok(code)
    })
}
