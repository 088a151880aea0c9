//! `holdfast stats`.

use crate::args::stats::StatsArgs;
use crate::caller::Caller;
use crate::client::{self, ANSWER_MAX, CallError, Daemon, Patience, answer};
use crate::out;
use crate::view::usage::{self, Looks, Usage};
use holdfast_proto::daemon::{StatsRequest, WorkerStats};
use jiff::Timestamp;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

/// Between two looks.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Shows what workers use: again and again, or once.
///
/// # Errors
/// Where there is no such worker, or no daemon answers.
pub fn run(args: &StatsArgs, caller: &Caller) -> anyhow::Result<ExitCode> {
    let request = StatsRequest { workers: args.workers.clone(), all: args.all };
    client::with_daemon(caller, async |mut daemon| {
        let mut looks = Looks::default();
        // The first look tells no rate yet.
        looks.take(look(&mut daemon, &request).await?);
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            show(&looks.take(look(&mut daemon, &request).await?), args)?;
            if args.no_stream {
                return Ok(ExitCode::SUCCESS);
            }
        }
    })
}

/// One look; a daemon that goes away over it is waited for.
///
/// # Errors
/// Where there is no such worker, or no daemon comes back.
pub async fn look(daemon: &mut Daemon, request: &StatsRequest) -> Result<Vec<WorkerStats>, CallError> {
    let mut patience = Patience::default();
    loop {
        match answer(ANSWER_MAX, daemon.rpc.stats(request.clone())).await {
            Err(CallError::Lost) => *daemon = daemon.again(&mut patience).await?,
            outcome => return Ok(outcome?.workers),
        }
    }
}

fn show(usages: &[Usage], args: &StatsArgs) -> anyhow::Result<()> {
    let now = Timestamp::now();
    if args.json {
        let all: Vec<_> = usages.iter().map(|usage| usage::json(usage, now)).collect();
        match args.no_stream {
            true => out::json(&all)?,
            false => out::json_line(&all)?,
        }
        return Ok(());
    }
    if !args.no_stream {
        // In a terminal each look takes the place of the last one; elsewhere they follow each other.
        out::text(if std::io::stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "\n" })?;
    }
    out::fitted(usage::HEADS, usages.iter().map(|usage| usage::row(usage, now)).collect(), &usage::LESS)?;
    Ok(())
}
