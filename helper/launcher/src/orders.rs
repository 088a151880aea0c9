//! What a shim is told about its worker. Made by the daemon; opaque to helper and launcher.
//!
//! The daemon and the worker have the same uid, so these paths open nothing that the owner cannot open;
//! the shim reads them as the owner, before it gives up the host's tree.

use crate::codec::{Reader, WireError, Writer};
use crate::limits::Limits;
use crate::session::Size;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// Version of this form.
pub const VERSION: u8 = 1;

/// Most bytes of encoded orders (the launch request's cap).
pub const BYTES_MAX: usize = 1024 * 1024;

/// Everything a shim needs, but for the addresses, which the helper chooses ([`crate::launch::Wiring`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orders {
    /// The worker's id, 16 hex digits: names the control socket.
    pub worker: String,
    /// Which start this is.
    pub generation: u64,
    /// 128 random bits: whoever shows them to the shim is the daemon that ordered it (or may read its database).
    pub nonce: [u8; 16],
    /// Host name inside.
    pub hostname: String,
    /// Program and arguments; at least one. A first word without '/' is looked up on the `PATH` of `env`.
    pub argv: Vec<OsString>,
    /// The complete environment, KEY=VALUE each, no NUL.
    pub env: Vec<OsString>,
    /// Absolute, inside the worker's root.
    pub workdir: PathBuf,
    /// Bound in this order, after everything of ours.
    pub volumes: Vec<Volume>,
    /// Host file to bind (read-only) over `/etc/hosts`; the daemon rewrites it in place.
    pub hosts_file: PathBuf,
    /// Content of `/etc/resolv.conf`.
    pub resolv_conf: Vec<u8>,
    /// Host directory for the exit record and, in `log/`, the output. Exists, owner's, 0700.
    pub state_dir: PathBuf,
    /// Host directory for `<worker>.sock`. Exists, owner's, 0700.
    pub control_dir: PathBuf,
    /// Host directories that the worker must not see although they lie in what it sees (our state).
    pub hidden: Vec<PathBuf>,
    /// Cap of kept output in bytes, and the number of files it is cut into (at least 1).
    pub log_bytes_max: u64,
    /// See `log_bytes_max`.
    pub log_files_max: u32,
    /// What the worker may use at most.
    pub limits: Limits,
    /// Where the owner asked for another cage than the default one.
    pub cage: CageOrders,
    /// What the program reads.
    pub input: Input,
    /// Whose network it is in.
    pub network: Network,
}

/// Whose network a worker is in. The helper decides which one its shim is born into; where that is another one than
/// is said here, the shim's first step in it fails, and nothing runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// A namespace of its own, which the shim sets up.
    Own,
    /// A namespace of its own, whose address a virtual machine in it has: its tap device, `/dev/net/tun` and `/dev/kvm`.
    Tap,
    /// The host's: nothing of it is the shim's to change, and abstract sockets of the host are closed to the worker.
    Host,
}

/// How a worker's cage differs from the default one, which is all of it `false` and `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CageOrders {
    /// It may make namespaces within its own.
    pub nested: bool,
    /// The owner's uid and gid show as 0.
    pub root_user: bool,
    /// Instead of the host's tree.
    pub rootfs: Option<Rootfs>,
}

/// A directory of the host that becomes the worker's root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rootfs {
    /// Absolute.
    pub path: PathBuf,
    /// What the worker changes stays there.
    pub writable: bool,
}

/// Where a worker's own input comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// `/dev/null`.
    None,
    /// Whoever attaches ([`crate::session::OWN`]).
    Pipe,
    /// A terminal of this size, at which whoever attaches sits.
    Terminal(Size),
}

/// One bind mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Absolute host path, file or directory.
    pub source: PathBuf,
    /// Absolute path inside.
    pub target: PathBuf,
    /// Mounted read-only.
    pub read_only: bool,
}

impl Orders {
    /// The wire form.
    pub fn encode(&self) -> Vec<u8> {
        let path = |w: &mut Writer, p: &PathBuf| {
            w.bytes(p.as_os_str().as_bytes());
        };
        let word = |w: &mut Writer, s: &OsString| {
            w.bytes(s.as_bytes());
        };
        let mut w = Writer::new(VERSION);
        w.bytes(self.worker.as_bytes()).u64(self.generation).raw(&self.nonce).bytes(self.hostname.as_bytes());
        w.list(&self.argv, word).list(&self.env, word);
        path(&mut w, &self.workdir);
        w.list(&self.volumes, |w, v| {
            path(w, &v.source);
            path(w, &v.target);
            w.u8(v.read_only.into());
        });
        path(&mut w, &self.hosts_file);
        w.bytes(&self.resolv_conf);
        path(&mut w, &self.state_dir);
        path(&mut w, &self.control_dir);
        w.list(&self.hidden, path).u64(self.log_bytes_max).u32(self.log_files_max);
        self.limits.write(&mut w);
        w.u8(self.cage.nested.into()).u8(self.cage.root_user.into());
        w.list(self.cage.rootfs.as_slice(), |w, rootfs| {
            path(w, &rootfs.path);
            w.u8(rootfs.writable.into());
        });
        match self.input {
            Input::None => w.u8(0),
            Input::Pipe => w.u8(1),
            Input::Terminal(size) => size.write(w.u8(2)),
        };
        w.u8(match self.network {
            Network::Own => 0,
            Network::Host => 1,
            Network::Tap => 2,
        });
        w.finish()
    }

    /// Reads the wire form. Words that hold a NUL, relative paths and an empty command are refused.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes, VERSION)?;
        let orders = Self {
            worker: r.text("worker")?.to_owned(),
            generation: r.u64()?,
            nonce: r.array()?,
            hostname: r.text("hostname")?.to_owned(),
            argv: r.list(|r| word(r, "argument"))?,
            env: r.list(|r| word(r, "variable"))?,
            workdir: path(&mut r, "workdir")?,
            volumes: r.list(|r| {
                Ok(Volume {
                    source: path(r, "volume source")?,
                    target: path(r, "volume target")?,
                    read_only: r.bool("volume mode")?,
                })
            })?,
            hosts_file: path(&mut r, "hosts file")?,
            resolv_conf: r.bytes()?.to_vec(),
            state_dir: path(&mut r, "state directory")?,
            control_dir: path(&mut r, "control directory")?,
            hidden: r.list(|r| path(r, "hidden directory"))?,
            log_bytes_max: r.u64()?,
            log_files_max: r.u32()?,
            limits: Limits::read(&mut r)?,
            cage: cage(&mut r)?,
            input: match r.u8()? {
                0 => Input::None,
                1 => Input::Pipe,
                2 => Input::Terminal(Size::read(&mut r)?),
                _ => return Err(WireError::Value("input")),
            },
            network: match r.u8()? {
                0 => Network::Own,
                1 => Network::Host,
                2 => Network::Tap,
                _ => return Err(WireError::Value("network")),
            },
        };
        r.end()?;
        if orders.argv.is_empty() {
            return Err(WireError::Value("command"));
        }
        if orders.log_files_max == 0 {
            return Err(WireError::Value("number of log files"));
        }
        Ok(orders)
    }
}

fn cage(r: &mut Reader<'_>) -> Result<CageOrders, WireError> {
    let (nested, root_user) = (r.bool("nested namespaces")?, r.bool("root user")?);
    let mut rootfs =
        r.list(|r| Ok(Rootfs { path: path(r, "root file system")?, writable: r.bool("root file system's mode")? }))?;
    let cage = CageOrders { nested, root_user, rootfs: rootfs.pop() };
    if rootfs.is_empty() { Ok(cage) } else { Err(WireError::Value("root file systems")) }
}

fn word(r: &mut Reader<'_>, field: &'static str) -> Result<OsString, WireError> {
    let bytes = r.bytes()?;
    if bytes.contains(&0) { Err(WireError::Value(field)) } else { Ok(OsString::from_vec(bytes.to_vec())) }
}

fn path(r: &mut Reader<'_>, field: &'static str) -> Result<PathBuf, WireError> {
    let path = PathBuf::from(word(r, field)?);
    if path.is_absolute() { Ok(path) } else { Err(WireError::Value(field)) }
}
