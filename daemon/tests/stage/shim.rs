//! A shim in a thread: runs the program as the owner, keeps its output, record and socket in the real forms.

use holdfast_launcher::control::{Hello, Report};
use holdfast_launcher::launch::Failure;
use holdfast_launcher::orders::Orders;
use holdfast_launcher::output::{RecordHeader, SegmentHeader, Stream, segment_name};
use holdfast_launcher::record::{ExitRecord, Outcome};
use rustix::fd::OwnedFd;
use rustix::net::*;
use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

pub struct Shim {
    process: Option<OwnedFd>,
    state: Arc<State>,
}

struct State {
    orders: Orders,
    started_at_ns: i64,
    pidfd: Option<OwnedFd>,
    watchers: Mutex<Vec<OwnedFd>>,
    ended: Mutex<Option<ExitRecord>>,
    lost: AtomicBool,
}

impl Shim {
    pub fn start(orders: Orders) -> Self {
        let log = Arc::new(Mutex::new(File::create(orders.state_dir.join("log").join(segment_name(1))).unwrap()));
        log.lock().unwrap().write_all(&SegmentHeader { offset: 0, dropped: 0 }.encode()).unwrap();
        let mut command = Command::new(&orders.argv[0]);
        command.args(&orders.argv[1..]).env_clear().current_dir("/");
        for word in &orders.env {
            let (key, value) = word.to_str().unwrap().split_once('=').unwrap();
            command.env(key, value);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let listener = listen(&orders);
        match command.spawn() {
            Ok(child) => Self::watch(orders, child, log, listener),
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(0);
                let code = if errno == libc::ENOENT { 127 } else { 126 };
                let step = format!("program {}", orders.argv[0].display());
                let state = State::new(orders, 0, None);
                state.end(Outcome::NotStarted { code, failure: Failure { step, errno } });
                Self { process: None, state: Arc::new(state) }
            }
        }
    }

    fn watch(orders: Orders, mut child: Child, log: Arc<Mutex<File>>, listener: OwnedFd) -> Self {
        let pid = rustix::process::Pid::from_child(&child);
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        let process = pidfd.try_clone().unwrap();
        let state = Arc::new(State::new(orders, now_ns(), Some(pidfd)));
        let readers = [
            keep(child.stdout.take().unwrap(), Stream::Stdout, log.clone()),
            keep(child.stderr.take().unwrap(), Stream::Stderr, log),
        ];
        let accepting = state.clone();
        std::thread::spawn(move || accepting.accept(&listener));
        let ending = state.clone();
        std::thread::spawn(move || {
            for reader in readers {
                reader.join().unwrap();
            }
            let status = child.wait().unwrap();
            let outcome = match (status.code(), status.signal()) {
                (Some(code), _) => Outcome::Code(code as u8),
                (None, signal) => Outcome::Signal(signal.unwrap() as u8),
            };
            if !ending.lost.load(Ordering::SeqCst) {
                ending.end(outcome);
            }
            ending.watchers.lock().unwrap().clear();
        });
        Self { process: Some(process), state }
    }

    pub fn worker(&self) -> &str {
        &self.state.orders.worker
    }

    /// The worker dies by SIGKILL.
    pub fn kill(&self) {
        if let Some(process) = &self.process {
            let _ = rustix::process::pidfd_send_signal(process, rustix::process::Signal::KILL);
        }
    }

    /// The shim itself is killed: no record, and its worker goes with it.
    pub fn lose(&self) {
        self.state.lost.store(true, Ordering::SeqCst);
        // As a killed process leaves it: a name where nobody listens.
        let socket = self.state.socket();
        drop(std::fs::remove_file(&socket));
        drop(std::os::unix::net::UnixListener::bind(&socket));
        self.kill();
        self.state.watchers.lock().unwrap().clear();
    }
}

impl State {
    fn new(orders: Orders, started_at_ns: i64, pidfd: Option<OwnedFd>) -> Self {
        Self {
            orders,
            started_at_ns,
            pidfd,
            watchers: Mutex::default(),
            ended: Mutex::default(),
            lost: AtomicBool::new(false),
        }
    }

    fn socket(&self) -> std::path::PathBuf {
        self.orders.control_dir.join(format!("{}.sock", self.orders.worker))
    }

    fn accept(&self, listener: &OwnedFd) {
        while let Ok(peer) = accept(listener) {
            let mut bytes = [0; 4096];
            let Ok((len, _)) = recv(&peer, &mut bytes[..], RecvFlags::empty()) else { continue };
            if Hello::decode(&bytes[..len]).map(|hello| hello.nonce) != Ok(self.orders.nonce) {
                continue;
            }
            let version = "0.0.0-stage".to_owned();
            let running = Report::Running {
                generation: self.orders.generation,
                version,
                started_at_ns: self.started_at_ns,
                frozen: false,
            };
            let fds = [self.pidfd.as_ref().unwrap().as_fd()];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            control.push(SendAncillaryMessage::ScmRights(&fds));
            let mut watchers = self.watchers.lock().unwrap();
            match &*self.ended.lock().unwrap() {
                Some(record) => {
                    let _ = send(&peer, &Report::Ended(record.clone()).encode(), SendFlags::NOSIGNAL);
                }
                None => {
                    let _ = sendmsg(&peer, &[IoSlice::new(&running.encode())], &mut control, SendFlags::NOSIGNAL);
                    watchers.push(peer);
                }
            }
        }
    }

    fn end(&self, outcome: Outcome) {
        let record = ExitRecord {
            worker: self.orders.worker.clone(),
            generation: self.orders.generation,
            nonce: self.orders.nonce,
            started_at_ns: self.started_at_ns,
            finished_at_ns: now_ns(),
            outcome,
            user_us: 0,
            system_us: 0,
            max_rss_kib: 0,
            oom: false,
            log_bytes: 0,
            log_dropped_bytes: 0,
        };
        let name = ExitRecord::file_name(record.generation);
        let (temporary, last) = (self.orders.state_dir.join("exit.new"), self.orders.state_dir.join(name));
        std::fs::write(&temporary, record.encode()).unwrap();
        std::fs::rename(temporary, last).unwrap();
        let watchers = self.watchers.lock().unwrap();
        *self.ended.lock().unwrap() = Some(record.clone());
        for watcher in &*watchers {
            let _ = send(watcher, &Report::Ended(record.clone()).encode(), SendFlags::NOSIGNAL);
        }
        drop(std::fs::remove_file(self.socket()));
    }
}

fn listen(orders: &Orders) -> OwnedFd {
    let path = orders.control_dir.join(format!("{}.sock", orders.worker));
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    bind(&socket, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    rustix::net::listen(&socket, 16).unwrap();
    socket
}

fn keep(mut from: impl Read + Send + 'static, stream: Stream, log: Arc<Mutex<File>>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(len @ 1..) = from.read(&mut bytes) {
            let header = RecordHeader { time_ns: now_ns(), len: len as u32, stream };
            let record = [&header.encode()[..], &bytes[..len]].concat();
            log.lock().unwrap().write_all(&record).unwrap();
        }
    })
}

fn now_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64
}
