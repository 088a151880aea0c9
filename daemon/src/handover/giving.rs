//! The running daemon's side: who wants to succeed it, and what becomes of that.

use super::line::{Line, LineError};
use super::words::{Offer, State, Word};
use crate::notify::Systemd;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::OwnedFd;
use rustix::process::{Signal, pidfd_send_signal};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long a successor may take to do what can fail without acting.
const PREPARE_WITHIN: Duration = Duration::from_secs(10);
/// How long it may then take to serve.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// How long the rest of a word may take once its beginning is there.
const WORD_WITHIN: Duration = Duration::from_millis(100);
/// How long a killed process may take to be gone.
const DEATH_WITHIN: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// A process of this daemon's unit that called.
#[derive(Debug)]
pub struct Candidate {
    line: Line,
    process: OwnedFd,
    pid: u32,
}

/// One that is prepared: it acts as soon as this daemon acts no more.
#[derive(Debug)]
pub struct Successor {
    line: Line,
    process: OwnedFd,
    pid: u32,
}

impl Candidate {
    /// By its pidfd, and its pid for systemd, which knows its processes by number.
    pub fn new(stream: UnixStream, process: OwnedFd, pid: u32) -> Self {
        Self { line: Line(stream), process, pid }
    }

    /// Turns it away.
    pub fn refuse(self, why: &str) {
        // One that has gone needs no word.
        drop(self.line.say(&Word::No(why.to_owned()), None));
    }

    /// Gives it the listener and waits until it is prepared; meanwhile everything goes on. Else why not.
    pub async fn prepare(self, listener: &OwnedFd, systemd: &Systemd) -> Result<Successor, String> {
        let outcome = self.talk(listener, systemd).await;
        if let Err(why) = &outcome {
            drop(self.line.say(&Word::No(why.clone()), None));
            end(&self.process);
        }
        outcome?;
        let Self { line, process, pid } = self;
        Ok(Successor { line, process, pid })
    }

    async fn talk(&self, listener: &OwnedFd, systemd: &Systemd) -> Result<(), String> {
        let told = |error: LineError| format!("the successor was not prepared: {error}");
        let version = match hear(&self.line).await.map_err(told)? {
            Word::Hello(version) => version,
            // Its parent, which it ended before it could call.
            Word::No(why) => return Err(why),
            _ => return Err("the successor spoke out of turn".into()),
        };
        tracing::info!(pid = self.pid, version, "a successor called");
        let watchdog_us = systemd.watchdog.map_or(0, |every| u64::try_from(every.as_micros()).unwrap_or(0));
        let offer = Offer { notify_socket: systemd.socket.clone(), watchdog_us };
        self.line.say(&Word::Offer(offer), Some(listener)).map_err(told)?;
        match hear(&self.line).await.map_err(told)? {
            Word::Prepared => Ok(()),
            Word::No(why) => Err(why),
            _ => Err("the successor spoke out of turn".into()),
        }
    }
}

/// The next word, without holding up anything else.
async fn hear(line: &Line) -> Result<Word, LineError> {
    tokio::time::timeout(PREPARE_WITHIN, line.readable()).await.map_err(|_| LineError::Silent(PREPARE_WITHIN))??;
    Ok(line.hear(WORD_WITHIN)?.0)
}

impl Successor {
    /// Lets it act and waits until it serves; then it is the unit's main process. Else it is ended, and why.
    /// To be called once this daemon acts no more.
    pub fn take_over(self, state: State, systemd: &Systemd) -> Result<(), String> {
        systemd.alive();
        let answer = self.line.say(&Word::Yours(state), None).and_then(|()| self.line.hear(READY_WITHIN));
        let outcome = match answer {
            Ok((Word::Ready, _)) => {
                systemd.main_is(self.pid);
                self.line.say(&Word::Main, None).map_err(|error| format!("the successor ended at once: {error}"))
            }
            Ok((Word::No(why), _)) => Err(why),
            Ok(_) => Err("the successor spoke out of turn".into()),
            Err(error) => Err(format!("the successor did not get ready: {error}")),
        };
        if outcome.is_err() {
            end(&self.process);
        }
        outcome
    }
}

/// Kills it and waits until it is gone. What does not go holds no lock by then, or loses it (`lock::take`).
fn end(process: &OwnedFd) {
    if pidfd_send_signal(process, Signal::KILL).is_ok() {
        let _ = rustix::event::poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&DEATH_WITHIN));
    }
}
