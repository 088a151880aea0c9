//! What a reload of the unit starts: a process that starts the successor, and ends with its outcome. It serves nobody.

use super::line::Line;
use super::taking::{SERVES, TakeError};
use super::words::Word;
use rustix::event::{PollFd, PollFlags, Timespec};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// How long a successor may take in all. The old daemon ends one that is late; this is for one that never called.
const WHOLE_WITHIN: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };
/// Longest line of a successor's.
const LINE_BYTES_MAX: u64 = 1024;

/// What ExecReload does: starts the successor, in the same unit and sandbox, and waits until it is the main process.
/// A successor that could not say so itself is told of at `socket`.
pub fn succeed(owner: &str, socket: &Path) -> Result<(), TakeError> {
    let program = std::env::current_exe().map_err(|error| TakeError::Failed(format!("has no program: {error}")))?;
    let child = Command::new(program)
        .args(["--owner", owner, "--take-over"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| TakeError::Failed(format!("cannot be started: {error}")))?;
    let Err(why) = serves(child) else { return Ok(()) };
    if let Ok(stream) = UnixStream::connect(socket) {
        drop(Line(stream).say(&Word::No(format!("the successor {why}")), None));
    }
    Err(TakeError::Failed(why))
}

fn serves(mut child: Child) -> Result<(), String> {
    let (mut said, mut is_late) = (String::new(), false);
    if let Some(out) = child.stdout.take() {
        match rustix::event::poll(&mut [PollFd::new(&out, PollFlags::IN)], Some(&WHOLE_WITHIN)) {
            Ok(0) | Err(_) => is_late = true,
            // A line is written at once, or the end is there.
            Ok(_) => drop(BufReader::new(out.take(LINE_BYTES_MAX)).read_line(&mut said)),
        }
    }
    if said.trim() == SERVES {
        return Ok(());
    }
    // Ours and not yet reaped, so its pid is its own.
    drop(child.kill());
    let status = child.wait().map(|status| status.to_string()).unwrap_or_default();
    Err(match said.trim() {
        _ if is_late => "did not get ready in time".to_owned(),
        "" => format!("ended before it said a word ({status})"),
        why => format!("says: {why}"),
    })
}
