//! A daemon that serves the real contract over a real socket and does what a test's worker names say.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a stage that breaks fails its test")]

use holdfast_proto::daemon::daemon_server::{Daemon, DaemonServer};
use holdfast_proto::daemon::exit::How;
use holdfast_proto::daemon::run_event::Event;
use holdfast_proto::daemon::*;
use holdfast_proto::problem::{Problem, Reason};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output as Finished, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status};

type Stream<T> = ReceiverStream<Result<T, Status>>;
type Reply<T> = Result<Response<T>, Status>;

/// What the daemon was asked, and what it says.
#[derive(Clone)]
pub struct Fake {
    pub asked: Arc<Mutex<Vec<String>>>,
    pub specs: Arc<Mutex<Vec<WorkerSpec>>>,
    pub workers: Arc<Vec<Worker>>,
    /// What the helper says of firewalls beside its health; empty: it is not healthy.
    pub firewall: String,
    signals: watch::Sender<u32>,
}

/// A daemon in a directory of its own.
pub struct Running {
    pub fake: Fake,
    directory: tempfile::TempDir,
}

pub fn worker(name: &str) -> Worker {
    Worker {
        id: "00112233445566aa".into(),
        name: name.into(),
        phase: Phase::Running.into(),
        generation: 1,
        pid: 4711,
        created_at: 1_700_000_000_000_000_000,
        started_at: 1_700_000_001_500_000_000,
        addresses: vec!["10.88.0.2/22".into()],
        ports: vec![Publish { proto: "tcp".into(), host: 8080, worker: 80, address: String::new() }],
        command: vec![b"python3".to_vec(), b"-m".to_vec(), b"http.server".to_vec()],
        network: "bridge".into(),
        owner: "alice".into(),
        ..Worker::default()
    }
}

pub fn ended(name: &str, how: How) -> Worker {
    let exit = Exit { how: Some(how), ..Exit::default() };
    let finished_at = 1_700_000_002_000_000_000;
    Worker { phase: Phase::Stopped.into(), pid: 0, finished_at, exit: Some(exit), ..worker(name) }
}

impl Running {
    pub fn with(workers: Vec<Worker>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let fake = Fake {
            asked: Arc::default(),
            specs: Arc::default(),
            workers: Arc::new(workers),
            firewall: String::new(),
            signals: watch::Sender::new(0),
        };
        let running = Self { fake, directory };
        running.serve();
        running
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("daemon.sock")
    }

    /// Listens (again) on a thread that lives as long as the test's process.
    pub fn serve(&self) {
        let (path, fake) = (self.socket(), self.fake.clone());
        let _ = std::fs::remove_file(&path);
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        listener.set_nonblocking(true).unwrap();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let incoming = UnixListenerStream::new(tokio::net::UnixListener::from_std(listener).unwrap());
                let server = tonic::transport::Server::builder().add_service(DaemonServer::new(fake));
                server.serve_with_incoming(incoming).await.unwrap();
            });
        });
    }

    /// The real program, as it would be typed.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = holdfast(words);
        command.env("HOLDFAST_SOCKET", self.socket());
        command
    }

    pub fn run(&self, words: &[&str]) -> Done {
        Done::of(self.command(words).stdin(Stdio::null()).output().unwrap())
    }

    pub fn asked(&self) -> Vec<String> {
        self.fake.asked.lock().unwrap().clone()
    }
}

/// The program; root asks in the name of an account that is everywhere.
pub fn holdfast(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    if nix::unistd::geteuid().is_root() {
        command.args(["--owner", "nobody"]);
    }
    command.args(words).env_remove("HOLDFAST_SOCKET").env_remove("HOLDFAST_SESSION").env_remove("XDG_RUNTIME_DIR");
    command
}

/// How a run of the program ended.
#[derive(Debug)]
pub struct Done {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Done {
    pub fn of(finished: Finished) -> Self {
        Self {
            code: finished.status.code(),
            out: String::from_utf8_lossy(&finished.stdout).into_owned(),
            err: String::from_utf8_lossy(&finished.stderr).into_owned(),
        }
    }
}

impl Fake {
    fn note(&self, what: impl Into<String>) {
        self.asked.lock().unwrap().push(what.into());
    }

    fn find(&self, name: &str) -> Result<Worker, Status> {
        let found = self.workers.iter().find(|worker| worker.name == name || worker.id == name).cloned();
        found.ok_or_else(|| {
            Problem::new(Reason::NoSuchWorker, format!("no worker {name:?}")).hint("holdfast ps -a").into()
        })
    }
}

fn output(stream: u32, text: &str) -> Output {
    Output { stream, bytes: text.as_bytes().to_vec(), time: 1, ..Output::default() }
}

fn refusal(program: &str) -> Option<Problem> {
    match program {
        "not-found" => Some(Problem::new(Reason::NotFound, "no such program")),
        "cannot-execute" => Some(Problem::new(Reason::CannotExecute, "not executable")),
        "refused" => Some(Problem::new(Reason::Rules, "port 80 is outside 1024-65535").hint("use --ports")),
        _ => None,
    }
}

#[tonic::async_trait]
impl Daemon for Fake {
    type RunStream = Stream<RunEvent>;
    type LogsStream = Stream<LogsEvent>;
    type ExecStream = Stream<ExecOutput>;

    /// Knows no worker; sessions are tried against the real daemon and shim.
    async fn exec(&self, _: Request<tonic::Streaming<ExecInput>>) -> Reply<Self::ExecStream> {
        self.note("exec");
        Err(Problem::new(Reason::NoSuchWorker, "there is no such worker").into())
    }
    type EventsStream = Stream<EventsReply>;

    async fn run(&self, request: Request<RunRequest>) -> Reply<Self::RunStream> {
        let request = request.into_inner();
        let spec = request.spec.unwrap();
        let program = String::from_utf8(spec.command[0].clone()).unwrap();
        self.specs.lock().unwrap().push(spec);
        self.note(format!("run {program} attach={}", request.attach));
        if let Some(problem) = refusal(&program) {
            return Err(problem.into());
        }
        let (events, stream) = mpsc::channel(8);
        let mut signals = self.signals.subscribe();
        tokio::spawn(async move {
            let say = async |event| events.send(Ok(RunEvent { event: Some(event) })).await.is_ok();
            say(Event::Created(worker("web"))).await;
            if program == "hang" {
                return std::future::pending::<()>().await;
            }
            say(Event::Started(worker("web"))).await;
            if !request.attach {
                return;
            }
            say(Event::Output(output(1, "to stdout\n"))).await;
            let how = match program.as_str() {
                "breaks-off" => {
                    let _ = events.send(Err(Status::unavailable("transport"))).await;
                    return;
                }
                "until-signal" => {
                    signals.wait_for(|signal| *signal != 0).await.unwrap();
                    How::Signal(*signals.borrow())
                }
                "segv" => How::Signal(11),
                "endless" => {
                    while say(Event::Output(output(1, &"x".repeat(32 * 1024)))).await {}
                    return;
                }
                code => How::Code(code.parse().unwrap_or(0)),
            };
            say(Event::Output(output(2, "to stderr\n"))).await;
            say(Event::Exited(ended("web", how))).await;
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn start(&self, request: Request<StartRequest>) -> Reply<StartReply> {
        let name = request.into_inner().worker;
        self.note(format!("start {name}"));
        Ok(Response::new(StartReply { worker: Some(self.find(&name)?) }))
    }

    async fn stop(&self, request: Request<StopRequest>) -> Reply<StopReply> {
        let request = request.into_inner();
        self.note(format!("stop {} {:?}", request.worker, request.timeout_secs));
        Ok(Response::new(StopReply { worker: Some(self.find(&request.worker)?) }))
    }

    async fn restart(&self, request: Request<RestartRequest>) -> Reply<RestartReply> {
        let request = request.into_inner();
        self.note(format!("restart {} {:?}", request.worker, request.timeout_secs));
        Ok(Response::new(RestartReply { worker: Some(self.find(&request.worker)?) }))
    }

    async fn suspend(&self, request: Request<SuspendRequest>) -> Reply<SuspendReply> {
        let name = request.into_inner().worker;
        self.note(format!("suspend {name}"));
        Ok(Response::new(SuspendReply { worker: Some(self.find(&name)?) }))
    }

    async fn resume(&self, request: Request<ResumeRequest>) -> Reply<ResumeReply> {
        let name = request.into_inner().worker;
        self.note(format!("resume {name}"));
        Ok(Response::new(ResumeReply { worker: Some(self.find(&name)?) }))
    }

    async fn kill(&self, request: Request<KillRequest>) -> Reply<KillReply> {
        let request = request.into_inner();
        self.note(format!("kill {} {}", request.worker, request.signal));
        self.signals.send_replace(request.signal);
        Ok(Response::new(KillReply { worker: Some(worker(&request.worker)) }))
    }

    async fn remove(&self, request: Request<RemoveRequest>) -> Reply<RemoveReply> {
        let request = request.into_inner();
        self.note(format!("remove {} force={}", request.worker, request.force));
        let worker = self.find(&request.worker)?;
        if worker.pid != 0 && !request.force {
            return Err(Problem::new(Reason::WrongPhase, "it is running").hint("stop it, or rm -f").into());
        }
        Ok(Response::new(RemoveReply { id: worker.id }))
    }

    async fn create_network(&self, request: Request<CreateNetworkRequest>) -> Reply<CreateNetworkReply> {
        let request = request.into_inner();
        self.note(format!("create network {} {} internal={}", request.name, request.subnet, request.internal));
        Ok(Response::new(CreateNetworkReply { network: Some(Network { name: request.name, ..Default::default() }) }))
    }
    async fn list_networks(&self, _: Request<ListNetworksRequest>) -> Reply<ListNetworksReply> {
        Ok(Response::new(ListNetworksReply::default()))
    }
    async fn inspect_network(&self, _: Request<InspectNetworkRequest>) -> Reply<InspectNetworkReply> {
        Ok(Response::new(InspectNetworkReply::default()))
    }
    async fn remove_network(&self, _: Request<RemoveNetworkRequest>) -> Reply<RemoveNetworkReply> {
        Ok(Response::new(RemoveNetworkReply::default()))
    }
    async fn prune(&self, request: Request<PruneRequest>) -> Reply<PruneReply> {
        let request = request.into_inner();
        self.note(format!("prune {:?} dry_run={}", request.filters, request.dry_run));
        let ended = self.workers.iter().filter(|worker| worker.pid == 0);
        let pruned = ended.map(|worker| Pruned {
            id: worker.id.clone(),
            name: worker.name.clone(),
            phase: worker.phase,
            bytes: 2048,
        });
        Ok(Response::new(PruneReply { pruned: pruned.collect() }))
    }

    async fn wait(&self, request: Request<WaitRequest>) -> Reply<WaitReply> {
        let name = request.into_inner().worker;
        self.note(format!("wait {name}"));
        Ok(Response::new(WaitReply { worker: Some(self.find(&name)?) }))
    }

    async fn list(&self, request: Request<ListRequest>) -> Reply<ListReply> {
        let ListRequest { all, filters } = request.into_inner();
        self.note(format!("list all={all} filters={filters:?}"));
        if self.workers.first().is_some_and(|worker| worker.name == "hang") {
            std::future::pending::<()>().await;
        }
        let shown = self.workers.iter().filter(|worker| all || worker.pid != 0);
        Ok(Response::new(ListReply { workers: shown.cloned().collect() }))
    }

    async fn inspect(&self, request: Request<InspectRequest>) -> Reply<InspectReply> {
        let worker = self.find(&request.into_inner().worker)?;
        let entry = HistoryEntry { time: worker.created_at, generation: 1, phase: 2, why: "run".into() };
        Ok(Response::new(InspectReply {
            spec: Some(WorkerSpec { name: worker.name.clone(), command: worker.command.clone(), ..Default::default() }),
            worker: Some(worker),
            shim_pid: 4710,
            shim_version: "0.1.0".into(),
            log_bytes: 10,
            log_dropped_bytes: 3,
            history: vec![entry],
            enforced: None,
        }))
    }

    async fn logs(&self, request: Request<LogsRequest>) -> Reply<Self::LogsStream> {
        let request = request.into_inner();
        self.note(format!("logs {} follow={} tail={:?}", request.worker, request.follow, request.tail_lines));
        let worker = self.find(&request.worker)?;
        let (events, stream) = mpsc::channel(8);
        tokio::spawn(async move {
            let say = async |output| events.send(Ok(LogsEvent { output: Some(output) })).await.is_ok();
            let mut seen = usize::try_from(request.position.unwrap_or(0)).unwrap();
            for (stream, text) in [(1, "to stdout\n"), (2, "to stderr\n")] {
                let rest = text.get(seen..).unwrap_or_default();
                seen = seen.saturating_sub(text.len());
                if !rest.is_empty() {
                    say(output(stream, rest)).await;
                }
            }
            while worker.name == "endless" && say(output(1, &"x".repeat(32 * 1024))).await {}
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn stats(&self, request: Request<StatsRequest>) -> Reply<StatsReply> {
        let request = request.into_inner();
        let mut asked = self.asked.lock().unwrap();
        asked.push(format!("stats {}", request.workers.join(" ")));
        // Each look is a second after the last, in which half a second of CPU time was used.
        let looks = asked.iter().filter(|asked| asked.starts_with("stats")).count() as u64;
        let named = |worker: &&Worker| request.workers.is_empty() || request.workers.contains(&worker.name);
        let stats = |worker: &Worker| WorkerStats {
            worker: Some(worker.clone()),
            counters: (worker.pid != 0).then_some(Counters {
                at_us: looks * 1_000_000,
                cpu_us: Some(looks * 500_000),
                memory_bytes: Some(5 << 20),
                tasks: Some(3),
                received_bytes: Some(looks * 2048),
                sent_bytes: Some(0),
                ..Counters::default()
            }),
        };
        let workers: Vec<_> = self.workers.iter().filter(named).map(stats).collect();
        if workers.is_empty() {
            return Err(Problem::new(Reason::NoSuchWorker, "there is no such worker").into());
        }
        Ok(Response::new(StatsReply { workers }))
    }

    async fn events(&self, request: Request<EventsRequest>) -> Reply<Self::EventsStream> {
        let request = request.into_inner();
        let EventsRequest { cursor, follow, filters, .. } = request.clone();
        self.note(format!("events cursor={cursor:?} follow={follow} {filters:?} {}", request.since > 0));
        let (events, stream) = mpsc::channel(8);
        tokio::spawn(async move {
            let begins = cursor.unwrap_or(7);
            let event = |number: u64| holdfast_proto::daemon::Event {
                kind: EventKind::Started.into(),
                name: format!("w{number}"),
                time: 1_700_000_000_000_000_000,
                ..Default::default()
            };
            let _ = events.send(Ok(EventsReply { cursor: begins, event: None })).await;
            for number in begins + 1..=10 {
                let _ = events.send(Ok(EventsReply { cursor: number, event: Some(event(number)) })).await;
                if follow && number < 10 {
                    let _ = events.send(Err(Status::unavailable("transport"))).await;
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Reply<StatusReply> {
        let helper = ProgramStatus {
            name: "helper".into(),
            version: "0.1.0".into(),
            pid: 12,
            healthy: !self.firewall.is_empty(),
            why: if self.firewall.is_empty() { "it does not answer".into() } else { self.firewall.clone() },
        };
        Ok(Response::new(StatusReply {
            version: "0.1.0".into(),
            owner: "alice".into(),
            pid: 11,
            epoch: 3,
            programs: vec![helper],
            workers_live: 1,
            workers_failed: 2,
            ..Default::default()
        }))
    }
}

/// Waits for something that a test expects soon.
pub fn soon(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..500 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("never came: {what}");
}
