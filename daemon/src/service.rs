//! The owner's contract, one function a call: who, what, ask the worker, answer.

use crate::follow::Follow;
use crate::output::{self, Piece, Reader};
use crate::peer::Peer;
use crate::supervisor::{Ask, Entry, Shared, grace_of, invalid};
use crate::worker::spec;
use holdfast_launcher::output::Stream as Origin;
use holdfast_proto::daemon::daemon_server::{Daemon, DaemonServer};
use holdfast_proto::daemon::run_event::Event;
use holdfast_proto::daemon::*;
use holdfast_proto::problem::{Problem, Reason};
use holdfast_proto::{MESSAGE_BYTES_MAX, VERSION};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Response, Status};

/// Events of a stream that wait for a slow reader; the worker never waits for it.
const STREAM_EVENTS_MAX: usize = 16;

/// The service behind the check of the caller.
pub type Guarded = InterceptedService<DaemonServer<Service>, fn(Request<()>) -> Result<Request<()>, Status>>;

/// Answers for one owner's workers.
#[derive(Debug, Clone)]
pub struct Service {
    shared: Arc<Shared>,
}

impl Service {
    /// The service, with its caps, for the owner alone.
    pub fn guarded(shared: Arc<Shared>) -> Guarded {
        let server = DaemonServer::new(Self { shared })
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(usize::MAX);
        InterceptedService::new(server, admit)
    }
}

/// Every call of a foreign caller gets the same answer, before anything of it is read.
fn admit(request: Request<()>) -> Result<Request<()>, Status> {
    match request.extensions().get::<Peer>() {
        Some(Peer::Owner) => Ok(request),
        Some(Peer::Foreign) | None => Err(Problem::new(Reason::NotYours, "this daemon answers its owner alone")
            .hint("run holdfast as the owner, outside of any worker")
            .into()),
    }
}

type Answered<T> = Result<Response<T>, Status>;
type Events<T> = mpsc::Sender<Result<T, Status>>;

#[tonic::async_trait]
impl Daemon for Service {
    type RunStream = ReceiverStream<Result<RunEvent, Status>>;
    type LogsStream = ReceiverStream<Result<LogsEvent, Status>>;

    async fn run(&self, request: Request<RunRequest>) -> Answered<Self::RunStream> {
        let request = request.into_inner();
        let spec = request.spec.ok_or_else(|| invalid(spec::SpecError::Missing))?;
        let (entry, watch, started) = self.shared.create(spec).await?;
        let (events, stream) = mpsc::channel(STREAM_EVENTS_MAX);
        let shared = self.shared.clone();
        tokio::spawn(async move {
            // An error is a caller who has gone; the worker does not depend on them.
            drop(tell_run(&shared, &entry, request.attach, started, &events).await);
            drop(watch);
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn start(&self, request: Request<StartRequest>) -> Answered<StartReply> {
        let entry = self.shared.find(&request.into_inner().worker)?;
        let worker = entry.ask(Ask::Start).await?;
        Ok(Response::new(StartReply { worker: Some(worker) }))
    }

    async fn stop(&self, request: Request<StopRequest>) -> Answered<StopReply> {
        let request = request.into_inner();
        let entry = self.shared.find(&request.worker)?;
        let grace = grace_of(&entry, request.timeout_secs)?;
        let worker = entry.ask(|answer| Ask::Stop(grace, answer)).await?;
        Ok(Response::new(StopReply { worker: Some(worker) }))
    }

    async fn restart(&self, request: Request<RestartRequest>) -> Answered<RestartReply> {
        let request = request.into_inner();
        let entry = self.shared.find(&request.worker)?;
        let grace = grace_of(&entry, request.timeout_secs)?;
        let worker = entry.ask(|answer| Ask::Restart(grace, answer)).await?;
        Ok(Response::new(RestartReply { worker: Some(worker) }))
    }

    async fn kill(&self, request: Request<KillRequest>) -> Answered<KillReply> {
        let request = request.into_inner();
        let entry = self.shared.find(&request.worker)?;
        let signal = spec::signal(request.signal).map_err(invalid)?;
        let worker = entry.ask(|answer| Ask::Kill(signal, answer)).await?;
        Ok(Response::new(KillReply { worker: Some(worker) }))
    }

    async fn remove(&self, request: Request<RemoveRequest>) -> Answered<RemoveReply> {
        let request = request.into_inner();
        let entry = self.shared.find(&request.worker)?;
        entry.ask(|answer| Ask::Remove { force: request.force, answer }).await?;
        Ok(Response::new(RemoveReply { id: entry.id.to_string() }))
    }

    async fn wait(&self, request: Request<WaitRequest>) -> Answered<WaitReply> {
        let entry = self.shared.find(&request.into_inner().worker)?;
        let _watch = entry.watch();
        Ok(Response::new(WaitReply { worker: Some(entry.ended().await) }))
    }

    async fn list(&self, request: Request<ListRequest>) -> Answered<ListReply> {
        let all = request.into_inner().all;
        let views = self.shared.entries().into_iter().map(|entry| entry.view());
        let mut workers: Vec<_> = views.filter(|view| all || view.phase.is_live()).map(|view| view.worker).collect();
        workers.sort_by_key(|worker| worker.created_at);
        Ok(Response::new(ListReply { workers }))
    }

    async fn inspect(&self, request: Request<InspectRequest>) -> Answered<InspectReply> {
        let entry = self.shared.find(&request.into_inner().worker)?;
        let view = entry.view();
        let history =
            self.shared.store.history(entry.id).await.map_err(|error| crate::supervisor::not_recorded(&error))?;
        let figures = output::figures(&self.shared.log_dir(entry.id)).unwrap_or_default();
        let note = |note: crate::store::HistoryRow| HistoryEntry {
            time: note.time.0,
            generation: note.generation.0,
            phase: crate::supervisor::wire_phase(note.phase).into(),
            why: note.why,
        };
        Ok(Response::new(InspectReply {
            worker: Some(view.worker),
            spec: Some((*entry.spec).clone()),
            shim_pid: view.shim_pid,
            shim_version: view.shim_version,
            log_bytes: figures.bytes.max(view.log_at_end.0),
            log_dropped_bytes: figures.dropped_bytes.max(view.log_at_end.1),
            history: history.into_iter().map(note).collect(),
        }))
    }

    async fn logs(&self, request: Request<LogsRequest>) -> Answered<Self::LogsStream> {
        let request = request.into_inner();
        let entry = self.shared.find(&request.worker)?;
        let watch = entry.watch();
        let dir = self.shared.log_dir(entry.id);
        let reader = match request.tail_lines {
            Some(lines) => Reader::from_tail(&dir, lines).map_err(unreadable)?,
            None => Reader::from_start(&dir),
        };
        let (events, stream) = mpsc::channel(STREAM_EVENTS_MAX);
        let shared = self.shared.clone();
        tokio::spawn(async move {
            let event = |output| LogsEvent { output: Some(output) };
            let follow = request.follow.then(|| (&entry, shared.changes.follow(&dir)));
            // An error is a caller who has gone.
            drop(tell_output(reader, follow, &events, event).await);
            drop(watch);
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn status(&self, _request: Request<StatusRequest>) -> Answered<StatusReply> {
        let views: Vec<_> = self.shared.entries().into_iter().map(|entry| entry.view()).collect();
        let live = views.iter().filter(|view| view.phase.is_live()).count();
        let failed = views.iter().filter(|view| view.phase == crate::worker::Phase::Failed).count();
        Ok(Response::new(StatusReply {
            version: VERSION.into(),
            owner: self.shared.owner.to_string(),
            pid: std::process::id(),
            epoch: self.shared.epoch.0,
            programs: programs(&self.shared).await,
            workers_live: u32::try_from(live).unwrap_or(u32::MAX),
            workers_failed: u32::try_from(failed).unwrap_or(u32::MAX),
        }))
    }
}

/// The caller of a stream has gone.
struct Hangup;

async fn tell<T>(events: &Events<T>, event: T) -> Result<(), Hangup> {
    events.send(Ok(event)).await.map_err(|_| Hangup)
}

async fn tell_run(
    shared: &Shared,
    entry: &Entry,
    attach: bool,
    started: oneshot::Receiver<Result<Worker, Problem>>,
    events: &Events<RunEvent>,
) -> Result<(), Hangup> {
    let run = |event| RunEvent { event: Some(event) };
    tell(events, run(Event::Created(entry.view().worker))).await?;
    let started = started.await.unwrap_or_else(|_| Err(Problem::new(Reason::Internal, "the worker's loop has ended")));
    match started {
        Ok(worker) => tell(events, run(Event::Started(worker))).await?,
        Err(problem) => return events.send(Err(problem.into())).await.map_err(|_| Hangup),
    }
    if attach {
        let dir = shared.log_dir(entry.id);
        let follow = (entry, shared.changes.follow(&dir));
        tell_output(Reader::from_start(&dir), Some(follow), events, |output| run(Event::Output(output))).await?;
        tell(events, run(Event::Exited(entry.ended().await))).await?;
    }
    Ok(())
}

/// Output as it is kept; with `follow`, on until that worker is not live.
async fn tell_output<T>(
    mut reader: Reader,
    follow: Option<(&Entry, Follow)>,
    events: &Events<T>,
    event: impl Fn(Output) -> T,
) -> Result<(), Hangup> {
    let mut ended = follow.is_none();
    loop {
        let next = follow.as_ref().and_then(|(_, changes)| changes.next());
        let pieces = match reader.read() {
            Ok(pieces) => pieces,
            Err(error) => return events.send(Err(unreadable(error))).await.map_err(|_| Hangup),
        };
        if pieces.is_empty() {
            // Read once more after the end: the shim wrote everything before it said so.
            let (false, Some((entry, changes))) = (ended, &follow) else { return Ok(()) };
            tokio::select! {
                () = changes.changed(next) => {}
                _ = entry.ended() => ended = true,
                () = events.closed() => return Err(Hangup),
            }
        }
        for piece in pieces {
            tell(events, event(output_of(piece))).await?;
        }
    }
}

fn output_of(piece: Piece) -> Output {
    match piece {
        Piece::Bytes { stream, time_ns, bytes } => {
            let stream = match stream {
                Origin::Gap => 0,
                Origin::Stdout => 1,
                Origin::Stderr => 2,
            };
            Output { stream, bytes, time: time_ns, dropped: 0 }
        }
        Piece::Missing(dropped) => Output { stream: 0, bytes: Vec::new(), time: 0, dropped },
    }
}

fn unreadable(error: std::io::Error) -> Status {
    Problem::new(Reason::Internal, format!("the worker's output cannot be read: {error}")).into()
}

async fn programs(shared: &Shared) -> Vec<ProgramStatus> {
    let health = match shared.helper.health().await {
        Ok(health) => health,
        Err(problem) => {
            let program = |name: &str| ProgramStatus {
                name: name.into(),
                version: String::new(),
                pid: 0,
                healthy: false,
                why: problem.to_string(),
            };
            return vec![program("holdfast-helper"), program("holdfast-launcher")];
        }
    };
    let helper = ProgramStatus {
        name: "holdfast-helper".into(),
        version: health.version,
        pid: health.pid,
        healthy: true,
        why: health.forward_blockers.join("; "),
    };
    let why = if health.launcher_connected {
        String::new()
    } else {
        format!("the helper has no connection of {}'s launcher; it dials by itself when it runs", shared.owner)
    };
    let launcher = ProgramStatus {
        name: "holdfast-launcher".into(),
        version: health.launcher_version,
        pid: health.launcher_pid,
        healthy: health.launcher_connected,
        why,
    };
    vec![helper, launcher]
}
