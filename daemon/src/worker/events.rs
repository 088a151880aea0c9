//! What of a worker's step is an event, and which events a caller wants. Pure.

use super::query::{Filter, FilterError};
use super::{End, Phase, Worker};
use holdfast_proto::daemon as wire;
use wire::EventKind;

/// Every kind and its word.
const KINDS: [(EventKind, &str); 11] = [
    (EventKind::Created, "created"),
    (EventKind::Started, "started"),
    (EventKind::Exited, "exited"),
    (EventKind::Restarting, "restarting"),
    (EventKind::Suspended, "suspended"),
    (EventKind::Resumed, "resumed"),
    (EventKind::Stopped, "stopped"),
    (EventKind::Failed, "failed"),
    (EventKind::Removed, "removed"),
    (EventKind::NetworkCreated, "network-created"),
    (EventKind::NetworkRemoved, "network-removed"),
];

/// The word of the contract, also its stored form.
pub fn kind_name(kind: EventKind) -> &'static str {
    KINDS.iter().find(|(known, _)| *known == kind).map_or("unknown", |(_, name)| name)
}

/// What happened in one step, in its order. `end`: the generation of `before` ended so.
pub fn events_of(before: &Worker, after: &Worker, end: Option<End>) -> Vec<EventKind> {
    let mut kinds = Vec::with_capacity(2);
    let (from, to) = (before.phase, after.phase);
    if from == Phase::Created && to != Phase::Created {
        kinds.push(EventKind::Created);
    }
    let goes_on = after.generation != before.generation;
    if !goes_on && before.started_at.is_none() && after.started_at.is_some() {
        kinds.push(EventKind::Started);
    }
    match end {
        // It never ran: `failed` says so.
        Some(End::NotStarted(_)) | None => {}
        Some(End::Code(_) | End::Signal(_) | End::Lost) => kinds.push(EventKind::Exited),
    }
    if from == to && !goes_on {
        return kinds;
    }
    let entered = match to {
        Phase::Waiting => Some(EventKind::Restarting),
        Phase::Starting if from == Phase::Stopping => Some(EventKind::Restarting),
        // Also by hand, from outside; an order that failed leaves it as it was.
        Phase::Suspended if from != Phase::Resuming => Some(EventKind::Suspended),
        Phase::Running if matches!(from, Phase::Resuming | Phase::Suspended) => Some(EventKind::Resumed),
        Phase::Stopped => Some(EventKind::Stopped),
        Phase::Failed => Some(EventKind::Failed),
        Phase::Created
        | Phase::Starting
        | Phase::Running
        | Phase::Suspending
        | Phase::Suspended
        | Phase::Resuming
        | Phase::Stopping => None,
    };
    kinds.extend(entered);
    kinds
}

/// Which events a caller wants.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    filter: Filter,
    /// Any of these; all where it is empty.
    kinds: Vec<EventKind>,
    since_ns: i64,
    /// 0: no end.
    until_ns: i64,
}

impl Wanted {
    /// Reads KEY=VALUE each, and times in ns since the Unix epoch.
    pub fn parse(filters: &[String], since_ns: i64, until_ns: i64) -> Result<Self, FilterError> {
        let mut kinds = Vec::new();
        let mut others = Vec::new();
        for text in filters {
            match text.split_once('=') {
                Some(("kind", name)) => {
                    let known = KINDS.iter().find(|(_, known)| *known == name);
                    let all = || KINDS.map(|(_, name)| name).join(", ");
                    kinds.push(
                        known
                            .ok_or_else(|| FilterError::Kind {
                                given: super::spec::shown(name.as_bytes()),
                                known: all(),
                            })?
                            .0,
                    );
                }
                Some(("phase", _)) => return Err(FilterError::Phases),
                _ => others.push(text.as_str()),
            }
        }
        Ok(Self { filter: Filter::parse(others.into_iter())?, kinds, since_ns, until_ns })
    }

    /// Whether no later event is wanted once this one is there.
    pub fn ends_at(&self, event: &wire::Event) -> bool {
        self.until_ns != 0 && event.time >= self.until_ns
    }

    /// Whether it ends by itself at some time.
    pub fn until_ns(&self) -> Option<i64> {
        Some(self.until_ns).filter(|until| *until != 0)
    }

    /// Whether this event is wanted.
    pub fn admits(&self, event: &wire::Event) -> bool {
        if event.time < self.since_ns || self.ends_at(event) {
            return false;
        }
        let worker = wire::Worker {
            id: event.id.clone(),
            name: event.name.clone(),
            network: event.network.clone(),
            labels: event.labels.clone(),
            external_id: event.external_id.clone(),
            ..Default::default()
        };
        let kind_fits = self.kinds.is_empty() || self.kinds.contains(&event.kind());
        kind_fits && self.filter.admits(Phase::Created, &worker)
    }
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
