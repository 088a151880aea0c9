//! cgroup v2 below the launcher's own delegated unit: `launcher/` for itself, `w-<id>/{shim,worker}` per worker.
//!
//! Where the launcher's cgroup is not its own to divide (a session outside systemd), there are none, and workers
//! run in the launcher's. No controller is ever enabled here.

use holdfast_launcher::launch::Failure;
use holdfast_proto::words::WorkerId;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

const OWN: &str = "launcher";
const PREFIX: &str = "w-";

/// The delegated cgroup, if there is one.
pub struct Cgroups {
    base: Option<OwnedFd>,
}

/// Where one worker goes.
pub struct Place {
    /// `w-<id>`.
    pub dir: OwnedFd,
    /// `w-<id>/shim`.
    pub shim: OwnedFd,
}

impl Cgroups {
    /// Finds the own cgroup and moves into `launcher/` below it; says once on stderr where that cannot be.
    pub fn find() -> Self {
        match delegated() {
            Ok(base) => Self { base: Some(base) },
            Err(reason) => {
                eprintln!("holdfast-launcher: no cgroup of its own ({reason}): workers run in the launcher's");
                Self { base: None }
            }
        }
    }

    /// Makes a worker's cgroups; what an earlier start left of them is used again.
    pub fn make(&self, worker: WorkerId) -> Result<Option<Place>, Failure> {
        let Some(base) = &self.base else { return Ok(None) };
        let name = format!("{PREFIX}{worker}");
        let failed = |what: &str, errno: Errno| Failure { step: format!("cgroup {what}"), errno: errno.raw_os_error() };
        let dir = made(base, &name).map_err(|errno| failed(&name, errno))?;
        let shim = made(&dir, "shim").map_err(|errno| failed("shim", errno))?;
        made(&dir, "worker").map_err(|errno| failed("worker", errno))?;
        Ok(Some(Place { dir, shim }))
    }

    /// Removes a worker's cgroups if its shim is gone; leaves them where anything lives in them.
    pub fn remove(&self, name: &str) {
        let Some(base) = &self.base else { return };
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
        let Some(base) = &self.base else { return };
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

fn delegated() -> Result<OwnedFd, String> {
    let path = own_path()?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let base = rustix::fs::open(&path, flags, Mode::empty()).map_err(|e| format!("{}: {e}", path.display()))?;
    let own = made(&base, OWN).map_err(|e| format!("{}/{OWN}: {e}", path.display()))?;
    let procs = rustix::fs::openat(&own, "cgroup.procs", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
    procs.and_then(|procs| rustix::io::write(procs, b"0")).map_err(|e| format!("entering {OWN}: {e}"))?;
    Ok(base)
}

/// The own cgroup's directory; its parent where systemd (`DelegateSubgroup=`) has put us into `launcher/` already.
fn own_path() -> Result<PathBuf, String> {
    let text = std::fs::read_to_string("/proc/self/cgroup").map_err(|e| format!("/proc/self/cgroup: {e}"))?;
    let own = unified_path(&text).ok_or("no cgroup v2")?;
    let mount = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .into_iter()
        .find(|mount| std::path::Path::new(mount).join("cgroup.procs").exists())
        .ok_or("cgroup v2 is not mounted")?;
    let own = own.strip_suffix(OWN).filter(|rest| rest.ends_with('/')).unwrap_or(own);
    Ok(PathBuf::from(mount).join(own.trim_matches('/')))
}

/// The v2 entry of `/proc/self/cgroup` (cgroups(7)).
fn unified_path(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::"))
}

fn made(parent: &OwnedFd, name: &str) -> rustix::io::Result<OwnedFd> {
    match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    rustix::fs::openat(parent, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v2_path_is_found_among_v1_lines() {
        assert_eq!(unified_path("4:memory:/x\n0::/system.slice/a.service\n"), Some("/system.slice/a.service"));
        assert_eq!(unified_path("4:memory:/x\n"), None);
    }
}
