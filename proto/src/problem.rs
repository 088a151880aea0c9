//! Refusals and failures on the wire: a typed reason, a sentence, a next step.

use prost::Message;
use tonic::{Code, Status};

#[allow(missing_docs)]
mod wire {
    tonic::include_proto!("holdfast.problem.v1");
}
pub use wire::{Problem, Reason};

/// Whose reasons they are, in an ErrorInfo.
pub const DOMAIN: &str = "holdfast";
const PROBLEM_TYPE: &str = "type.googleapis.com/holdfast.problem.v1.Problem";
const ERROR_INFO_TYPE: &str = "type.googleapis.com/google.rpc.ErrorInfo";

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
        if let Some(problem) = Self::carried(status) {
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

    fn carried(status: &Status) -> Option<Self> {
        let carrier = tonic_types::pb::Status::decode(status.details()).ok()?;
        let any = carrier.details.into_iter().find(|any| any.type_url == PROBLEM_TYPE)?;
        Self::decode(any.value.as_slice()).ok()
    }

    /// As google.rpc.Status, which any client reads: the problem itself, and for those without its form an ErrorInfo.
    fn details(&self, code: Code) -> Vec<u8> {
        let name = self.reason().as_str_name();
        let metadata = [("hint", &self.hint)].into_iter().filter(|(_, text)| !text.is_empty());
        let info = tonic_types::pb::ErrorInfo {
            reason: name.strip_prefix("REASON_").unwrap_or(name).to_owned(),
            domain: DOMAIN.to_owned(),
            metadata: metadata.map(|(key, text)| (key.to_owned(), text.clone())).collect(),
        };
        let any = |type_url: &str, value| prost_types::Any { type_url: type_url.to_owned(), value };
        let details = vec![any(PROBLEM_TYPE, self.encode_to_vec()), any(ERROR_INFO_TYPE, info.encode_to_vec())];
        tonic_types::pb::Status { code: code.into(), message: self.message.clone(), details }.encode_to_vec()
    }
}

impl From<Problem> for Status {
    /// The one place where a reason becomes a gRPC code.
    fn from(problem: Problem) -> Self {
        let code = match problem.reason() {
            Reason::Unspecified | Reason::Internal => Code::Internal,
            Reason::Invalid => Code::InvalidArgument,
            Reason::NoSuchWorker | Reason::NoSuchNetwork | Reason::NotFound => Code::NotFound,
            Reason::NameTaken => Code::AlreadyExists,
            Reason::WrongPhase | Reason::NetworkInUse | Reason::StaleEpoch | Reason::Host | Reason::CannotExecute => {
                Code::FailedPrecondition
            }
            Reason::Rules | Reason::NotYours => Code::PermissionDenied,
            Reason::Quota | Reason::NoSpace => Code::ResourceExhausted,
            Reason::PortInUse => Code::Aborted,
            Reason::Unavailable | Reason::Leaving => Code::Unavailable,
            Reason::Deadline => Code::DeadlineExceeded,
            Reason::CursorGone => Code::OutOfRange,
        };
        let details = problem.details(code);
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
    fn any_client_reads_the_reason_and_the_hint() {
        let status: Status = Problem::new(Reason::NoSuchWorker, "there is no worker").hint("look").into();
        let carrier = tonic_types::pb::Status::decode(status.details()).unwrap();
        assert_eq!((carrier.code, carrier.message.as_str()), (Code::NotFound as i32, "there is no worker"));
        let info = tonic_types::pb::ErrorInfo::decode(carrier.details[1].value.as_slice()).unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("NO_SUCH_WORKER", "holdfast"));
        assert_eq!(info.metadata["hint"], "look");
    }

    #[test]
    fn a_foreign_status_keeps_its_text() {
        let problem = Problem::from_status(&Status::unavailable("gone"));
        assert_eq!((problem.reason(), problem.message.as_str()), (Reason::Unavailable, "gone"));
    }
}
