//! What workers have used: each worker's shim is asked, some at a time, and one that does not answer is left out.

use crate::shim;
use crate::supervisor::{Entry, Shared};
use holdfast_launcher::counters::{Counters, MemorySource};
use holdfast_launcher::limits::Enforcer;
use holdfast_proto::daemon as wire;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::task::JoinSet;

/// Shims that are asked at a time.
const AT_A_TIME_MAX: usize = 32;
/// A shim answers at once; one that was stopped by its owner never does.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// How these workers are and what they have used, in this order.
pub async fn of(shared: &Shared, entries: Vec<Entry>) -> Vec<wire::WorkerStats> {
    let mut answers: Vec<wire::WorkerStats> = Vec::with_capacity(entries.len());
    let mut waiting = VecDeque::new();
    for (place, entry) in entries.into_iter().enumerate() {
        let view = entry.view();
        if view.phase.is_live() {
            waiting.push_back((place, shared.socket(entry.id), view.nonce));
        }
        answers.push(wire::WorkerStats { worker: Some(view.worker), counters: None });
    }
    let mut asked = JoinSet::new();
    loop {
        while asked.len() < AT_A_TIME_MAX
            && let Some((place, socket, nonce)) = waiting.pop_front()
        {
            asked.spawn(async move {
                let counters = tokio::time::timeout(ANSWER_WITHIN, shim::counters(&socket, nonce)).await;
                (place, counters.ok().and_then(Result::ok))
            });
        }
        let Some(answered) = asked.join_next().await else { return answers };
        if let Ok((place, counters)) = answered {
            answers[place].counters = counters.map(on_the_wire);
        }
    }
}

/// Who enforces this worker's limits, as its shim says; none where it does not run or does not answer.
pub async fn enforced(shared: &Shared, entry: &Entry) -> Option<wire::Enforced> {
    let view = entry.view();
    if !view.phase.is_live() {
        return None;
    }
    let socket = shared.socket(entry.id);
    let asked = shim::counters(&socket, view.nonce);
    let counters = tokio::time::timeout(ANSWER_WITHIN, asked).await.ok()?.ok()?;
    let enforcer = |by: Option<Enforcer>| match by {
        None => wire::Enforcer::Unspecified.into(),
        Some(Enforcer::Cgroup) => wire::Enforcer::Cgroup.into(),
        Some(Enforcer::Rlimit) => wire::Enforcer::Rlimit.into(),
        Some(Enforcer::Nobody) => wire::Enforcer::Nobody.into(),
    };
    let by = counters.enforced;
    Some(wire::Enforced { memory: enforcer(by.memory), cpu: enforcer(by.cpu), pids: enforcer(by.tasks) })
}

fn on_the_wire(counters: Counters) -> wire::Counters {
    wire::Counters {
        at_us: counters.at_us,
        cpu_us: counters.cpu_us,
        memory_bytes: counters.memory.map(|(bytes, _)| bytes),
        memory_by_cgroup: counters.memory.is_some_and(|(_, source)| source == MemorySource::Cgroup),
        tasks: counters.tasks,
        received_bytes: counters.network.map(|(received, _)| received),
        sent_bytes: counters.network.map(|(_, sent)| sent),
        read_bytes: counters.block.map(|(read, _)| read),
        written_bytes: counters.block.map(|(_, written)| written),
    }
}
