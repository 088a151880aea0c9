//! Events for people and for scripts. Pure.

use super::{cell, json, signal_name, time};
use holdfast_proto::daemon::exit::How;
use holdfast_proto::daemon::{Event, EventKind};
use serde::Serialize;
use std::collections::BTreeMap;

/// Longest reason in a line.
const WHY_CHARS_MAX: usize = 200;

/// One line of `events --json`.
#[derive(Debug, Serialize)]
pub struct EventJson {
    cursor: u64,
    time: Option<String>,
    kind: &'static str,
    /// Of the worker; none where the event is about a network.
    id: Option<String>,
    name: String,
    generation: u64,
    exit: Option<json::ExitJson>,
    why: Option<String>,
    network: Option<String>,
    labels: BTreeMap<String, String>,
    external_id: Option<String>,
}

/// The word of the contract.
pub fn kind(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Unspecified => "unknown",
        EventKind::Created => "created",
        EventKind::Started => "started",
        EventKind::Exited => "exited",
        EventKind::Restarting => "restarting",
        EventKind::Suspended => "suspended",
        EventKind::Resumed => "resumed",
        EventKind::Stopped => "stopped",
        EventKind::Failed => "failed",
        EventKind::Removed => "removed",
        EventKind::NetworkCreated => "network-created",
        EventKind::NetworkRemoved => "network-removed",
    }
}

/// For scripts.
pub fn json(cursor: u64, event: &Event) -> EventJson {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    EventJson {
        cursor,
        time: time::rfc3339(event.time),
        kind: kind(event.kind()),
        id: some(&event.id),
        name: event.name.clone(),
        generation: event.generation,
        exit: event.exit.as_ref().and_then(json::exit),
        why: some(&event.why),
        network: some(&event.network),
        labels: event.labels.clone().into_iter().collect(),
        external_id: some(&event.external_id),
    }
}

/// For people: `2026-11-21T15:30:00.5Z  exited      web  code 3`.
pub fn line(event: &Event) -> String {
    let time = time::rfc3339(event.time).unwrap_or_else(|| "-".to_owned());
    let how = match event.exit.as_ref().map(|exit| exit.how) {
        Some(Some(How::Code(code))) => format!("code {code}"),
        Some(Some(How::Signal(signal))) => signal_name(signal),
        Some(None) => "end not known".to_owned(),
        None => cell(&event.why, WHY_CHARS_MAX),
    };
    let generation = if event.generation > 1 { format!("  generation {}", event.generation) } else { String::new() };
    let line = format!("{time:<30}  {:<15}  {}  {how}{generation}", kind(event.kind()), cell(&event.name, 64));
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_proto::daemon::Exit;

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        let exit = Exit { how: Some(How::Signal(9)), ..Exit::default() };
        let event = Event {
            time: 1_500_000_000,
            kind: EventKind::Exited.into(),
            id: "00ff".into(),
            name: "web\x1b[31m".into(),
            generation: 2,
            why: "a\nb".into(),
            exit: Some(exit),
            ..Event::default()
        };
        assert_eq!(
            line(&event),
            "1970-01-01T00:00:01.5Z          exited           web\\u{1b}[31m  SIGKILL  generation 2"
        );
        let shown = serde_json::to_value(json(7, &event)).unwrap();
        assert_eq!((shown["cursor"].clone(), shown["exit"]["signal"].clone()), (7.into(), 9.into()));
        assert_eq!((shown["network"].clone(), shown["kind"].clone()), (serde_json::Value::Null, "exited".into()));
        let failed = Event { exit: None, kind: EventKind::Failed.into(), ..event };
        assert!(line(&failed).contains("a\\nb") && !line(&failed).contains('\n'));
    }
}
