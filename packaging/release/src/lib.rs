//! Release folders: what a release is, and whether a folder is one (release format 1).
//!
//! Never does: fetch, install, run what it checks, or trust a name that `SHA256SUMS` does not hold.

#![forbid(unsafe_code)]

mod digest;
mod elf;
mod folder;
mod refusal;
mod release;
mod sums;

pub use digest::{Digest, Hasher};
pub use folder::{Folder, ReleaseId};
pub use refusal::Refusal;
pub use release::{Protocols, Release, ReleaseFile, Role, SchemaRange, ShimProtocol, Target};
pub use sums::{FileName, Sums};

/// Most bytes of `SHA256SUMS`.
pub const SUMS_BYTES_MAX: u64 = 64 * 1024;
/// Most bytes of `release.json`.
pub const RELEASE_BYTES_MAX: u64 = 64 * 1024;
/// Most bytes of one file of a release.
pub const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Name of the digests' file.
pub const SUMS_NAME: &str = "SHA256SUMS";
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
