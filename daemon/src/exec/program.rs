//! What a session executes, from what was asked for and what the worker was given.

use crate::supervisor::environment;
use crate::worker::spec::{self, Spec, SpecError};
use holdfast_launcher::orders::Input;
use holdfast_launcher::session::{Program, Size};
use holdfast_proto::daemon::{ExecOpen, WorkerSpec};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// The worker's environment and directory, but for what the caller says otherwise.
pub fn of(open: &ExecOpen, worker: &WorkerSpec, owner: &str) -> Result<Program, SpecError> {
    let worker = Spec::try_from(worker)?;
    let argv = spec::command(&open.command, &open.env)?;
    let env: Vec<Vec<u8>> = open.env.iter().map(|word| spec::variable(word)).collect::<Result<_, _>>()?;
    let workdir = if open.workdir.is_empty() { worker.workdir.clone() } else { spec::path("workdir", &open.workdir)? };
    Ok(Program {
        argv: argv.into_iter().map(OsString::from_vec).collect(),
        env: environment(&worker, &env, owner),
        workdir,
    })
}

/// Where a worker's own input comes from; a terminal has a common size until somebody sits at it.
pub fn input_of(worker: &WorkerSpec) -> Input {
    match (worker.terminal, worker.stdin) {
        (true, _) => Input::Terminal(Size { rows: 24, columns: 80 }),
        (false, true) => Input::Pipe,
        (false, false) => Input::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker() -> WorkerSpec {
        WorkerSpec {
            name: "web".into(),
            command: vec![b"sleep".to_vec()],
            network: "none".into(),
            env: vec![b"A=worker".to_vec(), b"B=worker".to_vec()],
            workdir: b"/srv".to_vec(),
            ..WorkerSpec::default()
        }
    }

    fn open() -> ExecOpen {
        ExecOpen { command: vec![b"env".to_vec()], env: vec![b"A=caller".to_vec()], ..ExecOpen::default() }
    }

    #[test]
    fn the_workers_environment_and_directory_hold_unless_the_caller_says_otherwise() {
        let program = of(&open(), &worker(), "alice").unwrap();
        let has = |word: &str| program.env.iter().any(|other| other.to_str() == Some(word));
        assert!(has("A=caller") && has("B=worker") && has("USER=alice") && !has("A=worker"));
        assert_eq!(program.workdir.to_str(), Some("/srv"));
        let elsewhere = of(&ExecOpen { workdir: b"/tmp".to_vec(), ..open() }, &worker(), "alice").unwrap();
        assert_eq!(elsewhere.workdir.to_str(), Some("/tmp"));
    }

    #[test]
    fn what_cannot_be_executed_is_refused() {
        for wrong in [
            ExecOpen { command: vec![], ..open() },
            ExecOpen { command: vec![b"a\0b".to_vec()], ..open() },
            ExecOpen { env: vec![b"novalue".to_vec()], ..open() },
            ExecOpen { workdir: b"relative".to_vec(), ..open() },
            ExecOpen { workdir: b"/srv/../etc".to_vec(), ..open() },
            ExecOpen { command: vec![vec![b'x'; 2 << 20]], ..open() },
        ] {
            assert!(of(&wrong, &worker(), "alice").is_err(), "{:?}", wrong.workdir);
        }
    }
}
