//! What the owner wants a worker to be, parsed into a type that cannot be wrong. Pure.

use super::cage::{self, Cage};
use super::limits::{LimitError, limits};
pub use super::network::Network;
use super::network::{Lan, lan, network};
use super::query::{self, MarkError};
use holdfast_launcher::limits::Limits;
use holdfast_proto::daemon as wire;
use holdfast_proto::restart::{PolicyError, RestartPolicy};
use holdfast_proto::words::{WordError, WorkerName};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

/// Grace of a stop where the spec has none.
pub const GRACE_DEFAULT: Duration = Duration::from_secs(10);
/// Longest grace: a day.
pub const GRACE_SECS_MAX: u32 = 24 * 60 * 60;
/// Cap of kept output where the spec has none.
pub const LOG_BYTES_DEFAULT: u64 = 100 * 1024 * 1024;
/// Files that it is cut into where the spec has none.
pub const LOG_FILES_DEFAULT: u32 = 10;
/// Most files.
pub const LOG_FILES_MAX: u32 = 1000;
/// Smallest share of the cap for one file.
pub const LOG_FILE_BYTES_MIN: u64 = 4096;
/// Largest cap: 1 TiB.
pub const LOG_BYTES_MAX: u64 = 1 << 40;
/// Most published ports of one worker.
pub const PUBLISH_MAX: usize = 256;
/// Most volumes of one worker.
pub const VOLUMES_MAX: usize = 256;
/// Most bytes of program, arguments and environment together; the orders carry 1 MiB in all.
pub const WORDS_BYTES_MAX: usize = 900 * 1024;
/// Longest path (PATH_MAX of limits.h, without the NUL).
const PATH_BYTES_MAX: usize = 4095;
const SIGTERM: u8 = 15;
/// Last of the standard signals (signal(7)).
const SIGNAL_MAX: u32 = 31;

/// Why a spec was refused: which rule, what was given, what would work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// See [`LimitError`].
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// There is no spec in the request.
    #[error("the request holds no worker")]
    Missing,
    /// See [`WordError`].
    #[error(transparent)]
    Name(#[from] WordError),
    /// See [`PolicyError`].
    #[error(transparent)]
    Restart(#[from] PolicyError),
    /// Nothing to run.
    #[error("no command: give a program and its arguments, as `holdfast run -- sleep 60`")]
    NoCommand,
    /// A word that Linux cannot pass on.
    #[error("{0} holds a NUL byte; no argument, variable or path can")]
    Nul(&'static str),
    /// Too much for one launch.
    #[error("command and environment take {0} bytes; at most {WORDS_BYTES_MAX} are allowed")]
    TooLarge(usize),
    /// Not one of ours.
    #[error("unknown network {0:?}: use bridge, none, host, tap, macvlan:PARENT, or the name of a network of yours")]
    Network(String),
    /// Not KEY=VALUE.
    #[error("bad variable {0:?}: use KEY=VALUE with a KEY that is not empty")]
    Variable(String),
    /// Not absolute, or with `..`.
    #[error("bad {what} {path:?}: use an absolute path without `..`, at most {PATH_BYTES_MAX} bytes")]
    Path {
        /// Which one.
        what: &'static str,
        /// As given.
        path: String,
    },
    /// A volume over the worker's whole root.
    #[error("a volume cannot replace the worker's root `/`: choose a directory below it")]
    VolumeOverRoot,
    /// More than a limit.
    #[error("{given} {what}; at most {max} are allowed")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many were given.
        given: usize,
        /// How many may be.
        max: usize,
    },
    /// Neither tcp nor udp.
    #[error("unknown protocol {0:?} of a published port: use tcp or udp")]
    Protocol(String),
    /// Not a port.
    #[error("bad {side} port {port}: use {least} to 65535")]
    Port {
        /// `host` or `worker`.
        side: &'static str,
        /// As given.
        port: u32,
        /// 0 where the helper may choose, else 1.
        least: u32,
    },
    /// Not an address.
    #[error("bad address {0:?} of a published port: use an IPv4 or IPv6 address of this host, or none for all")]
    Address(String),
    /// The same host port twice.
    #[error("host port {0} is published twice")]
    PortTwice(u16),
    /// Nothing to publish on.
    #[error("ports cannot be published on network none: use --net bridge")]
    PublishOnNone,
    /// Nobody on a wire gives a worker its address.
    #[error("network macvlan needs --ip ADDRESS/PREFIX: one that is free on that network, as 192.0.2.10/24")]
    NoLanAddress,
    /// Only on a wire is it the owner's to choose.
    #[error("--ip and --gateway are for network macvlan:PARENT: on network {0} they are not the owner's to choose")]
    LanAddress(String),
    /// A worker is a host of its own there.
    #[error("ports are not published on network macvlan: the worker listens on its own address; leave --publish out")]
    PublishOnLan,
    /// Nothing in between to publish by.
    #[error(
        "ports are not published on network host: the worker listens on the host's own addresses; leave --publish out"
    )]
    PublishOnHost,
    /// Neither the owner nor root.
    #[error(
        "unknown user {0:?}: a worker is its owner, or `root` (the owner's numbers show as 0); there are no others"
    )]
    User(String),
    /// Not the one user that a worker has.
    #[error(
        "no user {asked:?} in this worker: it has {name} ({uid}) alone, for one id of yours is all that it was given; `run --user root` shows that as root"
    )]
    OtherUser {
        /// As given.
        asked: String,
        /// The one that it has.
        name: String,
        /// Its number.
        uid: u32,
    },
    /// Not a signal.
    #[error("bad signal {0}: use a standard signal, 1 to {SIGNAL_MAX}")]
    Signal(u32),
    /// Too long a grace.
    #[error("stop timeout of {0} s is too long: use at most {GRACE_SECS_MAX}")]
    Grace(u32),
    /// See [`MarkError`].
    #[error(transparent)]
    Mark(#[from] MarkError),
    /// A log that cannot be kept so.
    #[error(
        "bad log limits, {bytes} bytes in {files} files: use 1 to {LOG_FILES_MAX} files of {LOG_FILE_BYTES_MIN} bytes or more, 1 TiB at most"
    )]
    Log {
        /// The cap.
        bytes: u64,
        /// The files.
        files: u32,
    },
}

/// Transport of a published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A host port that leads to a worker's port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// Transport.
    pub protocol: Protocol,
    /// 0: the helper chooses one.
    pub host: u16,
    /// Never 0.
    pub worker: u16,
    /// `None`: every address of the host.
    pub address: Option<IpAddr>,
}

/// A host file or directory inside the worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Absolute, on the host.
    pub source: PathBuf,
    /// Absolute, inside; never `/`.
    pub target: PathBuf,
    /// Mounted read-only.
    pub read_only: bool,
}

/// A worker as its owner wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Unique among the owner's workers; also its host name.
    pub name: WorkerName,
    /// Program and arguments: at least one word, no NUL.
    pub command: Vec<Vec<u8>>,
    /// What it is attached to.
    pub network: Network,
    /// On a wire of the host's.
    pub lan: Lan,
    /// Empty on network none.
    pub publish: Vec<Publish>,
    /// KEY=VALUE each, no NUL.
    pub env: Vec<Vec<u8>>,
    /// Absolute, inside.
    pub workdir: PathBuf,
    /// In the order given.
    pub volumes: Vec<Volume>,
    /// 1 to 31.
    pub stop_signal: u8,
    /// Between the stop signal and SIGKILL.
    pub grace: Duration,
    /// Cap of kept output.
    pub log_bytes_max: u64,
    /// Files that it is cut into, at least 1.
    pub log_files_max: u32,
    /// Forgotten with its output once it ended for good and its watcher saw it.
    pub remove_on_exit: bool,
    /// For whoever drives the daemon.
    pub labels: BTreeMap<String, String>,
    /// At most one worker has it; empty: none.
    pub external_id: String,
    /// When it starts again by itself.
    pub restart: RestartPolicy,
    /// What it may use at most.
    pub limits: Limits,
    /// Where it differs from the default one.
    pub cage: Cage,
}

impl Protocol {
    /// The word of the contract.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl TryFrom<&wire::WorkerSpec> for Spec {
    type Error = SpecError;

    fn try_from(spec: &wire::WorkerSpec) -> Result<Self, SpecError> {
        let network = network(&spec.network)?;
        let publish = publish(&spec.publish, network)?;
        if spec.volumes.len() > VOLUMES_MAX {
            return Err(SpecError::TooMany { what: "volumes", given: spec.volumes.len(), max: VOLUMES_MAX });
        }
        let (log_bytes_max, log_files_max) = log(spec.log_bytes_max, spec.log_files_max)?;
        query::labels(&spec.labels)?;
        query::external_id(&spec.external_id)?;
        Ok(Self {
            name: spec.name.parse()?,
            command: command(&spec.command, &spec.env)?,
            network,
            lan: lan(&spec.address, &spec.gateway, network)?,
            publish,
            env: spec.env.iter().map(|word| variable(word)).collect::<Result<_, _>>()?,
            workdir: if spec.workdir.is_empty() { "/".into() } else { path("workdir", &spec.workdir)? },
            volumes: spec.volumes.iter().map(cage::volume).collect::<Result<_, _>>()?,
            stop_signal: if spec.stop_signal == 0 { SIGTERM } else { signal(spec.stop_signal)? },
            grace: spec.stop_timeout_secs.map_or(Ok(GRACE_DEFAULT), grace)?,
            log_bytes_max,
            log_files_max,
            remove_on_exit: spec.remove_on_exit,
            labels: spec.labels.clone().into_iter().collect(),
            external_id: spec.external_id.clone(),
            limits: limits(spec.limits.as_ref())?,
            restart: if spec.restart.is_empty() { RestartPolicy::No } else { spec.restart.parse()? },
            cage: spec.cage.as_ref().map_or(Ok(Cage::default()), cage::cage)?,
        })
    }
}

/// A standard signal's number.
pub fn signal(number: u32) -> Result<u8, SpecError> {
    match u8::try_from(number) {
        Ok(signal) if (1..=SIGNAL_MAX).contains(&number) => Ok(signal),
        _ => Err(SpecError::Signal(number)),
    }
}

/// A grace in whole seconds.
pub fn grace(secs: u32) -> Result<Duration, SpecError> {
    if secs > GRACE_SECS_MAX { Err(SpecError::Grace(secs)) } else { Ok(Duration::from_secs(secs.into())) }
}

/// Program and arguments, in a size that they and the variables can be handed on in.
pub fn command(command: &[Vec<u8>], env: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, SpecError> {
    if command.first().is_none_or(Vec::is_empty) {
        return Err(SpecError::NoCommand);
    }
    if command.iter().any(|word| word.contains(&0)) {
        return Err(SpecError::Nul("the command"));
    }
    let bytes: usize = command.iter().chain(env).map(|word| word.len() + 1).sum();
    if bytes > WORDS_BYTES_MAX { Err(SpecError::TooLarge(bytes)) } else { Ok(command.to_vec()) }
}

/// KEY=VALUE without NUL.
pub fn variable(word: &[u8]) -> Result<Vec<u8>, SpecError> {
    if word.contains(&0) {
        return Err(SpecError::Nul("a variable"));
    }
    match word.iter().position(|&byte| byte == b'=') {
        Some(1..) => Ok(word.to_vec()),
        Some(0) | None => Err(SpecError::Variable(shown(word))),
    }
}

/// An absolute path without `..` and NUL.
pub fn path(what: &'static str, bytes: &[u8]) -> Result<PathBuf, SpecError> {
    use std::os::unix::ffi::OsStrExt;
    if bytes.contains(&0) {
        return Err(SpecError::Nul("a path"));
    }
    let path = Path::new(std::ffi::OsStr::from_bytes(bytes));
    let plain = !path.components().any(|part| part == Component::ParentDir);
    if path.is_absolute() && plain && bytes.len() <= PATH_BYTES_MAX {
        Ok(path.components().collect())
    } else {
        Err(SpecError::Path { what, path: shown(bytes) })
    }
}

fn publish(ports: &[wire::Publish], network: Network) -> Result<Vec<Publish>, SpecError> {
    if ports.len() > PUBLISH_MAX {
        return Err(SpecError::TooMany { what: "published ports", given: ports.len(), max: PUBLISH_MAX });
    }
    match network {
        Network::None if !ports.is_empty() => return Err(SpecError::PublishOnNone),
        Network::Host if !ports.is_empty() => return Err(SpecError::PublishOnHost),
        Network::Macvlan(_) if !ports.is_empty() => return Err(SpecError::PublishOnLan),
        _ => {}
    }
    let mut parsed: Vec<Publish> = Vec::with_capacity(ports.len());
    for given in ports {
        let port = one_publish(given)?;
        let clashes = |other: &Publish| {
            let same_address = other.address.is_none() || port.address.is_none() || other.address == port.address;
            other.protocol == port.protocol && other.host == port.host && port.host != 0 && same_address
        };
        if parsed.iter().any(clashes) {
            return Err(SpecError::PortTwice(port.host));
        }
        parsed.push(port);
    }
    Ok(parsed)
}

fn one_publish(port: &wire::Publish) -> Result<Publish, SpecError> {
    let protocol = match port.proto.as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        other => return Err(SpecError::Protocol(shown(other.as_bytes()))),
    };
    let number = |side, port: u32, least| match u16::try_from(port) {
        Ok(number) if port >= least => Ok(number),
        _ => Err(SpecError::Port { side, port, least }),
    };
    let address = match port.address.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| SpecError::Address(shown(text.as_bytes())))?),
    };
    Ok(Publish { protocol, host: number("host", port.host, 0)?, worker: number("worker", port.worker, 1)?, address })
}

fn log(bytes: u64, files: u32) -> Result<(u64, u32), SpecError> {
    let bytes = if bytes == 0 { LOG_BYTES_DEFAULT } else { bytes };
    let files = if files == 0 { LOG_FILES_DEFAULT } else { files };
    let fits = files <= LOG_FILES_MAX && bytes <= LOG_BYTES_MAX && bytes / u64::from(files) >= LOG_FILE_BYTES_MIN;
    if fits { Ok((bytes, files)) } else { Err(SpecError::Log { bytes, files }) }
}

/// What was given, short enough for a message.
pub fn shown(bytes: &[u8]) -> String {
    const CHARS_MAX: usize = 64;
    let text = String::from_utf8_lossy(bytes);
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
