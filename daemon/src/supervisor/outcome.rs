//! What the record of a worker's end says, for a person and as a refusal.

use super::now;
use crate::worker::limits;
use crate::worker::spec::Spec;
use holdfast_launcher::launch::{CLOSE_ABSTRACT, Failure, TUN};
use holdfast_launcher::limits::Limit;
use holdfast_launcher::record::{ExitRecord, Outcome};
use holdfast_proto::problem::{Problem, Reason};
use nix::errno::Errno;

/// Why a program was not executed, for a person; empty where it was.
pub fn why(record: &ExitRecord, spec: &Spec) -> String {
    let Outcome::NotStarted { code, failure } = &record.outcome else { return String::new() };
    let told = told(*code, failure, spec.command.first().map_or(&[][..], Vec::as_slice));
    let step = failure.step.as_str();
    // Bound by us for the working directory's sake: told in the owner's words.
    let bound = format!("volume source {}", spec.workdir.display());
    if step == bound && !spec.volumes.iter().any(|volume| volume.source == spec.workdir) {
        return told.replacen("volume source", "working directory", 1);
    }
    told
}

/// Why `program` was not executed, for a person.
pub fn told(code: u8, failure: &Failure, program: &[u8]) -> String {
    let reason = match failure.errno {
        0 => String::new(),
        errno => Errno::from_raw(errno).desc().to_owned(),
    };
    let step = failure.step.as_str();
    if step.starts_with("program ") {
        let program = String::from_utf8_lossy(program);
        return match (code, failure.errno) {
            (127, 0 | libc::ENOENT) => format!("{program}: not found"),
            _ => format!("{program}: cannot be executed: {reason}"),
        };
    }
    if let Some(limit) = Limit::of_step(step) {
        return limits::not_enforceable(limit).0;
    }
    if reason.is_empty() { step.to_owned() } else { format!("{step}: {reason}") }
}

/// The same as a refusal.
pub fn problem_of(record: &ExitRecord, spec: &Spec) -> Option<Problem> {
    let Outcome::NotStarted { code, failure } = &record.outcome else { return None };
    if let Some(limit) = Limit::of_step(&failure.step) {
        let (met, way_out) = limits::not_enforceable(limit);
        return Some(Problem::new(Reason::Host, met).hint(way_out));
    }
    if failure.step == CLOSE_ABSTRACT {
        let reason = Errno::from_raw(failure.errno).desc();
        let message = format!("network host: abstract sockets of the host cannot be closed to a worker here: {reason}");
        return Some(Problem::new(Reason::Host, message).hint(
            "that takes Landlock of ABI 6 (Linux 6.12 or later, with landlock among its security modules); network bridge works without",
        ));
    }
    if failure.step == TUN {
        let message = format!("network tap: /dev/net/tun cannot be used: {}", Errno::from_raw(failure.errno).desc());
        return Some(Problem::new(Reason::Host, message).hint(
            "root loads it with `modprobe tun` and lets users open it (mode 0666, as udev has it); network bridge works without",
        ));
    }
    let named_program = failure.step.starts_with("program ");
    let (reason, hint) = match code {
        127 => (
            Reason::NotFound,
            "paths are those inside the worker: the host's programs, its own /tmp and /run, and volumes",
        ),
        126 if named_program => (Reason::CannotExecute, "give a program that the owner may execute"),
        126 => (Reason::CannotExecute, "give a path that the owner may use"),
        _ if matches!(failure.errno, libc::ENOSPC | libc::EDQUOT) && !failure.step.starts_with("clone") => {
            (Reason::NoSpace, "free some space, or raise the limit that is met")
        }
        _ => (Reason::Host, "`holdfast doctor` says what this host lacks"),
    };
    Some(Problem::new(reason, why(record, spec)).hint(hint))
}

/// When a record says nothing better.
pub fn ended_at(record: &ExitRecord) -> crate::worker::Timestamp {
    if record.finished_at_ns > 0 { crate::worker::Timestamp(record.finished_at_ns) } else { now() }
}
