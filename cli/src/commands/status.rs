//! `holdfast status` and `holdfast version`.

use crate::args::JsonArgs;
use crate::caller::Caller;
use crate::client;
use crate::out;
use crate::update::notice::{self, Notice};
use crate::view::cell;
use crate::view::json::{self, VersionJson};
use holdfast_proto::VERSION;
use holdfast_proto::daemon::StatusRequest;
use holdfast_proto::layout::Layout;
use jiff::Timestamp;
use std::process::ExitCode;

/// Says what runs of Holdfast itself. Something unhealthy is told, and is no failure of this verb.
///
/// # Errors
/// Where no daemon answers.
pub fn status(args: &JsonArgs, caller: &Caller) -> anyhow::Result<ExitCode> {
    let reply = client::with_daemon(caller, async |daemon| {
        Ok(daemon.ask(async |mut rpc| rpc.status(StatusRequest {}).await).await?)
    })?;
    let notice = notice::read(&Layout::system(), Timestamp::now());
    if args.json {
        out::json(&json::status(&reply, release(), &notice))?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows = json::programs(&reply).into_iter().map(|program| {
        let state = match (program.healthy, program.why) {
            (true, None) => "healthy".to_owned(),
            (true, Some(but)) => format!("healthy, but {}", cell(&but, 500)),
            (false, Some(why)) => format!("NOT HEALTHY: {}", cell(&why, 500)),
            (false, None) => "NOT HEALTHY".to_owned(),
        };
        let pid = program.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let version = program.version.map_or_else(|| "-".to_owned(), |version| cell(&version, 40));
        let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let (generation, handovers) = (number(program.generation), number(program.handovers.map(u64::from)));
        [cell(&program.name, 20), pid, version, generation, handovers, state]
    });
    out::table(["PROGRAM", "PID", "VERSION", "GENERATION", "HANDOVERS", "STATE"], rows.collect())?;
    let release = release().map_or_else(|| "none installed".to_owned(), |release| cell(&release, 100));
    out::text(&format!(
        "\nOwner    {}\nRelease  {release}\nWorkers  {} live, {} failed\n",
        cell(&reply.owner, 32),
        reply.workers_live,
        reply.workers_failed
    ))?;
    tell_updates(&notice)?;
    Ok(ExitCode::SUCCESS)
}

fn tell_updates(notice: &Notice) -> std::io::Result<()> {
    if let Some((version, seen)) = &notice.available {
        out::line(&format!("Update   {} is there (seen {seen:.0}): sudo holdfast update", cell(version, 40)))?;
    }
    if let Some(since) = notice.expired {
        out::line(&format!("Expired  a newer release was due on {since:.0}: holdfast update --check"))?;
    }
    Ok(())
}

/// Prints the version of this command, and the installed release's name.
///
/// # Errors
/// Where stdout cannot be written.
pub fn version(args: &JsonArgs) -> anyhow::Result<ExitCode> {
    if args.json {
        out::json(&VersionJson { version: VERSION, release: release() })?;
    } else {
        out::line(&format!("holdfast {VERSION}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The folder's name that `current` points to.
fn release() -> Option<String> {
    let target = std::fs::read_link(Layout::system().current()).ok()?;
    Some(target.file_name()?.to_string_lossy().into_owned())
}
