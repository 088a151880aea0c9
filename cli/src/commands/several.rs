//! The verbs that take several workers and do the same to each: `start stop restart suspend resume kill rm wait`.

use super::run::LAUNCH_MAX;
use crate::args::{KillArgs, RmArgs, StopArgs, SuspendArgs, WorkersArgs};
use crate::caller::Caller;
use crate::client::{self, ANSWER_MAX, CallError, Daemon, Patience, present};
use crate::exit;
use crate::out;
use crate::view;
use holdfast_proto::daemon::{
    InspectRequest, KillRequest, RemoveRequest, RestartRequest, ResumeRequest, StartRequest, StopRequest,
    SuspendRequest, WaitRequest,
};
use std::process::ExitCode;
use std::time::Duration;
use tokio::task::JoinSet;

/// Workers that are dealt with at a time.
const AT_A_TIME_MAX: usize = 16;
/// Grace of a worker that asked for none.
const GRACE_SECS: u32 = 10;
/// More than daemon and shim allow themselves for a freeze.
const FREEZE_MAX: Duration = Duration::from_secs(15);
/// What a stop may take beyond its grace: SIGKILL, the record, the ports.
const STOP_SLACK: Duration = Duration::from_secs(20);

/// Starts workers that are not live, and prints what was given.
///
/// # Errors
/// Where no daemon answers; what one worker met goes to stderr and into the exit code.
pub fn start(args: WorkersArgs, caller: &Caller) -> anyhow::Result<ExitCode> {
    each(args.workers, caller, |daemon: Daemon, worker: String| async move {
        let request = StartRequest { worker: worker.clone() };
        daemon.change(LAUNCH_MAX, request, |mut rpc, request| async move { rpc.start(request).await }).await?;
        Ok(worker)
    })
}

/// Stops workers; returns when they are gone.
///
/// # Errors
/// As [`start`].
pub fn stop(args: StopArgs, caller: &Caller) -> anyhow::Result<ExitCode> {
    let timeout_secs = args.timeout;
    each(args.workers, caller, move |daemon: Daemon, worker: String| async move {
        let limit = stop_max(&daemon, &worker, timeout_secs).await?;
        let request = StopRequest { worker: worker.clone(), timeout_secs, for_shutdown: false };
        daemon.change(limit, request, |mut rpc, request| async move { rpc.stop(request).await }).await?;
        Ok(worker)
    })
}

/// Stops (where they live) and starts workers.
///
/// # Errors
/// As [`start`].
pub fn restart(args: StopArgs, caller: &Caller) -> anyhow::Result<ExitCode> {
    let timeout_secs = args.timeout;
    each(args.workers, caller, move |daemon: Daemon, worker: String| async move {
        let limit = stop_max(&daemon, &worker, timeout_secs).await? + LAUNCH_MAX;
        let request = RestartRequest { worker: worker.clone(), timeout_secs };
        daemon.change(limit, request, |mut rpc, request| async move { rpc.restart(request).await }).await?;
        Ok(worker)
    })
}

/// Freezes workers; returns when all of each is frozen.
///
/// # Errors
/// As [`start`].
pub fn suspend(args: SuspendArgs, caller: &Caller) -> anyhow::Result<ExitCode> {
    each(args.workers, caller, |daemon: Daemon, worker: String| async move {
        let request = SuspendRequest { worker: worker.clone() };
        daemon.change(FREEZE_MAX, request, |mut rpc, request| async move { rpc.suspend(request).await }).await?;
        Ok(worker)
    })
}

/// Lets suspended workers go on.
///
/// # Errors
/// As [`start`].
pub fn resume(args: SuspendArgs, caller: &Caller) -> anyhow::Result<ExitCode> {
    each(args.workers, caller, |daemon: Daemon, worker: String| async move {
        let request = ResumeRequest { worker: worker.clone() };
        daemon.change(FREEZE_MAX, request, |mut rpc, request| async move { rpc.resume(request).await }).await?;
        Ok(worker)
    })
}

/// Sends workers a signal.
///
/// # Errors
/// As [`start`].
pub fn kill(args: KillArgs, caller: &Caller) -> anyhow::Result<ExitCode> {
    let signal = args.signal;
    each(args.workers, caller, move |daemon: Daemon, worker: String| async move {
        let request = KillRequest { worker: worker.clone(), signal };
        daemon.change(ANSWER_MAX, request, |mut rpc, request| async move { rpc.kill(request).await }).await?;
        Ok(worker)
    })
}

/// Forgets workers, with their output.
///
/// # Errors
/// As [`start`].
pub fn rm(args: RmArgs, caller: &Caller) -> anyhow::Result<ExitCode> {
    let force = args.force;
    each(args.workers, caller, move |daemon: Daemon, worker: String| async move {
        let request = RemoveRequest { worker: worker.clone(), force };
        daemon.change(STOP_SLACK, request, |mut rpc, request| async move { rpc.remove(request).await }).await?;
        Ok(worker)
    })
}

/// Waits until workers are not live, and prints their exit codes, one a line. It sits out a daemon's absence.
///
/// # Errors
/// As [`start`].
pub fn wait(args: WorkersArgs, caller: &Caller) -> anyhow::Result<ExitCode> {
    each(args.workers, caller, |mut daemon: Daemon, worker: String| async move {
        let mut patience = Patience::default();
        loop {
            // No deadline: how long a worker lives is its own affair. A daemon that hangs is found by its pings.
            match daemon.rpc.wait(WaitRequest { worker: worker.clone() }).await.map_err(CallError::from) {
                Err(CallError::Lost) => daemon = daemon.again(&mut patience).await?,
                outcome => {
                    let ended = present(outcome?.into_inner().worker)?;
                    let code = ended.exit.as_ref().and_then(view::exit_code);
                    return Ok(code.ok_or_else(|| anyhow::anyhow!("{worker}: nobody knows how it ended"))?.to_string());
                }
            }
        }
    })
}

/// How long a stop may take: the grace that was given, or the worker's own, and then some.
async fn stop_max(daemon: &Daemon, worker: &str, given_secs: Option<u32>) -> Result<Duration, CallError> {
    let grace_secs = match given_secs {
        Some(secs) => secs,
        None => {
            let request = InspectRequest { worker: worker.to_owned() };
            // Changes nothing: its key is without effect.
            let reply = daemon.change(ANSWER_MAX, request, |mut rpc, r| async move { rpc.inspect(r).await }).await?;
            reply.spec.and_then(|spec| spec.stop_timeout_secs).unwrap_or(GRACE_SECS)
        }
    };
    Ok(Duration::from_secs(grace_secs.into()) + STOP_SLACK)
}

/// Does `act` to each worker, some at a time, and prints what it returns in the order that was typed.
/// The exit code is that of the first worker that met something.
fn each<F, R>(workers: Vec<String>, caller: &Caller, act: F) -> anyhow::Result<ExitCode>
where
    F: Fn(Daemon, String) -> R,
    R: Future<Output = anyhow::Result<String>> + Send + 'static,
{
    client::with_daemon(caller, async |daemon| {
        let mut code = 0;
        let mut waiting = workers.into_iter().enumerate();
        let mut under_way = JoinSet::new();
        let mut done = std::collections::BTreeMap::new();
        let mut next = 0;
        loop {
            while under_way.len() < AT_A_TIME_MAX
                && let Some((place, worker)) = waiting.next()
            {
                let outcome = act(daemon.clone(), worker);
                under_way.spawn(async move { (place, outcome.await) });
            }
            let Some(finished) = under_way.join_next().await else { break };
            let (place, outcome) = finished?;
            done.insert(place, outcome);
            while let Some(outcome) = done.remove(&next) {
                next += 1;
                match outcome {
                    Ok(text) => out::line(&text)?,
                    Err(error) => {
                        exit::say(&error);
                        code = if code == 0 { exit::code_of(&error) } else { code };
                    }
                }
            }
        }
        Ok(ExitCode::from(code))
    })
}
