//! Refusals and failures on the wire: a typed reason, a sentence, a next step.

use prost::Message;
use tonic::{Code, Status};

#[allow(missing_docs)]
mod wire {
    tonic::include_proto!("holdfast.problem.v1");
}
pub use wire::{Problem, Reason};

impl Problem {
    /// A problem with a reason and what was met; [`Problem::hint`] adds the way out.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into(), hint: String::new() }
    }

    /// Adds what would work, or the next thing to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Reads the problem that a status carries; a status of another origin becomes one by its code.
    pub fn from_status(status: &Status) -> Self {
        if !status.details().is_empty()
            && let Ok(problem) = Self::decode(status.details())
        {
            return problem;
        }
        let reason = match status.code() {
            Code::Unavailable | Code::Cancelled => Reason::Unavailable,
            Code::DeadlineExceeded => Reason::Deadline,
            Code::InvalidArgument | Code::OutOfRange => Reason::Invalid,
            Code::NotFound => Reason::NoSuchWorker,
            Code::PermissionDenied | Code::Unauthenticated => Reason::NotYours,
            Code::ResourceExhausted => Reason::Quota,
            _ => Reason::Internal,
        };
        Self::new(reason, status.message())
    }
}

impl From<Problem> for Status {
    /// The one place where a reason becomes a gRPC code.
    fn from(problem: Problem) -> Self {
        let code = match problem.reason() {
            Reason::Unspecified | Reason::Internal => Code::Internal,
            Reason::Invalid => Code::InvalidArgument,
            Reason::NoSuchWorker | Reason::NotFound => Code::NotFound,
            Reason::NameTaken => Code::AlreadyExists,
            Reason::WrongPhase | Reason::StaleEpoch | Reason::Host | Reason::CannotExecute => Code::FailedPrecondition,
            Reason::Rules | Reason::NotYours => Code::PermissionDenied,
            Reason::Quota | Reason::NoSpace => Code::ResourceExhausted,
            Reason::PortInUse => Code::Aborted,
            Reason::Unavailable => Code::Unavailable,
            Reason::Deadline => Code::DeadlineExceeded,
            Reason::CursorGone => Code::OutOfRange,
        };
        let details = problem.encode_to_vec();
        Status::with_details(code, problem.message, details.into())
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        if !self.hint.is_empty() {
            write!(f, " ({})", self.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_survives_the_wire() {
        let problem = Problem::new(Reason::PortInUse, "port 8080 is taken").hint("choose another");
        let status: Status = problem.clone().into();
        assert_eq!(status.code(), Code::Aborted);
        assert_eq!(Problem::from_status(&status), problem);
    }

    #[test]
    fn a_foreign_status_keeps_its_text() {
        let problem = Problem::from_status(&Status::unavailable("gone"));
        assert_eq!((problem.reason(), problem.message.as_str()), (Reason::Unavailable, "gone"));
    }
}
