//! `holdfast ps` and `holdfast port`.

use crate::args::PortArgs;
use crate::args::query::PsArgs;
use crate::caller::Caller;
use crate::client::{self, present};
use crate::out;
use crate::view::{self, cell, json};
use holdfast_proto::daemon::{InspectRequest, ListRequest, Worker};
use jiff::Timestamp;
use std::process::ExitCode;

/// Lists workers: those that are live, or all.
///
/// # Errors
/// Where no daemon answers.
pub fn ps(args: &PsArgs, caller: &Caller) -> anyhow::Result<ExitCode> {
    let reply = client::with_daemon(caller, async |daemon| {
        let request = ListRequest { all: args.all, filters: args.filters.clone() };
        Ok(daemon.ask(async |mut rpc| rpc.list(request.clone()).await).await?)
    })?;
    if args.json {
        out::json(&reply.workers.iter().map(json::worker).collect::<Vec<_>>())?;
    } else if args.quiet {
        let ids: String = reply.workers.iter().map(|worker| cell(&worker.id, 16) + "\n").collect();
        out::text(&ids)?;
    } else if let Some(template) = &args.format {
        let now = Timestamp::now();
        let rows = reply.workers.iter().map(|worker| template.row(worker, now));
        if template.is_table {
            out::columns(template.heads(), rows.collect())?;
        } else {
            out::text(&rows.map(|columns| columns.join("\t") + "\n").collect::<String>())?;
        }
    } else {
        let now = Timestamp::now();
        let rows = reply.workers.iter().map(|worker| view::row(worker, now)).collect();
        out::fitted(view::HEADS, rows, &view::LESS)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Lists a worker's published ports.
///
/// # Errors
/// Where there is no such worker, or no daemon answers.
pub fn port(args: &PortArgs, caller: &Caller) -> anyhow::Result<ExitCode> {
    let worker: Worker = client::with_daemon(caller, async |daemon| {
        Ok(present(
            daemon.ask(async |mut rpc| rpc.inspect(InspectRequest { worker: args.worker.clone() }).await).await?.worker,
        )?)
    })?;
    if args.json {
        out::json(&json::ports(&worker))?;
    } else {
        let lines: String = view::port_lines(&worker).into_iter().map(|line| line + "\n").collect();
        out::text(&lines)?;
    }
    Ok(ExitCode::SUCCESS)
}
