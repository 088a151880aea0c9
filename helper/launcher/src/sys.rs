//! The system calls that no crate wraps safely. All `unsafe` of launcher and shim is here.
//!
//! Both programs are single-threaded from start to end; [`clone3`] relies on it.

#![allow(dead_code, reason = "each of the two programs uses its part")]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// clone3(2) flag; `libc::CLONE_INTO_CGROUP` is 0 by overflow (rust-lang/libc#3584).
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which side of [`clone3`] this is.
pub enum Forked {
    /// The new process.
    Child,
    /// The old one.
    Parent {
        /// Of the child, in the caller's pid namespace.
        pid: u32,
        /// Of the child, close-on-exec.
        pidfd: OwnedFd,
    },
}

/// clone3(2) as fork(2) does it (own copy of memory), with a pidfd, and into `cgroup` if there is one.
/// `namespaces` are `CLONE_NEW*` flags.
pub fn clone3(namespaces: libc::c_int, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Forked> {
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is a plain struct of integers, for which all zeroes is a value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = (namespaces | libc::CLONE_PIDFD) as u64;
    args.pidfd = &raw mut pidfd as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: args and pidfd outlive the call. Without CLONE_VM the child has its own copy of the memory and
    // goes on at the same place; there is no other thread whose locks it could find held.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        // SAFETY: the kernel has just made this descriptor for us.
        pid => Ok(Forked::Parent { pid: pid as u32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }),
    }
}

/// Ends this process at once: no destructors, no exit handlers of the process it was forked from.
pub fn exit(code: i32) -> ! {
    // SAFETY: _exit(2) has no preconditions.
    unsafe { libc::_exit(code) }
}

/// mount_setattr(2). `path` may be empty: the mount of `fd` itself. `propagation`: 0 or `MS_PRIVATE`.
pub fn mount_setattr(
    fd: BorrowedFd<'_>,
    path: &CStr,
    recursive: bool,
    set: u64,
    propagation: libc::c_ulong,
) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let attr = libc::mount_attr { attr_set: set, attr_clr: 0, propagation, userns_fd: 0 };
    // SAFETY: path is NUL-terminated and attr outlives the call, which only reads it.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            path.as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Marks every descriptor from `first` on close-on-exec (close_range(2)).
pub fn close_on_exec_from(first: RawFd) -> io::Result<()> {
    // SAFETY: marks descriptors only; no owner loses one.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first as u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes `number` a copy of `fd` that survives exec (dup2(2)). For a child that is about to exec:
/// whatever had that number is gone, so `number` must not be one that this process still owns.
pub fn place(fd: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    // SAFETY: dup2 touches no memory; the caller keeps no owner of `number` (see above).
    if unsafe { libc::dup2(fd.as_raw_fd(), number) } == number { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes a descriptor that the parent left at a number agreed on, and marks it close-on-exec; `None` where there is
/// none. To be called once for each number, before anything else could have opened it.
pub fn inherited(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: fcntl with F_SETFD touches no memory; it fails where nothing is open.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
        return None;
    }
    // SAFETY: it is open (just checked) and by the agreement above nobody else owns it.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Gives every signal its default action again: exec(2) keeps those that are ignored.
pub fn default_signals() {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL installs no function. It fails for SIGKILL, SIGSTOP and glibc's own, which are as they must be.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Installs a seccomp filter for good (seccomp(2)); needs no_new_privs.
pub fn seccomp(filter: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: program and the instructions it points at outlive the call; the kernel copies and checks them.
    let done = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes a tap device of this name in the network namespace of this process, for `owner` (a uid as it shows here) to
/// open, and there until it is removed with the namespace. `device`: `/dev/net/tun`, opened anew.
pub fn make_tap(device: BorrowedFd<'_>, name: &str, owner: u32) -> io::Result<()> {
    const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
    const TUNSETPERSIST: libc::Ioctl = 0x4004_54cb;
    const TUNSETOWNER: libc::Ioctl = 0x4004_54cc;
    // SAFETY: a plain struct of integers, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    let fd = device.as_raw_fd();
    // SAFETY: request outlives the calls; the two others take a number.
    let done = unsafe {
        libc::ioctl(fd, TUNSETIFF, &raw mut request) == 0
            && libc::ioctl(fd, TUNSETOWNER, libc::c_ulong::from(owner)) == 0
            && libc::ioctl(fd, TUNSETPERSIST, 1 as libc::c_ulong) == 0
    };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `struct landlock_ruleset_attr` of linux/landlock.h, as of ABI 6.
#[repr(C)]
struct LandlockRuleset {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// Closes abstract unix sockets to this process and its later children, for good, but for those that are made in their
/// own circle (landlock(7)). Fails where the kernel has no Landlock of ABI 6 (Linux 6.12).
pub fn close_abstract_sockets() -> io::Result<()> {
    const LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET: u64 = 1;
    let attr =
        LandlockRuleset { handled_access_fs: 0, handled_access_net: 0, scoped: LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET };
    let (size, flags) = (size_of::<LandlockRuleset>(), 0u32);
    // SAFETY: attr outlives the call, which only reads it. An older kernel refuses a size or a bit that it does not know.
    let fd = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attr, size, flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    let ruleset = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
    // SAFETY: touches no memory.
    let done = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), flags) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

unsafe extern "C" {
    // Set by the linker: the file-backed, never written part of this program (constants and code).
    static __executable_start: u8;
    static etext: u8;
}

/// Gives back to the kernel what an idle process does not need: freed heap, stack that was used once, and the pages
/// of the program that it ran once. Code comes back from the page cache when it is called again.
pub fn shrink() {
    const PAGE: usize = 4096;
    const STACK_ONCE_USED: usize = 64 * PAGE;
    let drop_pages = |from: usize, to: usize| {
        let (from, to) = (from.next_multiple_of(PAGE), to / PAGE * PAGE);
        if from < to {
            // SAFETY: of the two ranges below one is private file pages that are never written (they are read from
            // the file again), the other is stack that no frame uses. What is not mapped is skipped with ENOMEM.
            unsafe { libc::madvise(from as *mut libc::c_void, to - from, libc::MADV_DONTNEED) };
        }
    };
    // SAFETY: gives back only what is free.
    unsafe { libc::malloc_trim(0) };
    drop_pages(&raw const __executable_start as usize, &raw const etext as usize);
    let here = 0u8;
    // Two pages below this frame are left for the call that follows and for what lies below the stack pointer.
    let stack = &raw const here as usize;
    drop_pages(stack.saturating_sub(STACK_ONCE_USED), stack.saturating_sub(2 * PAGE));
}

/// Pages for large reads, given back to the kernel between bursts.
pub struct Scratch {
    start: *mut u8,
    len: usize,
    touched: bool,
}

impl Scratch {
    /// Maps `len` bytes (whole pages), none of them touched yet.
    pub fn new(len: usize) -> io::Result<Self> {
        let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new anonymous mapping where the kernel likes it.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start: start.cast(), len, touched: false })
    }

    /// The bytes; what they hold is whatever was last there, or zeroes.
    pub fn bytes(&mut self) -> &mut [u8] {
        self.touched = true;
        // SAFETY: the mapping lives as long as self, is readable, writable and zeroed by the kernel, and is lent once.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }

    /// Whether it holds memory now.
    pub fn is_touched(&self) -> bool {
        self.touched
    }

    /// Gives the memory back; the mapping stays.
    pub fn release(&mut self) {
        // SAFETY: private anonymous memory that nothing borrows now (&mut self) reads as zeroes afterwards.
        unsafe { libc::madvise(self.start.cast(), self.len, libc::MADV_DONTNEED) };
        self.touched = false;
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: our own mapping, which nothing borrows any more.
        unsafe { libc::munmap(self.start.cast(), self.len) };
    }
}
