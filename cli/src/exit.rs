//! Exit codes of the contract ("Verbs"), and the one place where an error becomes one.

use crate::client::CallError;
use crate::view::plain;
use holdfast_proto::problem::{Problem, Reason};
use std::io::ErrorKind;
use std::process::ExitCode;

/// Something failed; the reason is on stderr.
pub const FAILED: u8 = 1;
/// What was typed cannot be right.
pub const USAGE: u8 = 2;
/// No daemon answers.
pub const NO_DAEMON: u8 = 3;
/// No such worker, network, app or version.
pub const NO_SUCH: u8 = 4;
/// Refused by rules, by state, or for lack of a right.
pub const REFUSED: u8 = 5;
/// `update --check`: there is a newer release.
pub const NEWER: u8 = 10;
/// `update`: it failed, and the release before runs again.
pub const ROLLED_BACK: u8 = 20;
/// `update`: it failed, and the release before does not run as it should.
pub const ROLLBACK_INCOMPLETE: u8 = 21;
/// `run`: Holdfast failed or refused.
pub const RUN_FAILED: u8 = 125;
/// `run`: the program was found and cannot be executed.
pub const RUN_CANNOT_EXECUTE: u8 = 126;
/// `run`: the program was not found.
pub const RUN_NOT_FOUND: u8 = 127;
/// Added to a signal's number.
pub const SIGNAL_BASE: u8 = 128;

/// An error that brings its own exit code.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Stop {
    /// The exit code.
    pub code: u8,
    /// What was met, and what would work.
    pub text: String,
}

impl Stop {
    /// Wrong usage.
    pub fn usage(text: impl Into<String>) -> Self {
        Self { code: USAGE, text: text.into() }
    }

    /// Refused by rules, by state, or for lack of a right.
    pub fn refused(text: impl Into<String>) -> Self {
        Self { code: REFUSED, text: text.into() }
    }
}

/// Says what went wrong on stderr and chooses the exit code.
///
/// A reader that went away (`ps | head`) is not a failure worth a word.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if is_broken_pipe(error) {
        return ExitCode::SUCCESS;
    }
    say(error);
    ExitCode::from(code_of(error))
}

/// One error on stderr, its control bytes shown harmlessly: part of it may come from a daemon that lies.
pub fn say(error: &anyhow::Error) {
    use std::io::Write;
    // Nobody is left to tell where stderr is gone.
    let _ = writeln!(std::io::stderr(), "holdfast: {}", plain(&format!("{error:#}")));
}

/// The exit code of an error, for every verb but `run`.
pub fn code_of(error: &anyhow::Error) -> u8 {
    if let Some(stop) = error.downcast_ref::<Stop>() {
        return stop.code;
    }
    match error.downcast_ref::<CallError>() {
        Some(CallError::NoDaemon(_) | CallError::Lost | CallError::Deadline(_)) => NO_DAEMON,
        Some(CallError::Untrusted(_)) => REFUSED,
        Some(CallError::Problem(problem)) => of_reason(problem.reason()),
        Some(CallError::Unusable(_)) | None => FAILED,
    }
}

/// The exit code of an error of `run`, whose other codes are the worker's.
pub fn code_of_run(error: &anyhow::Error) -> u8 {
    if let Some(CallError::Problem(problem)) = error.downcast_ref::<CallError>() {
        return of_run_reason(problem);
    }
    match code_of(error) {
        USAGE => USAGE,
        _ => RUN_FAILED,
    }
}

/// The exit code of an error of `exec`: as `run`'s, but for what is wrong with the worker that was named.
pub fn code_of_exec(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<CallError>() {
        Some(CallError::Problem(problem)) if problem.reason() == Reason::NoSuchWorker => NO_SUCH,
        Some(CallError::Problem(problem)) if problem.reason() == Reason::WrongPhase => REFUSED,
        Some(CallError::Problem(_)) => RUN_FAILED,
        _ => match error.downcast_ref::<Stop>() {
            Some(stop) => stop.code,
            None => RUN_FAILED,
        },
    }
}

/// Reason to exit code. Every reason by name: a new one has to be placed.
fn of_reason(reason: Reason) -> u8 {
    match reason {
        Reason::Invalid => USAGE,
        Reason::NoSuchWorker | Reason::NoSuchNetwork | Reason::CursorGone => NO_SUCH,
        Reason::NameTaken
        | Reason::WrongPhase
        | Reason::NetworkInUse
        | Reason::Rules
        | Reason::Quota
        | Reason::PortInUse
        | Reason::NotYours
        | Reason::StaleEpoch
        | Reason::Host => REFUSED,
        Reason::Unspecified
        | Reason::Unavailable
        | Reason::Leaving
        | Reason::Deadline
        | Reason::NoSpace
        | Reason::CannotExecute
        | Reason::NotFound
        | Reason::Internal => FAILED,
    }
}

fn of_run_reason(problem: &Problem) -> u8 {
    match problem.reason() {
        Reason::CannotExecute => RUN_CANNOT_EXECUTE,
        Reason::NotFound => RUN_NOT_FOUND,
        _ => RUN_FAILED,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(reason: Reason) -> anyhow::Error {
        CallError::Problem(Problem::new(reason, "no")).into()
    }

    #[test]
    fn every_reason_has_the_contracts_exit_code() {
        let expected = [
            (Reason::Invalid, 2, 125),
            (Reason::NoSuchWorker, 4, 125),
            (Reason::NoSuchNetwork, 4, 125),
            (Reason::NetworkInUse, 5, 125),
            (Reason::NameTaken, 5, 125),
            (Reason::WrongPhase, 5, 125),
            (Reason::Rules, 5, 125),
            (Reason::Quota, 5, 125),
            (Reason::PortInUse, 5, 125),
            (Reason::NotYours, 5, 125),
            (Reason::StaleEpoch, 5, 125),
            (Reason::Unavailable, 1, 125),
            (Reason::Leaving, 1, 125),
            (Reason::Host, 5, 125),
            (Reason::Deadline, 1, 125),
            (Reason::NoSpace, 1, 125),
            (Reason::CannotExecute, 1, 126),
            (Reason::NotFound, 1, 127),
            (Reason::Internal, 1, 125),
            (Reason::CursorGone, 4, 125),
        ];
        for (reason, verb, run) in expected {
            let error = problem(reason);
            assert_eq!((code_of(&error), code_of_run(&error)), (verb, run), "{reason:?}");
        }
    }

    #[test]
    fn an_absent_daemon_is_three_and_for_run_holdfasts_failure() {
        let error: anyhow::Error = CallError::NoDaemon("not installed".into()).into();
        assert_eq!((code_of(&error), code_of_run(&error)), (3, 125));
        let usage: anyhow::Error = Stop::usage("what?").into();
        assert_eq!((code_of(&usage), code_of_run(&usage)), (2, 2));
    }

    #[test]
    fn exec_tells_what_is_wrong_with_the_worker_from_what_failed() {
        for (reason, expected) in [
            (Reason::NoSuchWorker, 4),
            (Reason::WrongPhase, 5),
            (Reason::Quota, 125),
            (Reason::NotFound, 125),
            (Reason::Internal, 125),
        ] {
            assert_eq!(code_of_exec(&problem(reason)), expected, "{reason:?}");
        }
        let absent: anyhow::Error = CallError::NoDaemon("not installed".into()).into();
        assert_eq!(code_of_exec(&absent), 125);
        assert_eq!(code_of_exec(&Stop::usage("-t").into()), 2);
    }

    #[test]
    fn context_does_not_hide_the_code() {
        let error = problem(Reason::NoSuchWorker).context("web");
        assert_eq!(code_of(&error), 4);
    }

    #[test]
    fn a_reader_that_left_is_seen_through_context() {
        let error = anyhow::Error::from(std::io::Error::from(ErrorKind::BrokenPipe)).context("printing");
        assert!(is_broken_pipe(&error) && !is_broken_pipe(&problem(Reason::Internal)));
    }
}
