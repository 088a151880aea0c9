//! The words, paths and gRPC contracts that Holdfast's programs share.
//!
//! Never does: open a file, read a clock or the environment, decide anything about a worker.
//! Each feature is one role in one contract; without features only [`words`], [`restart`], [`layout`] and [`cgroups`] are here.

#![forbid(unsafe_code)]

pub mod cgroups;
pub mod key;
pub mod layout;
pub mod restart;
pub mod words;

/// The version of this build: the workspace's, or `HOLDFAST_BUILD_VERSION` at build time.
pub const VERSION: &str = env!("HOLDFAST_VERSION");

#[cfg(feature = "_codegen")]
pub mod problem;

/// The daemon's contract, generated from `schema/daemon.proto`.
#[cfg(feature = "_codegen")]
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod daemon {
    tonic::include_proto!("holdfast.daemon.v1");

    /// This contract and the one of problems, for the reflection service.
    #[cfg(feature = "daemon-server")]
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/daemon.fds"));
}

/// The helper's contract, generated from `schema/helper.proto`.
#[cfg(feature = "_codegen")]
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod helper {
    tonic::include_proto!("holdfast.helper.v1");
}

/// Most bytes of one message to the daemon or the helper, checked before it is decoded.
/// Orders take at most 1 MiB of it; the rest is for ports and names.
pub const MESSAGE_BYTES_MAX: usize = 2 * 1024 * 1024;
