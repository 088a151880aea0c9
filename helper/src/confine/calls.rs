//! The system calls that remain. Anything else ends the process: a helper that was taken over has no second try.

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

/// Calls that are allowed whatever their arguments.
const ALLOWED: &[libc::c_long] = &[
    // Descriptors that are there already.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_lseek,
    libc::SYS_fstat,
    // Sockets that are there already, and new connections to the listeners.
    libc::SYS_accept4,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_getsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_shutdown,
    // sd_notify and journald by their Unix sockets.
    libc::SYS_connect,
    // Waiting.
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_ppoll,
    libc::SYS_futex,
    libc::SYS_restart_syscall,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_sched_yield,
    // Orders for launchers.
    libc::SYS_memfd_create,
    // The rules file; Landlock limits which files there are.
    libc::SYS_openat,
    libc::SYS_statx,
    libc::SYS_newfstatat,
    // Memory.
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_madvise,
    libc::SYS_brk,
    // glibc counts processors when a second thread first takes memory.
    libc::SYS_sched_getaffinity,
    // Itself.
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_getrandom,
    libc::SYS_prctl,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    // No call at all: what is left of one that a tracer took away, as tests inject faults. It does nothing.
    u32::MAX as libc::c_long,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Calls that newer architectures have under another name alone.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[libc::c_long] = &[libc::SYS_epoll_wait, libc::SYS_poll];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[libc::c_long] = &[];

/// ioctl_ns(2), as in `sys.rs`, and FIONBIO.
const IOCTLS: [u64; 4] = [0xb701, 0xb703, 0xb704, 0x5421];

/// The filter, compiled.
pub fn filter() -> Result<BpfProgram, BackendError> {
    let mut rules: Vec<(libc::c_long, Vec<SeccompRule>)> =
        ALLOWED.iter().chain(ALLOWED_HERE).map(|call| (*call, Vec::new())).collect();
    let argument_is = |argument, value| -> Result<SeccompRule, BackendError> {
        SeccompRule::new(vec![SeccompCondition::new(argument, Len::Dword, Op::Eq, value)?])
    };
    rules.push((libc::SYS_ioctl, IOCTLS.iter().map(|request| argument_is(1, *request)).collect::<Result<_, _>>()?));
    // New sockets: to notify systemd and journald alone; those for netlink are open by now.
    rules.push((libc::SYS_socket, vec![argument_is(0, libc::AF_UNIX as u64)?]));
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules.into_iter().collect(), SeccompAction::KillProcess, SeccompAction::Allow, architecture)?
        .try_into()
}
