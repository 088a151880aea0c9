//! Why a folder is no release: one name each, as release format 1 lists them.

use crate::{Digest, KeyId};
use jiff::Timestamp;

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
    /// A file cannot be read as what it should be.
    #[error("bad-encoding: {name}: {why}")]
    BadEncoding {
        /// The file, or what was read from it.
        name: String,
        /// What is wrong with it.
        why: String,
    },
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
    #[error("wrong-product: {name}: {what} is {found:?}, this program takes {wanted:?}")]
    WrongProduct {
        /// Which file.
        name: &'static str,
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
    /// Nobody signed it.
    #[error("no-signature: {name} comes without a signature")]
    NoSignature {
        /// The file that has to be signed.
        name: String,
    },
    /// No key of the keyring made this signature over these bytes.
    #[error(
        "bad-signature: SHA256SUMS.sig is of no key in the keyring of epoch {epoch} ({}): other bytes were signed, or \
         another or a revoked key was used", list(.keys)
    )]
    BadSignature {
        /// The keyring's epoch.
        epoch: u64,
        /// Its keys.
        keys: Vec<KeyId>,
    },
    /// Signed by a key that this host was never told to trust.
    #[error("unknown-key: {name} is signed by {id}, which is no root key of this host (/etc/holdfast/trust)")]
    UnknownKey {
        /// The signed file.
        name: String,
        /// The key as the source names it.
        id: KeyId,
    },
    /// The key is right, its time is not.
    #[error("key-not-valid-now: the key {id} is good from {not_before} to {not_after}, and it is {clock} here")]
    KeyNotValidNow {
        /// The key.
        id: KeyId,
        /// From then on.
        not_before: Timestamp,
        /// Until then.
        not_after: Timestamp,
        /// The time that was judged by.
        clock: Timestamp,
    },
    /// Too few root keys signed the keyring.
    #[error("keyring-threshold: {good} root keys signed keyring.json, {wanted} have to{}", more(.why))]
    KeyringThreshold {
        /// Good signatures.
        good: usize,
        /// Signatures needed.
        wanted: usize,
        /// What is wrong with the others.
        why: String,
    },
    /// An older keyring than one that is known to exist.
    #[error("keyring-rollback: the keyring has epoch {epoch}, there is one of epoch {seen}")]
    KeyringRollback {
        /// The epoch offered.
        epoch: u64,
        /// The epoch that was seen, or that the release was made with.
        seen: u64,
    },
    /// For hosts that follow another channel.
    #[error("wrong-channel: it is of the channel {found:?}, this host follows {wanted:?}")]
    WrongChannel {
        /// Its channel.
        found: String,
        /// The host's.
        wanted: String,
    },
    /// Not the version that was asked for, or that it says it is.
    #[error("version-mismatch: {name} says {found}, wanted is {wanted}")]
    VersionMismatch {
        /// Who says so.
        name: String,
        /// What it says.
        found: String,
        /// What it has to say.
        wanted: String,
    },
    /// Older than what this host has committed.
    #[error("below-floor: its seq is {seq}, this host has committed {floor}: only the previous release is a way back")]
    BelowFloor {
        /// Its order.
        seq: u64,
        /// The order committed.
        floor: u64,
    },
    /// A committed release has forbidden it for good, or it forbids itself.
    #[error("below-min-seq: its seq is {seq}, nothing below {least} may be installed any more")]
    BelowMinSeq {
        /// Its order.
        seq: u64,
        /// The lowest allowed.
        least: u64,
    },
    /// So far ahead that few orders would be left above it.
    #[error("seq-jump: its seq is {seq}, at most {most} can follow here: a larger step takes a newer keyring")]
    SeqJump {
        /// Its order.
        seq: u64,
        /// The highest allowed.
        most: u64,
    },
    /// Made later than now.
    #[error("from-the-future: {name} was made at {created}, and it is {clock} here: is the clock right?")]
    FromTheFuture {
        /// The file.
        name: String,
        /// When it was made, it says.
        created: Timestamp,
        /// The time that was judged by.
        clock: Timestamp,
    },
    /// This host was given no root key.
    #[error("no-trust: no trust configured: {0}")]
    NoTrust(&'static str),
    /// What root configured is not safe to follow.
    #[error("unsafe-config: {0}")]
    UnsafeConfig(String),
    /// It cannot go on from the state that is there.
    #[error("not-migratable: {0}")]
    NotMigratable(String),
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
            Self::BadEncoding { .. } => "bad-encoding",
            Self::MissingFile { .. } => "missing-file",
            Self::WrongDigest { .. } => "wrong-digest",
            Self::WrongSize { .. } => "wrong-size",
            Self::TooLarge { .. } => "too-large",
            Self::WrongProduct { .. } => "wrong-product",
            Self::WrongTarget(_) => "wrong-target",
            Self::WrongRole { .. } => "wrong-role",
            Self::NoSignature { .. } => "no-signature",
            Self::BadSignature { .. } => "bad-signature",
            Self::UnknownKey { .. } => "unknown-key",
            Self::KeyNotValidNow { .. } => "key-not-valid-now",
            Self::KeyringThreshold { .. } => "keyring-threshold",
            Self::KeyringRollback { .. } => "keyring-rollback",
            Self::WrongChannel { .. } => "wrong-channel",
            Self::VersionMismatch { .. } => "version-mismatch",
            Self::BelowFloor { .. } => "below-floor",
            Self::BelowMinSeq { .. } => "below-min-seq",
            Self::SeqJump { .. } => "seq-jump",
            Self::FromTheFuture { .. } => "from-the-future",
            Self::NoTrust(_) => "no-trust",
            Self::UnsafeConfig(_) => "unsafe-config",
            Self::NotMigratable(_) => "not-migratable",
            Self::Io { .. } => "io",
        }
    }

    pub(crate) fn bad_encoding(name: &str, why: impl ToString) -> Self {
        Self::BadEncoding { name: name.to_owned(), why: why.to_string() }
    }
}

fn list(keys: &[KeyId]) -> String {
    let keys: Vec<_> = keys.iter().map(KeyId::to_string).collect();
    keys.join(", ")
}

fn more(why: &str) -> String {
    if why.is_empty() { String::new() } else { format!(": {why}") }
}
