#![allow(dead_code, clippy::unwrap_used)] // Each test uses its part, and says what went wrong by panicking.
//! A host in miniature: a network namespace of its own, an outside behind it, the real helper in it as an
//! unprivileged user with its two capabilities, and an owner whose launcher and daemon the test plays.

use holdfast_launcher::launch::{Failure, FromHelper, FromLauncher, Wiring};
use holdfast_proto::helper as wire;
use holdfast_proto::helper::helper_client::HelperClient;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};
use tonic::transport::Channel;

pub const HELPER_UID: u32 = 39001;
pub const OWNER_UID: u32 = 39002;
pub const STRANGER_UID: u32 = 39003;

static STAGES: AtomicU32 = AtomicU32::new(0);

/// Says why and returns true where this machine cannot play a host.
pub fn skip() -> bool {
    let root = rustix::process::getuid().is_root();
    let tools = ["ip", "nft", "setpriv", "nsenter", "unshare"].iter().all(|tool| {
        Command::new("sh")
            .args(["-c", &format!("command -v {tool}")])
            .stdout(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    });
    if !root || !tools {
        eprintln!("SKIP: needs root, ip, nft, setpriv, nsenter and unshare");
    }
    !root || !tools
}

pub struct Stage {
    pub root: PathBuf,
    pub host: String,
    pub outside: String,
    helper: Option<Child>,
    sockets: (OwnedFd, OwnedFd),
    pub workers: Arc<Mutex<BTreeMap<String, Worker>>>,
    pub manner: Arc<Mutex<Manner>>,
    /// More for the helper's environment.
    pub environment: Vec<(String, String)>,
}

/// How the fake launcher behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Manner {
    #[default]
    Proper,
    /// Sends the host's own network namespace.
    HostNetns,
    /// Sends the namespace of another user.
    ForeignNetns,
    /// Sends something that is no namespace.
    NoNetns,
    FailsToPrepare,
    FailsToRelease,
}

pub struct Worker {
    child: Child,
    pub netns: OwnedFd,
    pub wiring: Option<Wiring>,
}

impl Worker {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn run(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Waits until `done` says so.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let since = Instant::now();
    while !done() {
        assert!(since.elapsed() < Duration::from_secs(10), "not within 10 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Stage {
    pub fn new() -> Self {
        let name = format!("hft{}x{}", std::process::id(), STAGES.fetch_add(1, Ordering::Relaxed));
        let root = PathBuf::from(format!("/tmp/{name}"));
        let (host, outside) = (format!("{name}h"), format!("{name}o"));
        run(&format!(
            "mkdir -p {r}/etc/holdfast {r}/run/holdfast/helper && chmod 755 {r} {r}/etc/holdfast \
             && chown {HELPER_UID}:{HELPER_UID} {r}/run/holdfast/helper \
             && ip netns add {host} && ip netns add {outside} \
             && ip link add name up0 netns {host} type veth peer name eth0 netns {outside} \
             && ip -n {host} addr add 192.0.2.1/24 dev up0 && ip -n {host} link set up0 up && ip -n {host} link set lo up \
             && ip -n {outside} addr add 192.0.2.2/24 dev eth0 && ip -n {outside} link set eth0 up && ip -n {outside} link set lo up \
             && ip -n {host} route add default via 192.0.2.2",
            r = root.display()
        ));
        let sockets = (
            listener(&root.join("run/holdfast/helper.sock"), SocketType::STREAM),
            listener(&root.join("run/holdfast/launch.sock"), SocketType::SEQPACKET),
        );
        let stage = Self {
            root,
            host,
            outside,
            helper: None,
            sockets,
            workers: Arc::default(),
            manner: Arc::default(),
            environment: Vec::new(),
        };
        stage.write_rules("");
        stage
    }

    pub fn write_rules(&self, more: &str) {
        let text = format!("version = 1\n[owners.alice]\nuid = {OWNER_UID}\n{more}");
        std::fs::write(self.root.join("etc/holdfast/rules.toml"), text).unwrap();
    }

    /// Starts the helper and waits until it serves.
    pub fn start_helper(&mut self) {
        self.start_helper_with("--inh-caps=-all,+net_admin,+net_raw --ambient-caps=-all,+net_admin,+net_raw --bounding-set=-all,+net_admin,+net_raw");
        let client = self.owner(|mut client| async move { client.health(wire::HealthRequest {}).await.map(drop) });
        client.unwrap();
    }

    pub fn start_helper_with(&mut self, caps: &str) {
        let command = format!(
            "export LISTEN_PID=$$ LISTEN_FDS=2; exec nsenter --net=/run/netns/{} setpriv --reuid {HELPER_UID} --regid {HELPER_UID} --clear-groups {caps} {} --root {}",
            self.host,
            env!("CARGO_BIN_EXE_holdfast-helper"),
            self.root.display()
        );
        let (calls, launchers) = (self.sockets.0.as_raw_fd(), self.sockets.1.as_raw_fd());
        let mut child = Command::new("sh");
        child
            .args(["-c", &command])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .envs(self.environment.clone())
            .stderr(Stdio::piped());
        // SAFETY: only async-signal-safe calls between fork and exec.
        unsafe {
            child.pre_exec(move || {
                // Both out of the way first: either may be 3 or 4.
                let (calls, launchers) =
                    (libc::fcntl(calls, libc::F_DUPFD, 100), libc::fcntl(launchers, libc::F_DUPFD, 100));
                if libc::dup2(calls, 3) < 0 || libc::dup2(launchers, 4) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                libc::close(calls);
                libc::close(launchers);
                Ok(())
            });
        }
        self.helper = Some(child.spawn().unwrap());
    }

    /// Starts another helper beside the one that runs, and returns the older one.
    pub fn replace_helper(&mut self) -> Child {
        let older = self.helper.take().unwrap();
        self.start_helper();
        older
    }

    /// What the helper said before it ended by itself.
    pub fn helper_refusal(&mut self) -> String {
        let mut child = self.helper.take().unwrap();
        let mut text = String::new();
        child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        assert!(!child.wait().unwrap().success(), "{text}");
        text
    }

    pub fn helper_ends(&mut self) -> std::process::ExitStatus {
        self.helper.take().unwrap().wait().unwrap()
    }

    pub fn helper_pid(&self) -> u32 {
        self.helper.as_ref().unwrap().id()
    }

    /// As systemd's `kill -9` of the main process.
    pub fn kill_helper(&mut self) {
        let mut child = self.helper.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Runs calls as the owner's daemon.
    pub fn owner<T: Send + 'static, F: Future<Output = T>>(
        &self,
        calls: impl FnOnce(HelperClient<Channel>) -> F + Send + 'static,
    ) -> T {
        self.caller(OWNER_UID, calls)
    }

    /// The same where the connection itself may fail.
    pub fn try_owner<T: Send + 'static, F: Future<Output = T>>(
        &self,
        calls: impl FnOnce(HelperClient<Channel>) -> F + Send + 'static,
    ) -> Option<T> {
        let path = self.root.join("run/holdfast/helper.sock");
        let called = std::thread::spawn(move || {
            become_uid(OWNER_UID);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let endpoint = tonic::transport::Endpoint::from_shared(format!("unix://{}", path.display())).unwrap();
                let client = HelperClient::new(endpoint.connect().await.ok()?);
                tokio::time::timeout(Duration::from_secs(30), calls(client)).await.ok()
            })
        });
        called.join().unwrap()
    }

    pub fn helper_lives(&mut self) -> bool {
        self.helper.as_mut().unwrap().try_wait().unwrap().is_none()
    }

    /// Runs calls as some user.
    pub fn caller<T: Send + 'static, F: Future<Output = T>>(
        &self,
        uid: u32,
        calls: impl FnOnce(HelperClient<Channel>) -> F + Send + 'static,
    ) -> T {
        let path = self.root.join("run/holdfast/helper.sock");
        std::thread::spawn(move || {
            become_uid(uid);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let endpoint = tonic::transport::Endpoint::from_shared(format!("unix://{}", path.display())).unwrap();
                let called = async { calls(HelperClient::new(endpoint.connect().await.unwrap())).await };
                tokio::time::timeout(Duration::from_secs(30), called).await.expect("the helper does not answer")
            })
        })
        .join()
        .unwrap()
    }

    /// Dials in as the owner's launcher and serves it; redials as the real one does.
    pub fn start_launcher(&self) {
        let path = self.root.join("run/holdfast/launch.sock");
        let (workers, manner, host) = (Arc::clone(&self.workers), Arc::clone(&self.manner), self.host.clone());
        let (dialled, first) = mpsc::channel();
        std::thread::spawn(move || {
            while path.exists() {
                let Some(socket) = dial(&path, OWNER_UID) else { continue };
                send(socket.as_fd(), &FromLauncher::Dial { version: "test".into() }, &[]);
                let _ = dialled.send(());
                serve_launcher(socket.as_fd(), &workers, &manner, &host);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        first.recv_timeout(Duration::from_secs(5)).unwrap();
        self.wait_for_launcher();
    }

    pub fn wait_for_launcher(&self) {
        eventually("launcher connected", || {
            self.owner(|mut client| async move {
                client.health(wire::HealthRequest {}).await.unwrap().into_inner().launcher_connected
            })
        });
    }

    /// Runs a command in the host's namespace.
    pub fn in_host(&self, command: &str) -> String {
        run(&format!("ip netns exec {} sh -c '{command}'", self.host))
    }

    pub fn in_outside(&self, command: &str) -> String {
        run(&format!("ip netns exec {} sh -c '{command}'", self.outside))
    }

    pub fn ruleset(&self) -> String {
        self.in_host("nft list ruleset")
    }

    /// Links in the host that are named as the helper names them.
    pub fn our_links(&self) -> Vec<String> {
        let links = self.in_host("ip -o link");
        links
            .lines()
            .filter_map(|l| l.split(": ").nth(1))
            .map(|n| n.split('@').next().unwrap().to_owned())
            .filter(|n| n.starts_with("hf"))
            .collect()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(mut helper) = self.helper.take() {
            let _ = helper.kill();
            let _ = helper.wait();
            let mut text = String::new();
            let _ = helper.stderr.take().unwrap().read_to_string(&mut text);
            if std::thread::panicking() {
                eprintln!("--- the helper said:\n{text}---");
            }
        }
        let _ = std::fs::remove_dir_all(&self.root);
        self.workers.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clear();
        for netns in [&self.host, &self.outside] {
            let _ = Command::new("ip").args(["netns", "del", netns]).status();
        }
    }
}

pub fn launch_request(worker: u64, ports: &[(&str, u32, u32)]) -> wire::LaunchRequest {
    wire::LaunchRequest {
        epoch: 1,
        worker: format!("{worker:016x}"),
        generation: 1,
        network: "bridge".into(),
        ports: ports
            .iter()
            .map(|(proto, host, worker)| wire::Port {
                proto: (*proto).into(),
                host: *host,
                worker: *worker,
                address: String::new(),
            })
            .collect(),
        orders: b"opaque".to_vec(),
        ..Default::default()
    }
}

/// A program inside a worker that answers each TCP connection with its peer's address.
pub fn serve_peer_names(worker: &Worker, port: u16) {
    serve_peer_names_in(&format!("nsenter -t {} -n", worker.pid()), port);
}

pub fn serve_peer_names_in(prefix: &str, port: u16) {
    serve_peer_names_by("", prefix, port);
}

/// The same by IPv6.
pub fn serve_peer_names6_in(prefix: &str, port: u16) {
    serve_peer_names_by("socket.AF_INET6", prefix, port);
}

fn serve_peer_names_by(family: &str, prefix: &str, port: u16) {
    let program = format!(
        "import socket\ns=socket.socket({family});s.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1);s.bind((\"\",{port}));s.listen(64);print(\"up\",flush=True)\nwhile 1:\n c,a=s.accept();c.sendall(a[0].encode());c.close()"
    );
    let mut child = Command::new("sh")
        .args(["-c", &format!("exec {prefix} python3 -c '{program}'")])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
    KILLED_AT_END.with_borrow_mut(|all| all.push(Reaped(child)));
}

thread_local! {
    static KILLED_AT_END: std::cell::RefCell<Vec<Reaped>> = const { std::cell::RefCell::new(Vec::new()) };
}
struct Reaped(Child);
impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
    }
}

/// Ends the programs of [`serve_peer_names`].
pub fn end_servers() {
    KILLED_AT_END.with_borrow_mut(Vec::clear);
}

/// Connects from inside a namespace and returns what is said, or "refused", or "timeout".
pub fn ask(prefix: &str, address: &str, port: u16) -> String {
    let program = format!(
        "import socket,sys\ntry:\n s=socket.create_connection((\"{address}\",{port}),1);print(s.recv(100).decode())\nexcept socket.timeout: print(\"timeout\")\nexcept OSError as e: print(\"refused\")"
    );
    run(&format!("{prefix} python3 -c '{program}'")).trim().to_owned()
}

fn listener(path: &std::path::Path, kind: SocketType) -> OwnedFd {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
    rustix::net::bind(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    rustix::net::listen(&socket, 128).unwrap();
    run(&format!("chmod 666 {}", path.display()));
    socket
}

/// Of this thread alone, as SO_PEERCRED looks at the thread that connects.
fn become_uid(uid: u32) {
    // SAFETY: a plain system call on integers.
    let done = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
    assert_eq!(done, 0);
}

pub fn dial(path: &std::path::Path, uid: u32) -> Option<OwnedFd> {
    let path = path.to_owned();
    std::thread::spawn(move || {
        become_uid(uid);
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).ok()?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(&path).ok()?).ok()?;
        Some(socket)
    })
    .join()
    .unwrap()
}

pub fn send(socket: BorrowedFd<'_>, word: &FromLauncher, descriptors: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        control.push(rustix::net::SendAncillaryMessage::ScmRights(descriptors));
    }
    let _ =
        rustix::net::sendmsg(socket, &[IoSlice::new(&word.encode())], &mut control, rustix::net::SendFlags::NOSIGNAL);
}

/// The next word; none at the end of the connection. With the orders, where they came with it.
pub fn receive(socket: BorrowedFd<'_>) -> Option<(FromHelper, Vec<u8>)> {
    let mut packet = vec![0; 8192];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = rustix::net::RecvAncillaryBuffer::new(&mut space);
    let length = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut packet)],
        &mut control,
        rustix::net::RecvFlags::CMSG_CLOEXEC,
    )
    .ok()?
    .bytes;
    let mut orders = Vec::new();
    for message in control.drain() {
        if let rustix::net::RecvAncillaryMessage::ScmRights(rights) = message {
            for right in rights {
                std::fs::File::from(right).read_to_end(&mut orders).unwrap();
            }
        }
    }
    if length == 0 { None } else { Some((FromHelper::decode(&packet[..length]).unwrap(), orders)) }
}

fn serve_launcher(
    socket: BorrowedFd<'_>,
    workers: &Mutex<BTreeMap<String, Worker>>,
    manner: &Mutex<Manner>,
    host: &str,
) {
    let mut names = BTreeMap::new();
    while let Some((word, _)) = receive(socket) {
        let how = *manner.lock().unwrap();
        let failed = |seq| FromLauncher::Failed { seq, failure: Failure { step: "test".into(), errno: libc::ENOMEM } };
        match word {
            FromHelper::Prepare { seq, .. } if how == Manner::FailsToPrepare => send(socket, &failed(seq), &[]),
            FromHelper::Prepare { seq, worker, .. } => {
                let made = make_worker(if how == Manner::ForeignNetns { STRANGER_UID } else { OWNER_UID });
                let shim_pid = made.pid();
                let pidfd = rustix::process::pidfd_open(
                    rustix::process::Pid::from_raw(shim_pid as i32).unwrap(),
                    rustix::process::PidfdFlags::empty(),
                )
                .unwrap();
                let other: Option<OwnedFd> = match how {
                    Manner::HostNetns => Some(std::fs::File::open(format!("/run/netns/{host}")).unwrap().into()),
                    Manner::NoNetns => Some(std::fs::File::open("/dev/null").unwrap().into()),
                    _ => None,
                };
                let netns = other.as_ref().unwrap_or(&made.netns);
                send(socket, &FromLauncher::Prepared { seq, shim_pid }, &[netns.as_fd(), pidfd.as_fd()]);
                names.insert(seq, worker.clone());
                workers.lock().unwrap().insert(worker, made);
            }
            FromHelper::Release { seq, wiring } => {
                let name = &names[&seq];
                let mut workers = workers.lock().unwrap();
                if how == Manner::FailsToRelease {
                    workers.remove(name);
                    send(socket, &failed(seq), &[]);
                    continue;
                }
                let worker = workers.get_mut(name).unwrap();
                wire_inside(worker, &wiring);
                worker.wiring = Some(wiring);
                send(socket, &FromLauncher::Released { seq }, &[]);
            }
            FromHelper::Abort { seq } => {
                if let Some(name) = names.get(&seq) {
                    workers.lock().unwrap().remove(name);
                }
                send(socket, &failed(seq), &[]);
            }
        }
    }
}

fn make_worker(uid: u32) -> Worker {
    let mut child = Command::new("setpriv")
        .args([&format!("--reuid={uid}"), &format!("--regid={uid}"), "--clear-groups"])
        .args(["unshare", "--user", "--map-root-user", "--net", "sh", "-c", "echo up; exec sleep 1000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
    let netns = std::fs::File::open(format!("/proc/{}/ns/net", child.id())).unwrap().into();
    Worker { child, netns, wiring: None }
}

fn wire_inside(worker: &Worker, wiring: &Wiring) {
    let mut script = String::from("ip link set lo up\n");
    if !wiring.link.is_empty() {
        for (address, prefix) in &wiring.addresses {
            script += &format!("ip addr add {address}/{prefix} dev {}\nip link set {} up\n", wiring.link, wiring.link);
        }
        for gateway in &wiring.gateways {
            script += &format!("ip route add default via {gateway} dev {} onlink\n", wiring.link);
        }
    }
    let mut child = Command::new("nsenter")
        .args(["-t", &worker.pid().to_string(), "-n", "sh", "-e"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// How to run something inside a worker.
pub fn inside(worker: &Worker) -> String {
    format!("nsenter -t {} -n", worker.pid())
}
