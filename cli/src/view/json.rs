//! The JSON documents of the contract ("Verbs"), field by field.

use super::time::rfc3339;
use crate::update::notice::Notice;
use holdfast_proto::daemon::exit::How;
use holdfast_proto::daemon::{
    Exit, HistoryEntry, InspectReply, Phase, ProgramStatus, Publish, StatusReply, Volume, Worker, WorkerSpec,
};
use serde::Serialize;
use std::collections::BTreeMap;

/// One element of `ps --json`.
#[derive(Debug, Serialize)]
pub struct WorkerJson {
    id: String,
    name: String,
    phase: &'static str,
    pid: Option<u32>,
    started_at: Option<String>,
    finished_at: Option<String>,
    restarts: u32,
    exit: Option<ExitJson>,
    addresses: Vec<String>,
    ports: Vec<PortJson>,
    command: Vec<String>,
    network: String,
    labels: BTreeMap<String, String>,
    owner: String,
    generation: u64,
    next_start_at: Option<String>,
}

/// `{"code":N}` or `{"signal":N}`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitJson {
    /// It ended by itself.
    Code(u32),
    /// This signal ended it.
    Signal(u32),
}

/// A published port.
#[derive(Debug, Serialize)]
pub struct PortJson {
    host: u32,
    worker: u32,
    proto: String,
    /// Empty: every address of the host.
    address: String,
}

/// `inspect --json`: everything of `ps --json`, and more.
#[derive(Debug, Serialize)]
pub struct InspectJson {
    #[serde(flatten)]
    worker: WorkerJson,
    created_at: Option<String>,
    /// What is known about the last end besides code and signal.
    last_end: Option<EndJson>,
    spec: SpecJson,
    limits: super::limits::LimitsJson,
    shim: ShimJson,
    log: LogJson,
    history: Vec<HistoryJson>,
}

#[derive(Debug, Serialize)]
struct EndJson {
    not_started: Option<String>,
    oom: bool,
    shim_lost: bool,
}

#[derive(Debug, Serialize)]
struct SpecJson {
    name: String,
    command: Vec<String>,
    network: String,
    address: Option<String>,
    gateway: Option<String>,
    publish: Vec<PortJson>,
    env: Vec<String>,
    workdir: String,
    volumes: Vec<VolumeJson>,
    stop_signal: u32,
    stop_timeout_secs: u32,
    log_bytes_max: u64,
    log_files_max: u32,
    remove_on_exit: bool,
    labels: BTreeMap<String, String>,
    external_id: Option<String>,
    cage: CageJson,
    restart: String,
}

#[derive(Debug, Serialize)]
struct CageJson {
    user: String,
    allow_userns: bool,
    /// None: the host's own tree.
    rootfs: Option<RootfsJson>,
}

#[derive(Debug, Serialize)]
struct RootfsJson {
    path: String,
    writable: bool,
}

#[derive(Debug, Serialize)]
struct VolumeJson {
    source: String,
    target: String,
    read_only: bool,
}

#[derive(Debug, Serialize)]
struct ShimJson {
    pid: Option<u32>,
    version: Option<String>,
}

#[derive(Debug, Serialize)]
struct LogJson {
    bytes: u64,
    dropped: u64,
}

#[derive(Debug, Serialize)]
struct HistoryJson {
    time: Option<String>,
    generation: u64,
    phase: &'static str,
    why: String,
}

/// `status --json`.
#[derive(Debug, Serialize)]
pub struct StatusJson {
    version: String,
    release: Option<String>,
    owner: String,
    programs: Vec<ProgramJson>,
    workers: CountsJson,
    update: UpdateJson,
}

/// One program of `status --json`.
#[derive(Debug, Serialize)]
pub struct ProgramJson {
    /// `holdfastd`, `holdfast-helper`, `holdfast-launcher`.
    pub name: String,
    /// Of the running program, which an update may have left behind.
    pub version: Option<String>,
    /// None where it does not run.
    pub pid: Option<u32>,
    /// Which start of it; of the daemon alone.
    pub generation: Option<u64>,
    /// How often it gave way to another one since its unit was started; of the daemon alone.
    pub handovers: Option<u32>,
    /// Why the last handover that was tried since then failed.
    pub handover_failure: Option<String>,
    /// Whether it does its work.
    pub healthy: bool,
    /// Why it is not healthy, and what to do.
    pub why: Option<String>,
}

#[derive(Debug, Serialize)]
struct CountsJson {
    live: u32,
    failed: u32,
}

#[derive(Debug, Serialize)]
struct UpdateJson {
    available: bool,
    expired: bool,
    version: Option<String>,
}

/// `version --json`.
#[derive(Debug, Serialize)]
pub struct VersionJson {
    /// Of this command.
    pub version: &'static str,
    /// The release folder's name that `current` points to; none where nothing is installed.
    pub release: Option<String>,
}

/// A worker as `ps --json` shows it.
pub fn worker(worker: &Worker) -> WorkerJson {
    WorkerJson {
        id: worker.id.clone(),
        name: worker.name.clone(),
        phase: super::phase(worker.phase()),
        pid: some_number(worker.pid),
        started_at: rfc3339(worker.started_at),
        finished_at: rfc3339(worker.finished_at),
        restarts: worker.restarts,
        exit: worker.exit.as_ref().and_then(exit),
        addresses: worker.addresses.clone(),
        ports: ports(worker),
        command: command(worker),
        network: worker.network.clone(),
        labels: worker.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        owner: worker.owner.clone(),
        generation: worker.generation,
        next_start_at: rfc3339(worker.next_start_at),
    }
}

/// A worker's published ports.
pub fn ports(worker: &Worker) -> Vec<PortJson> {
    worker.ports.iter().map(port).collect()
}

/// Program and arguments as text; bytes that are no UTF-8 become U+FFFD.
pub fn command(worker: &Worker) -> Vec<String> {
    worker.command.iter().map(|word| text(word)).collect()
}

/// Everything about a worker.
pub fn inspect(reply: &InspectReply, of: &Worker) -> InspectJson {
    InspectJson {
        worker: worker(of),
        created_at: rfc3339(of.created_at),
        last_end: of.exit.as_ref().map(|exit| EndJson {
            not_started: some_text(&exit.not_started),
            oom: exit.oom,
            shim_lost: exit.shim_lost,
        }),
        spec: spec(reply.spec.as_ref().unwrap_or(&WorkerSpec::default())),
        limits: super::limits::json(reply),
        shim: ShimJson { pid: some_number(reply.shim_pid), version: some_text(&reply.shim_version) },
        log: LogJson { bytes: reply.log_bytes, dropped: reply.log_dropped_bytes },
        history: reply.history.iter().map(history).collect(),
    }
}

/// What runs of Holdfast, the answering daemon first.
pub fn status(reply: &StatusReply, release: Option<String>, notice: &Notice) -> StatusJson {
    StatusJson {
        version: reply.version.clone(),
        release,
        owner: reply.owner.clone(),
        programs: programs(reply),
        workers: CountsJson { live: reply.workers_live, failed: reply.workers_failed },
        update: UpdateJson {
            available: notice.available.is_some(),
            expired: notice.expired.is_some(),
            version: notice.available.as_ref().map(|(version, _)| version.clone()),
        },
    }
}

/// The programs of [`status`]; the daemon is healthy, since it answered.
pub fn programs(reply: &StatusReply) -> Vec<ProgramJson> {
    let daemon = ProgramJson {
        name: "holdfastd".to_owned(),
        version: some_text(&reply.version),
        pid: some_number(reply.pid),
        generation: Some(reply.epoch),
        handovers: Some(reply.handovers),
        handover_failure: some_text(&reply.handover_failure),
        healthy: true,
        why: None,
    };
    let other = |program: &ProgramStatus| ProgramJson {
        name: program.name.clone(),
        version: some_text(&program.version),
        pid: some_number(program.pid),
        generation: None,
        handovers: None,
        handover_failure: None,
        healthy: program.healthy,
        why: some_text(&program.why),
    };
    std::iter::once(daemon).chain(reply.programs.iter().map(other)).collect()
}

/// How a generation ended; none where nobody knows.
pub fn exit(exit: &Exit) -> Option<ExitJson> {
    exit.how.as_ref().map(|how| match how {
        How::Code(code) => ExitJson::Code(*code),
        How::Signal(signal) => ExitJson::Signal(*signal),
    })
}

fn port(publish: &Publish) -> PortJson {
    PortJson {
        host: publish.host,
        worker: publish.worker,
        proto: publish.proto.clone(),
        address: publish.address.clone(),
    }
}

fn spec(spec: &WorkerSpec) -> SpecJson {
    SpecJson {
        name: spec.name.clone(),
        command: spec.command.iter().map(|word| text(word)).collect(),
        network: spec.network.clone(),
        address: some_text(&spec.address),
        gateway: some_text(&spec.gateway),
        publish: spec.publish.iter().map(port).collect(),
        env: spec.env.iter().map(|pair| text(pair)).collect(),
        workdir: if spec.workdir.is_empty() { "/".to_owned() } else { text(&spec.workdir) },
        volumes: spec.volumes.iter().map(volume).collect(),
        stop_signal: if spec.stop_signal == 0 { 15 } else { spec.stop_signal },
        stop_timeout_secs: spec.stop_timeout_secs.unwrap_or(10),
        log_bytes_max: if spec.log_bytes_max == 0 { 100 << 20 } else { spec.log_bytes_max },
        log_files_max: if spec.log_files_max == 0 { 10 } else { spec.log_files_max },
        remove_on_exit: spec.remove_on_exit,
        labels: spec.labels.clone().into_iter().collect(),
        external_id: some_text(&spec.external_id),
        cage: cage(spec),
        restart: if spec.restart.is_empty() { "no".to_owned() } else { spec.restart.clone() },
    }
}

fn cage(spec: &WorkerSpec) -> CageJson {
    let cage = spec.cage.clone().unwrap_or_default();
    let rootfs = cage.rootfs.map(|rootfs| RootfsJson { path: text(&rootfs.path), writable: rootfs.writable });
    let user = if cage.user.is_empty() { "owner".to_owned() } else { cage.user };
    CageJson { user, allow_userns: cage.nested_namespaces, rootfs }
}

fn volume(volume: &Volume) -> VolumeJson {
    VolumeJson { source: text(&volume.source), target: text(&volume.target), read_only: volume.read_only }
}

fn history(entry: &HistoryEntry) -> HistoryJson {
    let phase = Phase::try_from(entry.phase).unwrap_or(Phase::Unspecified);
    HistoryJson {
        time: rfc3339(entry.time),
        generation: entry.generation,
        phase: super::phase(phase),
        why: entry.why.clone(),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn some_text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn some_number(number: u32) -> Option<u32> {
    (number != 0).then_some(number)
}
