//! What this process may do: nothing but its work. Checked, taken away, and read back; whatever fails ends the start.
//!
//! Order matters. no_new_privs first, since seccomp and Landlock need it and threads inherit it. The thread that looks
//! at callers starts before Landlock (see `peer`), the writer of the store after it, the filter for all comes last:
//! from then on there is no new thread, no new process, no other program, no executable memory, no other socket
//! family than AF_UNIX.

use holdfast_launcher::own_limits;
use landlock::{
    ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus,
    path_beneath_rules,
};
use nix::unistd::{Uid, User, getegid, geteuid, getgid, getuid};
use rustix::process::{DumpableBehavior, Resource, dumpable_behavior, getrlimit, set_dumpable_behavior, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// What is wrong with this process, or could not be taken from it.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// No such account.
    #[error("there is no user {0:?} on this host: --owner takes a login name")]
    NoSuchUser(String),
    /// Root cannot own workers.
    #[error("the owner is root: workers belong to an ordinary user; give --owner another login name")]
    RootOwner,
    /// Started as somebody else.
    #[error(
        "started as uid {uid} (effective {effective}), but {owner} is uid {expected}: start it by its unit or by `holdfast session start`"
    )]
    Uid {
        /// Real.
        uid: u32,
        /// Effective.
        effective: u32,
        /// The login name.
        owner: String,
        /// Its uid.
        expected: u32,
    },
    /// Started with a set-group-id.
    #[error("real and effective group differ ({0} and {1}): holdfastd must not be set-group-id")]
    Gid(u32, u32),
    /// It holds a capability.
    #[error("{set} capabilities are held ({held}), none may be: start it by its unit or by `holdfast session start`")]
    Capable {
        /// Which set.
        set: &'static str,
        /// What is in it.
        held: String,
    },
    /// A step of the lock-down failed.
    #[error("{step} failed")]
    Step {
        /// Which one.
        step: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A step of the lock-down did not take.
    #[error("{what} is {found:?} after the lock-down, not {expected:?}")]
    NotTaken {
        /// A line of /proc/self/status, or an attribute.
        what: String,
        /// As read back.
        found: String,
        /// As it should be.
        expected: &'static str,
    },
}

fn step<E: Into<Box<dyn std::error::Error + Send + Sync>>>(step: &'static str) -> impl FnOnce(E) -> ConfineError {
    move |source| ConfineError::Step { step, source: source.into() }
}

/// Who the owner is, and that this process is the owner's without any capability.
pub fn check_identity(owner: &str) -> Result<Uid, ConfineError> {
    let user = User::from_name(owner).map_err(step("looking up the owner"))?;
    let user = user.ok_or_else(|| ConfineError::NoSuchUser(owner.to_owned()))?;
    if user.uid.is_root() {
        return Err(ConfineError::RootOwner);
    }
    if getuid() != user.uid || geteuid() != user.uid {
        return Err(ConfineError::Uid {
            uid: getuid().as_raw(),
            effective: geteuid().as_raw(),
            owner: owner.to_owned(),
            expected: user.uid.as_raw(),
        });
    }
    if getgid() != getegid() {
        return Err(ConfineError::Gid(getgid().as_raw(), getegid().as_raw()));
    }
    check_no_capability()?;
    Ok(user.uid)
}

fn check_no_capability() -> Result<(), ConfineError> {
    use caps::CapSet;
    for (set, name) in [
        (CapSet::Effective, "effective"),
        (CapSet::Permitted, "permitted"),
        (CapSet::Inheritable, "inheritable"),
        (CapSet::Ambient, "ambient"),
    ] {
        let held = caps::read(None, set).map_err(step("reading capabilities"))?;
        if !held.is_empty() {
            let held: Vec<_> = held.iter().map(ToString::to_string).collect();
            return Err(ConfineError::Capable { set: name, held: held.join(" ") });
        }
    }
    Ok(())
}

/// no_new_privs, no ptrace or core dump by others of the same uid, and room for two descriptors a worker.
pub fn drop_privileges() -> Result<(), ConfineError> {
    rustix::thread::set_no_new_privs(true).map_err(io::Error::from).map_err(step("setting no_new_privs"))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(io::Error::from)
        .map_err(step("making the process undumpable"))?;
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).map_err(io::Error::from).map_err(step("raising the limit of open files"))?;
    own_limits::remember();
    Ok(())
}

/// Puts back what another process of the owner's uid did to this one's limits (threat T03). Where it cannot, this
/// process ends here, to be started with fresh ones: it could neither write nor connect any more.
pub fn hold_limits() {
    match own_limits::put_back() {
        Ok(false) => {}
        Ok(true) => tracing::warn!(target: "audit", "somebody changed this process's limits; they are as before"),
        Err(lowered) => {
            tracing::error!(target: "audit", "{lowered}; starting again");
            std::process::exit(1);
        }
    }
}

/// Landlock for the calling thread and those it starts: writes below `writable` alone, reads there and where names
/// are looked up, no TCP. Without effect on a kernel that has no Landlock.
pub fn restrict_files(writable: &[PathBuf]) -> Result<(), ConfineError> {
    let abi = ABI::V5;
    let mut readable: Vec<PathBuf> =
        ["/proc", "/etc", "/run/systemd/resolve"].into_iter().map(PathBuf::from).filter(|path| path.exists()).collect();
    // Often a link to a file that another program keeps.
    let resolv_conf = Path::new("/etc/resolv.conf").canonicalize().ok();
    readable.extend(resolv_conf.and_then(|path| path.parent().map(Path::to_owned)));
    let restrict = || -> Result<RulesetStatus, RulesetError> {
        let status = Ruleset::default()
            .handle_access(AccessFs::from_all(abi))?
            .handle_access(AccessNet::from_all(abi))?
            .create()?
            .add_rules(path_beneath_rules(&readable, AccessFs::ReadFile | AccessFs::ReadDir))?
            .add_rules(path_beneath_rules(writable, AccessFs::from_all(abi) & !AccessFs::Execute))?
            .restrict_self()?;
        Ok(status.ruleset)
    };
    let status = restrict().map_err(step("entering Landlock"))?;
    tracing::debug!(?status, "Landlock");
    Ok(())
}

/// The seccomp filter, for every thread there is.
pub fn restrict_system_calls() -> Result<(), ConfineError> {
    let program = filter().map_err(step("building the seccomp filter"))?;
    seccompiler::apply_filter_all_threads(&program).map_err(step("applying the seccomp filter"))
}

/// Reads back what the kernel says of each thread.
pub fn verify() -> Result<(), ConfineError> {
    let unread = || step("reading /proc/self/task");
    for thread in std::fs::read_dir("/proc/self/task").map_err(unread())? {
        let status = std::fs::read_to_string(thread.map_err(unread())?.path().join("status")).map_err(unread())?;
        check_status(&status)?;
    }
    match dumpable_behavior().map_err(io::Error::from).map_err(step("reading the dumpable attribute"))? {
        DumpableBehavior::NotDumpable => Ok(()),
        other => Err(ConfineError::NotTaken {
            what: "dumpable".into(),
            found: format!("{other:?}"),
            expected: "NotDumpable",
        }),
    }
}

fn check_status(status: &str) -> Result<(), ConfineError> {
    const NO_CAPABILITY: &str = "0000000000000000";
    for (line, expected) in [
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
        ("CapInh", NO_CAPABILITY),
        ("CapPrm", NO_CAPABILITY),
        ("CapEff", NO_CAPABILITY),
        ("CapAmb", NO_CAPABILITY),
    ] {
        let prefix = format!("{line}:");
        let found = status.lines().find_map(|text| text.strip_prefix(&prefix)).unwrap_or("missing").trim();
        if found != expected {
            return Err(ConfineError::NotTaken { what: line.into(), found: found.into(), expected });
        }
    }
    Ok(())
}

/// Allowed whatever their arguments. What SQLite, tokio and std use at run time, and no more.
const ALLOWED: &[i64] = &[
    // Files and directories; Landlock and the unit say which.
    libc::SYS_openat,
    libc::SYS_close,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fstatfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_fchmod,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_memfd_create,
    // Events.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_ppoll,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_rm_watch,
    // Sockets that are there; `socket` itself is below. No bind, no listen.
    libc::SYS_connect,
    libc::SYS_accept4,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_shutdown,
    // Processes, by descriptor alone.
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    // Memory, threads that are there, time, identity.
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_rseq,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_uname,
    // Signals of our own, and the end.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_tgkill,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// The same by older numbers, which this architecture's glibc still uses.
#[cfg(target_arch = "x86_64")]
const ALLOWED_OLDER: &[i64] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_poll,
    libc::SYS_epoll_wait,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_OLDER: &[i64] = &[];

fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().chain(ALLOWED_OLDER).map(|call| (*call, vec![])).collect();
    let dword = SeccompCmpArgLen::Dword;
    let only = |argument: u8, op: SeccompCmpOp, value: u64| {
        let condition = SeccompCondition::new(argument, dword.clone(), op, value)?;
        SeccompRule::new(vec![condition])
    };
    rules.insert(libc::SYS_socket, vec![only(0, SeccompCmpOp::Eq, libc::AF_UNIX as u64)?]);
    // Its own limits alone: pid 0.
    rules.insert(libc::SYS_prlimit64, vec![only(0, SeccompCmpOp::Eq, 0)?]);
    let not_executable = SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64);
    rules.insert(libc::SYS_mmap, vec![only(2, not_executable.clone(), 0)?]);
    rules.insert(libc::SYS_mprotect, vec![only(2, not_executable, 0)?]);
    rules.insert(libc::SYS_ioctl, vec![only(1, SeccompCmpOp::Eq, libc::FIONBIO)?]);
    let own = [libc::PR_GET_DUMPABLE, libc::PR_SET_NAME, libc::PR_GET_NAME, libc::PR_SET_VMA];
    rules.insert(
        libc::SYS_prctl,
        own.into_iter().map(|option| only(0, SeccompCmpOp::Eq, option as u64)).collect::<Result<_, _>>()?,
    );
    // An error, not a kill: a library's probe for a newer call falls back by itself.
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let arch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, refused, SeccompAction::Allow, arch)?.try_into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_with_any_right_left_is_refused() {
        let good = "NoNewPrivs:\t1\nSeccomp:\t2\nCapInh:\t0000000000000000\nCapPrm:\t0000000000000000\n\
                    CapEff:\t0000000000000000\nCapBnd:\t000001ffffffffff\nCapAmb:\t0000000000000000\n";
        check_status(good).unwrap();
        for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapPrm:\t0000000000000000", "CapAmb:\t0000000000000000"] {
            let name = line.split(':').next().unwrap();
            assert!(check_status(&good.replace(line, &format!("{name}:\t0000000000000400"))).is_err(), "{name}");
            assert!(check_status(&good.replace(line, "")).is_err(), "{name} missing");
        }
    }

    #[test]
    fn the_filter_allows_no_way_to_another_program_or_thread() {
        filter().unwrap();
        for call in
            [libc::SYS_execve, libc::SYS_execveat, libc::SYS_clone, libc::SYS_clone3, libc::SYS_ptrace, libc::SYS_kill]
        {
            assert!(!ALLOWED.contains(&call) && !ALLOWED_OLDER.contains(&call));
        }
    }
}
