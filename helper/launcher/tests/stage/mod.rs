//! A stage for real launches: a root of its own, a uid of its own without a passwd entry, a real launcher, and a
//! helper's end of the line that does what it is told.

#![allow(dead_code, reason = "each test file uses its part")]

use holdfast_launcher::control::{Hello, Report};
use holdfast_launcher::launch::{Failure, FromHelper, FromLauncher, PACKET_BYTES_MAX, Wiring};
use holdfast_launcher::orders::{Input, Network, Orders};
use holdfast_launcher::output::{
    RECORD_HEADER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES, SegmentHeader, Stream, segment_number,
};
use holdfast_launcher::record::ExitRecord;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use std::ffi::OsString;
use std::fs;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub const OWNER: &str = "stager";
/// The cgroup of workers in a slice, as the unit names it.
const WORKERS: &str = "holdfast-workers@stager.service";
const PATIENCE: Duration = Duration::from_secs(20);

/// Where the programs are: cargo's, or another build's (a static one) to be tried instead.
fn programs() -> PathBuf {
    match std::env::var_os("HOLDFAST_TEST_PROGRAMS") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_BIN_EXE_holdfast-launcher")).parent().unwrap().to_owned(),
    }
}

pub struct Stage {
    pub root: tempfile::TempDir,
    pub uid: u32,
    cgroup: Option<PathBuf>,
    listener: OwnedFd,
    launcher: Child,
    pub line: OwnedFd,
    seq: AtomicU64,
}

/// A launch that the launcher has prepared.
pub struct Prepared {
    pub seq: u64,
    pub shim_pid: u32,
    pub netns: OwnedFd,
    pub pidfd: OwnedFd,
}

impl Stage {
    /// `None`, with the reason, where this cannot be tried.
    pub fn set(test: &str) -> Option<Self> {
        Self::set_in(test, None)
    }

    /// The same with a launcher that starts in a cgroup that is its own, as a unit with `Delegate=yes` has it.
    pub fn set_delegated(test: &str) -> Option<(Delegated, Self)> {
        Self::set_below(test, "")
    }

    /// The same with a cgroup of workers beside it, in a slice that is open to its owner, as the units have it.
    pub fn set_in_slice(test: &str) -> Option<(Delegated, Self)> {
        Self::set_below(test, WORKERS)
    }

    fn set_below(test: &str, workers: &'static str) -> Option<(Delegated, Self)> {
        let mount = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
            .into_iter()
            .find(|mount| rustix::process::geteuid().is_root() && Path::new(mount).join("cgroup.procs").exists());
        let Some(mount) = mount else {
            println!("SKIP {test}: needs root and cgroup v2");
            return None;
        };
        static SLICES: AtomicU32 = AtomicU32::new(0);
        let number = SLICES.fetch_add(1, Ordering::Relaxed);
        let slice = Path::new(mount).join(format!("hf-stage-{}-{number}", std::process::id()));
        let cgroup = Delegated { workers: slice.join(workers), slice };
        fs::create_dir_all(&cgroup.workers).unwrap();
        // As systemd does it for a unit with `Delegate=yes`; which controllers v2 has depends on the host.
        for above in [Path::new(mount), &cgroup.slice].into_iter().filter(|_| !workers.is_empty()) {
            for controller in ["+cpu", "+memory", "+pids"] {
                let _ = fs::write(above.join("cgroup.subtree_control"), controller);
            }
        }
        let stage = Self::set_in(test, Some(&cgroup))?;
        // In this order a test drops the stage first.
        Some((cgroup, stage))
    }

    fn set_in(test: &str, cgroup: Option<&Delegated>) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("SKIP {test}: needs root, to run the launcher as another uid");
            return None;
        }
        static UIDS: AtomicU32 = AtomicU32::new(0);
        let uid = 61_000 + std::process::id() % 500 + 500 * UIDS.fetch_add(1, Ordering::Relaxed);
        let root = tempfile::Builder::new().prefix("hf-stage-").tempdir_in("/var/tmp").unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let path = |p: &str| root.path().join(p);
        fs::create_dir_all(path("run/holdfast/owners").join(OWNER).join("workers")).unwrap();
        fs::create_dir_all(path("var/lib/holdfast/owners").join(OWNER).join("workers")).unwrap();
        for dir in ["run/holdfast/owners/stager/workers", "var/lib/holdfast/owners/stager"] {
            own(&path(dir), uid, 0o700);
        }
        own(&path("var/lib/holdfast/owners/stager/workers"), uid, 0o700);
        let listener =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let socket = path("run/holdfast/launch.sock");
        rustix::net::bind(&listener, &SocketAddrUnix::new(&socket).unwrap()).unwrap();
        rustix::net::listen(&listener, 4).unwrap();
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
        if let Some(cgroup) = cgroup {
            cgroup.give_to(uid);
        }
        let cgroup = cgroup.map(Delegated::launcher);
        let launcher = start_launcher(root.path(), uid, cgroup.as_deref());
        let line = accept(&listener);
        let stage = Self { root, uid, cgroup, listener, launcher, line, seq: AtomicU64::new(1) };
        assert!(matches!(stage.hear().0, FromLauncher::Dial { .. }));
        Some(stage)
    }

    /// Orders for `argv`, with a worker id of its own.
    pub fn orders(&self, argv: &[&str]) -> Orders {
        static IDS: AtomicU64 = AtomicU64::new(1);
        let number = IDS.fetch_add(1, Ordering::Relaxed);
        let worker = format!("{:016x}", (u64::from(std::process::id()) << 32) | number);
        let state_dir = self.root.path().join("var/lib/holdfast/owners").join(OWNER).join("workers").join(&worker);
        fs::create_dir_all(&state_dir).unwrap();
        own(&state_dir, self.uid, 0o700);
        let control_dir = self.workers_run();
        let hosts_file = control_dir.join("hosts.none");
        if !hosts_file.exists() {
            fs::write(&hosts_file, "127.0.0.1\tlocalhost\n").unwrap();
            own(&hosts_file, self.uid, 0o644);
        }
        Orders {
            worker,
            generation: 1,
            nonce: [7; 16],
            hostname: "web-1".to_owned(),
            argv: argv.iter().map(OsString::from).collect(),
            env: vec!["PATH=/usr/local/bin:/usr/bin:/bin".into(), "HOME=/".into()],
            workdir: "/".into(),
            volumes: Vec::new(),
            hosts_file,
            resolv_conf: b"nameserver 192.0.2.1\n".to_vec(),
            state_dir,
            control_dir,
            hidden: vec![self.root.path().join("var/lib/holdfast"), self.root.path().join("run/holdfast")],
            log_bytes_max: 1 << 30,
            log_files_max: 10,
            limits: Default::default(),
            cage: Default::default(),
            input: Input::None,
            network: Network::Own,
        }
    }

    pub fn workers_run(&self) -> PathBuf {
        self.root.path().join("run/holdfast/owners").join(OWNER).join("workers")
    }

    /// Sends a word to the launcher.
    pub fn say(&self, word: &FromHelper, fd: Option<&OwnedFd>) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fds: Vec<_> = fd.iter().map(|fd| fd.as_fd()).collect();
        if !fds.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
        }
        let packet = word.encode();
        rustix::net::sendmsg(&self.line, &[IoSlice::new(&packet)], &mut ancillary, SendFlags::NOSIGNAL).unwrap();
    }

    /// The launcher's next word.
    pub fn hear(&self) -> (FromLauncher, Vec<OwnedFd>) {
        let (bytes, fds) = receive(&self.line);
        (FromLauncher::decode(&bytes).unwrap(), fds)
    }

    pub fn ask_prepare(&self, orders: &Orders, epoch: u64) -> u64 {
        let seq = self.seq.fetch_add(1, Ordering::Relaxed);
        let (worker, generation) = (orders.worker.clone(), orders.generation);
        self.say(
            &FromHelper::Prepare { seq, epoch, worker, generation, host_network: false },
            Some(&memfd(&orders.encode())),
        );
        seq
    }

    pub fn prepare(&self, orders: &Orders) -> Prepared {
        let asked = self.ask_prepare(orders, 1);
        match self.hear() {
            (FromLauncher::Prepared { seq, shim_pid }, fds) if seq == asked => {
                let [netns, pidfd] = <[OwnedFd; 2]>::try_from(fds).unwrap();
                Prepared { seq, shim_pid, netns, pidfd }
            }
            other => panic!("not prepared: {other:?}"),
        }
    }

    pub fn release(&self, prepared: &Prepared, wiring: Wiring) {
        self.say(&FromHelper::Release { seq: prepared.seq, wiring }, None);
        match self.hear() {
            (FromLauncher::Released { seq }, _) if seq == prepared.seq => {}
            other => panic!("not released: {other:?}"),
        }
    }

    pub fn launch(&self, orders: &Orders) -> Prepared {
        let prepared = self.prepare(orders);
        self.release(&prepared, Wiring::default());
        prepared
    }

    /// As [`Self::launch`], of what may be refused.
    pub fn launch_or_fail(&self, orders: &Orders) -> Result<Prepared, Failure> {
        let prepared = self.prepare(orders);
        self.say(&FromHelper::Release { seq: prepared.seq, wiring: Wiring::default() }, None);
        match self.hear() {
            (FromLauncher::Released { .. }, _) => Ok(prepared),
            (FromLauncher::Failed { failure, .. }, _) => Err(failure),
            other => panic!("neither: {other:?}"),
        }
    }

    /// Launches and waits for the record and the shim's end.
    pub fn run(&self, orders: &Orders) -> ExitRecord {
        let prepared = self.launch(orders);
        wait_gone(&prepared.pidfd);
        record(orders)
    }

    /// Runs a shell script; its record and its standard output.
    pub fn sh(&self, script: &str) -> (ExitRecord, String) {
        let orders = self.orders(&["sh", "-c", script]);
        let record = self.run(&orders);
        (record, String::from_utf8(output(&orders, Stream::Stdout)).unwrap())
    }

    pub fn launcher_pid(&self) -> u32 {
        self.launcher.id()
    }

    /// kill -9, reaped.
    pub fn kill_launcher(&mut self) {
        self.launcher.kill().unwrap();
        self.launcher.wait().unwrap();
    }

    /// Starts another launcher, whether or not the last one is there, and takes its call.
    pub fn restart_launcher(&mut self) {
        let new = start_launcher(self.root.path(), self.uid, self.cgroup.as_deref());
        let mut old = std::mem::replace(&mut self.launcher, new);
        self.line = accept(&self.listener);
        assert!(matches!(self.hear().0, FromLauncher::Dial { .. }));
        old.wait().unwrap();
    }

    /// Hangs up, as a helper that dies, and takes the launcher's next call.
    pub fn hang_up(&mut self) {
        let (closed, _) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        self.line = closed;
        self.line = accept(&self.listener);
        assert!(matches!(self.hear().0, FromLauncher::Dial { .. }));
    }

    /// Whether the shim's control socket is there.
    pub fn has_socket(&self, orders: &Orders) -> bool {
        self.workers_run().join(format!("{}.sock", orders.worker)).exists()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.launcher.kill();
        let _ = self.launcher.wait();
        // A shim that was paused ends now, and may still be taking its files away.
        for _ in 0..100 {
            if fs::remove_dir_all(self.root.path()).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A cgroup given to a stage's owner; empty and removed at the end.
pub struct Delegated {
    /// What the launcher's and the workers' have in common.
    pub slice: PathBuf,
    /// Where the workers' are.
    pub workers: PathBuf,
}

impl Delegated {
    fn give_to(&self, uid: u32) {
        let give = |path: &Path| chown(path, Some(uid), Some(uid)).unwrap();
        give(&self.slice.join("cgroup.procs"));
        for path in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
            give(&self.workers.join(path));
        }
    }

    /// Where the launcher starts.
    fn launcher(&self) -> PathBuf {
        if self.workers == self.slice.join("") {
            return self.slice.clone();
        }
        let path = self.slice.join("holdfast-launcher@stager.service");
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// Names of the workers' cgroups.
    pub fn workers(&self) -> Vec<String> {
        let names = fs::read_dir(&self.workers).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("w-")).collect()
    }

    /// The processes in one cgroup below it.
    pub fn members(&self, path: &str) -> Vec<u32> {
        let text = fs::read_to_string(self.workers.join(path).join("cgroup.procs")).unwrap();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        let below = ["launcher", "holdfast-launcher@stager.service", WORKERS];
        for _ in 0..100 {
            for name in below {
                let _ = fs::remove_dir(self.slice.join(name));
            }
            if fs::remove_dir(&self.slice).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        eprintln!("left behind: {:?}", self.slice);
    }
}

/// By setpriv, bounded as by the unit, so that root puts it into its cgroup first; the cgroup's root, where systemd starts a unit's main.
fn start_launcher(root: &Path, uid: u32, cgroup: Option<&Path>) -> Child {
    let enter = cgroup.map_or(String::new(), |cgroup| format!("echo 0 > {}/cgroup.procs && ", cgroup.display()));
    let program = programs().join("holdfast-launcher");
    let script = format!(
        "{enter}exec setpriv --reuid {uid} --regid {uid} --clear-groups --bounding-set -all {} --owner {OWNER} --root {}",
        program.display(),
        root.display()
    );
    Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).spawn().unwrap()
}

fn own(path: &Path, uid: u32, mode: u32) {
    chown(path, Some(uid), Some(uid)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn memfd(bytes: &[u8]) -> OwnedFd {
    let fd = rustix::fs::memfd_create("orders", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    assert_eq!(rustix::io::write(&fd, bytes).unwrap(), bytes.len());
    rustix::fs::fcntl_add_seals(&fd, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL).unwrap();
    fd
}

fn accept(listener: &OwnedFd) -> OwnedFd {
    await_in(listener);
    rustix::net::accept_with(listener, SocketFlags::CLOEXEC).unwrap()
}

pub fn await_in(fd: &OwnedFd) {
    let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    assert_eq!(poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&patience)).unwrap(), 1, "nothing came");
}

pub fn wait_gone(pidfd: &OwnedFd) {
    await_in(pidfd);
}

fn receive(socket: &OwnedFd) -> (Vec<u8>, Vec<OwnedFd>) {
    await_in(socket);
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let got = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut buffer)], &mut ancillary, flags).unwrap();
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    buffer.truncate(got.bytes);
    (buffer, fds)
}

pub fn record(orders: &Orders) -> ExitRecord {
    let path = orders.state_dir.join(ExitRecord::file_name(orders.generation));
    let until = Instant::now() + PATIENCE;
    while !path.exists() {
        assert!(Instant::now() < until, "no record at {path:?}");
        std::thread::sleep(Duration::from_micros(50));
    }
    ExitRecord::decode(&fs::read(path).unwrap()).unwrap()
}

/// Number, head and records.
pub type Segment = (u64, SegmentHeader, Vec<(RecordHeader, Vec<u8>)>);

/// In their order.
pub fn segments(orders: &Orders) -> Vec<Segment> {
    let mut all = Vec::new();
    for entry in fs::read_dir(orders.state_dir.join("log")).unwrap() {
        let entry = entry.unwrap();
        let number = segment_number(entry.file_name().to_str().unwrap()).unwrap();
        let bytes = fs::read(entry.path()).unwrap();
        let (head, mut rest) = bytes.split_first_chunk::<SEGMENT_HEADER_BYTES>().unwrap();
        let mut records = Vec::new();
        while let Some((header, after)) = rest.split_first_chunk::<RECORD_HEADER_BYTES>() {
            let header = RecordHeader::decode(header).unwrap();
            let (payload, after) = after.split_at(header.len as usize);
            records.push((header, payload.to_vec()));
            rest = after;
        }
        assert!(rest.is_empty());
        all.push((number, SegmentHeader::decode(head).unwrap(), records));
    }
    all.sort_by_key(|(number, ..)| *number);
    all
}

pub fn output(orders: &Orders, stream: Stream) -> Vec<u8> {
    let records = segments(orders).into_iter().flat_map(|(_, _, records)| records);
    records.filter(|(header, _)| header.stream == stream).flat_map(|(_, payload)| payload).collect()
}

/// A watcher, as the daemon is one, with the stage's uid.
pub struct Watch(OwnedFd);

impl Watch {
    pub fn connect(stage: &Stage, orders: &Orders, nonce: [u8; 16]) -> Self {
        Self::connect_as(stage, orders, nonce, stage.uid)
    }

    pub fn connect_as(stage: &Stage, orders: &Orders, nonce: [u8; 16], uid: u32) -> Self {
        let socket = dial_as(stage, orders, uid);
        // May be refused already: then the next hear() says so.
        let _ = rustix::net::send(&socket, &Hello { nonce }.encode(), SendFlags::NOSIGNAL);
        Self(socket)
    }

    /// The next report; `None` when the shim has closed.
    pub fn hear(&self) -> Option<(Report, Vec<OwnedFd>)> {
        await_in(&self.0);
        let mut probe = [0; 1];
        let gone = rustix::net::recv(&self.0, &mut probe, RecvFlags::PEEK);
        if matches!(gone, Err(_) | Ok((0, _))) {
            return None;
        }
        let (bytes, fds) = receive(&self.0);
        Some((Report::decode(&bytes).unwrap(), fds))
    }
}

/// A connection to a shim by a process of this uid.
/// The kernel notes the effective uid of whoever connects; threads have their own (setresuid as a raw call).
pub fn dial_as(stage: &Stage, orders: &Orders, uid: u32) -> OwnedFd {
    let path = stage.workers_run().join(format!("{}.sock", orders.worker));
    let connect = move || {
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let root = rustix::process::Uid::ROOT;
        let id = rustix::process::Uid::from_raw(uid);
        rustix::thread::set_thread_res_uid(root, id, root).unwrap();
        let connected = rustix::net::connect(&socket, &SocketAddrUnix::new(&path).unwrap());
        rustix::thread::set_thread_res_uid(root, root, root).unwrap();
        connected.unwrap();
        socket
    };
    std::thread::spawn(connect).join().unwrap()
}

/// Sends one packet with a memfd of these bytes.
pub fn send_with_memfd(socket: &OwnedFd, packet: &[u8], bytes: &[u8]) {
    let fd = memfd(bytes);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = [fd.as_fd()];
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
    rustix::net::sendmsg(socket, &[IoSlice::new(packet)], &mut ancillary, SendFlags::NOSIGNAL).unwrap();
}
