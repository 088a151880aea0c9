//! How a worker shows itself to callers. Pure.

use crate::store::{EndRow, WorkerRow};
use crate::worker::spec::{Network, Spec};
use crate::worker::{End, Phase};
use holdfast_proto::daemon as wire;
use holdfast_proto::words::{Generation, OwnerName};

/// A worker at one moment.
#[derive(Debug, Clone)]
pub struct View {
    /// Where it is.
    pub phase: Phase,
    /// What it is attached to.
    pub network: Network,
    /// As callers get it.
    pub worker: wire::Worker,
    /// Of the current generation's orders: shows its shim who asks.
    pub nonce: [u8; 16],
    /// Of the current generation, for people; 0 where it is not live.
    pub shim_pid: u32,
    /// Of the current generation.
    pub shim_version: String,
    /// Bytes of output when the last generation ended, and of these not kept: the shim's own count, which knows also
    /// what a full disk kept it from noting in the log.
    pub log_at_end: (u64, u64),
}

impl View {
    /// Which start of it.
    pub fn generation(&self) -> Generation {
        Generation(self.worker.generation)
    }

    /// `pid`: of the first process, 0 where it is not live.
    pub fn of(row: &WorkerRow, spec: &Spec, end: Option<&EndRow>, pid: u32, owner: &OwnerName) -> Self {
        let phase = row.worker.phase;
        let live = phase.is_live();
        let worker = wire::Worker {
            id: row.id.to_string(),
            name: row.spec.name.clone(),
            phase: wire_phase(phase).into(),
            generation: row.worker.generation.0,
            pid: if live { pid } else { 0 },
            created_at: row.created_at.0,
            started_at: row.worker.started_at.unwrap_or_default().0,
            finished_at: row.finished_at.0,
            restarts: row.worker.restarts,
            exit: end.map(exit),
            addresses: if live { row.addresses.clone() } else { Vec::new() },
            // What was asked for, until the helper says what was given.
            ports: if live && !row.ports.is_empty() { row.ports.clone() } else { row.spec.publish.clone() },
            command: row.spec.command.clone(),
            network: spec.network.name().into(),
            labels: row.spec.labels.clone(),
            owner: owner.to_string(),
            external_id: row.spec.external_id.clone(),
            next_start_at: row.worker.due.unwrap_or_default().0,
        };
        let shim_pid = if live { row.shim_pid } else { 0 };
        let log_at_end = end.map_or((0, 0), |end| (end.log_bytes, end.log_dropped_bytes));
        let nonce = row.nonce;
        Self {
            phase,
            network: spec.network,
            worker,
            nonce,
            shim_pid,
            shim_version: row.shim_version.clone(),
            log_at_end,
        }
    }
}

/// A phase on the wire.
pub fn wire_phase(phase: Phase) -> wire::Phase {
    match phase {
        Phase::Created => wire::Phase::Created,
        Phase::Starting => wire::Phase::Starting,
        Phase::Running => wire::Phase::Running,
        Phase::Suspending => wire::Phase::Suspending,
        Phase::Suspended => wire::Phase::Suspended,
        Phase::Resuming => wire::Phase::Resuming,
        Phase::Stopping => wire::Phase::Stopping,
        Phase::Stopped => wire::Phase::Stopped,
        Phase::Waiting => wire::Phase::Waiting,
        Phase::Failed => wire::Phase::Failed,
    }
}

/// How a generation ended, on the wire.
pub fn exit(end: &EndRow) -> wire::Exit {
    use wire::exit::How;
    let how = match end.end {
        End::Code(code) | End::NotStarted(code) => Some(How::Code(code.into())),
        End::Signal(signal) => Some(How::Signal(signal.into())),
        End::Lost => None,
    };
    let not_started = if matches!(end.end, End::NotStarted(_)) { end.why.clone() } else { String::new() };
    wire::Exit { how, not_started, oom: end.oom, shim_lost: end.end == End::Lost }
}

const ADJECTIVES: [&str; 32] = [
    "amber", "bold", "brisk", "calm", "clear", "deep", "eager", "early", "fair", "firm", "fresh", "glad", "grand",
    "keen", "kind", "late", "light", "lively", "lucid", "merry", "neat", "plain", "proud", "quick", "quiet", "ready",
    "rapid", "sharp", "steady", "stout", "swift", "warm",
];
const NOUNS: [&str; 32] = [
    "anchor", "badger", "beacon", "birch", "bridge", "cedar", "cliff", "comet", "crane", "delta", "ember", "falcon",
    "fjord", "harbor", "heron", "island", "lantern", "maple", "marten", "meadow", "oak", "otter", "pine", "quarry",
    "raven", "ridge", "river", "sparrow", "spruce", "thistle", "tide", "willow",
];

/// A name that a person can say, made of the bits of an id.
pub fn adjective_noun(bits: u64) -> String {
    let adjective = ADJECTIVES[(bits % ADJECTIVES.len() as u64) as usize];
    let noun = NOUNS[(bits / ADJECTIVES.len() as u64 % NOUNS.len() as u64) as usize];
    format!("{adjective}-{noun}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_proto::words::WorkerName;

    #[test]
    fn every_made_name_is_a_legal_one() {
        for bits in 0..(ADJECTIVES.len() * NOUNS.len()) as u64 {
            adjective_noun(bits).parse::<WorkerName>().unwrap();
        }
    }
}
