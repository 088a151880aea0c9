//! `holdfast prune`.

use crate::args::query::PruneArgs;
use crate::caller::Caller;
use crate::client;
use crate::exit::Stop;
use crate::out;
use crate::view::{bytes, cell, phase};
use holdfast_proto::daemon::{PruneRequest, Pruned};
use serde::Serialize;
use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

/// Most time to forget thousands of workers with their files.
const PRUNE_MAX: Duration = Duration::from_secs(120);
/// Longest answer to the question.
const ANSWER_BYTES_MAX: u64 = 64;

#[derive(Debug, Serialize)]
struct PruneJson<'a> {
    removed: Vec<PrunedJson<'a>>,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct PrunedJson<'a> {
    id: &'a str,
    name: &'a str,
    phase: &'static str,
    bytes: u64,
}

/// Forgets workers that ended, with their output.
///
/// # Errors
/// Where no daemon answers, a filter is none, or there is nobody to ask and no `--yes`.
pub fn run(args: &PruneArgs, caller: &Caller) -> anyhow::Result<ExitCode> {
    let at_terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if !args.yes && !at_terminal {
        return Err(Stop::usage("prune asks before it forgets workers, and there is no terminal: give --yes").into());
    }
    client::with_daemon(caller, async |daemon| {
        let request = PruneRequest { filters: args.filters.clone(), dry_run: true };
        if !args.yes {
            let would = daemon.ask(async |mut rpc| rpc.prune(request.clone()).await).await?.pruned;
            if would.is_empty() || !is_wanted(&would)? {
                return tell(args.json, &[]);
            }
        }
        let request = PruneRequest { dry_run: false, ..request };
        let forget = daemon.change(PRUNE_MAX, request, |mut rpc, request| async move { rpc.prune(request).await });
        let pruned = forget.await?.pruned;
        tell(args.json, &pruned)
    })
}

fn total(pruned: &[Pruned]) -> u64 {
    pruned.iter().map(|worker| worker.bytes).sum()
}

fn is_wanted(would: &[Pruned]) -> std::io::Result<bool> {
    let mut err = std::io::stderr().lock();
    for worker in would {
        writeln!(err, "{}  {}  {}", cell(&worker.id, 16), cell(&worker.name, 32), phase(worker.phase()))?;
    }
    write!(err, "Forget these {} workers with {} of output and records? [y/N] ", would.len(), bytes(total(would)))?;
    err.flush()?;
    let mut typed = String::new();
    std::io::BufReader::new(std::io::Read::take(std::io::stdin(), ANSWER_BYTES_MAX)).read_line(&mut typed)?;
    Ok(matches!(typed.trim(), "y" | "Y" | "yes"))
}

fn tell(json: bool, pruned: &[Pruned]) -> anyhow::Result<ExitCode> {
    if json {
        let shown = |worker: &'_ Pruned| phase(worker.phase());
        let removed = pruned.iter().map(|worker| PrunedJson {
            id: &worker.id,
            name: &worker.name,
            phase: shown(worker),
            bytes: worker.bytes,
        });
        out::json(&PruneJson { removed: removed.collect(), bytes: total(pruned) })?;
    } else {
        for worker in pruned {
            out::line(&worker.name)?;
        }
        let mut err = std::io::stderr().lock();
        // Nobody is left to tell where stderr is gone.
        let _ = writeln!(err, "{} workers forgotten, {} freed", pruned.len(), bytes(total(pruned)));
    }
    Ok(ExitCode::SUCCESS)
}
