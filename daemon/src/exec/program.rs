//! What a session executes, and as whom, from what was asked for and what the worker was given.

use crate::supervisor::environment;
use crate::worker::spec::{self, Spec, SpecError};
use holdfast_launcher::orders::Input;
use holdfast_launcher::session::{Program, Size};
use holdfast_proto::daemon::{ExecOpen, WorkerSpec};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// A user as it shows inside.
#[derive(Debug, Clone, Copy)]
pub struct Ids<'a> {
    /// Login name; its group is taken to have the same.
    pub name: &'a str,
    /// Number of the user.
    pub uid: u32,
    /// Number of its group.
    pub gid: u32,
}

impl Ids<'_> {
    /// Whether `USER[:GROUP]` means this one; empty does.
    fn is_called(&self, asked: &str) -> bool {
        let (user, group) = asked.split_once(':').map_or((asked, None), |(user, group)| (user, Some(group)));
        let means = |word: &str, number: u32| word == self.name || word == number.to_string();
        asked.is_empty() || means(user, self.uid) && group.is_none_or(|group| means(group, self.gid))
    }
}

/// The worker's environment and directory, but for what the caller says otherwise.
pub fn of(open: &ExecOpen, worker: &WorkerSpec, owner: &Ids<'_>) -> Result<Program, SpecError> {
    let worker = Spec::try_from(worker)?;
    let only = if worker.cage.root_user { Ids { name: "root", uid: 0, gid: 0 } } else { *owner };
    if !only.is_called(&open.user) {
        let (name, uid) = (only.name.to_owned(), only.uid);
        return Err(SpecError::OtherUser { asked: spec::shown(open.user.as_bytes()), name, uid });
    }
    let argv = spec::command(&open.command, &open.env)?;
    let env: Vec<Vec<u8>> = open.env.iter().map(|word| spec::variable(word)).collect::<Result<_, _>>()?;
    let workdir = if open.workdir.is_empty() { worker.workdir.clone() } else { spec::path("workdir", &open.workdir)? };
    Ok(Program {
        argv: argv.into_iter().map(OsString::from_vec).collect(),
        env: environment(&worker, &env, owner.name),
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
    use holdfast_proto::daemon::Cage;

    const ALICE: Ids<'_> = Ids { name: "alice", uid: 1000, gid: 1001 };

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
        let program = of(&open(), &worker(), &ALICE).unwrap();
        let has = |word: &str| program.env.iter().any(|other| other.to_str() == Some(word));
        assert!(has("A=caller") && has("B=worker") && has("USER=alice") && !has("A=worker"));
        assert_eq!(program.workdir.to_str(), Some("/srv"));
        let elsewhere = of(&ExecOpen { workdir: b"/tmp".to_vec(), ..open() }, &worker(), &ALICE).unwrap();
        assert_eq!(elsewhere.workdir.to_str(), Some("/tmp"));
    }

    #[test]
    fn the_user_is_the_one_that_the_worker_has() {
        let root = WorkerSpec { cage: Some(Cage { user: "root".into(), ..Cage::default() }), ..worker() };
        let asked = |user: &str, worker: &WorkerSpec| of(&ExecOpen { user: user.into(), ..open() }, worker, &ALICE);
        for user in ["", "alice", "1000", "alice:alice", "1000:1001", "alice:1001"] {
            assert!(asked(user, &worker()).is_ok(), "{user:?} was refused");
        }
        for user in ["", "root", "0", "0:0", "root:0", "root:root"] {
            assert!(asked(user, &root).is_ok(), "{user:?} was refused in a worker of root");
        }
        for user in
            ["root", "0", "bob", "1001", "1000:0", "1000:", ":", ":1001", "+1000", "01000", "alice ", "1000:1001:1"]
        {
            assert!(matches!(asked(user, &worker()), Err(SpecError::OtherUser { .. })), "{user:?} was taken");
        }
        for user in ["alice", "1000", "0:1000", "owner"] {
            assert!(matches!(asked(user, &root), Err(SpecError::OtherUser { .. })), "{user:?} was taken");
        }
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
            assert!(of(&wrong, &worker(), &ALICE).is_err(), "{:?}", wrong.workdir);
        }
    }
}
