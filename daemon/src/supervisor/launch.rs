//! One launch: orders to the helper, then the shim's own word on what became of them.

use super::{Shared, now};
use crate::resolv;
use crate::shim::{self, Alive, Shim, ShimError, Word};
use crate::store::WorkerRow;
use crate::worker::limits;
use crate::worker::spec::{Network, Spec};
use crate::{helper::LaunchError, hosts};
use holdfast_launcher::launch::{CLOSE_ABSTRACT, Failure};
use holdfast_launcher::limits::Limit;
use holdfast_launcher::orders::{self, CageOrders, Orders, Rootfs, Volume};
use holdfast_launcher::record::{ExitRecord, Outcome};
use holdfast_proto::helper::{LaunchReply, LaunchRequest, Port};
use holdfast_proto::problem::{Problem, Reason};
use holdfast_proto::words::{Generation, WorkerId};
use nix::errno::Errno;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// After a lost answer: how long a shim may take to appear. The helper and the launcher undo a launch that is cut off.
const APPEARS_WITHIN: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(50);
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

    /// Orders the worker and waits until it is executed, or cannot be.
    pub async fn perform(self) -> Launched {
        let outcome = self.shared.helper.launch(self.request.clone()).await;
        match outcome {
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
                Some(launched) => launched,
                None => {
                    // Undone by the helper, unless its word on that was lost as well.
                    let (helper, id, generation) = (self.shared.helper.clone(), self.id, self.generation);
                    tokio::spawn(async move { helper.detach_until_done(id, generation).await });
                    refused(problem)
                }
            },
        }
    }

    /// For a worker that an earlier daemon left in `starting`: what became of it, once that daemon's launches are over.
    pub async fn find_out(shared: Arc<Shared>, row: &WorkerRow) -> Launched {
        let (id, generation, nonce) = (row.id, row.worker.generation, row.nonce);
        let state_dir = shared.state_dir(id);
        let launch = Self { shared, id, generation, nonce, request: LaunchRequest::default(), state_dir };
        if let Some(launched) = launch.listen(None).await {
            return launched;
        }
        launch.shared.helper.fenced().await;
        // Whether it was ever executed cannot be known: its daemon may have died between the two.
        launch.listen(None).await.unwrap_or(Launched::Lost)
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
                Word::Gone => {
                    return Some(self.record().map_or(Launched::Lost, |record| Launched::Ended { record, reply }));
                }
            }
        }
    }

    /// After a lost answer.
    async fn appears(&self) -> Option<Launched> {
        let until = tokio::time::Instant::now() + APPEARS_WITHIN;
        loop {
            if let Some(launched) = self.listen(None).await {
                return Some(launched);
            }
            if tokio::time::Instant::now() >= until {
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
            Network::Bridge | Network::Named(_) | Network::Macvlan(_) => resolv::resolv_conf(),
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
        network: if spec.network == Network::Host { orders::Network::Host } else { orders::Network::Own },
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

/// Why a program was not executed, for a person; empty where it was.
pub fn why(record: &ExitRecord, spec: &Spec) -> String {
    let Outcome::NotStarted { code, failure } = &record.outcome else { return String::new() };
    let told = told(*code, failure, spec.command.first().map_or(&[][..], Vec::as_slice));
    let step = failure.step.as_str();
    // Bound by us for the working directory's sake: told in the owner's words.
    let bound = format!("volume source {}", spec.workdir.display());
    if step == bound && !spec.volumes.iter().any(|volume| volume.source == spec.workdir) {
        return told.replacen("volume source", "working directory", 1);
    }
    told
}

/// Why `program` was not executed, for a person.
pub fn told(code: u8, failure: &Failure, program: &[u8]) -> String {
    let reason = match failure.errno {
        0 => String::new(),
        errno => Errno::from_raw(errno).desc().to_owned(),
    };
    let step = failure.step.as_str();
    if step.starts_with("program ") {
        let program = String::from_utf8_lossy(program);
        return match (code, failure.errno) {
            (127, 0 | libc::ENOENT) => format!("{program}: not found"),
            _ => format!("{program}: cannot be executed: {reason}"),
        };
    }
    if let Some(limit) = Limit::of_step(step) {
        return limits::not_enforceable(limit).0;
    }
    if reason.is_empty() { step.to_owned() } else { format!("{step}: {reason}") }
}

/// The same as a refusal.
pub fn problem_of(record: &ExitRecord, spec: &Spec) -> Option<Problem> {
    let Outcome::NotStarted { code, failure } = &record.outcome else { return None };
    if let Some(limit) = Limit::of_step(&failure.step) {
        let (met, way_out) = limits::not_enforceable(limit);
        return Some(Problem::new(Reason::Host, met).hint(way_out));
    }
    if failure.step == CLOSE_ABSTRACT {
        let reason = Errno::from_raw(failure.errno).desc();
        let message = format!("network host: abstract sockets of the host cannot be closed to a worker here: {reason}");
        return Some(Problem::new(Reason::Host, message).hint(
            "that takes Landlock of ABI 6 (Linux 6.12 or later, with landlock among its security modules); network bridge works without",
        ));
    }
    let named_program = failure.step.starts_with("program ");
    let (reason, hint) = match code {
        127 => (
            Reason::NotFound,
            "paths are those inside the worker: the host's programs, its own /tmp and /run, and volumes",
        ),
        126 if named_program => (Reason::CannotExecute, "give a program that the owner may execute"),
        126 => (Reason::CannotExecute, "give a path that the owner may use"),
        _ if matches!(failure.errno, libc::ENOSPC | libc::EDQUOT) && !failure.step.starts_with("clone") => {
            (Reason::NoSpace, "free some space, or raise the limit that is met")
        }
        _ => (Reason::Host, "`holdfast doctor` says what this host lacks"),
    };
    Some(Problem::new(reason, why(record, spec)).hint(hint))
}

/// When a record says nothing better.
pub fn ended_at(record: &ExitRecord) -> crate::worker::Timestamp {
    if record.finished_at_ns > 0 { crate::worker::Timestamp(record.finished_at_ns) } else { now() }
}
