//! Sets the worker's limits before it runs: into its cgroup where that has the controller, else as rlimits of the shim
//! itself, which everything in the worker inherits and nothing in it can raise.

use crate::halt::{CAGE, Halt, Step};
use holdfast_launcher::limits::{self, Controllers, Enforced, Enforcer, Limits};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit, setrlimit};
use std::os::fd::OwnedFd;

/// Applies all of them, or nothing runs.
pub fn apply(wanted: &Limits, cgroup: Option<&OwnedFd>) -> Result<Enforced, Halt> {
    let enforced =
        limits::decide(wanted, controllers(cgroup)).map_err(|limit| Halt::new(CAGE, limit.step(), Errno::NOTSUP))?;
    if let Some(cgroup) = cgroup {
        write_settings(cgroup, wanted, &enforced)?;
    }
    if enforced.tasks == Some(Enforcer::Rlimit) {
        limit_tasks(wanted.tasks)?;
    }
    Ok(enforced)
}

fn controllers(cgroup: Option<&OwnedFd>) -> Controllers {
    let mut buffer = [0; 512];
    let read = cgroup.and_then(|dir| {
        let file =
            rustix::fs::openat(dir, "cgroup.controllers", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        rustix::io::read(file, &mut buffer).ok()
    });
    Controllers::parse(std::str::from_utf8(&buffer[..read.unwrap_or(0)]).unwrap_or_default())
}

fn write_settings(cgroup: &OwnedFd, wanted: &Limits, enforced: &Enforced) -> Result<(), Halt> {
    for setting in limits::settings(wanted, enforced) {
        let step = || format!("limit {}", setting.file);
        match rustix::fs::openat(cgroup, setting.file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
            Err(Errno::NOENT) if setting.may_be_missing => {}
            file => {
                let file = file.step(step())?;
                let written = rustix::io::write(&file, setting.value.as_bytes()).step(step())?;
                if written != setting.value.len() {
                    return Err(Halt::new(CAGE, step(), Errno::IO));
                }
            }
        }
    }
    Ok(())
}

/// RLIMIT_NPROC of this user namespace, in which the shim is one task more. A host's own lower limit stays.
fn limit_tasks(tasks: u32) -> Result<(), Halt> {
    let mut limit = getrlimit(Resource::Nproc);
    let most = u64::from(tasks) + 1;
    let most = limit.maximum.map_or(most, |host| host.min(most));
    (limit.current, limit.maximum) = (Some(most), Some(most));
    setrlimit(Resource::Nproc, limit).step("limit of tasks")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]
mod tests {
    use super::*;
    use std::path::Path;

    fn open(dir: &Path) -> OwnedFd {
        rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }

    fn tree(controllers: &str, files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("cgroup.controllers"), controllers).unwrap();
        files.iter().for_each(|name| std::fs::write(dir.path().join(name), "").unwrap());
        dir
    }

    const WANTED: Limits = Limits { memory_bytes: Some(64 << 20), cpu_millis: Some(500), tasks: 9, best_effort: false };

    #[test]
    fn a_cgroup_with_every_controller_gets_every_file() {
        let files = ["memory.max", "memory.swap.max", "memory.oom.group", "cpu.max", "pids.max"];
        let dir = tree("cpuset cpu io memory hugetlb pids rdma misc\n", &files);
        let enforced = apply(&WANTED, Some(&open(dir.path()))).unwrap();
        let by_cgroup = Some(Enforcer::Cgroup);
        assert_eq!(enforced, Enforced { memory: by_cgroup, cpu: by_cgroup, tasks: by_cgroup });
        let written = files.map(|name| std::fs::read_to_string(dir.path().join(name)).unwrap());
        assert_eq!(written, ["67108864", "0", "1", "50000 100000", "9"]);
    }

    #[test]
    fn a_host_without_swap_accounting_limits_all_the_same() {
        let dir = tree("cpu memory pids\n", &["memory.max", "cpu.max", "pids.max"]);
        apply(&WANTED, Some(&open(dir.path()))).unwrap();
        assert!(!dir.path().join("memory.swap.max").exists(), "nothing is made");
    }

    #[test]
    fn a_file_that_should_be_there_and_a_controller_that_is_not_stop_the_launch() {
        let dir = tree("cpu memory pids\n", &["memory.max", "pids.max"]);
        let halt = apply(&WANTED, Some(&open(dir.path()))).err().unwrap();
        assert_eq!((halt.failure.step.as_str(), halt.failure.errno), ("limit cpu.max", libc::ENOENT));
        let dir = tree("memory pids\n", &["memory.max", "pids.max"]);
        let halt = apply(&WANTED, Some(&open(dir.path()))).err().unwrap();
        assert_eq!(limits::Limit::of_step(&halt.failure.step), Some(limits::Limit::Cpu));
        assert_eq!(std::fs::read_to_string(dir.path().join("memory.max")).unwrap(), "", "nothing was written");
    }
}
