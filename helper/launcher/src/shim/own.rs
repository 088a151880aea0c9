//! The worker's own input: whoever attaches last types. Its output goes to the log, whoever reads that.

use crate::session_flow::Incoming;
use crate::{packet, streams, terminal};
use holdfast_launcher::session::{FromSession, ToSession};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};

/// The writing end of the worker's input, or its terminal.
pub struct Own {
    input: Option<OwnedFd>,
    is_terminal: bool,
    incoming: Incoming,
    link: Option<OwnedFd>,
}

impl Own {
    /// Nobody is attached yet; input waits for somebody.
    pub fn new(input: OwnedFd, is_terminal: bool) -> Self {
        Self { input: Some(input), is_terminal, incoming: Incoming::default(), link: None }
    }

    /// Takes the input over from whoever had it.
    pub fn attach(&mut self, link: OwnedFd) {
        let word = FromSession::Opened { input: self.incoming.received() };
        self.link = packet::send(link.as_fd(), &word.encode(), &[]).is_ok().then_some(link);
    }

    /// Nobody is attached.
    pub fn is_idle(&self) -> bool {
        self.link.is_none() && self.incoming.pending().is_empty()
    }

    /// Adds what it waits for.
    pub fn poll_fds<'s>(&'s self, fds: &mut Vec<PollFd<'s>>) {
        fds.extend(self.link.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        if !self.incoming.pending().is_empty() {
            fds.extend(self.input.iter().map(|fd| PollFd::new(fd, PollFlags::OUT)));
        }
    }

    /// Does what can be done without waiting.
    pub fn turn(&mut self, buffer: &mut [u8]) {
        while let Some(link) = &self.link {
            let word = match packet::receive(link.as_fd(), buffer) {
                Err(Errno::AGAIN | Errno::INTR) => break,
                Ok((len, _)) if len > 0 => ToSession::decode(&buffer[..len]).ok(),
                Ok(_) | Err(_) => None,
            };
            if !word.is_some_and(|word| self.obey(word)) {
                self.link = None;
            }
        }
        streams::feed(&mut self.incoming, &mut self.input, self.is_terminal);
        if let (Some(link), Some(offset)) = (&self.link, self.incoming.news())
            && packet::send(link.as_fd(), &FromSession::InputTaken { offset }.encode(), &[]).is_ok()
        {
            self.incoming.told(offset);
        }
    }

    /// False: it left, or that cannot be right.
    fn obey(&mut self, word: ToSession) -> bool {
        match word {
            ToSession::Input { offset, bytes } => self.incoming.accept(offset, &bytes),
            ToSession::InputEnd { offset } => self.incoming.end(offset),
            ToSession::Resize(size) => {
                if let Some(terminal) = self.input.as_ref().filter(|_| self.is_terminal) {
                    let _ = terminal::resize(terminal, size);
                }
                true
            }
            // Signals go to the worker by its pidfd; output is not sent here.
            ToSession::Signal(_) | ToSession::Taken { .. } => true,
            ToSession::Hangup => false,
        }
    }
}
