//! Workers' cgroups, `w-<id>/{shim,worker}`: below the cgroup of workers that stands beside the launcher's own (the unit
//! `holdfast-workers@U.service`, or a session's), with the controllers that limit them.
//!
//! Where that one is not there or not the launcher's to use, they are below its own, without controllers: enabled there,
//! systemd 252 could not start its unit again beside live workers. Where neither can be had, workers run in its own.

use holdfast_launcher::launch::Failure;
use holdfast_proto::cgroups::{MOUNTS, beside, unified_path};
use holdfast_proto::words::WorkerId;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

const OWN: &str = "launcher";
const PREFIX: &str = "w-";
/// What limits workers (`limits.rs`).
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// How often, and how far apart, a cgroup of workers that systemd is about to make anew is looked for.
const LOOKS: u32 = 60;
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The cgroup below which workers have theirs, if there is one.
pub struct Cgroups {
    base: Option<Base>,
}

struct Base {
    dir: OwnedFd,
    path: PathBuf,
    /// As `cgroup.subtree_control` takes them: `+cpu +memory`.
    enabled: String,
}

/// Where one worker goes.
pub struct Place {
    /// `w-<id>`.
    pub dir: OwnedFd,
    /// `w-<id>/shim`.
    pub shim: OwnedFd,
}

impl Cgroups {
    /// Finds the cgroup of workers; says once on stderr where that is not the one it should be.
    pub fn find() -> Self {
        let own = match own_path() {
            Ok(own) => own,
            Err(reason) => {
                eprintln!("holdfast-launcher: no cgroups ({reason}): workers run in the launcher's");
                return Self { base: None };
            }
        };
        let base = match divide_beside(&own) {
            Ok(base) => Some(base),
            Err(reason) => {
                eprintln!("holdfast-launcher: no cgroup for workers beside its own ({reason}): no limits by cgroups");
                divide_own(&own)
                    .inspect_err(|reason| {
                        eprintln!("holdfast-launcher: nor below it ({reason}): workers run in the launcher's");
                    })
                    .ok()
            }
        };
        Self { base }
    }

    /// Makes a worker's cgroups; what an earlier start left of them is used again.
    pub fn make(&mut self, worker: WorkerId) -> Result<Option<Place>, Failure> {
        let Some(base) = &mut self.base else { return Ok(None) };
        let name = Self::name(worker);
        let failed = |what: &str, errno: Errno| Failure { step: format!("cgroup {what}"), errno: errno.raw_os_error() };
        let dir = match made(&base.dir, &name) {
            // Nothing lived in it, and its keeper was killed: systemd has removed it and makes another.
            Err(Errno::NOENT | Errno::NODEV) => {
                base.look_again().map_err(|errno| failed("of workers", errno))?;
                made(&base.dir, &name)
            }
            dir => dir,
        };
        let dir = dir.map_err(|errno| failed(&name, errno))?;
        if !base.enabled.is_empty() {
            // A limit that this would enforce is refused by the shim, which looks at what it has.
            let _ = write(&dir, "cgroup.subtree_control", &base.enabled);
        }
        let shim = made(&dir, "shim").map_err(|errno| failed("shim", errno))?;
        made(&dir, "worker").map_err(|errno| failed("worker", errno))?;
        Ok(Some(Place { dir, shim }))
    }

    /// Removes a worker's cgroups if its shim is gone; leaves them where anything lives in them.
    pub fn remove(&self, name: &str) {
        let Some(Base { dir: base, .. }) = &self.base else { return };
        let Ok(dir) = rustix::fs::openat(base, name, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        else {
            return;
        };
        // `shim` first: while it is populated the worker's, empty before its program starts, is in use too.
        match rustix::fs::unlinkat(&dir, "shim", AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(_) => return,
        }
        // Refused where something lives in it, which is the answer wanted.
        let _ = rustix::fs::unlinkat(&dir, "worker", AtFlags::REMOVEDIR);
        let _ = rustix::fs::unlinkat(base, name, AtFlags::REMOVEDIR);
    }

    /// [`Self::remove`] for every worker's cgroup there is: also those of shims that an earlier launcher made.
    pub fn sweep(&self) {
        let Some(Base { dir: base, .. }) = &self.base else { return };
        let Ok(entries) = rustix::fs::Dir::read_from(base) else { return };
        for entry in entries.flatten() {
            if let Some(name) = entry.file_name().to_str().ok().filter(|name| name.starts_with(PREFIX)) {
                self.remove(name);
            }
        }
    }

    /// The directory name of a worker's cgroup.
    pub fn name(worker: WorkerId) -> String {
        format!("{PREFIX}{worker}")
    }
}

impl Base {
    /// Opens the cgroup that has come under the same path.
    fn look_again(&mut self) -> rustix::io::Result<()> {
        let mut answer = Err(Errno::NOENT);
        for _ in 0..LOOKS {
            answer = divide(&self.path);
            if answer.is_ok() {
                break;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        *self = answer?;
        Ok(())
    }
}

/// The cgroup of workers beside the own one, if processes may be moved there from the own.
fn divide_beside(own: &Path) -> Result<Base, String> {
    let name = own.file_name().and_then(OsStr::to_str).and_then(beside).ok_or("none is named for it")?;
    let slice = own.parent().ok_or("none")?;
    // What the kernel asks for to move one between two cgroups: the right to write to this file of what they share.
    let procs = slice.join("cgroup.procs");
    rustix::fs::open(&procs, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| format!("{}: {errno}", procs.display()))?;
    let path = slice.join(name);
    divide(&path).map_err(|errno| format!("{}: {errno}", path.display()))
}

fn divide(path: &Path) -> rustix::io::Result<Base> {
    let dir = open(path)?;
    // Fails where it is somebody else's.
    write(&dir, "cgroup.subtree_control", "")?;
    let there = read(&dir, "cgroup.controllers")?;
    for controller in CONTROLLERS.into_iter().filter(|name| has(&there, name)) {
        if let Err(errno) = write(&dir, "cgroup.subtree_control", &format!("+{controller}")) {
            eprintln!("holdfast-launcher: controller {controller} cannot be enabled for workers: {errno}");
        }
    }
    let enabled = wanted(&read(&dir, "cgroup.subtree_control")?);
    Ok(Base { dir, path: path.to_owned(), enabled })
}

/// What a worker's cgroup hands on to its two, of what it has.
fn wanted(controllers: &str) -> String {
    let ours = CONTROLLERS.into_iter().filter(|name| has(controllers, name));
    ours.map(|name| format!("+{name}")).collect::<Vec<_>>().join(" ")
}

fn has(controllers: &str, name: &str) -> bool {
    controllers.split_ascii_whitespace().any(|word| word == name)
}

/// The own cgroup, with the launcher itself in one below.
fn divide_own(own: &Path) -> Result<Base, String> {
    let dir = open(own).map_err(|errno| format!("{}: {errno}", own.display()))?;
    enter(&dir, OWN).map_err(|errno| format!("{}/{OWN}: {errno}", own.display()))?;
    Ok(Base { dir, path: own.to_owned(), enabled: String::new() })
}

/// Moves this process into the cgroup `name` below `dir`, which is made if need be.
pub fn enter(dir: &OwnedFd, name: &str) -> rustix::io::Result<()> {
    write(&made(dir, name)?, "cgroup.procs", "0")
}

/// The own cgroup's directory.
pub fn own_path() -> Result<PathBuf, String> {
    let text = std::fs::read_to_string("/proc/self/cgroup").map_err(|e| format!("/proc/self/cgroup: {e}"))?;
    let own = unified_path(&text).ok_or("no cgroup v2")?;
    let mount = MOUNTS.into_iter().find(|mount| Path::new(mount).join("cgroup.procs").exists());
    Ok(Path::new(mount.ok_or("cgroup v2 is not mounted")?).join(own.trim_matches('/')))
}

/// Opens a cgroup's directory.
pub fn open(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn made(parent: &OwnedFd, name: &str) -> rustix::io::Result<OwnedFd> {
    match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    rustix::fs::openat(parent, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn write(dir: &impl AsFd, file: &str, text: &str) -> rustix::io::Result<()> {
    let file = rustix::fs::openat(dir, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    if text.is_empty() {
        return Ok(());
    }
    match rustix::io::write(&file, text.as_bytes())? {
        written if written == text.len() => Ok(()),
        _ => Err(Errno::IO),
    }
}

fn read(dir: &impl AsFd, file: &str) -> rustix::io::Result<String> {
    let mut buffer = [0; 512];
    let file = rustix::fs::openat(dir, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let len = rustix::io::read(&file, &mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..len]).into_owned())
}

#[cfg(test)]
#[path = "cgroups_tests.rs"]
mod tests;
