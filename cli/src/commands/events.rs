//! `holdfast events`.

use crate::args::query::EventsArgs;
use crate::caller::Caller;
use crate::client::{self, ANSWER_MAX, CallError, Daemon, Patience, answer};
use crate::out;
use crate::view::event;
use holdfast_proto::daemon::{EventsReply, EventsRequest};
use jiff::Timestamp;
use std::process::ExitCode;

/// Shows what happened; with `--follow` what happens, over any restart of the daemon.
///
/// # Errors
/// Where no daemon answers, a filter is none, events after the cursor are gone, or stdout cannot be written.
pub fn run(args: &EventsArgs, caller: &Caller) -> anyhow::Result<ExitCode> {
    let now = Timestamp::now();
    // What has been is asked for from the oldest on; following alone begins now.
    let from_oldest = args.since.is_some() || !args.follow;
    let mut request = EventsRequest {
        cursor: args.cursor.or(from_oldest.then_some(0)),
        follow: args.follow,
        since: args.since.map_or(0, |moment| moment.at(now)),
        until: args.until.map_or(0, |moment| moment.at(now)),
        filters: args.filters.clone(),
    };
    client::with_daemon(caller, async |mut daemon| {
        let mut patience = Patience::default();
        loop {
            match read(&mut daemon, &mut request, args.json).await {
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
async fn read(daemon: &mut Daemon, request: &mut EventsRequest, json: bool) -> anyhow::Result<()> {
    let mut events = answer(ANSWER_MAX, daemon.rpc.events(request.clone())).await?;
    while let Some(EventsReply { cursor, event }) = events.message().await.map_err(CallError::from)? {
        if let Some(event) = event {
            let line = if json { serde_json::to_string(&event::json(cursor, &event))? } else { event::line(&event) };
            out::text(&(line + "\n"))?;
        }
        request.cursor = Some(cursor);
    }
    Ok(())
}
