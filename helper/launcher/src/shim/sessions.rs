//! The sessions of one worker: who calls, who is let in, whose turn it is. Holds no memory while there is none.

use crate::confine::Confinement;
use crate::own::Own;
use crate::packet;
use crate::session::{Request, Session, refuse};
use holdfast_launcher::session::{Call, OWN, PACKET_BYTES_MAX, PROGRAM_BYTES_MAX, Program, Refusal, SESSIONS_MAX};
use rustix::event::PollFd;
use rustix::process::WaitStatus;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

/// All of them.
pub struct Sessions {
    /// The worker's `/dev/null`.
    null: OwnedFd,
    confinement: Rc<Confinement>,
    /// The worker's own input, if it has any.
    own: Option<Own>,
    sessions: Vec<Session>,
    /// For one packet or one read; empty while there is no session.
    buffer: Vec<u8>,
}

/// A connection whose first packet is a call, of somebody who knows the nonce.
pub struct Caller {
    /// The connection.
    pub link: OwnedFd,
    /// What it asks.
    pub call: Call,
    /// The program of [`Call::Open`].
    pub program: Option<OwnedFd>,
}

impl Sessions {
    /// None yet. `null` is what a program without input reads.
    pub fn new(null: OwnedFd, confinement: Rc<Confinement>) -> Self {
        Self { null, confinement, own: None, sessions: Vec::new(), buffer: Vec::new() }
    }

    /// The worker has been forked, with this for its input.
    pub fn have_own(&mut self, own: Option<Own>) {
        self.own = own;
    }

    /// Starts or resumes a session, or refuses it by name.
    pub fn answer(&mut self, caller: Caller, is_running: bool, cgroup: Option<&OwnedFd>) {
        let Caller { link, call, program } = caller;
        match call {
            Call::Resume { session: OWN, .. } => match &mut self.own {
                Some(own) => own.attach(link),
                None => refuse(&link, Refusal::Unknown),
            },
            Call::Resume { session, taken, .. } => match self.sessions.iter_mut().find(|s| s.id == session) {
                Some(known) => known.resume(link, taken),
                None => refuse(&link, Refusal::Unknown),
            },
            Call::Open { session, terminal, input, .. } => {
                let refusal = match program.as_ref().and_then(read_program) {
                    _ if !is_running => Refusal::NotRunning,
                    _ if self.sessions.iter().any(|s| s.id == session) => Refusal::Taken,
                    _ if self.sessions.len() >= SESSIONS_MAX => Refusal::Full,
                    None => Refusal::Invalid,
                    Some(program) => {
                        let request = Request { link, id: session, terminal, input, program };
                        self.sessions.extend(Session::start(&self.confinement, request, &self.null, cgroup));
                        return;
                    }
                };
                refuse(&link, refusal);
            }
        }
    }

    /// Adds what they wait for.
    pub fn poll_fds<'s>(&'s self, fds: &mut Vec<PollFd<'s>>) {
        if let Some(own) = &self.own {
            own.poll_fds(fds);
        }
        for session in &self.sessions {
            session.poll_fds(fds);
        }
    }

    /// When the first one is to have a turn although nothing happens.
    pub fn due(&self) -> Option<Instant> {
        self.sessions.iter().filter_map(Session::due).min()
    }

    /// One of theirs may have ended.
    pub fn reaped(&mut self, pid: i32, status: WaitStatus) {
        self.sessions.iter_mut().find_map(|session| session.reaped(pid, status).then_some(()));
    }

    /// Gives each its turn. True: something went through, or the last one has gone.
    pub fn turn(&mut self) -> bool {
        let is_idle = |own: &Option<Own>| own.as_ref().is_none_or(Own::is_idle);
        if self.sessions.is_empty() && is_idle(&self.own) {
            return false;
        }
        self.buffer.resize(PACKET_BYTES_MAX, 0);
        if let Some(own) = &mut self.own {
            own.turn(&mut self.buffer);
        }
        let now = Instant::now();
        let mut busy = false;
        for session in &mut self.sessions {
            busy |= session.turn(&mut self.buffer, now);
        }
        self.sessions.retain(|session| !session.is_over());
        if self.sessions.is_empty() && is_idle(&self.own) {
            (self.sessions, self.buffer) = (Vec::new(), Vec::new());
            return true;
        }
        busy
    }

    /// Each one has heard how it ended, as far as its reader lets it.
    pub fn are_told(&self) -> bool {
        self.sessions.iter().all(Session::is_told)
    }
}

/// `None`: it is not of the form.
fn read_program(memfd: &OwnedFd) -> Option<Program> {
    let len = rustix::fs::fstat(memfd).ok()?.st_size as usize;
    if len > PROGRAM_BYTES_MAX {
        return None;
    }
    let mut bytes = vec![0; len];
    let got = rustix::io::pread(memfd.as_fd(), &mut bytes, 0).ok()?;
    Program::decode(&bytes[..got]).ok()
}

/// Reads a connection's first packet as a call; gives the rest back as it is.
pub fn call_of(first: &[u8], nonce: &[u8; 16]) -> Option<Call> {
    Call::decode(first).ok().filter(|call| packet::same(call.nonce(), nonce))
}
