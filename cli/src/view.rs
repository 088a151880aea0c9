//! What people and scripts are shown: from the daemon's answers to JSON, rows and sentences. Pure.

pub mod event;
pub mod fit;
pub mod json;
pub mod limits;
pub mod network;
pub mod template;
pub mod time;
pub mod usage;

use holdfast_proto::daemon::{Exit, InspectReply, Phase, Publish, Worker, exit::How};
use jiff::Timestamp;
use nix::sys::signal::Signal;

/// Most characters of a command in a table.
const COMMAND_CHARS_MAX: usize = 60;

/// Text that a terminal takes as text: control characters, and those that turn the writing direction, are shown as
/// escapes (threat T10). New lines stay.
pub fn plain(text: &str) -> String {
    escaped(text, |letter, out| out.extend(letter.escape_default()))
}

/// The same document, which a terminal takes as text too. JSON leaves DEL, the controls above it and the turning
/// characters as they are; they occur in its strings alone, where their escape means the same.
pub fn plain_json(document: &str) -> String {
    escaped(document, |letter, out| out.push_str(&format!("\\u{:04x}", u32::from(letter))))
}

fn escaped(text: &str, escape: impl Fn(char, &mut String)) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        let turns = matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}');
        match letter {
            '\n' => out.push('\n'),
            _ if letter.is_control() || turns => escape(letter, &mut out),
            _ => out.push(letter),
        }
    }
    out
}

/// As [`plain`], in one line and not longer than `chars_max`.
pub fn cell(text: &str, chars_max: usize) -> String {
    let line = plain(text).replace('\n', "\\n");
    match line.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// A phase as the contract writes it.
pub fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Unspecified => "unknown",
        Phase::Created => "created",
        Phase::Starting => "starting",
        Phase::Running => "running",
        Phase::Suspending => "suspending",
        Phase::Suspended => "suspended",
        Phase::Resuming => "resuming",
        Phase::Stopping => "stopping",
        Phase::Stopped => "stopped",
        Phase::Waiting => "waiting",
        Phase::Failed => "failed",
    }
}

/// `12 bytes`, `3.4 KiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return if count == 1 { "1 byte".to_owned() } else { format!("{count} bytes") };
    }
    let (mut value, mut unit) = (count as f64 / 1024.0, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A signal's name, or its number where it has none.
pub fn signal_name(number: u32) -> String {
    let named = i32::try_from(number).ok().and_then(|number| Signal::try_from(number).ok());
    named.map_or_else(|| format!("signal {number}"), |signal| signal.as_str().to_owned())
}

/// The code that a shell would see: the worker's own, or 128+N. None where nobody knows how it ended.
pub fn exit_code(exit: &Exit) -> Option<u8> {
    match exit.how {
        Some(How::Code(code)) => Some(u8::try_from(code).unwrap_or(u8::MAX)),
        Some(How::Signal(signal)) => {
            Some(u8::try_from(signal.saturating_add(crate::exit::SIGNAL_BASE.into())).unwrap_or(u8::MAX))
        }
        None => None,
    }
}

/// `running`, `stopped (0)`, `failed (SIGSEGV)`, `failed (not started)`, `waiting (1), again in 3 seconds`.
fn status(worker: &Worker, now: Timestamp) -> String {
    let word = phase(worker.phase());
    let ended = matches!(worker.phase(), Phase::Stopped | Phase::Failed | Phase::Waiting);
    let how = worker.exit.as_ref().filter(|_| ended).map(how_it_ended).unwrap_or_default();
    let again = match worker.phase() {
        Phase::Waiting => format!(", again {}", time::until(worker.next_start_at, now)),
        _ => String::new(),
    };
    format!("{word}{how}{again}")
}

fn how_it_ended(exit: &Exit) -> String {
    let how = match exit.how {
        _ if !exit.not_started.is_empty() => "not started".to_owned(),
        Some(How::Code(code)) => code.to_string(),
        Some(How::Signal(signal)) => signal_name(signal),
        None => "end not known".to_owned(),
    };
    let oom = if exit.oom { ", out of memory" } else { "" };
    format!(" ({how}{oom})")
}

/// `0.0.0.0:8080->80/tcp`.
fn port(publish: &Publish) -> String {
    let address = match publish.address.as_str() {
        "" => "*".to_owned(),
        address if address.contains(':') => format!("[{address}]"),
        address => address.to_owned(),
    };
    format!("{address}:{}->{}/{}", publish.host, publish.worker, publish.proto)
}

/// Heads of [`row`].
pub const HEADS: [&str; 8] = ["ID", "NAME", "STATUS", "SINCE", "RESTARTS", "ADDRESS", "PORTS", "COMMAND"];

/// Columns of `ps` that a narrow terminal does without, in this order.
pub const LESS: [&str; 4] = ["RESTARTS", "SINCE", "ID", "ADDRESS"];

/// One line of `ps`.
pub fn row(worker: &Worker, now: Timestamp) -> [String; 8] {
    let ports: Vec<String> = worker.ports.iter().map(port).collect();
    [
        cell(&worker.id, 16),
        cell(&worker.name, 32),
        status(worker, now),
        since(worker, now),
        worker.restarts.to_string(),
        cell(&bare_addresses(worker), 80),
        cell(&ports.join(", "), 200),
        cell(&json::command(worker).join(" "), COMMAND_CHARS_MAX),
    ]
}

/// How long it has been as it is.
fn since(worker: &Worker, now: Timestamp) -> String {
    let moments = [worker.finished_at, worker.started_at, worker.created_at];
    let live = worker.pid != 0;
    time::ago(moments.into_iter().skip(usize::from(live)).find(|time| *time != 0).unwrap_or(0), now)
}

/// Its addresses without their prefix lengths.
fn bare_addresses(worker: &Worker) -> String {
    let bare = |address: &String| address.split('/').next().unwrap_or_default().to_owned();
    worker.addresses.iter().map(bare).collect::<Vec<_>>().join(", ")
}

/// `KEY=VALUE,KEY=VALUE`, in the order of the keys.
fn labels(worker: &Worker) -> String {
    let sorted: std::collections::BTreeMap<_, _> = worker.labels.iter().collect();
    sorted.into_iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// Lines of `port`: what answers for each port of the worker.
pub fn port_lines(worker: &Worker) -> Vec<String> {
    let line = |publish: &Publish| {
        let address = if publish.address.is_empty() { "0.0.0.0" } else { &publish.address };
        let address = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        cell(&format!("{}/{} -> {address}:{}", publish.worker, publish.proto, publish.host), 200)
    };
    worker.ports.iter().map(line).collect()
}

/// `inspect` for people: a head and a value each, still to be made harmless.
pub fn inspect_lines(reply: &InspectReply, worker: &Worker, now: Timestamp) -> Vec<(&'static str, String)> {
    let spec = reply.spec.clone().unwrap_or_default();
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let moment = |nanos| time::rfc3339(nanos).map(|text| format!("{text} ({})", time::ago(nanos, now)));
    let mut lines = vec![
        ("Id", worker.id.clone()),
        ("Name", worker.name.clone()),
        ("Owner", worker.owner.clone()),
        ("Status", status(worker, now)),
        ("Command", json::command(worker).join(" ")),
        ("Generation", worker.generation.to_string()),
        ("Network", worker.network.clone()),
    ];
    let mut add = |head, value: Option<String>| lines.extend(value.map(|value| (head, value)));
    add("Pid", (worker.pid != 0).then(|| worker.pid.to_string()));
    add("Created", moment(worker.created_at));
    add("Started", moment(worker.started_at));
    add("Finished", moment(worker.finished_at));
    add("Restart", (!spec.restart.is_empty()).then(|| format!("{}, {} so far", spec.restart, worker.restarts)));
    let next = time::rfc3339(worker.next_start_at);
    add("Next start", next.map(|at| format!("{at} ({})", time::until(worker.next_start_at, now))));
    let not_started = worker.exit.as_ref().map(|exit| exit.not_started.clone()).unwrap_or_default();
    add("Not started", Some(not_started).filter(|why| !why.is_empty()));
    worker.addresses.iter().for_each(|address| add("Address", Some(address.clone())));
    worker.ports.iter().for_each(|publish| add("Port", Some(port(publish))));
    add("Directory", (!spec.workdir.is_empty()).then(|| lossy(&spec.workdir)));
    for volume in &spec.volumes {
        let mode = if volume.read_only { " (read-only)" } else { "" };
        add("Volume", Some(format!("{} at {}{mode}", lossy(&volume.source), lossy(&volume.target))));
    }
    spec.env.iter().for_each(|pair| add("Environment", Some(lossy(pair))));
    add("External id", Some(worker.external_id.clone()).filter(|id| !id.is_empty()));
    add("Labels", Some(labels(worker)).filter(|labels| !labels.is_empty()));
    add("Limits", Some(limits::line(reply)));
    add("Log", Some(format!("{} bytes kept, {} dropped", reply.log_bytes, reply.log_dropped_bytes)));
    add("Shim", (reply.shim_pid != 0).then(|| format!("pid {}, version {}", reply.shim_pid, reply.shim_version)));
    for entry in &reply.history {
        let entered = phase(Phase::try_from(entry.phase).unwrap_or(Phase::Unspecified));
        let when = time::rfc3339(entry.time).unwrap_or_default();
        add("History", Some(format!("{when} generation {} {entered}: {}", entry.generation, entry.why)));
    }
    lines
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
