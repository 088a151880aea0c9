//! Why a folder is no release: one name each, as release format 1 lists them.

use crate::Digest;

/// A refusal. Nothing of the folder may be used after one.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// `SHA256SUMS` does not keep its grammar.
    #[error("bad-sums-grammar: SHA256SUMS line {line}: {what}")]
    BadSumsGrammar {
        /// Line, from 1; 0 for the file as a whole.
        line: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// `release.json` cannot be read as what it should be.
    #[error("bad-encoding: release.json: {0}")]
    BadEncoding(String),
    /// A file that has to be there is not, or is no regular file.
    #[error("missing-file: {name}: {why}")]
    MissingFile {
        /// The file.
        name: String,
        /// Where it is missing.
        why: &'static str,
    },
    /// A file's bytes are not those that `SHA256SUMS` names.
    #[error("wrong-digest: {name}: SHA256SUMS says {}…, the file has {}…", .wanted.short(), .found.short())]
    WrongDigest {
        /// The file.
        name: String,
        /// What `SHA256SUMS` says.
        wanted: Digest,
        /// What the bytes give.
        found: Digest,
    },
    /// A file is not as long as `release.json` says.
    #[error("wrong-size: {name}: release.json says {wanted} bytes, the file has {found}")]
    WrongSize {
        /// The file.
        name: String,
        /// Bytes by `release.json`.
        wanted: u64,
        /// Bytes found.
        found: u64,
    },
    /// A file is above its cap.
    #[error("too-large: {name}: {found} bytes, at most {most} are allowed")]
    TooLarge {
        /// The file.
        name: String,
        /// Bytes found or announced.
        found: u64,
        /// The cap.
        most: u64,
    },
    /// Another product's release, or another format.
    #[error("wrong-product: release.json: {what} is {found:?}, this program takes {wanted:?}")]
    WrongProduct {
        /// Which field.
        what: &'static str,
        /// What it says.
        found: String,
        /// What it has to say.
        wanted: &'static str,
    },
    /// Not for this machine.
    #[error("wrong-target: {0}")]
    WrongTarget(String),
    /// A file's name, mode and role do not go together.
    #[error("wrong-role: {name}: {why}")]
    WrongRole {
        /// The file.
        name: String,
        /// What does not fit.
        why: String,
    },
    /// The folder cannot be read.
    #[error("{what}")]
    Io {
        /// What was read.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

impl Refusal {
    /// The name in messages, `--json` and tests.
    pub fn name(&self) -> &'static str {
        match self {
            Self::BadSumsGrammar { .. } => "bad-sums-grammar",
            Self::BadEncoding(_) => "bad-encoding",
            Self::MissingFile { .. } => "missing-file",
            Self::WrongDigest { .. } => "wrong-digest",
            Self::WrongSize { .. } => "wrong-size",
            Self::TooLarge { .. } => "too-large",
            Self::WrongProduct { .. } => "wrong-product",
            Self::WrongTarget(_) => "wrong-target",
            Self::WrongRole { .. } => "wrong-role",
            Self::Io { .. } => "io",
        }
    }
}
