//! What workers use: rates from two looks at their counters, and how people and scripts are shown them.

use super::{cell, phase, time};
use holdfast_proto::daemon::{Counters, Phase, Worker, WorkerStats};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::HashMap;

/// Heads of [`row`].
pub const HEADS: [&str; 9] =
    ["NAME", "STATUS", "CPU %", "MEMORY", "TASKS", "NET IN/OUT", "DISK READ/WRITTEN", "RESTARTS", "UPTIME"];

/// Columns that a narrow terminal does without, in this order.
pub const LESS: [&str; 4] = ["DISK READ/WRITTEN", "RESTARTS", "TASKS", "STATUS"];

/// Two looks that are nearer to each other tell no rate.
const APART_US_MIN: u64 = 1_000;

/// What one worker uses now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Usage {
    /// As the daemon shows it.
    pub worker: Worker,
    /// Empty where it does not run or was not counted.
    pub counters: Counters,
    /// Of one processor: 250 is two and a half of them. None after the first look.
    pub cpu_percent: Option<f64>,
    /// Bytes per second that it receives. None after the first look.
    pub received_per_sec: Option<f64>,
    /// Bytes per second that it sends. None after the first look.
    pub sent_per_sec: Option<f64>,
}

/// Remembers the last look, so that the next one tells rates.
#[derive(Debug, Default)]
pub struct Looks {
    last: HashMap<(String, u64), Counters>,
}

impl Looks {
    /// Takes one look in.
    pub fn take(&mut self, seen: Vec<WorkerStats>) -> Vec<Usage> {
        let mut last = std::mem::take(&mut self.last);
        let usage = |stats: WorkerStats| {
            let worker = stats.worker.unwrap_or_default();
            let Some(counters) = stats.counters else { return Usage { worker, ..Usage::default() } };
            // A new generation has new counters.
            let key = (worker.id.clone(), worker.generation);
            let before = last.remove(&key);
            self.last.insert(key, counters);
            let rate = |of: fn(&Counters) -> Option<u64>| per_sec(before.as_ref()?, &counters, of);
            Usage {
                worker,
                counters,
                cpu_percent: rate(|counters| counters.cpu_us).map(|us_per_sec| us_per_sec / 10_000.0),
                received_per_sec: rate(|counters| counters.received_bytes),
                sent_per_sec: rate(|counters| counters.sent_bytes),
            }
        };
        seen.into_iter().map(usage).collect()
    }
}

fn per_sec(before: &Counters, now: &Counters, of: fn(&Counters) -> Option<u64>) -> Option<f64> {
    let apart_us = now.at_us.checked_sub(before.at_us).filter(|us| *us >= APART_US_MIN)?;
    // What went back was counted anew (its processes are added up, and one that ended took its share with it).
    let grown = of(now)?.saturating_sub(of(before)?);
    Some(grown as f64 * 1_000_000.0 / apart_us as f64)
}

impl Usage {
    /// Seconds since its program was executed; none where it does not run.
    pub fn uptime_secs(&self, now: Timestamp) -> Option<u64> {
        let runs = self.worker.pid != 0 && self.worker.started_at != 0;
        let secs = (now.as_nanosecond() - i128::from(self.worker.started_at)) / 1_000_000_000;
        runs.then_some(u64::try_from(secs).unwrap_or(0))
    }
}

/// One line of `stats`.
pub fn row(usage: &Usage, now: Timestamp) -> [String; 9] {
    let counters = &usage.counters;
    [
        cell(&usage.worker.name, 32),
        phase(usage.worker.phase()).to_owned(),
        percent(usage.cpu_percent),
        memory(counters),
        counters.tasks.map_or_else(none, |tasks| tasks.to_string()),
        pair(counters.received_bytes, counters.sent_bytes),
        pair(counters.read_bytes, counters.written_bytes),
        usage.worker.restarts.to_string(),
        usage.uptime_secs(now).map_or_else(none, time::span),
    ]
}

fn none() -> String {
    "-".to_owned()
}

/// `12.5`; `-` where it is not known.
pub fn percent(percent: Option<f64>) -> String {
    percent.map_or_else(none, |percent| format!("{percent:.1}"))
}

/// `12.3M`, or `~12.3M` where shared pages count several times; `-` where it is not known.
pub fn memory(counters: &Counters) -> String {
    let about = if counters.memory_by_cgroup { "" } else { "~" };
    counters.memory_bytes.map_or_else(none, |memory| format!("{about}{}", bytes(memory)))
}

fn pair(first: Option<u64>, second: Option<u64>) -> String {
    match (first, second) {
        (Some(first), Some(second)) => format!("{} / {}", bytes(first), bytes(second)),
        _ => none(),
    }
}

/// `999B`, `1.0K`, `12.3M`, `1.2G`: at most six characters, in powers of 1024.
pub fn bytes(count: u64) -> String {
    if count < 1000 {
        return format!("{count}B");
    }
    let mut value = count as f64 / 1024.0;
    for unit in ["K", "M", "G", "T", "P"] {
        // 999.95 would be written as 1000.0.
        if value < 999.95 {
            return format!("{value:.1}{unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.1}E")
}

/// One worker of `stats --json`. What this host does not count is null.
#[derive(Debug, Serialize)]
pub struct UsageJson {
    id: String,
    name: String,
    phase: &'static str,
    cpu_percent: Option<f64>,
    cpu_seconds: Option<f64>,
    memory_bytes: Option<u64>,
    /// `cgroup`, or `processes` where resident sets are added up.
    memory_source: Option<&'static str>,
    tasks: Option<u64>,
    received_bytes: Option<u64>,
    sent_bytes: Option<u64>,
    received_bytes_per_sec: Option<f64>,
    sent_bytes_per_sec: Option<f64>,
    read_bytes: Option<u64>,
    written_bytes: Option<u64>,
    restarts: u32,
    uptime_seconds: Option<u64>,
}

/// One worker of `stats --json`.
pub fn json(usage: &Usage, now: Timestamp) -> UsageJson {
    let (worker, counters) = (&usage.worker, &usage.counters);
    let source = if counters.memory_by_cgroup { "cgroup" } else { "processes" };
    // A tenth of a percent is finer than two looks can tell.
    let rounded = |value: f64| (value * 10.0).round() / 10.0;
    UsageJson {
        id: worker.id.clone(),
        name: worker.name.clone(),
        phase: phase(Phase::try_from(worker.phase).unwrap_or(Phase::Unspecified)),
        cpu_percent: usage.cpu_percent.map(rounded),
        cpu_seconds: counters.cpu_us.map(|us| us as f64 / 1_000_000.0),
        memory_bytes: counters.memory_bytes,
        memory_source: counters.memory_bytes.map(|_| source),
        tasks: counters.tasks,
        received_bytes: counters.received_bytes,
        sent_bytes: counters.sent_bytes,
        received_bytes_per_sec: usage.received_per_sec.map(rounded),
        sent_bytes_per_sec: usage.sent_per_sec.map(rounded),
        read_bytes: counters.read_bytes,
        written_bytes: counters.written_bytes,
        restarts: worker.restarts,
        uptime_seconds: usage.uptime_secs(now),
    }
}

#[cfg(test)]
#[path = "usage_tests.rs"]
mod tests;
