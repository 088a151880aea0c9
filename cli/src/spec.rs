//! From what was typed to what the daemon is asked for. Pure: environment, files and directory come in as values.

use crate::args::run::RunArgs;
use crate::cage;
use clap::builder::TypedValueParser;
use holdfast_proto::daemon::{Publish, Volume, WorkerSpec};
use holdfast_proto::words::{Macvlan, NetworkName, WorkerName};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Highest signal number of Linux (signal(7)).
const SIGNAL_MAX: u32 = 64;

/// Most bytes of arguments and environment together: orders take at most 1 MiB, and other things are in them too.
const SPEC_BYTES_MAX: usize = 1_000_000;

/// What an option was refused for. The text says what was given and what would work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Not `[ADDR:]HOST:WORKER[/tcp|udp]`.
    #[error("{given:?} is not [ADDR:]HOST:WORKER[/tcp|udp]: {why} (as 8080:80 or 127.0.0.1:5353:53/udp)")]
    Publish {
        /// What was given.
        given: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Not `SRC:DST[:ro]`.
    #[error("{given:?} is not SRC:DST[:ro]: {why} (as ~/site:/srv:ro)")]
    Volume {
        /// What was given.
        given: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Neither a signal's name nor its number.
    #[error("{0:?} is no signal: use a name (TERM, SIGHUP) or a number from 1 to 64")]
    Signal(String),
    /// Not a size.
    #[error("{0:?} is no size: use a number with K, M or G, as 500K, 100M, 2G")]
    Size(String),
    /// A line of an environment file or an option that names no variable.
    #[error("{0:?} names no variable: use KEY=VALUE, or KEY to copy it from here")]
    Env(String),
    /// A label without a key.
    #[error("{0:?} is no label: use KEY=VALUE (as app=shop)")]
    Label(String),
    /// More than a worker's orders can carry.
    #[error("arguments and environment take {0} bytes: at most {SPEC_BYTES_MAX} fit; give less, or a file in a volume")]
    Large(usize),
}

/// What surrounds the command: taken once, so that everything after it is pure.
pub struct Surroundings<'a> {
    /// The directory that relative paths start from.
    pub directory: &'a Path,
    /// Looks a variable up.
    pub variable: &'a dyn Fn(&OsStr) -> Option<OsString>,
    /// The contents of `--env-file`, in order.
    pub env_files: Vec<Vec<u8>>,
}

/// Turns `run`'s arguments into the spec that the daemon is asked for.
///
/// # Errors
/// Where a variable has no name, or there is too much of it all.
pub fn worker_spec(args: &RunArgs, around: &Surroundings<'_>) -> Result<WorkerSpec, SpecError> {
    let mut env = environment(&args.env, around)?;
    if args.tty {
        env.extend(terminal_kind(&env, around));
    }
    let command: Vec<Vec<u8>> = args.command.iter().map(|word| word.as_bytes().to_vec()).collect();
    check_size(&command, &env)?;
    Ok(WorkerSpec {
        name: args.name.clone().unwrap_or_default(),
        command,
        network: args.net.clone(),
        address: args.ip.clone().unwrap_or_default(),
        gateway: args.gateway.map(|gateway| gateway.to_string()).unwrap_or_default(),
        publish: args.publish.clone(),
        env,
        workdir: args.workdir.as_deref().map(|dir| absolute(dir, around.directory)).unwrap_or_default(),
        volumes: args.volume.iter().map(|volume| from_directory(volume, around.directory)).collect(),
        stop_signal: args.stop_signal.unwrap_or(0),
        stop_timeout_secs: args.stop_timeout,
        log_bytes_max: args.log_size.unwrap_or(0),
        log_files_max: args.log_files.unwrap_or(0),
        remove_on_exit: args.rm,
        stdin: args.interactive,
        terminal: args.tty,
        labels: args.labels.iter().cloned().collect(),
        external_id: args.external_id.clone().unwrap_or_default(),
        limits: args.limits.message(),
        cage: cage::cage(args, around.directory),
        restart: args.restart.map(|policy| policy.to_string()).unwrap_or_default(),
    })
}

/// `TERM` from here, for a program that gets a terminal as this one is; nothing where it is given.
pub fn terminal_kind(env: &[Vec<u8>], around: &Surroundings<'_>) -> Option<Vec<u8>> {
    let given = env.iter().any(|word| word.starts_with(b"TERM="));
    let term = (around.variable)(OsStr::new("TERM")).filter(|_| !given)?;
    Some([b"TERM=", term.as_bytes()].concat())
}

/// That arguments and environment can be handed on.
///
/// # Errors
/// Where there is too much of them.
pub fn check_size(command: &[Vec<u8>], env: &[Vec<u8>]) -> Result<(), SpecError> {
    let bytes: usize = command.iter().chain(env).map(Vec::len).sum();
    if bytes > SPEC_BYTES_MAX { Err(SpecError::Large(bytes)) } else { Ok(()) }
}

/// Files first, then options, so that an option wins; a later KEY replaces an earlier one.
///
/// # Errors
/// Where a variable has no name.
pub fn environment(options: &[OsString], around: &Surroundings<'_>) -> Result<Vec<Vec<u8>>, SpecError> {
    let lines = around.env_files.iter().flat_map(|file| file.split(|byte| *byte == b'\n')).filter(|line| {
        let text = line.trim_ascii_start();
        !text.is_empty() && !text.starts_with(b"#")
    });
    let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    // The place of each KEY's last word, so that a long file takes no longer than its length.
    let mut last: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    let mut all: Vec<Vec<u8>> = Vec::new();
    for given in lines.chain(options.iter().map(|word| word.as_bytes())) {
        let Some(pair) = variable(given, around)? else { continue };
        let key = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
        last.insert(key.to_vec(), all.len());
        all.push(pair);
    }
    let mut places: Vec<usize> = last.into_values().collect();
    places.sort_unstable();
    Ok(places.into_iter().map(|place| std::mem::take(&mut all[place])).collect())
}

/// `KEY=VALUE` as it is; `KEY` with its value from here, or nothing where it is not set.
fn variable(given: &[u8], around: &Surroundings<'_>) -> Result<Option<Vec<u8>>, SpecError> {
    let refused = || SpecError::Env(String::from_utf8_lossy(given).into_owned());
    if given.is_empty() || given[0] == b'=' || given.contains(&0) {
        return Err(refused());
    }
    if given.contains(&b'=') {
        return Ok(Some(given.to_vec()));
    }
    let Some(value) = (around.variable)(OsStr::from_bytes(given)) else { return Ok(None) };
    Ok(Some([given, b"=", value.as_bytes()].concat()))
}

fn absolute(path: &Path, directory: &Path) -> Vec<u8> {
    // Component by component, so that "." and doubled slashes go; ".." stays, since only the kernel can resolve it.
    directory.join(path).components().collect::<PathBuf>().into_os_string().into_vec()
}

fn from_directory(volume: &Volume, directory: &Path) -> Volume {
    let source = absolute(Path::new(OsStr::from_bytes(&volume.source)), directory);
    Volume { source, ..volume.clone() }
}

/// A worker's name.
///
/// # Errors
/// Where it is none.
pub fn name(text: &str) -> Result<String, holdfast_proto::words::WordError> {
    text.parse::<WorkerName>().map(|name| name.to_string())
}

/// A network's name.
///
/// # Errors
/// Where it is none.
pub fn network_name(text: &str) -> Result<String, holdfast_proto::words::WordError> {
    text.parse::<NetworkName>().map(|name| name.to_string())
}

/// `--net`: a mode, or a network's name; whether there is such a network is the daemon's to say.
///
/// # Errors
/// Where it is neither.
pub fn network(text: &str) -> Result<String, holdfast_proto::words::WordError> {
    match text {
        "bridge" | "none" | "host" | "tap" => Ok(text.to_owned()),
        _ if text.starts_with("macvlan") => text.parse::<Macvlan>().map(|link| link.to_string()),
        _ => network_name(text),
    }
}

/// `KEY=VALUE`, or KEY with an empty value; what a KEY may be is the daemon's to say.
///
/// # Errors
/// Where there is no KEY.
pub fn label(text: &str) -> Result<(String, String), SpecError> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() { Err(SpecError::Label(text.to_owned())) } else { Ok((key.to_owned(), value.to_owned())) }
}

/// `[ADDR:]HOST:WORKER[/tcp|udp]`; HOST 0 lets the helper choose a free port. IPv6 addresses stand in brackets.
///
/// # Errors
/// Where it is not of that form.
pub fn publish(text: &str) -> Result<Publish, SpecError> {
    let refused = |why| SpecError::Publish { given: text.to_owned(), why };
    let (ports, proto) = text.rsplit_once('/').unwrap_or((text, "tcp"));
    if !matches!(proto, "tcp" | "udp") {
        return Err(refused("the protocol is tcp or udp"));
    }
    let (rest, worker) = ports.rsplit_once(':').ok_or_else(|| refused("a port of the host and one of the worker"))?;
    let (address, host) = match rest.rsplit_once(':') {
        Some((address, host)) => (Some(address), host),
        None => (None, rest),
    };
    let port = |digits: &str| digits.parse::<u16>().map_err(|_| refused("a port is a number up to 65535"));
    let (host, worker) = (port(host)?, port(worker)?);
    if worker == 0 {
        return Err(refused("the worker's port cannot be 0"));
    }
    let address = match address {
        None => String::new(),
        Some(given) => {
            let bare = given.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(given);
            let address = bare.parse::<IpAddr>().map_err(|_| refused("ADDR is an address of this host"))?;
            if address.is_ipv6() && bare == given {
                return Err(refused("an IPv6 address stands in brackets"));
            }
            address.to_string()
        }
    };
    Ok(Publish { proto: proto.to_owned(), host: host.into(), worker: worker.into(), address })
}

/// Reads `SRC:DST[:ro|:rw]` without asking that paths be UTF-8.
#[derive(Debug, Clone)]
pub struct VolumeParser;

impl TypedValueParser for VolumeParser {
    type Value = Volume;

    fn parse_ref(
        &self,
        command: &clap::Command,
        _arg: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Volume, clap::Error> {
        let refused = |error: SpecError| command.clone().error(clap::error::ErrorKind::ValueValidation, error);
        volume(value.as_bytes()).map_err(refused)
    }
}

/// `SRC:DST[:ro|:rw]`. The last colon before DST divides, so that SRC may hold some.
fn volume(given: &[u8]) -> Result<Volume, SpecError> {
    let refused = |why| SpecError::Volume { given: String::from_utf8_lossy(given).into_owned(), why };
    let (pair, read_only) = match (given.strip_suffix(b":ro"), given.strip_suffix(b":rw")) {
        (Some(pair), _) => (pair, true),
        (None, Some(pair)) => (pair, false),
        (None, None) => (given, false),
    };
    let colon = pair.iter().rposition(|byte| *byte == b':').ok_or_else(|| refused("two paths with ':' between"))?;
    let (source, target) = (&pair[..colon], &pair[colon + 1..]);
    if source.is_empty() {
        return Err(refused("SRC is a path of this host"));
    }
    if !target.starts_with(b"/") {
        return Err(refused("DST is an absolute path inside the worker"));
    }
    Ok(Volume { source: source.to_vec(), target: target.to_vec(), read_only })
}

/// A signal by name, with or without `SIG`, or by number.
///
/// # Errors
/// Where there is no such signal.
pub fn signal(text: &str) -> Result<u32, SpecError> {
    let refused = || SpecError::Signal(text.to_owned());
    if let Ok(number) = text.parse::<u32>() {
        return if (1..=SIGNAL_MAX).contains(&number) { Ok(number) } else { Err(refused()) };
    }
    let upper = text.to_ascii_uppercase();
    let full = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    full.parse::<Signal>().ok().and_then(|signal| u32::try_from(signal as i32).ok()).ok_or_else(refused)
}

/// Bytes, with K, M or G for powers of 1024.
///
/// # Errors
/// Where it is no size, or 0, which would keep nothing.
pub fn size(text: &str) -> Result<u64, SpecError> {
    let refused = || SpecError::Size(text.to_owned());
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit: u64 = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "K" | "KB" | "KIB" => 1 << 10,
        "M" | "MB" | "MIB" => 1 << 20,
        "G" | "GB" | "GIB" => 1 << 30,
        _ => return Err(refused()),
    };
    let count: u64 = digits.parse().map_err(|_| refused())?;
    count.checked_mul(unit).filter(|bytes| *bytes > 0).ok_or_else(refused)
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
