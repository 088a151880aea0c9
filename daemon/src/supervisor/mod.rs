//! The owner's workers, by id and by name, each with a loop of its own.
//!
//! Never does: decide where a worker goes (`worker::step` does), signal by number, wait without a deadline.

mod existing;
mod launch;
mod networks;
mod outcome;
mod task;
mod view;
mod watchers;

pub use existing::Created;
pub use launch::environment;
pub use outcome::told;
pub use task::Answer;
pub use view::{View, wire_phase};
pub use watchers::Watch;

use crate::follow::Changes;
use crate::handover::Past;
use crate::helper::Helper;
use crate::hosts;
use crate::leave::Leaving;
use crate::reconcile::Found;
use crate::store::{CallRow, EndRow, NetworkRow, Store, StoreError, WorkerRow};
use crate::worker::spec::{self, SpecError};
use crate::worker::{Spec, Timestamp, Worker};
use holdfast_proto::daemon as wire;
use holdfast_proto::layout::Layout;
use holdfast_proto::problem::{Problem, Reason};
use holdfast_proto::words::{Epoch, OwnerName, WorkerId};
use networks::Networks;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use task::Task;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use watchers::Watchers;

/// Asks of one worker that may wait; more make their callers wait.
const INBOX_MAX: usize = 16;
/// Fewest characters of an id that stand for it.
const ID_PREFIX_MIN: usize = 4;
/// Most workers that are kept on record; the rules limit live ones.
pub const WORKERS_MAX: usize = 10_000;
/// How long a worker with `remove_on_exit` stays where its watcher may still come back (a daemon's restart).
const LINGER: Duration = Duration::from_secs(10);

/// What every worker's loop needs.
#[derive(Debug)]
pub struct Shared {
    /// Whose daemon this is.
    pub owner: OwnerName,
    /// Where everything is.
    pub layout: Layout,
    /// Which start of the daemon.
    pub epoch: Epoch,
    /// Which boot of the host.
    pub boot_id: String,
    /// What must not be forgotten.
    pub store: Store,
    /// The way to the helper.
    pub helper: Helper,
    /// Wakes those who follow output.
    pub changes: Changes,
    /// Networks that the owner made.
    pub networks: Networks,
    /// Whether the daemon leaves.
    pub leaving: Leaving,
    /// What became of handovers.
    pub past: Past,
    workers: Mutex<Workers>,
    hosts_stale: Notify,
}

#[derive(Debug, Default)]
struct Workers {
    by_id: BTreeMap<WorkerId, Entry>,
    by_name: HashMap<String, WorkerId>,
    by_external_id: HashMap<String, WorkerId>,
}

/// One worker, as others reach it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its id.
    pub id: WorkerId,
    /// As its owner gave it.
    pub spec: Arc<wire::WorkerSpec>,
    inbox: mpsc::Sender<Ask>,
    view: watch::Receiver<View>,
    watchers: Arc<Watchers>,
}

/// Something asked of a worker's loop; it answers when it is done.
#[derive(Debug)]
pub enum Ask {
    /// Answers when it is executed.
    Start(Answer),
    /// Answers when it is not live.
    Stop(Duration, Answer),
    /// As `Stop`; where its policy says so, it starts again when the host has booted.
    PowerOff(Duration, Answer),
    /// Answers when the new generation is executed.
    Restart(Duration, Answer),
    /// Answers when every process of it is frozen.
    Suspend(Answer),
    /// Answers when it runs again.
    Resume(Answer),
    /// Answers when the signal is sent.
    Kill(u8, Answer),
    /// Answers when it is forgotten.
    Remove {
        /// Kill it first where it is live.
        force: bool,
        /// Who asks.
        answer: Answer,
    },
}

impl Entry {
    /// How it is now.
    pub fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// Announces a watcher.
    pub fn watch(&self) -> Watch {
        Watch::of(&self.watchers)
    }

    /// Asks and waits for the answer.
    pub async fn ask(&self, make: impl FnOnce(Answer) -> Ask) -> Result<wire::Worker, Problem> {
        let (answer, answered) = oneshot::channel();
        self.inbox.send(make(answer)).await.map_err(|_| gone(self.id))?;
        answered.await.map_err(|_| gone(self.id))?
    }

    /// Waits until it is down for good; answers how it then is, or was when it was forgotten.
    pub async fn ended(&self) -> wire::Worker {
        let mut view = self.view.clone();
        // An error says that it was forgotten, which only happens to those that are down.
        drop(view.wait_for(|view| !view.phase.is_up()).await.map(drop));
        let last = view.borrow();
        last.worker.clone()
    }
}

impl Shared {
    /// An empty set of workers.
    pub fn new(
        owner: OwnerName,
        layout: Layout,
        (epoch, boot_id): (Epoch, String),
        (store, networks): (Store, &[NetworkRow]),
        helper: Helper,
        past: Past,
    ) -> Self {
        let (workers, changes, networks) = (Mutex::default(), Changes::new(), Networks::new(networks));
        let (leaving, hosts_stale) = (Leaving::default(), Notify::new());
        Self { owner, layout, epoch, boot_id, store, helper, changes, networks, leaving, past, workers, hosts_stale }
    }

    /// Puts a worker on record and starts it, where none of its external id is there yet. `call` goes on record with it.
    pub async fn create(
        self: &Arc<Self>,
        mut wire: wire::WorkerSpec,
        call: Option<CallRow>,
    ) -> Result<Created, Problem> {
        if let Some(entry) = self.existing(&wire)? {
            let watch = entry.watch();
            return Ok(Created::Before { entry, watch, by_this_call: None });
        }
        let id = WorkerId::from_random(u64::from_le_bytes(random()?));
        if wire.name.is_empty() {
            wire.name = self.free_name(id);
        }
        let spec = Spec::try_from(&wire).map_err(invalid)?;
        self.networks.require(spec.network)?;
        let row = WorkerRow {
            id,
            spec: wire,
            worker: Worker::created(spec.restart),
            nonce: [0; 16],
            boot_id: self.boot_id.clone(),
            created_at: now(),
            finished_at: Timestamp::default(),
            shim_pid: 0,
            shim_version: String::new(),
            addresses: Vec::new(),
            ports: Vec::new(),
        };
        let (answer, answered) = oneshot::channel();
        let (task, entry) = self.enlist(row, spec, None)?;
        let watch = entry.watch();
        // The loop lives on when the caller goes: a launch is never cut short half-way.
        tokio::spawn(task.begin(answer, call));
        Ok(Created::Now { entry, watch, started: answered })
    }

    /// Takes a worker of the store up again, as `found` by reconcile. The answer comes when that shows in its view.
    pub fn resume(self: &Arc<Self>, row: WorkerRow, end: Option<EndRow>, found: Found) -> oneshot::Receiver<()> {
        let (resumed, shows) = oneshot::channel();
        let id = row.id;
        let spec = match Spec::try_from(&row.spec) {
            Ok(spec) => spec,
            Err(error) => {
                tracing::error!(worker = %id, %error, "a worker on record cannot be taken up");
                return shows;
            }
        };
        match self.enlist(row, spec, end) {
            Ok((task, _)) => drop(tokio::spawn(task.recover(found, resumed))),
            Err(problem) => tracing::error!(worker = %id, %problem, "a worker on record cannot be taken up"),
        }
        shows
    }

    fn enlist(self: &Arc<Self>, row: WorkerRow, spec: Spec, end: Option<EndRow>) -> Result<(Task, Entry), Problem> {
        let mut workers = self.workers();
        if workers.by_name.contains_key(&row.spec.name) {
            return Err(Problem::new(
                Reason::NameTaken,
                format!("a worker named {:?} is there already", row.spec.name),
            )
            .hint(format!("choose another name, or remove it with `holdfast rm {}`", row.spec.name)));
        }
        if workers.by_id.len() >= WORKERS_MAX {
            return Err(Problem::new(Reason::Quota, format!("{WORKERS_MAX} workers are on record, which is the most"))
                .hint("remove some with `holdfast rm`"));
        }
        let (inbox, asks) = mpsc::channel(INBOX_MAX);
        let watchers = Arc::<Watchers>::default();
        let (id, name) = (row.id, row.spec.name.clone());
        let wire = Arc::new(row.spec.clone());
        let (task, view) = Task::new(self.clone(), row, spec, end, task::Ends { asks, watchers: watchers.clone() });
        let entry = Entry { id, spec: wire, inbox, view, watchers };
        if !entry.spec.external_id.is_empty() {
            workers.by_external_id.insert(entry.spec.external_id.clone(), id);
        }
        workers.by_name.insert(name, id);
        workers.by_id.insert(id, entry.clone());
        Ok((task, entry))
    }

    fn forget(&self, id: WorkerId, name: &str) {
        let mut workers = self.workers();
        if let Some(entry) = workers.by_id.remove(&id) {
            workers.by_external_id.remove(&entry.spec.external_id);
        }
        workers.by_name.remove(name);
    }

    /// Every worker, in the order of their ids.
    pub fn entries(&self) -> Vec<Entry> {
        self.workers().by_id.values().cloned().collect()
    }

    /// The worker of this id.
    pub fn by_id(&self, id: WorkerId) -> Option<Entry> {
        self.workers().by_id.get(&id).cloned()
    }

    /// The worker that a name, an id, or an unambiguous prefix of an id stands for.
    pub fn find(&self, reference: &str) -> Result<Entry, Problem> {
        let workers = self.workers();
        if let Some(entry) = workers.by_name.get(reference).and_then(|id| workers.by_id.get(id)) {
            return Ok(entry.clone());
        }
        let shown: String = reference.chars().take(64).collect();
        let missing = || {
            Problem::new(Reason::NoSuchWorker, format!("there is no worker {shown:?}"))
                .hint("`holdfast ps -a` lists all of them")
        };
        let hex = reference.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        if !hex || !(ID_PREFIX_MIN..=16).contains(&reference.len()) {
            return Err(missing());
        }
        let least: WorkerId = format!("{reference:0<16}").parse().map_err(|_| missing())?;
        let mut matching = workers.by_id.range(least..).take_while(|(id, _)| id.to_string().starts_with(reference));
        match (matching.next(), matching.next()) {
            (Some((_, entry)), None) => Ok(entry.clone()),
            (None, _) => Err(missing()),
            (Some(_), Some(_)) => {
                Err(Problem::new(Reason::Invalid, format!("{shown:?} is the beginning of more than one worker's id"))
                    .hint("give more of the id, or the name"))
            }
        }
    }

    /// Rewrites the hosts files whenever the set of live workers changed. Never ends.
    pub async fn keep_hosts(self: Arc<Self>) {
        loop {
            self.hosts_stale.notified().await;
            let views: Vec<View> = self.entries().iter().map(Entry::view).collect();
            let shared = views
                .iter()
                .map(|view| view.network)
                .filter(|network| matches!(network, crate::worker::spec::Network::Macvlan(_)));
            for network in self.networks.all().into_iter().chain(shared) {
                let live = views.iter().filter(|view| view.phase.is_live() && view.network == network);
                let lines = live
                    .flat_map(|view| view.worker.addresses.iter().map(|ip| (ip.as_str(), view.worker.name.as_str())));
                if let Err(error) = hosts::write(&self.workers_run(), network, lines) {
                    tracing::error!(%error, network = network.name(), "a hosts file could not be written");
                }
            }
        }
    }

    fn free_name(&self, id: WorkerId) -> String {
        let workers = self.workers();
        let bits = id.bits();
        let named = view::adjective_noun(bits);
        let spare = (0..64).map(|shift| format!("w-{:04x}", (bits.rotate_left(shift) & 0xffff)));
        let free = std::iter::once(named).chain(spare).find(|name| !workers.by_name.contains_key(name));
        free.unwrap_or_else(|| format!("w-{id}"))
    }

    fn workers(&self) -> MutexGuard<'_, Workers> {
        // Held for map operations alone, which leave nothing half-done.
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where shims have their sockets, and networks their hosts files.
    pub fn workers_run(&self) -> PathBuf {
        self.layout.workers_run(&self.owner)
    }

    fn state_dir(&self, id: WorkerId) -> PathBuf {
        self.layout.worker_state(&self.owner, id)
    }

    /// Where a worker's output is kept.
    pub fn log_dir(&self, id: WorkerId) -> PathBuf {
        self.state_dir(id).join("log")
    }

    /// Where a worker's shim listens.
    pub fn socket(&self, id: WorkerId) -> PathBuf {
        self.workers_run().join(format!("{id}.sock"))
    }
}

/// The clock of the host, ns since the Unix epoch.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// A refused spec, on the wire.
pub fn invalid(error: SpecError) -> Problem {
    Problem::new(Reason::Invalid, error.to_string())
}

/// A refused commit, on the wire.
pub fn not_recorded(error: &StoreError) -> Problem {
    match error {
        StoreError::Full => Problem::new(Reason::NoSpace, format!("{error}: nothing was changed"))
            .hint("free some space below the owner's state directory and try again"),
        StoreError::Newer { .. }
        | StoreError::Form { .. }
        | StoreError::Unreadable { .. }
        | StoreError::Sqlite(_)
        | StoreError::Gone => {
            tracing::error!(error = error as &dyn std::error::Error, "a change was not recorded");
            Problem::new(Reason::Internal, format!("{error}: nothing was changed")).hint("see the daemon's log")
        }
    }
}

/// Grace of a stop: as asked, else the worker's own.
pub fn grace_of(entry: &Entry, asked: Option<u32>) -> Result<Duration, Problem> {
    match asked.or(entry.spec.stop_timeout_secs) {
        Some(secs) => spec::grace(secs).map_err(invalid),
        None => Ok(spec::GRACE_DEFAULT),
    }
}

fn gone(id: WorkerId) -> Problem {
    Problem::new(Reason::NoSuchWorker, format!("worker {id} has been removed"))
}

/// Bits that nobody can guess.
pub fn random<const N: usize>() -> Result<[u8; N], Problem> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| Problem::new(Reason::Internal, format!("the kernel gave no random bytes: {error}")))?;
    Ok(bytes)
}
