//! Makes one paused shim: a process in new namespaces that executes `holdfast-shim`.

use crate::cgroups::{Cgroups, Place};
use crate::{packet, sys};
use holdfast_launcher::launch::{Failure, PACKET_BYTES_MAX, ShimWord};
use holdfast_launcher::orders;
use holdfast_proto::words::WorkerId;
use rustix::fs::{Mode, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::DumpableBehavior;
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Where the shim finds its orders, its word to the launcher, and the directory of its cgroup (if it has one).
const ORDERS: i32 = 3;
const PAIR: i32 = 4;
const CGROUP: i32 = 5;

const NAMESPACES: libc::c_int =
    libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;

/// What the shim needs in its own namespaces: mounts and names, its links, a limit on namespaces, and to take all of it
/// from the worker.
const SHIM_CAPABILITIES: CapabilitySet = CapabilitySet::SYS_ADMIN
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::SYS_RESOURCE)
    .union(CapabilitySet::SETPCAP);

/// What every birth needs, opened once.
pub struct Nursery {
    /// `holdfast-shim`, O_PATH: of the same release as this launcher, whatever `current` becomes.
    program: OwnedFd,
    null: OwnedFd,
    /// The owner's, read before any namespace in which they would read as 65534.
    uid: u32,
    gid: u32,
    /// Of the workers.
    pub cgroups: Cgroups,
}

/// A shim that waits for its wiring.
pub struct Newborn {
    /// For reaping and for people.
    pub pid: u32,
    /// Of the shim.
    pub pidfd: OwnedFd,
    /// Its network namespace; with the host's network, that.
    pub netns: OwnedFd,
    /// Our end of the pair; its end is the shim's, too.
    pub pair: OwnedFd,
}

/// The shim's program is not there.
#[derive(Debug, thiserror::Error)]
#[error("cannot open {path}: {source}")]
pub struct NurseryError {
    path: String,
    source: io::Error,
}

impl Nursery {
    /// Opens the shim's program beside the launcher's own.
    pub fn open(cgroups: Cgroups) -> Result<Self, NurseryError> {
        let failed = |path: &str| {
            let path = path.to_owned();
            move |source: io::Error| NurseryError { path, source }
        };
        let own = std::fs::read_link("/proc/self/exe").map_err(failed("/proc/self/exe"))?;
        let path = own.with_file_name("holdfast-shim");
        let program = rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| failed(&path.to_string_lossy())(errno.into()))?;
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| failed("/dev/null")(errno.into()))?;
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Ok(Self { program, null, uid, gid, cgroups })
    }

    /// Makes a shim. On an error nothing of it is left but an empty cgroup, which the sweep takes.
    pub fn bear(&mut self, worker: WorkerId, orders: &OwnedFd, host_network: bool) -> Result<Newborn, Failure> {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(failure("socketpair"))?;
        let place = self.cgroups.make(worker)?;
        // The child writes its maps through /proc/self, which is root's while the process is not dumpable.
        dumpable(DumpableBehavior::Dumpable)?;
        let namespaces = NAMESPACES | if host_network { 0 } else { libc::CLONE_NEWNET };
        let forked = sys::clone3(namespaces, place.as_ref().map(|place| place.shim.as_fd()));
        match forked {
            Ok(sys::Forked::Child) => {
                let failed = match self.become_shim(worker, orders, &theirs, place.as_ref()) {
                    Ok(never) => match never {},
                    Err(failed) => failed,
                };
                // Where even this cannot be said, the end of the pair says it.
                let _ = packet::send(theirs.as_fd(), &ShimWord::Failed(failed).encode(), &[]);
                sys::exit(125)
            }
            Ok(sys::Forked::Parent { pid, pidfd }) => {
                dumpable(DumpableBehavior::NotDumpable)?;
                let netns = open_netns(pid).map_err(|failed| {
                    // It cannot be wired, so it must not go on. It fails only where it is gone already.
                    let _ = rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
                    last_word(&ours).unwrap_or(failed)
                })?;
                Ok(Newborn { pid, pidfd, netns, pair: ours })
            }
            Err(error) => {
                dumpable(DumpableBehavior::NotDumpable)?;
                Err(Failure { step: "clone3".to_owned(), errno: error.raw_os_error().unwrap_or(0) })
            }
        }
    }

    /// In the child: the owner's ids, the shim's capabilities and descriptors, and its program.
    fn become_shim(
        &self,
        worker: WorkerId,
        orders: &OwnedFd,
        pair: &OwnedFd,
        place: Option<&Place>,
    ) -> Result<Infallible, Failure> {
        map_ids(self.uid, self.gid)?;
        keep_capabilities()?;
        // Away from the numbers that are about to be given.
        let above = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 16).map_err(failure("dup"));
        let (orders, pair, program) = (above(orders)?, above(pair)?, above(&self.program)?);
        let cgroup = place.map(|place| above(&place.dir)).transpose()?;
        let put = |fd: &OwnedFd, number| {
            sys::place(fd.as_fd(), number).map_err(|e| Failure { step: "dup2".to_owned(), errno: errno_of(&e) })
        };
        for number in 0..=2 {
            put(&self.null, number)?;
        }
        put(&orders, ORDERS)?;
        put(&pair, PAIR)?;
        if let Some(cgroup) = &cgroup {
            put(cgroup, CGROUP)?;
        }
        let first_unused = if cgroup.is_some() { CGROUP + 1 } else { CGROUP };
        sys::close_on_exec_from(first_unused)
            .map_err(|e| Failure { step: "close_range".to_owned(), errno: errno_of(&e) })?;
        let name = CString::new(worker.to_string()).unwrap_or_default();
        let argv: [&CStr; 2] = [c"holdfast-shim", &name];
        let env: [&CStr; 0] = [];
        nix::unistd::execveat(&program, c"", &argv, &env, nix::fcntl::AtFlags::AT_EMPTY_PATH)
            .map_err(|errno| Failure { step: "execute holdfast-shim".to_owned(), errno: errno as i32 })
    }
}

/// The owner is itself inside, and nobody else is anybody (user_namespaces(7)).
fn map_ids(uid: u32, gid: u32) -> Result<(), Failure> {
    let write = |file: &str, text: String| {
        std::fs::write(format!("/proc/self/{file}"), text)
            .map_err(|error| Failure { step: file.to_owned(), errno: errno_of(&error) })
    };
    write("setgroups", "deny".to_owned())?;
    write("uid_map", format!("{uid} {uid} 1"))?;
    write("gid_map", format!("{gid} {gid} 1"))
}

/// As ambient ones, since the owner's uid is not 0 inside either, and exec would drop them (capabilities(7)).
fn keep_capabilities() -> Result<(), Failure> {
    let kept = SHIM_CAPABILITIES;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: kept };
    rustix::thread::set_capabilities(None, sets).map_err(failure("capset"))?;
    for capability in kept {
        rustix::thread::configure_capability_in_ambient_set(capability, true).map_err(failure("ambient"))?;
    }
    Ok(())
}

fn open_netns(pid: u32) -> Result<OwnedFd, Failure> {
    rustix::fs::open(format!("/proc/{pid}/ns/net"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(failure("open netns"))
}

/// Why a shim ended that was gone before its namespace could be opened, if it had time to say so.
fn last_word(pair: &OwnedFd) -> Option<Failure> {
    let mut buffer = [0; PACKET_BYTES_MAX];
    let (len, _) = packet::receive(pair.as_fd(), &mut buffer).ok()?;
    match ShimWord::decode(&buffer[..len]).ok()? {
        ShimWord::Failed(failure) => Some(failure),
        ShimWord::Ready | ShimWord::Go(_) => None,
    }
}

fn dumpable(behavior: DumpableBehavior) -> Result<(), Failure> {
    rustix::process::set_dumpable_behavior(behavior).map_err(failure("dumpable"))
}

fn failure(step: &'static str) -> impl Fn(Errno) -> Failure {
    move |errno| Failure { step: step.to_owned(), errno: errno.raw_os_error() }
}

fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(0)
}

/// Orders that could change while the shim reads them would not be the ones that were checked.
pub fn check_orders(orders: BorrowedFd<'_>) -> Result<(), Failure> {
    let refused = |step: &str, errno: Errno| Failure { step: step.to_owned(), errno: errno.raw_os_error() };
    let seals = rustix::fs::fcntl_get_seals(orders).map_err(|errno| refused("orders: not a memfd", errno))?;
    if !seals.contains(SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW) {
        return Err(refused("orders: not sealed", Errno::PERM));
    }
    let len = rustix::fs::fstat(orders).map_err(|errno| refused("orders: size", errno))?.st_size;
    if len as u64 > orders::BYTES_MAX as u64 {
        return Err(refused("orders: over 1 MiB", Errno::FBIG));
    }
    Ok(())
}
