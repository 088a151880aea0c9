//! When a worker that ended starts again by itself: the word, as people write it and as it is stored.

use std::fmt;
use std::str::FromStr;

/// Why a policy was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown restart policy {0:?}: use no, on-failure, on-failure:N (N from 1), always or unless-stopped")]
pub struct PolicyError(String);

/// When a worker that ended by itself starts again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Never.
    No,
    /// After an end other than code 0, at most so many times in a row where given.
    OnFailure(Option<u32>),
    /// After every end, and whenever the host has booted.
    Always,
    /// As `Always`, but a worker that its owner stopped stays so when the host has booted.
    UnlessStopped,
}

impl FromStr for RestartPolicy {
    type Err = PolicyError;
    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let refused = || PolicyError(text.chars().take(64).collect());
        match text {
            "no" => Ok(Self::No),
            "on-failure" => Ok(Self::OnFailure(None)),
            "always" => Ok(Self::Always),
            "unless-stopped" => Ok(Self::UnlessStopped),
            _ => {
                let digits = text.strip_prefix("on-failure:").ok_or_else(refused)?;
                // Neither "+3" nor "": what is stored reads back as it was written.
                let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
                let most = digits.parse().ok().filter(|most| plain && *most > 0).ok_or_else(refused)?;
                Ok(Self::OnFailure(Some(most)))
            }
        }
    }
}

impl fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => f.write_str("no"),
            Self::OnFailure(None) => f.write_str("on-failure"),
            Self::OnFailure(Some(most)) => write!(f, "on-failure:{most}"),
            Self::Always => f.write_str("always"),
            Self::UnlessStopped => f.write_str("unless-stopped"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_reads_back_as_it_is_written() {
        for text in ["no", "on-failure", "on-failure:1", "on-failure:4294967295", "always", "unless-stopped"] {
            assert_eq!(text.parse::<RestartPolicy>().map(|policy| policy.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn what_is_no_policy_is_refused_with_those_that_are() {
        for bad in ["", "banana", "No", "on-failure:", "on-failure:0", "on-failure:+3", "on-failure:-1", "always:2"] {
            let error = bad.parse::<RestartPolicy>().unwrap_err();
            assert!(error.to_string().contains("unless-stopped"), "{error}");
        }
        assert!("x".repeat(10_000).parse::<RestartPolicy>().unwrap_err().to_string().len() < 300);
    }
}
