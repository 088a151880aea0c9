//! `holdfast inspect`.

use crate::args::InspectArgs;
use crate::caller::Caller;
use crate::client::{self, present};
use crate::out;
use crate::view::{cell, inspect_lines, json};
use holdfast_proto::daemon::InspectRequest;
use jiff::Timestamp;
use std::process::ExitCode;

/// Widest value that is shown in one line.
const VALUE_CHARS_MAX: usize = 4096;

/// Shows everything about a worker.
///
/// # Errors
/// Where there is no such worker, or no daemon answers.
pub fn run(args: &InspectArgs, caller: &Caller) -> anyhow::Result<ExitCode> {
    let reply = client::with_daemon(caller, async |daemon| {
        let request = InspectRequest { worker: args.worker.clone() };
        Ok(daemon.ask(async |mut rpc| rpc.inspect(request.clone()).await).await?)
    })?;
    let worker = present(reply.worker.as_ref())?;
    if args.json {
        out::json(&json::inspect(&reply, worker))?;
        return Ok(ExitCode::SUCCESS);
    }
    let lines: String = inspect_lines(&reply, worker, Timestamp::now())
        .into_iter()
        .map(|(head, value)| format!("{head:<12}{}\n", cell(&value, VALUE_CHARS_MAX)))
        .collect();
    out::text(&lines)?;
    Ok(ExitCode::SUCCESS)
}
