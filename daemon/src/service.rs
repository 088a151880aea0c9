//! The owner's contract, one function a call: who, what, ask the worker, answer.

mod events;
mod networks;
mod once;
mod programs;
mod prune;
mod runs;
pub mod standard;
mod tell;

use crate::leave;
use crate::output::{self, Reader};
use crate::peer::Peer;
use crate::stats;
use crate::supervisor::{Ask, Shared, invalid};
use crate::worker::Phase as WorkerPhase;
use crate::worker::Verb;
use crate::worker::events::Wanted;
use crate::worker::query::{Filter, FilterError};
use crate::worker::spec;
use holdfast_proto::daemon::daemon_server::{Daemon, DaemonServer};
use holdfast_proto::daemon::*;
use holdfast_proto::problem::{Problem, Reason};
use holdfast_proto::{MESSAGE_BYTES_MAX, VERSION};
use once::Attempt;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Response, Status, Streaming};

/// Events of a stream that wait for a slow reader; the worker never waits for it.
const STREAM_EVENTS_MAX: usize = 16;

/// A service behind the check of the caller.
pub type Guarded<S> = InterceptedService<S, fn(Request<()>) -> Result<Request<()>, Status>>;

/// Answers for one owner's workers.
#[derive(Debug, Clone)]
pub struct Service {
    shared: Arc<Shared>,
    /// Calls under way, by their keys.
    under_way: Arc<once::UnderWay>,
}

impl Service {
    /// The service, with its caps, for the owner alone.
    pub fn guarded(shared: Arc<Shared>) -> Guarded<DaemonServer<Self>> {
        let server = DaemonServer::new(Self { shared, under_way: Arc::default() })
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(usize::MAX);
        InterceptedService::new(server, admit)
    }
}

/// Every call of a foreign caller gets the same answer, before anything of it is read.
fn admit(request: Request<()>) -> Result<Request<()>, Status> {
    match request.extensions().get::<Peer>() {
        Some(peer) if peer.is_owner() => Ok(request),
        Some(_) | None => Err(Problem::new(Reason::NotYours, "this daemon answers its owner alone")
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
    type ExecStream = crate::exec::Output;

    async fn exec(&self, request: Request<Streaming<ExecInput>>) -> Answered<Self::ExecStream> {
        Ok(Response::new(crate::exec::exec(self.shared.clone(), request.into_inner()).await?))
    }
    type EventsStream = ReceiverStream<Result<EventsReply, Status>>;

    async fn run(&self, request: Request<RunRequest>) -> Answered<Self::RunStream> {
        let call = once::call_of(&request)?;
        let request = request.into_inner();
        let turn = match &call {
            Some(call) => Some(self.under_way.enter(call.key).await),
            None => None,
        };
        let created = runs::created(&self.shared, request.spec, call).await?;
        let (events, stream) = mpsc::channel(STREAM_EVENTS_MAX);
        let shared = self.shared.clone();
        tokio::spawn(async move {
            // An error is a caller who has gone; the worker does not depend on them.
            drop(runs::run(&shared, (created, turn), request.attach, &events).await);
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn start(&self, request: Request<StartRequest>) -> Answered<StartReply> {
        let act = async |attempt: Attempt, _: StartRequest| {
            Ok(StartReply { worker: Some(attempt.ask(Verb::Start, Ask::Start).await?) })
        };
        self.once(request, act).await
    }

    async fn stop(&self, request: Request<StopRequest>) -> Answered<StopReply> {
        let act = async |attempt: Attempt, request: StopRequest| {
            let grace = attempt.grace(request.timeout_secs)?;
            let ask = if request.for_shutdown { Ask::PowerOff } else { Ask::Stop };
            Ok(StopReply { worker: Some(attempt.ask(Verb::Stop, |answer| ask(grace, answer)).await?) })
        };
        self.once(request, act).await
    }

    async fn restart(&self, request: Request<RestartRequest>) -> Answered<RestartReply> {
        let act = async |attempt: Attempt, request: RestartRequest| {
            let grace = attempt.grace(request.timeout_secs)?;
            let worker = attempt.ask(Verb::Restart, |answer| Ask::Restart(grace, answer)).await?;
            Ok(RestartReply { worker: Some(worker) })
        };
        self.once(request, act).await
    }

    async fn suspend(&self, request: Request<SuspendRequest>) -> Answered<SuspendReply> {
        let act = async |attempt: Attempt, _: SuspendRequest| {
            Ok(SuspendReply { worker: Some(attempt.ask(Verb::Suspend, Ask::Suspend).await?) })
        };
        self.once(request, act).await
    }

    async fn resume(&self, request: Request<ResumeRequest>) -> Answered<ResumeReply> {
        let act = async |attempt: Attempt, _: ResumeRequest| {
            Ok(ResumeReply { worker: Some(attempt.ask(Verb::Resume, Ask::Resume).await?) })
        };
        self.once(request, act).await
    }

    async fn kill(&self, request: Request<KillRequest>) -> Answered<KillReply> {
        let act = async |attempt: Attempt, request: KillRequest| {
            let signal = spec::signal(request.signal).map_err(invalid)?;
            Ok(KillReply { worker: Some(attempt.ask(Verb::Kill, |answer| Ask::Kill(signal, answer)).await?) })
        };
        self.once(request, act).await
    }

    async fn remove(&self, request: Request<RemoveRequest>) -> Answered<RemoveReply> {
        let act = async |attempt: Attempt, request: RemoveRequest| {
            attempt.ask(Verb::Remove, |answer| Ask::Remove { force: request.force, answer }).await?;
            Ok(RemoveReply { id: attempt.id() })
        };
        self.once(request, act).await
    }

    async fn prune(&self, request: Request<PruneRequest>) -> Answered<PruneReply> {
        let act = async |attempt: Attempt, request: PruneRequest| {
            let filter = filter(&request.filters)?;
            Ok(PruneReply { pruned: prune::prune(&attempt.shared, &filter, request.dry_run).await? })
        };
        self.once(request, act).await
    }

    async fn wait(&self, request: Request<WaitRequest>) -> Answered<WaitReply> {
        let entry = self.shared.find(&request.into_inner().worker)?;
        let _watch = entry.watch();
        tokio::select! {
            worker = entry.ended() => Ok(Response::new(WaitReply { worker: Some(worker) })),
            () = self.shared.leaving.begun() => Err(leave::hand_back().into()),
        }
    }

    async fn list(&self, request: Request<ListRequest>) -> Answered<ListReply> {
        let request = request.into_inner();
        let filter = filter(&request.filters)?;
        let all = request.all || filter.names_phases();
        let views = self.shared.entries().into_iter().map(|entry| entry.view());
        let wanted = views.filter(|view| (all || view.phase.is_up()) && filter.admits(view.phase, &view.worker));
        let mut workers: Vec<_> = wanted.map(|view| view.worker).collect();
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
            enforced: stats::enforced(&self.shared, &entry).await,
        }))
    }

    async fn logs(&self, request: Request<LogsRequest>) -> Answered<Self::LogsStream> {
        let request = request.into_inner();
        let entry = self.shared.find(&request.worker)?;
        let watch = entry.watch();
        let dir = self.shared.log_dir(entry.id);
        let reader = match (request.position, request.tail_lines) {
            (Some(position), _) => Reader::from_position(&dir, position).map_err(tell::unreadable)?,
            (None, Some(lines)) => Reader::from_tail(&dir, lines).map_err(tell::unreadable)?,
            (None, None) => Reader::from_start(&dir),
        };
        let span = tell::Span { since: request.since, until: request.until };
        let (events, stream) = mpsc::channel(STREAM_EVENTS_MAX);
        let shared = self.shared.clone();
        tokio::spawn(async move {
            let event = |output| LogsEvent { output: Some(output) };
            let follow = request.follow.then(|| (&entry, shared.changes.follow(&dir)));
            // An error is a caller who has gone.
            let told = async { drop(tell::output(reader, span, follow, &events, event).await) };
            shared.leaving.or_go_on_elsewhere(told, || None, &events).await;
            drop(watch);
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn stats(&self, request: Request<StatsRequest>) -> Answered<StatsReply> {
        let request = request.into_inner();
        let entries = match request.workers.as_slice() {
            [] => {
                let mut live = self.shared.entries();
                let shown = |phase: WorkerPhase| phase.is_live() || phase == WorkerPhase::Waiting;
                live.retain(|entry| request.all || shown(entry.view().phase));
                live.sort_by_key(|entry| entry.view().worker.created_at);
                live
            }
            named => named.iter().map(|worker| self.shared.find(worker)).collect::<Result<_, _>>()?,
        };
        Ok(Response::new(StatsReply { workers: stats::of(&self.shared, entries).await }))
    }

    async fn events(&self, request: Request<EventsRequest>) -> Answered<Self::EventsStream> {
        let request = request.into_inner();
        let wanted = Wanted::parse(&request.filters, request.since, request.until).map_err(refused_filter)?;
        let following = events::Following::after(&self.shared, request.cursor, request.follow, wanted).await?;
        let (events, stream) = mpsc::channel(STREAM_EVENTS_MAX);
        tokio::spawn(following.tell_all(events));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn create_network(&self, request: Request<CreateNetworkRequest>) -> Answered<CreateNetworkReply> {
        let act = async |attempt: Attempt, request: CreateNetworkRequest| {
            let network = match attempt.begun.and_then(|_| networks::as_asked(&attempt.shared, &request)) {
                Some(row) => networks::show(&attempt.shared, &row).await,
                None => networks::create(&attempt.shared, request).await?,
            };
            Ok(CreateNetworkReply { network: Some(network) })
        };
        self.once(request, act).await
    }

    async fn list_networks(&self, _request: Request<ListNetworksRequest>) -> Answered<ListNetworksReply> {
        Ok(Response::new(ListNetworksReply { networks: networks::list(&self.shared).await }))
    }

    async fn inspect_network(&self, request: Request<InspectNetworkRequest>) -> Answered<InspectNetworkReply> {
        let network = networks::inspect(&self.shared, &request.into_inner().name).await?;
        Ok(Response::new(InspectNetworkReply { network: Some(network) }))
    }

    async fn remove_network(&self, request: Request<RemoveNetworkRequest>) -> Answered<RemoveNetworkReply> {
        let act = async |attempt: Attempt, request: RemoveNetworkRequest| {
            match networks::remove(&attempt.shared, &request.name).await {
                Err(gone) if attempt.begun.is_some() && gone.reason() == Reason::NoSuchNetwork => {}
                outcome => outcome?,
            }
            Ok(RemoveNetworkReply {})
        };
        self.once(request, act).await
    }

    async fn status(&self, _request: Request<StatusRequest>) -> Answered<StatusReply> {
        let views: Vec<_> = self.shared.entries().into_iter().map(|entry| entry.view()).collect();
        let live = views.iter().filter(|view| view.phase.is_live()).count();
        let failed = views.iter().filter(|view| view.phase == crate::worker::Phase::Failed).count();
        let (handovers, handover_failure) = self.shared.past.told();
        Ok(Response::new(StatusReply {
            version: VERSION.into(),
            owner: self.shared.owner.to_string(),
            pid: std::process::id(),
            epoch: self.shared.epoch.0,
            programs: programs::programs(&self.shared).await,
            workers_live: u32::try_from(live).unwrap_or(u32::MAX),
            workers_failed: u32::try_from(failed).unwrap_or(u32::MAX),
            handovers,
            handover_failure,
        }))
    }
}

fn filter(given: &[String]) -> Result<Filter, Problem> {
    Filter::parse(given.iter().map(String::as_str)).map_err(refused_filter)
}

fn refused_filter(error: FilterError) -> Problem {
    Problem::new(Reason::Invalid, error.to_string())
}
