//! One launch: orders to the helper, then the shim's own word on what became of them.

use super::Shared;
use crate::resolv;
use crate::shim::{self, Alive, Shim, ShimError, Word};
use crate::store::WorkerRow;
use crate::worker::spec::{Network, Spec};
use crate::{helper::LaunchError, hosts};
use holdfast_launcher::orders::{self, CageOrders, Orders, Rootfs, Volume};
use holdfast_launcher::record::ExitRecord;
use holdfast_proto::helper::{LaunchReply, LaunchRequest, Port};
use holdfast_proto::problem::{Problem, Reason};
use holdfast_proto::words::{Generation, WorkerId};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// After a lost answer: how long a shim may take to appear. It listens before it is let go, and a launcher that loses
/// its helper dismisses those that were not.
const APPEARS_WITHIN: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a launch is tried again that a helper or launcher did not survive, or was not there for: they are replaced
/// in less.
const TRIED_WITHIN: Duration = Duration::from_secs(12);
/// Between two tries: a shim that was dismissed has taken its files away by then.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// Between a shim's first word and its program's execution: a volume on a slow disk may take a while.
const EXECUTED_WITHIN: Duration = Duration::from_secs(60);

/// Of every worker; what its owner gives comes after.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The owner's home is hidden and the root is read-only: the one place of its own that every worker can write to.
const HOME: &str = "HOME=/tmp";
/// Trees that are the system's, or the worker's own inside: a working directory there is never bound.
const NOT_BOUND: [&str; 13] =
    ["/usr", "/etc", "/bin", "/sbin", "/lib", "/lib64", "/boot", "/tmp", "/var/tmp", "/run", "/dev", "/proc", "/sys"];

/// What became of a launch.
#[derive(Debug)]
pub enum Launched {
    /// It runs (or ran), and this is its shim.
    Executed {
        /// To hear the end from.
        shim: Shim,
        /// As the shim says.
        alive: Alive,
        /// The helper's answer; `None` where it was lost.
        reply: Option<LaunchReply>,
    },
    /// Its record is there: it ended already, or was never executed.
    Ended {
        /// As the shim left it.
        record: Box<ExitRecord>,
        /// The helper's answer; `None` where it was lost.
        reply: Option<LaunchReply>,
    },
    /// The shim was there, and vanished without a record.
    Lost,
    /// Nothing is left of it.
    Refused {
        /// Why.
        problem: Problem,
        /// Asking again later may work.
        transient: bool,
    },
}

/// One launch, free of the loop that ordered it.
#[derive(Debug)]
pub struct Launch {
    shared: Arc<Shared>,
    id: WorkerId,
    generation: Generation,
    nonce: [u8; 16],
    request: LaunchRequest,
    state_dir: PathBuf,
}

impl Launch {
    /// Makes the worker's directories and its orders.
    pub fn prepare(shared: &Arc<Shared>, row: &WorkerRow, spec: &Spec) -> Result<Self, Problem> {
        let state_dir = shared.state_dir(row.id);
        make_dirs(&state_dir).map_err(|error| directory_problem(&state_dir, &error))?;
        // A shim that was killed left its socket; its successor binds the same name.
        drop(std::fs::remove_file(shared.socket(row.id)));
        let orders = orders(shared, row, spec, &state_dir).encode();
        if orders.len() > orders::BYTES_MAX {
            let message = format!("the orders take {} bytes; {} are allowed", orders.len(), orders::BYTES_MAX);
            return Err(Problem::new(Reason::Invalid, message).hint("give less in --env-file, or fewer volumes"));
        }
        if let Network::Macvlan(_) = spec.network {
            hosts::make(&shared.workers_run(), spec.network).map_err(|error| directory_problem(&state_dir, &error))?;
        }
        let port = |port: &crate::worker::spec::Publish| Port {
            proto: port.protocol.name().into(),
            host: port.host.into(),
            worker: port.worker.into(),
            address: port.address.map(|ip| ip.to_string()).unwrap_or_default(),
        };
        let (subnet, internal) = shared.networks.launch_words(spec.network);
        let request = LaunchRequest {
            epoch: shared.epoch.0,
            worker: row.id.to_string(),
            generation: row.worker.generation.0,
            network: spec.network.name().into(),
            ports: spec.publish.iter().map(port).collect(),
            orders,
            subnet,
            internal,
            address: spec.lan.address.clone(),
            gateway: spec.lan.gateway.clone(),
        };
        let shared = shared.clone();
        Ok(Self { shared, id: row.id, generation: row.worker.generation, nonce: row.nonce, request, state_dir })
    }

    /// Orders the worker and waits until it is executed, or cannot be. A helper or launcher that is replaced meanwhile
    /// costs time, and no launch.
    pub async fn perform(self) -> Launched {
        let until = Instant::now() + TRIED_WITHIN;
        loop {
            let launched = match self.shared.helper.launch(self.request.clone()).await {
                Ok(reply) => self.listen(Some(reply)).await.unwrap_or_else(|| {
                    tracing::error!(worker = %self.id, "the helper says launched, but no shim is there");
                    Launched::Lost
                }),
                // The shim's own word says more than the helper can know.
                Err(LaunchError::Refused(problem)) => match self.record() {
                    Some(record) => Launched::Ended { record, reply: None },
                    None => refused(problem),
                },
                Err(LaunchError::Unknown(problem)) => match self.appears().await {
                    Some(launched) => self.with_what_is_attached(launched).await,
                    None if self.is_given_back(until).await => refused(problem),
                    None => return refused(problem),
                },
            };
            match launched {
                Launched::Refused { problem, .. }
                    if problem.reason() == Reason::Unavailable && Instant::now() + AGAIN_AFTER < until =>
                {
                    tracing::info!(worker = %self.id, %problem, "the launch is tried again");
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
                launched => return launched,
            }
        }
    }

    /// What the lost answer said of addresses and ports, the helper says again.
    async fn with_what_is_attached(&self, launched: Launched) -> Launched {
        let Launched::Executed { shim, alive, reply: None } = launched else { return launched };
        let (id, generation) = (self.id.to_string(), self.generation.0);
        let attached = self.shared.helper.attached().await.unwrap_or_default();
        let own = attached.into_iter().find(|given| given.worker == id && given.generation == generation);
        let reply = own.map(|own| LaunchReply { shim_pid: shim.pid, addresses: own.addresses, ports: own.ports });
        Launched::Executed { shim, alive, reply }
    }

    /// Has the helper take back what it may have given; where it does not in time, that goes on, and nothing may be
    /// launched under the same name meanwhile.
    async fn is_given_back(&self, until: Instant) -> bool {
        let (helper, id, generation) = (self.shared.helper.clone(), self.id, self.generation);
        let done = tokio::spawn(async move { helper.detach_until_done(id, generation).await });
        tokio::time::timeout_at(until, done).await.is_ok()
    }

    /// For a worker that an earlier daemon left in `starting`: what became of it, once that daemon's launches are over.
    pub async fn find_out(shared: Arc<Shared>, row: &WorkerRow, spec: &Spec) -> Launched {
        let (id, generation, nonce) = (row.id, row.worker.generation, row.nonce);
        let state_dir = shared.state_dir(id);
        let look = Self { shared: shared.clone(), id, generation, nonce, request: LaunchRequest::default(), state_dir };
        if let Some(launched) = look.listen(None).await {
            return look.with_what_is_attached(launched).await;
        }
        shared.helper.fenced().await;
        if let Some(launched) = look.listen(None).await {
            return look.with_what_is_attached(launched).await;
        }
        if !look.left_nothing() {
            return Launched::Lost;
        }
        // It was never let go: what that daemon had on record, this one does.
        shared.helper.detach_until_done(id, generation).await;
        match Self::prepare(&shared, row, spec) {
            Ok(launch) => launch.perform().await,
            Err(problem) => Launched::Refused { problem, transient: false },
        }
    }

    /// Hears the shim, or reads its record; `None` where there is neither.
    async fn listen(&self, reply: Option<LaunchReply>) -> Option<Launched> {
        let mut shim = match Shim::connect(&self.shared.socket(self.id), self.nonce) {
            Ok(shim) => shim,
            Err(ShimError::Nobody) => return self.record().map(|record| Launched::Ended { record, reply }),
            Err(error) => {
                tracing::error!(worker = %self.id, error = &error as &dyn std::error::Error, "the shim cannot be heard");
                return Some(self.record().map_or(Launched::Lost, |record| Launched::Ended { record, reply }));
            }
        };
        let mut wait = shim::FIRST_WORD;
        loop {
            let word = match tokio::time::timeout(wait, shim.next(self.generation.0)).await {
                Ok(Ok(word)) => word,
                Ok(Err(error)) => {
                    tracing::error!(worker = %self.id, error = &error as &dyn std::error::Error, "the shim cannot be read");
                    Word::Gone
                }
                Err(_) => {
                    tracing::error!(worker = %self.id, error = %ShimError::Silent, "given up");
                    Word::Gone
                }
            };
            match word {
                Word::Preparing => wait = EXECUTED_WITHIN,
                Word::Running(alive) => return Some(Launched::Executed { shim, alive, reply }),
                Word::Frozen | Word::Thawed | Word::NotFrozen(_) | Word::NotThawed(_) => {}
                Word::Ended(record) => return Some(Launched::Ended { record, reply }),
                // Called off before it was let go, it leaves no trace; one that was killed leaves its socket.
                Word::Gone if self.left_nothing() => return None,
                Word::Gone => {
                    return Some(self.record().map_or(Launched::Lost, |record| Launched::Ended { record, reply }));
                }
            }
        }
    }

    /// A shim listens before its program is let go, and then leaves a record, or its socket where it was killed.
    fn left_nothing(&self) -> bool {
        self.record().is_none() && !self.shared.socket(self.id).exists()
    }

    /// After a lost answer.
    async fn appears(&self) -> Option<Launched> {
        let until = Instant::now() + APPEARS_WITHIN;
        loop {
            if let Some(launched) = self.listen(None).await {
                return Some(launched);
            }
            if Instant::now() >= until {
                return None;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn record(&self) -> Option<Box<ExitRecord>> {
        shim::read_record(&self.state_dir, self.generation.0, self.nonce).map(Box::new)
    }
}

fn refused(problem: Problem) -> Launched {
    // What may be otherwise in a while without anybody's changing this worker or the rules.
    let transient = matches!(
        problem.reason(),
        Reason::Unavailable | Reason::Deadline | Reason::PortInUse | Reason::Quota | Reason::NoSpace
    );
    Launched::Refused { problem, transient }
}

/// What a shim is told.
fn orders(shared: &Shared, row: &WorkerRow, spec: &Spec, state_dir: &Path) -> Orders {
    let workers_run = shared.workers_run();
    let mut hidden = vec![shared.layout.state(), shared.layout.run()];
    if !shared.layout.is_system() {
        hidden.push(shared.layout.root().to_owned());
    }
    let mut volumes: Vec<Volume> = spec
        .volumes
        .iter()
        .map(|volume| Volume {
            source: volume.source.clone(),
            target: volume.target.clone(),
            read_only: volume.read_only,
        })
        .collect();
    // In a tree of its own a working directory is one of that tree.
    if spec.cage.rootfs.is_none() && needs_mount(&spec.workdir, &volumes) {
        volumes.push(Volume { source: spec.workdir.clone(), target: spec.workdir.clone(), read_only: false });
    }
    Orders {
        worker: row.id.to_string(),
        generation: row.worker.generation.0,
        nonce: row.nonce,
        hostname: spec.name.to_string(),
        argv: spec.command.iter().cloned().map(OsString::from_vec).collect(),
        env: environment(spec, &[], shared.owner.as_str()),
        workdir: spec.workdir.clone(),
        volumes,
        hosts_file: hosts::path(&workers_run, spec.network),
        resolv_conf: match spec.network {
            Network::None => Vec::new(),
            Network::Host => resolv::of_the_host(),
            Network::Bridge | Network::Tap | Network::Named(_) | Network::Macvlan(_) => resolv::resolv_conf(),
        },
        state_dir: state_dir.to_owned(),
        control_dir: workers_run,
        hidden,
        log_bytes_max: spec.log_bytes_max,
        log_files_max: spec.log_files_max,
        limits: spec.limits,
        cage: CageOrders {
            nested: spec.cage.nested,
            root_user: spec.cage.root_user,
            rootfs: spec.cage.rootfs.clone().map(|rootfs| Rootfs { path: rootfs.path, writable: rootfs.writable }),
        },
        input: crate::exec::input_of(&row.spec),
        network: match spec.network {
            Network::Host => orders::Network::Host,
            Network::Tap => orders::Network::Tap,
            _ => orders::Network::Own,
        },
    }
}

/// The daemon cannot see most of the host's tree (ProtectHome), so it goes by the path; that a directory is not
/// there is the shim's to say.
fn needs_mount(workdir: &Path, volumes: &[Volume]) -> bool {
    let seen = NOT_BOUND.iter().any(|tree| workdir.starts_with(tree));
    let covered = volumes.iter().any(|volume| workdir.starts_with(&volume.target));
    workdir != Path::new("/") && !seen && !covered
}

/// PATH HOME USER LANG TERM HOSTNAME, each replaced where the owner gives it, and what else they give; the last of
/// one name counts. `more`: of a program beside the worker's own.
pub fn environment(spec: &Spec, more: &[Vec<u8>], owner: &str) -> Vec<OsString> {
    let ours = [
        PATH.to_owned(),
        HOME.to_owned(),
        format!("USER={}", if spec.cage.root_user { "root" } else { owner }),
        "LANG=C.UTF-8".to_owned(),
        "TERM=dumb".to_owned(),
        format!("HOSTNAME={}", host_name(spec)),
    ];
    let mut env: Vec<Vec<u8>> = ours.into_iter().map(String::into_bytes).collect();
    for word in spec.env.iter().chain(more) {
        match env.iter_mut().find(|other| key(other) == key(word)) {
            Some(other) => other.clone_from(word),
            None => env.push(word.clone()),
        }
    }
    env.into_iter().map(OsString::from_vec).collect()
}

/// In the host's network a worker has the host's name, as whoever asks it over that network does.
fn host_name(spec: &Spec) -> String {
    match spec.network {
        Network::Host => rustix::system::uname().nodename().to_string_lossy().into_owned(),
        _ => spec.name.to_string(),
    }
}

fn key(word: &[u8]) -> &[u8] {
    word.split(|&byte| byte == b'=').next().unwrap_or(word)
}

fn make_dirs(state_dir: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(state_dir.join("log"))
}

fn directory_problem(dir: &Path, error: &std::io::Error) -> Problem {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    let reason = if matches!(error.kind(), StorageFull | QuotaExceeded) { Reason::NoSpace } else { Reason::Internal };
    Problem::new(reason, format!("the worker's directory {} could not be made: {error}", dir.display()))
        .hint("nothing was started")
}
