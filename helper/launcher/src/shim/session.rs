//! Programs beside the worker's own (`exec`): started here, in the same cage, each with a connection of its own that
//! may break and come again. What they write waits for its reader, never the shim, and never another session.

use crate::confine::Confinement;
use crate::halt::Halt;
use crate::session_flow::{Incoming, Outgoing};
use crate::{packet, streams, terminal, worker};
use holdfast_launcher::session::{DATA_BYTES_MAX, End, FromSession, Program, Refusal, Size, ToSession};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::WaitStatus;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long a session whose connection broke waits for the next one (a daemon's restart or update).
const ADOPTED_WITHIN: Duration = Duration::from_secs(300);

/// How long the end of one is kept for a reader that has not taken it.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// How long a program may take to end after its terminal was hung up.
const HANGUP_GRACE: Duration = Duration::from_secs(5);

/// Packets of one session that are taken at a time, so that the others have their turn.
const PACKETS_AT_A_TIME: usize = 8;

/// What a session is made of.
pub struct Request {
    /// The connection it goes on with.
    pub link: OwnedFd,
    /// Random, chosen by whoever asks.
    pub id: u64,
    /// `None`: three pipes.
    pub terminal: Option<Size>,
    /// Else `/dev/null`.
    pub input: bool,
    /// What is executed.
    pub program: Program,
}

/// One program beside the worker's own.
pub struct Session {
    /// Of the request.
    pub id: u64,
    link: Option<OwnedFd>,
    pid: i32,
    executed: Option<OwnedFd>,
    not_executed: Option<Halt>,
    status: Option<WaitStatus>,
    /// Its input's writing end, or the terminal.
    input: Option<OwnedFd>,
    /// Standard output (or the terminal), standard error.
    outputs: [Option<OwnedFd>; 2],
    is_terminal: bool,
    incoming: Incoming,
    outgoing: Outgoing,
    /// The connection has had the last word.
    told_end: bool,
    /// Nobody will ask for it again.
    is_hung_up: bool,
    /// When something is done about it that nobody asks for.
    due: Option<Instant>,
}

impl Session {
    /// Starts the program; where that cannot be, the connection is told so, and there is no session.
    pub fn start(
        confinement: &Confinement,
        request: Request,
        null: &OwnedFd,
        cgroup: Option<&OwnedFd>,
    ) -> Option<Self> {
        let cgroup = cgroup.map(AsFd::as_fd);
        let Request { link, id, terminal, input, program } = request;
        let start = || {
            let (ours, theirs) = match terminal {
                Some(size) => streams::terminal(size)?,
                None => streams::pipes(input, null)?,
            };
            worker::fork_beside(confinement, &program, theirs, terminal.is_some(), cgroup).map(|beside| (ours, beside))
        };
        let (ours, beside) = match start() {
            Ok(started) => started,
            Err(halt) => {
                let end = End::NotStarted { code: halt.code, failure: halt.failure };
                let _ = packet::send(link.as_fd(), &FromSession::Ended(end).encode(), &[]);
                return None;
            }
        };
        let session = Self {
            id,
            link: Some(link),
            pid: beside.pid,
            executed: Some(beside.executed),
            not_executed: None,
            status: None,
            input: ours.input,
            outputs: ours.outputs,
            is_terminal: terminal.is_some(),
            incoming: Incoming::default(),
            outgoing: Outgoing::default(),
            told_end: false,
            is_hung_up: false,
            due: None,
        };
        session.say(&FromSession::Opened { input: 0 });
        Some(session)
    }

    /// Goes on over another connection; the one it had is cut.
    pub fn resume(&mut self, link: OwnedFd, taken: u64) {
        if self.is_hung_up || !self.outgoing.rewind(taken) {
            return refuse(&link, Refusal::Unknown);
        }
        self.link = Some(link);
        self.told_end = false;
        self.due = None;
        self.say(&FromSession::Opened { input: self.incoming.received() });
    }

    /// Whether this is its process; then it has ended so.
    pub fn reaped(&mut self, pid: i32, status: WaitStatus) -> bool {
        let is_it = pid == self.pid && self.status.is_none();
        if is_it {
            self.hear_executed();
            self.status = Some(status);
            self.input = None;
            self.incoming.discard();
        }
        is_it
    }

    /// Adds what it waits for.
    pub fn poll_fds<'s>(&'s self, fds: &mut Vec<PollFd<'s>>) {
        if let Some(link) = &self.link {
            let unsent = self.outgoing.next().is_some() || self.has_last_word() || self.incoming.news().is_some();
            let flags = if unsent { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
            fds.push(PollFd::new(link, flags));
        }
        fds.extend(self.executed.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        if self.outgoing.room() > 0 {
            fds.extend(self.outputs.iter().flatten().map(|fd| PollFd::new(fd, PollFlags::IN)));
        }
        if !self.incoming.pending().is_empty() {
            fds.extend(self.input.iter().map(|fd| PollFd::new(fd, PollFlags::OUT)));
        }
    }

    /// When it is to have a turn although nothing happens.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Does what can be done without waiting. True: something went through.
    pub fn turn(&mut self, buffer: &mut [u8], now: Instant) -> bool {
        let heard = self.hear(buffer, now);
        self.hear_executed();
        streams::feed(&mut self.incoming, &mut self.input, self.is_terminal);
        let busy = self.read(buffer) | heard;
        self.send();
        if self.due.is_some_and(|due| due <= now) {
            self.overdue(now);
        }
        busy
    }

    /// Nothing of it is left to do here. A program on pipes that was hung up is one more process of the worker.
    pub fn is_over(&self) -> bool {
        self.is_hung_up && (self.status.is_some() || self.due.is_none())
    }

    /// It ended, and its connection has everything that it can have without its reader's help.
    pub fn is_told(&self) -> bool {
        self.is_over() || self.link.is_none() || self.told_end
    }

    fn hear(&mut self, buffer: &mut [u8], now: Instant) -> bool {
        let mut heard = false;
        for _ in 0..PACKETS_AT_A_TIME {
            let Some(link) = &self.link else { break };
            let word = match packet::receive(link.as_fd(), buffer) {
                Err(Errno::AGAIN | Errno::INTR) => break,
                Ok((len, _)) if len > 0 => ToSession::decode(&buffer[..len]).ok(),
                Ok(_) | Err(_) => None,
            };
            // Who breaks the form or the window is cut off, as if it had gone.
            if !word.is_some_and(|word| self.obey(word, now)) && !self.is_hung_up {
                self.link = None;
                let patience = if self.status.is_some() { KEPT_FOR } else { ADOPTED_WITHIN };
                self.due = Some(now + patience);
            }
            heard = true;
        }
        heard
    }

    /// False: that cannot be right.
    fn obey(&mut self, word: ToSession, now: Instant) -> bool {
        match word {
            ToSession::Input { offset, bytes } => return self.incoming.accept(offset, &bytes),
            ToSession::InputEnd { offset } => return self.incoming.end(offset),
            ToSession::Resize(size) => {
                if let Some(ours) = self.outputs[0].as_ref().filter(|_| self.is_terminal) {
                    let _ = terminal::resize(ours, size);
                }
            }
            ToSession::Signal(signal) => self.signal(signal),
            ToSession::Taken { offset } => return self.outgoing.take(offset),
            ToSession::Hangup => self.hang_up(now),
        }
        true
    }

    /// To its process group. By number, which is safe for as long as its leader was not waited for, and only this
    /// process waits.
    fn signal(&self, signal: u8) {
        let Ok(signal) = Signal::try_from(i32::from(signal)) else { return };
        if self.status.is_none() && nix::sys::signal::kill(Pid::from_raw(-self.pid), signal).is_err() {
            // It leads no group yet: it has just been forked.
            let _ = nix::sys::signal::kill(Pid::from_raw(self.pid), signal);
        }
    }

    /// Closing our end of a terminal hangs it up for all that have it; a program on pipes may ignore SIGHUP and go on.
    fn hang_up(&mut self, now: Instant) {
        self.signal(Signal::SIGHUP as u8);
        self.signal(Signal::SIGCONT as u8);
        (self.input, self.outputs, self.link) = (None, [None, None], None);
        self.is_hung_up = true;
        self.due = self.is_terminal.then(|| now + HANGUP_GRACE);
    }

    fn overdue(&mut self, now: Instant) {
        self.due = None;
        match (self.is_hung_up, self.status.is_some()) {
            (true, _) => self.signal(Signal::SIGKILL as u8),
            (false, true) => self.is_hung_up = true,
            (false, false) => self.hang_up(now),
        }
    }

    fn hear_executed(&mut self) {
        let Some(pipe) = &self.executed else { return };
        let mut said = [0; 512];
        let len = match rustix::io::read(pipe, &mut said) {
            Err(Errno::AGAIN | Errno::INTR) => return,
            Ok(len) => len,
            Err(_) => 0,
        };
        self.executed = None;
        self.not_executed = worker::exec_failure(&said[..len]);
    }

    /// Output from the program. After its end what is there is everything: a process that it left has no reader.
    fn read(&mut self, buffer: &mut [u8]) -> bool {
        let mut busy = false;
        for (index, output) in self.outputs.iter_mut().enumerate() {
            while let (Some(fd), room @ 1..) = (output.as_ref(), self.outgoing.room()) {
                match rustix::io::read(fd, &mut buffer[..room.min(DATA_BYTES_MAX)]) {
                    Ok(got @ 1..) => {
                        self.outgoing.push(index == 1, &buffer[..got]);
                        busy = true;
                    }
                    Err(Errno::AGAIN | Errno::INTR) if self.status.is_none() => break,
                    // EIO: nobody has the terminal open any more.
                    Ok(_) | Err(_) => *output = None,
                }
            }
        }
        busy
    }

    fn send(&mut self) {
        while let Some((is_stderr, offset, bytes)) = self.outgoing.next() {
            let (len, bytes) = (bytes.len(), bytes.to_vec());
            if !self.say(&FromSession::Output { is_stderr, offset, bytes }) {
                return;
            }
            self.outgoing.sent(len);
        }
        if let Some(offset) = self.incoming.news()
            && self.say(&FromSession::InputTaken { offset })
        {
            self.incoming.told(offset);
        }
        if self.has_last_word() {
            self.told_end = self.say(&FromSession::Ended(self.end()));
        }
    }

    fn has_last_word(&self) -> bool {
        let is_drained = self.outputs.iter().all(Option::is_none) && self.outgoing.next().is_none();
        self.status.is_some() && is_drained && !self.told_end
    }

    fn end(&self) -> End {
        if let Some(halt) = &self.not_executed {
            return End::NotStarted { code: halt.code, failure: halt.failure.clone() };
        }
        let status = self.status.map(|status| (status.exit_status(), status.terminating_signal()));
        match status {
            Some((Some(code), _)) => End::Code(code as u8),
            Some((None, Some(signal))) => End::Signal(signal as u8),
            Some((None, None)) | None => End::Signal(Signal::SIGKILL as u8),
        }
    }

    /// False: not now, or nobody is there.
    fn say(&self, word: &FromSession) -> bool {
        self.link.as_ref().is_some_and(|link| packet::send(link.as_fd(), &word.encode(), &[]).is_ok())
    }
}

/// Tells a connection that it has no session.
pub fn refuse(link: &OwnedFd, refusal: Refusal) {
    let _ = packet::send(link.as_fd(), &FromSession::Refused(refusal).encode(), &[]);
}
