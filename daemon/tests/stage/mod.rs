//! A stage for the real holdfastd: a session's directory, its listening socket, and a helper that makes shims
//! in threads of this process. They speak the real forms over real sockets; only namespaces are not there.

#![allow(dead_code, missing_docs, clippy::unwrap_used)]

pub mod helper;
pub mod shim;

use holdfast_proto::daemon::daemon_client::DaemonClient;
use holdfast_proto::daemon::*;
use holdfast_proto::layout::Layout;
use holdfast_proto::words::OwnerName;
use nix::unistd::{Uid, User};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tonic::transport::{Channel, Endpoint};

pub struct Stage {
    pub dir: tempfile::TempDir,
    pub layout: Layout,
    pub owner: OwnerName,
    listener: UnixListener,
    daemon: Option<Child>,
    pub helper: Option<helper::Helper>,
    pub world: helper::World,
}

impl Stage {
    /// A stage with a helper and no daemon yet.
    pub async fn new() -> Self {
        let user = User::from_uid(Uid::current()).unwrap().unwrap();
        let owner: OwnerName = user.name.parse().unwrap();
        let dir = tempfile::Builder::new().prefix("hfd").tempdir_in("/tmp").unwrap();
        open_to_all(dir.path(), 0o755);
        let layout = Layout::below(dir.path());
        for path in [layout.owner_state(&owner), layout.workers_run(&owner)] {
            std::fs::create_dir_all(&path).unwrap();
            open_to_all(&path, 0o700);
        }
        let listener = UnixListener::bind(layout.daemon_socket(&owner)).unwrap();
        open_to_all(&layout.daemon_socket(&owner), 0o666);
        let world = helper::World::new();
        let mut stage = Self { dir, layout, owner, listener, daemon: None, helper: None, world };
        stage.start_helper().await;
        stage
    }

    /// A stage where everything runs.
    pub async fn started() -> Self {
        let mut stage = Self::new().await;
        stage.start_daemon();
        stage
    }

    pub async fn start_helper(&mut self) {
        self.helper = Some(helper::serve(&self.layout.helper_socket(), self.world.clone()).await);
    }

    pub fn stop_helper(&mut self) {
        self.helper = None;
        drop(std::fs::remove_file(self.layout.helper_socket()));
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new("sh");
        let listener: OwnedFd = self.listener.try_clone().unwrap().into();
        command
            .arg("-c")
            .arg(r#"exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1; export LISTEN_PID LISTEN_FDS; exec "$@""#)
            .arg("sh")
            .arg(program())
            .args(["--owner", self.owner.as_str(), "--root"])
            .arg(self.dir.path())
            .stdin(Stdio::from(listener));
        command
    }

    pub fn start_daemon(&mut self) {
        assert!(self.daemon.is_none());
        self.daemon = Some(self.command().spawn().unwrap());
    }

    /// SIGKILL, as a crash.
    pub fn kill_daemon(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    /// SIGTERM; answers how long it took to end.
    pub fn stop_daemon(&mut self) -> Duration {
        let mut daemon = self.daemon.take().unwrap();
        let begun = Instant::now();
        let pid = nix::unistd::Pid::from_raw(daemon.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        assert!(daemon.wait().unwrap().success());
        begun.elapsed()
    }

    /// Leaves the daemon to the caller.
    pub fn forget_daemon(&mut self) -> Child {
        self.daemon.take().unwrap()
    }

    pub fn daemon_pid(&self) -> u32 {
        self.daemon.as_ref().unwrap().id()
    }

    pub async fn client(&self) -> DaemonClient<Channel> {
        let path = self.layout.daemon_socket(&self.owner);
        let endpoint = Endpoint::from_shared(format!("unix://{}", path.display())).unwrap();
        DaemonClient::new(endpoint.connect().await.unwrap()).max_decoding_message_size(usize::MAX)
    }

    pub fn log_dir(&self, id: &str) -> PathBuf {
        self.layout.worker_state(&self.owner, id.parse().unwrap()).join("log")
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            drop(daemon.kill());
            drop(daemon.wait());
        }
        self.world.kill_all();
    }
}

/// Daemon and caller must be one ordinary user. As root, the test is done by `games` (which every Debian has, and
/// which owns nothing) in a copy of this program; then it is done here.
pub fn is_done_as_ordinary_user(test: &str) -> bool {
    if !Uid::current().is_root() {
        return false;
    }
    let games = User::from_name("games").unwrap().unwrap();
    let status = Command::new(copy(&std::env::current_exe().unwrap()))
        .args([test, "--exact", "--nocapture"])
        .env("HOLDFASTD", program())
        .uid(games.uid.as_raw())
        .gid(games.gid.as_raw())
        .current_dir("/")
        .status()
        .unwrap();
    assert!(status.success(), "{test}, as games");
    true
}

/// The program under test.
pub fn program() -> PathBuf {
    static COPY: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    let given = || std::env::var_os("HOLDFASTD").map(PathBuf::from);
    COPY.get_or_init(|| given().unwrap_or_else(|| copy(Path::new(env!("CARGO_BIN_EXE_holdfastd"))))).clone()
}

/// A copy that any user may read and execute, one a build; without root the program itself.
fn copy(program: &Path) -> PathBuf {
    use std::os::unix::fs::MetadataExt;
    if !Uid::current().is_root() {
        return program.to_owned();
    }
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let built = std::fs::metadata(program).unwrap();
    let name = program.file_name().unwrap().display();
    let copy = dir.join(format!("{name}.{}.{}", built.mtime(), built.mtime_nsec()));
    if !copy.exists() {
        let temporary = dir.join(format!("{name}.{}.{:?}", std::process::id(), std::thread::current().id()));
        std::fs::copy(program, &temporary).unwrap();
        open_to_all(&temporary, 0o755);
        std::fs::rename(temporary, &copy).unwrap();
    }
    copy
}

pub fn open_to_all(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

pub fn spec(command: &[&str]) -> WorkerSpec {
    WorkerSpec {
        command: command.iter().map(|word| word.as_bytes().to_vec()).collect(),
        network: "none".into(),
        ..Default::default()
    }
}

pub fn named(name: &str, command: &[&str]) -> WorkerSpec {
    WorkerSpec { name: name.into(), ..spec(command) }
}

/// What a run said, to its end.
#[derive(Debug, Default)]
pub struct Run {
    pub created: Option<Worker>,
    pub existing: Option<Worker>,
    pub started: Option<Worker>,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub exited: Option<Worker>,
}

pub async fn run(
    client: &mut DaemonClient<Channel>,
    spec: WorkerSpec,
    attach: bool,
) -> Result<Run, holdfast_proto::problem::Problem> {
    let problem = |status: tonic::Status| holdfast_proto::problem::Problem::from_status(&status);
    let mut events = client.run(RunRequest { spec: Some(spec), attach }).await.map_err(problem)?.into_inner();
    let mut run = Run::default();
    while let Some(event) = events.message().await.map_err(problem)? {
        match event.event.unwrap() {
            run_event::Event::Created(worker) => run.created = Some(worker),
            run_event::Event::Existing(worker) => run.existing = Some(worker),
            run_event::Event::Started(worker) => run.started = Some(worker),
            run_event::Event::Output(output) if output.stream == 1 => run.stdout.extend(output.bytes),
            run_event::Event::Output(output) => run.stderr.extend(output.bytes),
            run_event::Event::Exited(worker) => run.exited = Some(worker),
        }
    }
    Ok(run)
}

pub async fn list(client: &mut DaemonClient<Channel>, all: bool) -> Vec<Worker> {
    client.list(ListRequest { all, ..Default::default() }).await.unwrap().into_inner().workers
}

pub fn code(worker: &Worker) -> Option<u32> {
    match worker.exit.as_ref()?.how? {
        exit::How::Code(code) => Some(code),
        exit::How::Signal(_) => None,
    }
}

pub fn signal_of(worker: &Worker) -> Option<u32> {
    match worker.exit.as_ref()?.how? {
        exit::How::Signal(signal) => Some(signal),
        exit::How::Code(_) => None,
    }
}

/// Waits until something is so; the limit is generous, the wait short.
pub async fn until<F: AsyncFnMut() -> bool>(mut so: F) {
    let limit = Instant::now() + Duration::from_secs(10);
    while !so().await {
        assert!(Instant::now() < limit, "it did not come to be");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
