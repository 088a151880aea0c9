//! Why nothing was updated: one name each, as the release format has them.

use crate::exit::{self, Stop};
use crate::install::disk::PlaceError;
use holdfast_release::Refusal;

/// Something ended an update before anything changed.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// What was offered, or what root configured, is refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A source gave less than a file in time.
    #[error("too-slow: {0}")]
    TooSlow(String),
    /// A source gave more than a file may have.
    #[error("too-large: {0}")]
    TooLarge(String),
    /// A source does not have what was asked for.
    #[error("{0}: there is no such file")]
    NotThere(String),
    /// No source has the version that was asked for.
    #[error("no source has version {version}: {why}")]
    NoSuchVersion {
        /// What was asked for.
        version: String,
        /// What the sources said.
        why: String,
    },
    /// A source does not answer, or not as it should.
    #[error("{0}")]
    Unreachable(String),
    /// The kernel refuses.
    #[error("{what}")]
    Disk {
        /// What was done.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The new release does not pass a try without rights.
    #[error("preflight-failed: {0}")]
    Preflight(String),
    /// The disk has no room for two of it.
    #[error("no-space: {wanted} bytes are needed on the file system of {at}, {free} are free")]
    NoSpace {
        /// Where.
        at: String,
        /// Bytes needed.
        wanted: u64,
        /// Bytes free.
        free: u64,
    },
    /// Another one is under way.
    #[error("{0}")]
    Locked(String),
    /// Not root.
    #[error(
        "no-root: `holdfast update` needs root; run it with sudo (nothing has changed). `update --check` works as anyone"
    )]
    NoRoot,
}

impl UpdateError {
    /// The name in `--json` and tests; none where nothing was refused.
    pub fn name(&self) -> Option<&'static str> {
        match self {
            Self::Refused(refusal) => Some(refusal.name()),
            Self::TooSlow(_) => Some("too-slow"),
            Self::TooLarge(_) => Some("too-large"),
            Self::Preflight(_) => Some("preflight-failed"),
            Self::NoSpace { .. } => Some("no-space"),
            Self::NoRoot => Some("no-root"),
            Self::Locked(_) => Some("locked"),
            Self::NotThere(_) | Self::NoSuchVersion { .. } | Self::Unreachable(_) | Self::Disk { .. } => None,
        }
    }

    /// The contract's exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Refused(_) | Self::NoRoot | Self::Locked(_) | Self::Preflight(_) | Self::TooLarge(_) => exit::REFUSED,
            Self::NoSuchVersion { .. } => exit::NO_SUCH,
            Self::TooSlow(_) | Self::NotThere(_) | Self::Unreachable(_) | Self::NoSpace { .. } | Self::Disk { .. } => {
                exit::FAILED
            }
        }
    }
}

impl From<PlaceError> for UpdateError {
    fn from(error: PlaceError) -> Self {
        match error {
            PlaceError::Source(refusal) => Self::Refused(refusal),
            PlaceError::Io { path, source } => Self::Disk { what: path.display().to_string(), source },
        }
    }
}

impl From<UpdateError> for Stop {
    fn from(error: UpdateError) -> Self {
        let code = error.code();
        Self { code, text: format!("{:#}", anyhow::Error::from(error)) }
    }
}
