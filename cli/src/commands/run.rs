//! `holdfast run`.

use crate::args::run::RunArgs;
use crate::attach;
use crate::caller::Caller;
use crate::client::{self, ANSWER_MAX, Daemon, present};
use crate::exec::own::Seat;
use crate::exit::{self, Stop};
use crate::out;
use crate::spec::{self, Surroundings};
use anyhow::Context;
use holdfast_proto::daemon::run_event::Event;
use holdfast_proto::daemon::{RunRequest, StatusRequest, WorkerSpec};
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use tonic::Response;

/// Most time from the request until the program has been executed.
pub const LAUNCH_MAX: Duration = Duration::from_secs(60);
/// Most bytes of one `--env-file`: comments included, much more than the orders of a worker can carry.
const ENV_FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Creates a worker and starts it. Every failure is 125 to 127, so that a worker's own code is never mistaken for one.
pub fn run(args: &RunArgs, owner: Option<&str>) -> ExitCode {
    let code = try_run(args, owner).unwrap_or_else(|error| {
        exit::say(&error);
        exit::code_of_run(&error)
    });
    ExitCode::from(code)
}

fn try_run(args: &RunArgs, owner: Option<&str>) -> anyhow::Result<u8> {
    let caller = Caller::of_process(owner)?;
    let directory = std::env::current_dir().context("the current directory is gone")?;
    let env_files = args.env_file.iter().map(|file| read_env_file(file)).collect::<anyhow::Result<_>>()?;
    let around = Surroundings { directory: &directory, variable: &|name| std::env::var_os(name), env_files };
    let spec = spec::worker_spec(args, &around).map_err(|error| Stop::usage(error.to_string()))?;
    let on_bridge = args.net != "none";
    let seat = Seat::of(args.interactive, args.tty);
    if !args.detach {
        attach::require(seat, "run", &caller)?;
    }
    client::with_daemon(&caller, async |daemon| {
        let code = match args.detach {
            true => detached(daemon.clone(), spec).await?,
            false => attach::run(daemon.clone(), spec, seat, &caller).await?,
        };
        // In the foreground only where something went wrong: the question costs as much as a short worker's life.
        if on_bridge && (args.detach || code != 0) {
            warn_of_firewalls(daemon).await;
        }
        Ok(code)
    })
}

/// Names what drops the packets of workers on a bridge: a published port that nobody reaches explains itself badly.
async fn warn_of_firewalls(mut daemon: Daemon) {
    let Ok(status) = client::answer(ANSWER_MAX, daemon.rpc.status(StatusRequest {})).await else { return };
    let helper = status.programs.iter().find(|program| program.name.contains("helper") && program.healthy);
    if let Some(why) = helper.map(|helper| helper.why.as_str()).filter(|why| !why.is_empty()) {
        exit::say(&anyhow::anyhow!("packets between workers on a bridge and the outside are dropped: {why}"));
    }
}

/// Returns when the program has been executed, having printed the worker's id.
async fn detached(daemon: Daemon, spec: WorkerSpec) -> anyhow::Result<u8> {
    let request = RunRequest { spec: Some(spec), attach: false };
    let started = daemon.change(LAUNCH_MAX, request, |mut rpc, request| async move {
        let mut events = rpc.run(request).await?.into_inner();
        let mut started = None;
        while let Some(event) = events.message().await? {
            if let Some(Event::Started(worker)) = event.event {
                started = Some(worker);
            }
        }
        Ok(Response::new(started))
    });
    let worker = present(started.await?)?;
    out::line(&worker.id)?;
    Ok(0)
}

fn read_env_file(path: &Path) -> anyhow::Result<Vec<u8>> {
    let refused = |why: String| Stop::usage(format!("--env-file {}: {why}", path.display()));
    let file = std::fs::File::open(path).map_err(|error| refused(error.to_string()))?;
    let mut contents = Vec::new();
    file.take(ENV_FILE_BYTES_MAX + 1).read_to_end(&mut contents).map_err(|error| refused(error.to_string()))?;
    if contents.len() as u64 > ENV_FILE_BYTES_MAX {
        return Err(refused(format!("it is longer than {ENV_FILE_BYTES_MAX} bytes")).into());
    }
    Ok(contents)
}
