//! One daemon's life: the start, in the order of docs/architecture.md, then periods of serving. There is one period,
//! unless this daemon hands over and has to go on because its successor fails.

use crate::handover::{Candidate, Past, Predecessor, State, Successor};
use crate::notify::Systemd;
use crate::store::Store;
use crate::supervisor::Shared;
use crate::{StartError, confine, helper, hosts, listen, peer, reconcile, service, store};
use holdfast_launcher::lock;
use holdfast_proto::layout::Layout;
use holdfast_proto::words::OwnerName;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::StreamExt;

/// How long connections may take to close once no call is under way any more. Workers are not concerned.
const CLOSE_WITHIN: Duration = Duration::from_millis(500);
/// Calls of one connection at once, as HTTP/2 tells the other side.
const CALLS_PER_CONNECTION_MAX: u32 = 128;
/// Headers of one call; ours are a few hundred bytes. More frames of headers than this fills end the connection (threat T11).
const HEADER_BYTES_MAX: u32 = 16 * 1024;

/// What stays the same over all periods.
struct Daemon {
    owner: OwnerName,
    layout: Layout,
    socket: PathBuf,
    door: peer::Door,
    store: Store,
    systemd: Systemd,
    past: Past,
    /// The oldest form of the database that this host may have to go back to.
    needed_form: Option<i64>,
}

/// How a period ended.
enum End {
    /// Told to end.
    Told,
    /// A successor is prepared. The epoch of this period, and how many calls were handed back.
    Succeeded { successor: Box<Successor>, epoch: u64, handed_back: usize },
}

/// Starts in the place of nobody, or of whoever held the lock and is ended for it.
pub fn start(owner: OwnerName, layout: Layout, systemd: Systemd) -> Result<(), StartError> {
    let uid = confine::check_identity(owner.as_str())?.as_raw();
    let (listener, socket) = listen::inherited()?;
    let past = Past::default();
    let (daemon, runtime) = Daemon::locked_down((owner, layout, uid), (listener, socket), systemd, past)?;
    let lock = lock::take(&daemon.lock_path())?;
    if lock.ended > 0 {
        tracing::warn!("an older daemon held the lock and was ended");
    }
    daemon.serve(runtime, lock, None)
}

/// Starts as the successor of the daemon that runs. Whatever fails is said to that one, which then goes on.
pub fn take_over(owner: OwnerName, layout: Layout) -> Result<(), StartError> {
    let uid = confine::check_identity(owner.as_str())?.as_raw();
    let socket = layout.daemon_socket(&owner);
    // Before this process is closed to others of its uid: the other side looks of which unit it is.
    let (predecessor, listener) = Predecessor::dial(&socket)?;
    let take = || -> Result<(), StartError> {
        let (systemd, past) = (predecessor.systemd.clone(), Past::default());
        let (daemon, runtime) = Daemon::locked_down((owner, layout, uid), (listener, socket), systemd, past)?;
        store::check_form(&daemon.database(), daemon.needed_form)?;
        let state = predecessor.prepared()?;
        let lock = lock::take_if_free(&daemon.lock_path())?.ok_or(crate::handover::TakeError::Acts)?;
        daemon.past.set_done(state.handovers + 1);
        daemon.serve(runtime, lock, Some((&predecessor, state)))
    };
    take().inspect_err(|error| predecessor.refuse(&crate::chain(error)))
}

impl Daemon {
    /// Everything that needs what is taken away here, then the taking away.
    fn locked_down(
        (owner, layout, uid): (OwnerName, Layout, u32),
        (listener, socket): (std::os::unix::net::UnixListener, PathBuf),
        systemd: Systemd,
        past: Past,
    ) -> Result<(Self, Runtime), StartError> {
        let io = |what| move |source| StartError::Io { what, source };
        // The cage closes root's tree.
        let needed_form = store::oldest_needed(&layout);
        let (state, workers_run) = (layout.owner_state(&owner), layout.workers_run(&owner));
        confine::drop_privileges()?;
        let door = peer::watch(listener, uid, owner.as_str()).map_err(io("starting to accept"))?;
        confine::restrict_files(&[state, workers_run])?;
        let store = store::start().map_err(io("starting the store"))?;
        let runtime = runtime()?;
        confine::restrict_system_calls()?;
        confine::verify()?;
        Ok((Self { owner, layout, socket, door, store, systemd, past, needed_form }, runtime))
    }

    fn lock_path(&self) -> PathBuf {
        self.layout.owner_state(&self.owner).join("lock")
    }

    fn database(&self) -> PathBuf {
        self.layout.owner_state(&self.owner).join("holdfast.db")
    }

    /// Serves, holding the lock, until it is told to end or a successor serves.
    fn serve(
        &self,
        mut runtime: Runtime,
        mut lock: lock::Lock,
        mut taken: Option<(&Predecessor, State)>,
    ) -> Result<(), StartError> {
        loop {
            let end = runtime.block_on(self.period(taken.take()))?;
            // With it every task of the period: from here on nobody acts for it.
            drop(runtime);
            let held = self.store.close();
            let End::Succeeded { successor, epoch, handed_back } = end else { return Ok(()) };
            drop(lock);
            let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
            let state = State {
                epoch,
                newest_event: held.newest_event,
                workers: held.workers,
                handed_back: number(handed_back),
                handovers: self.past.told().0,
            };
            match successor.take_over(state, &self.systemd) {
                Ok(()) => return Ok(()),
                Err(why) => self.past.failed(&why),
            }
            lock = lock::take(&self.lock_path())?;
            runtime = self::runtime()?;
        }
    }

    async fn period(&self, taken: Option<(&Predecessor, State)>) -> Result<End, StartError> {
        let io = |what| move |source| StartError::Io { what, source };
        // A write over RLIMIT_FSIZE, which others of the owner's uid can set, is then an error and no death.
        let _too_large = signal(SignalKind::from_raw(libc::SIGXFSZ)).map_err(io("catching SIGXFSZ"))?;
        let workers_run = self.layout.workers_run(&self.owner);
        let boot_id = crate::boot_id(&workers_run).map_err(io("reading the boot id"))?;
        let opened = self.store.open(&self.database(), &boot_id, self.needed_form)?;
        if let Some((_, state)) = &taken {
            let found = (opened.epoch.0, opened.newest_event, opened.workers.len());
            state.check(found).map_err(crate::handover::TakeError::State)?;
        }
        let named = opened.networks.iter().map(|row| row.name);
        hosts::prepare(&workers_run, named).map_err(io("writing the hosts files"))?;
        let (helper, fence) = helper::helper(&self.layout.helper_socket(), opened.epoch)?;
        let (owner, layout, store) = (self.owner.clone(), self.layout.clone(), self.store.clone());
        let kept = (store, opened.networks.as_slice());
        let shared = Shared::new(owner, layout, (opened.epoch, boot_id), kept, helper.clone(), self.past.clone());
        let shared = Arc::new(shared);
        tokio::spawn(shared.clone().keep_hosts());
        tokio::spawn(shared.changes.clone().tell());
        reconcile::reconcile(&shared, opened).await;
        tokio::spawn(reconcile::settle_helper(shared.clone(), helper, fence));
        self.answer(shared, taken.map(|(predecessor, _)| predecessor)).await.map_err(io("serving"))
    }

    /// Serves until SIGTERM or SIGINT, or until a successor is prepared. Then, in this order: takes nothing more (what waits
    /// at the listener is for the successor), ends streams, lets calls end or hands them back, and closes connections.
    async fn answer(&self, shared: Arc<Shared>, predecessor: Option<&Predecessor>) -> std::io::Result<End> {
        let (mut terminated, mut interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let (drain, drained) = tokio::sync::oneshot::channel::<()>();
        let (callers, mut candidates) = self.door.open();
        let connections = tokio_stream::wrappers::ReceiverStream::new(callers).map(peer::Connection::new);
        let live = shared.entries().iter().filter(|entry| entry.view().phase.is_live()).count();
        let server = tonic::transport::Server::builder()
            .max_concurrent_streams(CALLS_PER_CONNECTION_MAX)
            .http2_max_header_list_size(HEADER_BYTES_MAX)
            .add_service(service::Service::guarded(shared.clone()))
            .add_service(service::standard::health().await)
            .add_service(service::standard::reflection().map_err(std::io::Error::other)?)
            .add_service(service::standard::reflection_v1alpha().map_err(std::io::Error::other)?)
            .serve_with_incoming_shutdown(connections, async { drop(drained.await) });
        tokio::pin!(server);
        let begins = async {
            if let Some(predecessor) = predecessor {
                predecessor.ready().await;
            }
            self.systemd.ready(live);
            self.systemd.feed_watchdog(&self.socket).await;
        };
        let successor = tokio::select! {
            ended = &mut server => return ended.map(|()| End::Told).map_err(std::io::Error::other),
            () = begins => None,
            _ = terminated.recv() => None,
            _ = interrupted.recv() => None,
            successor = self.succeeded(&mut candidates) => Some(successor),
        };
        if successor.is_none() {
            self.systemd.stopping();
        }
        self.door.close();
        drop(drain);
        let left = async {
            let handed_back = shared.leaving.leave().await;
            tokio::time::sleep(CLOSE_WITHIN).await;
            handed_back
        };
        tokio::pin!(left);
        let handed_back = tokio::select! {
            ended = &mut server => {
                ended.map_err(std::io::Error::other)?;
                0
            }
            // A client that holds a silent connection open would keep the server waiting for ever (hyperium/hyper#4170).
            handed_back = &mut left => handed_back,
        };
        Ok(match successor {
            None => End::Told,
            Some(successor) => End::Succeeded { successor, epoch: shared.epoch.0, handed_back },
        })
    }

    /// The successor that is prepared. One at a time; those that fail are noted.
    async fn succeeded(&self, candidates: &mut tokio::sync::mpsc::Receiver<Candidate>) -> Box<Successor> {
        type Preparing<'a> = Pin<Box<dyn Future<Output = Result<Successor, String>> + 'a>>;
        let mut preparing: Option<Preparing<'_>> = None;
        loop {
            let outcome = tokio::select! {
                Some(candidate) = candidates.recv() => {
                    if preparing.is_some() {
                        candidate.refuse("a handover is under way");
                    } else {
                        preparing = Some(Box::pin(candidate.prepare(self.door.listener(), &self.systemd)));
                    }
                    continue;
                }
                Some(outcome) = async { Some(preparing.as_mut()?.await) } => outcome,
                else => std::future::pending().await,
            };
            preparing = None;
            match outcome {
                Ok(successor) => return Box::new(successor),
                Err(why) => self.past.failed(&why),
            }
        }
    }
}

fn runtime() -> Result<Runtime, StartError> {
    let made = tokio::runtime::Builder::new_current_thread().enable_all().build();
    made.map_err(|source| StartError::Io { what: "starting the runtime", source })
}
