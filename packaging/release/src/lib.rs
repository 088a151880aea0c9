//! Release format 1: whether a folder is a release, and whether a host may take one that a stranger offers.
//!
//! Never does: fetch, install, run what it checks, trust a name that `SHA256SUMS` does not hold, or ask a clock.

#![forbid(unsafe_code)]

mod digest;
mod elf;
mod floor;
mod folder;
mod key;
mod keyring;
mod refusal;
mod release;
mod sums;
mod verified;
mod verify;

pub use digest::{Digest, Hasher};
pub use floor::Floor;
pub use folder::{Folder, ReleaseId};
pub use key::{KeyId, PrivateKey, PublicKey, SIGNATURE_BYTES_MAX, Signature};
pub use keyring::{KEYRING_BYTES_MAX, KEYRING_NAME, KeyEntry, Keyring, KeyringFile, ReleaseKey, Roots};
pub use refusal::Refusal;
pub use release::{Protocols, Release, ReleaseFile, Role, SchemaRange, ShimProtocol, Target};
pub use sums::{FileName, Sums};
pub use verified::Verified;
pub use verify::{Host, Offered, SignedRelease, Warning, verify};

/// Most bytes of `SHA256SUMS`.
pub const SUMS_BYTES_MAX: u64 = 64 * 1024;
/// Most bytes of `release.json`.
pub const RELEASE_BYTES_MAX: u64 = 64 * 1024;
/// Most bytes of one file of a release.
pub const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Name of the digests' file.
pub const SUMS_NAME: &str = "SHA256SUMS";
/// Name of the digests' signature.
pub const SIGNATURE_NAME: &str = "SHA256SUMS.sig";
/// Name of the description.
pub const RELEASE_NAME: &str = "release.json";

/// The five programs of every release, with the role that each name has.
pub const PROGRAMS: [(&str, Role); 5] = [
    ("holdfast", Role::Cli),
    ("holdfastd", Role::Daemon),
    ("holdfast-helper", Role::Helper),
    ("holdfast-launcher", Role::Launcher),
    ("holdfast-shim", Role::Shim),
];
