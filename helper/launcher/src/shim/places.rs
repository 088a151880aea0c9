//! What the shim keeps open of the host's tree after it has given that up: where the record, the output and the
//! control socket are, and the cgroup.

use crate::halt::{Halt, Step};
use holdfast_launcher::orders::{Network, Orders};
use holdfast_launcher::record::{ExitRecord, Outcome};
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Room made for the record before the worker runs, so that a full disk cannot take it; more than any record.
const RECORD_BYTES: usize = 1024;

/// How often and how long apart the record is tried again where the disk does not take it.
const RECORD_TRIES: u32 = 60;
const RECORD_PAUSE: Duration = Duration::from_secs(1);

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Open descriptors into the host's tree.
pub struct Places {
    state: OwnedFd,
    /// Of `log/`.
    pub log: OwnedFd,
    control: OwnedFd,
    socket_name: String,
    socket_inode: u64,
    /// Listening.
    pub listener: OwnedFd,
    record: OwnedFd,
    generation: u64,
    /// The hosts file of its network, for the mount.
    pub hosts: OwnedFd,
    /// The same for adding the worker's own line; none where it is the host's file.
    pub hosts_append: Option<OwnedFd>,
    /// `w-<id>`, if there are cgroups.
    cgroup: Option<OwnedFd>,
    /// `w-<id>/worker`.
    pub worker_cgroup: Option<OwnedFd>,
}

impl Places {
    /// Opens everything, as the owner, while the host's tree is there.
    pub fn open(orders: &Orders, cgroup: Option<OwnedFd>) -> Result<Self, Halt> {
        let state_step = || format!("state directory {}", orders.state_dir.display());
        let state = rustix::fs::open(&orders.state_dir, DIRECTORY, Mode::empty()).step(state_step())?;
        match rustix::fs::mkdirat(&state, "log", Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno).step("log directory"),
        }
        let log =
            rustix::fs::openat(&state, "log", DIRECTORY | OFlags::NOFOLLOW, Mode::empty()).step("log directory")?;
        let record = reserve(&state, orders.generation).step("room for the exit record")?;
        let hosts_step = || format!("hosts file {}", orders.hosts_file.display());
        let append = OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC;
        let hosts_append = match orders.network {
            Network::Own | Network::Tap => {
                Some(rustix::fs::open(&orders.hosts_file, append, Mode::empty()).step(hosts_step())?)
            }
            Network::Host => None,
        };
        let hosts =
            rustix::fs::open(&orders.hosts_file, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).step(hosts_step())?;
        let control_step = || format!("control directory {}", orders.control_dir.display());
        let control = rustix::fs::open(&orders.control_dir, DIRECTORY, Mode::empty()).step(control_step())?;
        let socket_name = format!("{}.sock", orders.worker);
        let listener = listen(&control, &socket_name).step("control socket")?;
        let socket = rustix::fs::statat(&control, &socket_name, AtFlags::SYMLINK_NOFOLLOW).step("control socket")?;
        let worker_cgroup = cgroup
            .as_ref()
            .map(|dir| rustix::fs::openat(dir, "worker", DIRECTORY, Mode::empty()))
            .transpose()
            .step("cgroup worker")?;
        Ok(Self {
            state,
            log,
            control,
            socket_name,
            socket_inode: socket.st_ino,
            listener,
            record,
            generation: orders.generation,
            hosts,
            hosts_append,
            cgroup,
            worker_cgroup,
        })
    }

    /// The launch was called off: leaves no trace.
    pub fn leave_nothing(&self) {
        self.remove_socket();
        let _ = rustix::fs::unlinkat(&self.state, unfinished_name(self.generation), AtFlags::empty());
    }

    /// Leaves the record of a worker that was not executed.
    pub fn leave_not_started(&self, orders: &Orders, halt: &Halt) {
        self.leave(&not_started(orders, halt));
    }

    /// Leaves the record, then takes the socket away. Tries for a minute where the disk does not take it.
    pub fn leave(&self, record: &ExitRecord) {
        let bytes = record.encode();
        for _ in 0..RECORD_TRIES {
            match put_record(&self.state, &self.record, self.generation, &bytes) {
                // Another record of this generation stands there: that one counts.
                Ok(()) | Err(Errno::EXIST) => break,
                Err(_) => std::thread::sleep(RECORD_PAUSE),
            }
        }
        self.remove_socket();
    }

    /// Whether the kernel killed for lack of memory in the worker's cgroup; false where it does not count that.
    pub fn oom_killed(&self) -> bool {
        let Some(dir) = &self.worker_cgroup else { return false };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let mut buffer = [0; 512];
        rustix::fs::openat(dir, "memory.events", flags, Mode::empty())
            .and_then(|file| rustix::io::read(file, &mut buffer))
            .is_ok_and(|len| counts_oom_kill(&buffer[..len]))
    }

    /// Removes the worker's cgroup; the launcher removes the shim's.
    pub fn remove_cgroup(&self) {
        if let Some(cgroup) = &self.cgroup {
            let _ = rustix::fs::unlinkat(cgroup, "worker", AtFlags::REMOVEDIR);
        }
    }

    /// Unless a later generation's shim has put its own there.
    fn remove_socket(&self) {
        let ours = rustix::fs::statat(&self.control, &self.socket_name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| stat.st_ino == self.socket_inode);
        if ours {
            let _ = rustix::fs::unlinkat(&self.control, &self.socket_name, AtFlags::empty());
        }
    }
}

/// Nanoseconds since the Unix epoch.
pub fn now_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64)
}

/// Leaves the record where [`Places::open`] itself failed, if there is at least a state directory.
pub fn leave_early(orders: &Orders, halt: &Halt) {
    let Ok(state) = rustix::fs::open(&orders.state_dir, DIRECTORY, Mode::empty()) else { return };
    if let Ok(record) = reserve(&state, orders.generation) {
        // The launcher hears of the failure in any case.
        let _ = put_record(&state, &record, orders.generation, &not_started(orders, halt).encode());
    }
}

fn not_started(orders: &Orders, halt: &Halt) -> ExitRecord {
    ExitRecord {
        worker: orders.worker.clone(),
        generation: orders.generation,
        nonce: orders.nonce,
        started_at_ns: 0,
        finished_at_ns: now_ns(),
        outcome: Outcome::NotStarted { code: halt.code, failure: halt.failure.clone() },
        user_us: 0,
        system_us: 0,
        max_rss_kib: 0,
        oom: false,
        log_bytes: 0,
        log_dropped_bytes: 0,
    }
}

fn unfinished_name(generation: u64) -> String {
    format!(".{}", ExitRecord::file_name(generation))
}

fn reserve(state: &OwnedFd, generation: u64) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::openat(state, unfinished_name(generation), flags, Mode::RUSR | Mode::WUSR)?;
    match rustix::io::pwrite(&file, &[0; RECORD_BYTES], 0)? {
        RECORD_BYTES => Ok(file),
        _ => Err(Errno::NOSPC),
    }
}

fn put_record(state: &OwnedFd, record: &OwnedFd, generation: u64, bytes: &[u8]) -> rustix::io::Result<()> {
    if rustix::io::pwrite(record, bytes, 0)? != bytes.len() {
        return Err(Errno::IO);
    }
    rustix::fs::ftruncate(record, bytes.len() as u64)?;
    let (from, to) = (unfinished_name(generation), ExitRecord::file_name(generation));
    rustix::fs::renameat_with(state, from, state, to, RenameFlags::NOREPLACE)
}

/// Through /proc/self/fd: the path may be longer than a socket address. A socket that an earlier shim left goes.
fn listen(control: &OwnedFd, name: &str) -> rustix::io::Result<OwnedFd> {
    match rustix::fs::unlinkat(control, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno),
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    let path = Path::new("/proc/self/fd").join(control.as_fd().as_raw_fd().to_string()).join(name);
    rustix::net::bind(&socket, &SocketAddrUnix::new(&path)?)?;
    rustix::net::listen(&socket, 16)?;
    Ok(socket)
}

fn counts_oom_kill(events: &[u8]) -> bool {
    let text = String::from_utf8_lossy(events);
    text.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count != "0"))
}

/// Opens `path` below `root` as if that were the whole world (openat2(2)): no symlink leads out of it.
pub fn open_in(root: &OwnedFd, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oom_kills_are_counted_by_their_own_line() {
        assert!(counts_oom_kill(b"low 0\noom 1\noom_kill 1\noom_group_kill 0\n"));
        assert!(!counts_oom_kill(b"low 0\noom 1\noom_kill 0\noom_group_kill 0\n"));
        assert!(!counts_oom_kill(b""));
    }
}
