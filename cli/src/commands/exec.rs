//! `holdfast exec`.

use crate::args::exec::ExecArgs;
use crate::attach;
use crate::caller::Caller;
use crate::client;
use crate::exec;
use crate::exec::own::Seat;
use crate::exec::terminal::{self, RawTerminal};
use crate::exit::{self, RUN_FAILED, Stop};
use crate::spec::{self, Surroundings};
use crate::view;
use anyhow::Context;
use holdfast_proto::daemon::ExecOpen;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

/// Runs one more program in a running worker. Failures of ours are told apart from the program's own codes.
pub fn run(args: &ExecArgs, owner: Option<&str>) -> ExitCode {
    let code = try_run(args, owner).unwrap_or_else(|error| {
        exit::say(&error);
        exit::code_of_exec(&error)
    });
    ExitCode::from(code)
}

fn try_run(args: &ExecArgs, owner: Option<&str>) -> anyhow::Result<u8> {
    let caller = Caller::of_process(owner)?;
    attach::require(if args.tty { Seat::Terminal } else { Seat::None }, "exec", &caller)?;
    let open = open(args)?;
    let exit = client::with_daemon(&caller, async |daemon| {
        let raw = if args.tty { Some(RawTerminal::enter().context("the terminal cannot be made raw")?) } else { None };
        let ended = exec::run(daemon, open, caller.is_root).await;
        drop(raw);
        ended
    })?;
    if !exit.not_started.is_empty() {
        exit::say(&anyhow::anyhow!("{}: {}", args.worker, exit.not_started));
    }
    Ok(view::exit_code(&exit).unwrap_or(RUN_FAILED))
}

fn open(args: &ExecArgs) -> anyhow::Result<ExecOpen> {
    let directory = std::path::Path::new("/");
    let around = Surroundings { directory, variable: &|name| std::env::var_os(name), env_files: Vec::new() };
    let mut env = spec::environment(&args.env, &around).map_err(|error| Stop::usage(error.to_string()))?;
    if args.tty {
        env.extend(spec::terminal_kind(&env, &around));
    }
    let command: Vec<Vec<u8>> = args.command.iter().map(|word| word.as_bytes().to_vec()).collect();
    spec::check_size(&command, &env).map_err(|error| Stop::usage(error.to_string()))?;
    let workdir = args.workdir.as_deref().unwrap_or(std::path::Path::new(""));
    if args.workdir.is_some() && !workdir.is_absolute() {
        return Err(
            Stop::usage(format!("--workdir {}: give an absolute path inside the worker", workdir.display())).into()
        );
    }
    Ok(ExecOpen {
        worker: args.worker.clone(),
        session: number()?,
        command,
        env,
        workdir: workdir.as_os_str().as_bytes().to_vec(),
        stdin: args.interactive,
        terminal: args.tty.then(terminal::size),
        acknowledge: true,
        user: args.user.clone().unwrap_or_default(),
    })
}

/// Ours to choose, so that the session can be asked for whoever dies when.
fn number() -> anyhow::Result<u64> {
    let mut bits = [0; 8];
    getrandom::fill(&mut bits).map_err(|error| anyhow::anyhow!("the kernel gave no random bytes: {error}"))?;
    Ok(u64::from_le_bytes(bits).max(1))
}
