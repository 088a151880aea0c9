//! `holdfast logs`.

use crate::args::query::LogsArgs;
use crate::caller::Caller;
use crate::client::{self, ANSWER_MAX, CallError, Daemon, Patience, answer};
use crate::sink::{self, Stamps};
use holdfast_proto::daemon::LogsRequest;
use jiff::Timestamp;
use std::process::ExitCode;

/// Shows what a worker wrote: stdout to stdout, stderr to stderr.
///
/// A daemon that goes away is waited for, and the reading goes on where it broke off.
///
/// # Errors
/// Where there is no such worker, no daemon answers, or output cannot be written.
pub fn run(args: &LogsArgs, caller: &Caller) -> anyhow::Result<ExitCode> {
    let now = Timestamp::now();
    let mut request = LogsRequest {
        worker: args.worker.clone(),
        follow: args.follow,
        tail_lines: args.tail,
        since: args.since.map_or(0, |moment| moment.at(now)),
        until: args.until.map_or(0, |moment| moment.at(now)),
        position: None,
    };
    let mut stamps = args.timestamps.then(Stamps::default);
    client::with_daemon(caller, async |mut daemon| {
        let mut patience = Patience::default();
        loop {
            match read(&mut daemon, &mut request, &mut stamps).await {
                Err(error) if is_lost(&error) => daemon = daemon.again(&mut patience).await?,
                outcome => return outcome.map(|()| ExitCode::SUCCESS),
            }
        }
    })
}

fn is_lost(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<CallError>(), Some(CallError::Lost))
}

/// Reads to the end; `request` is left where a second reading goes on.
async fn read(daemon: &mut Daemon, request: &mut LogsRequest, stamps: &mut Option<Stamps>) -> anyhow::Result<()> {
    let mut events = answer(ANSWER_MAX, daemon.rpc.logs(request.clone())).await?;
    while let Some(event) = events.message().await.map_err(CallError::from)? {
        let Some(mut piece) = event.output else { continue };
        let ends = piece.position + piece.dropped + piece.bytes.len() as u64;
        if let Some(stamps) = stamps {
            piece.bytes = stamps.stamp(&piece);
        }
        sink::write(&piece, true)?;
        request.position = Some(ends);
        request.tail_lines = None;
    }
    Ok(())
}
