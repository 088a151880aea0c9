//! One session's words, passed on in both directions until it ends or its caller goes. Nothing is kept here but one
//! message each way: whoever is slow makes the other side wait.

use super::link::{Link, LinkError};
use super::{Opened, cut_off, size};
use crate::leave::{self, Guard, Leaving};
use crate::supervisor::{Entry, told};
use holdfast_launcher::session::{DATA_BYTES_MAX, End, FromSession, ToSession, WINDOW_BYTES};
use holdfast_proto::daemon::exec_input::Input;
use holdfast_proto::daemon::exec_output::Output as Event;
use holdfast_proto::daemon::{ExecBytes, ExecInput, ExecOpened, ExecOutput, Exit, exit};
use holdfast_proto::problem::{Problem, Reason};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

/// How long a caller that acknowledges may take to hang up after the end; the shim keeps it that long.
const LEAVES_WITHIN: Duration = Duration::from_secs(10);
/// How long a worker's end may take to be known here after its sessions were cut.
const ENDED_WITHIN: Duration = Duration::from_secs(5);

/// A session with its caller.
pub struct Relay {
    entry: Entry,
    link: Link,
    program: Vec<u8>,
    inbound: Streaming<ExecInput>,
    inbound_over: bool,
    events: mpsc::Sender<Result<ExecOutput, Status>>,
    acknowledge: bool,
    /// What the caller is to be told next.
    next: VecDeque<Result<Event, Problem>>,
    /// Input that the window does not let through yet.
    held: VecDeque<u8>,
    /// Offset of the first byte that is held.
    input_sent: u64,
    input_taken: u64,
    input_ends: bool,
    input_ended: bool,
    is_over: bool,
    leaving: Leaving,
    guard: Guard,
}

/// Why a relay ends before the session did.
enum Left {
    /// The caller has gone: so shall the session.
    Caller,
    /// The shim has.
    Shim(LinkError),
    /// The caller said what cannot be right.
    Refused(Problem),
    /// The daemon leaves: the session stays, and its caller comes back to it.
    Daemon,
}

impl From<LinkError> for Left {
    fn from(error: LinkError) -> Self {
        Self::Shim(error)
    }
}

/// Something for the relay.
enum Happening {
    Room(Result<mpsc::OwnedPermit<Result<ExecOutput, Status>>, mpsc::error::SendError<()>>),
    Heard(Result<Option<FromSession>, LinkError>),
    Asked(Result<Option<ExecInput>, Status>),
    Gone,
    Leaving,
}

impl Relay {
    /// Begins with the word that the session is there.
    pub fn new(
        opened: Opened,
        inbound: Streaming<ExecInput>,
        events: mpsc::Sender<Result<ExecOutput, Status>>,
        leaving: Leaving,
    ) -> Self {
        let Opened { entry, link, session, input, ended, program, acknowledge } = opened;
        let mut relay = Self {
            entry,
            link,
            program,
            inbound,
            inbound_over: false,
            events,
            acknowledge,
            next: VecDeque::new(),
            held: VecDeque::new(),
            input_sent: input,
            input_taken: input,
            input_ends: false,
            input_ended: false,
            is_over: false,
            guard: leaving.guard(),
            leaving,
        };
        relay.next.push_back(Ok(Event::Opened(ExecOpened { session, stdin_received: input })));
        if let Some(end) = ended {
            relay.end(&end);
        }
        relay
    }

    /// Relays until one side is through.
    pub async fn run(mut self) {
        let left = loop {
            if self.is_over && self.next.is_empty() {
                break self.leave().await;
            }
            let happening = self.wait().await;
            if let Err(left) = self.take(happening).await {
                break left;
            }
        };
        match left {
            // An error is a shim that has gone as well.
            Left::Caller => drop(self.link.say(&ToSession::Hangup).await),
            Left::Shim(error) => self.shim_left(&error).await,
            Left::Refused(problem) => {
                drop(self.events.send(Err(problem.into())).await);
                drop(self.link.say(&ToSession::Hangup).await);
            }
            Left::Daemon => {
                tokio::select! {
                    sent = self.events.send(Err(leave::hand_back().into())) => drop(sent),
                    // As for every stream, one whose reader is slow breaks off, and does not end.
                    () = self.leaving.handed_back() => {
                        drop(self.guard);
                        std::future::pending().await
                    }
                }
            }
        }
    }

    async fn wait(&mut self) -> Happening {
        let has_next = !self.next.is_empty();
        let takes_input = !self.inbound_over && self.held.is_empty();
        tokio::select! {
            biased;
            () = self.leaving.begun() => Happening::Leaving,
            room = self.events.clone().reserve_owned(), if has_next => Happening::Room(room),
            () = self.events.closed() => Happening::Gone,
            asked = self.inbound.message(), if takes_input => Happening::Asked(asked),
            heard = self.link.next(), if !has_next && !self.is_over => Happening::Heard(heard),
        }
    }

    async fn take(&mut self, happening: Happening) -> Result<(), Left> {
        match happening {
            Happening::Room(Ok(room)) => match self.next.pop_front() {
                Some(Ok(event)) => self.pass_on(room, event).await,
                Some(Err(problem)) => {
                    room.send(Err(problem.into()));
                    Ok(())
                }
                None => Ok(()),
            },
            Happening::Room(Err(_)) | Happening::Gone | Happening::Asked(Err(_)) => Err(Left::Caller),
            Happening::Leaving => Err(Left::Daemon),
            Happening::Asked(Ok(None)) => {
                self.inbound_over = true;
                self.end_input().await
            }
            Happening::Asked(Ok(Some(message))) => match message.input {
                Some(input) => self.obey(input).await,
                None => Err(Left::Refused(super::unusable("an empty message"))),
            },
            Happening::Heard(Ok(Some(word))) => self.hear(word).await,
            Happening::Heard(Ok(None)) => Err(Left::Shim(LinkError::Closed)),
            Happening::Heard(Err(error)) => Err(Left::Shim(error)),
        }
    }

    async fn pass_on(&mut self, room: mpsc::OwnedPermit<Result<ExecOutput, Status>>, event: Event) -> Result<(), Left> {
        let taken = match &event {
            Event::Data(data) if !self.acknowledge => Some(data.offset() + data.bytes.len() as u64),
            _ => None,
        };
        room.send(Ok(ExecOutput { output: Some(event) }));
        match taken {
            Some(offset) => Ok(self.link.say(&ToSession::Taken { offset }).await?),
            None => Ok(()),
        }
    }

    async fn hear(&mut self, word: FromSession) -> Result<(), Left> {
        match word {
            FromSession::Output { is_stderr, offset, bytes } => {
                let stream = if is_stderr { 2 } else { 1 };
                self.next.push_back(Ok(Event::Data(ExecBytes { stream, offset: Some(offset), bytes })));
            }
            FromSession::InputTaken { offset } => {
                self.input_taken = self.input_taken.max(offset);
                self.next.push_back(Ok(Event::StdinTaken(offset)));
                self.send_held().await?;
            }
            FromSession::Ended(end) => self.end(&end),
            FromSession::Opened { .. } | FromSession::Refused(_) => return Err(LinkError::Form.into()),
        }
        Ok(())
    }

    async fn obey(&mut self, input: Input) -> Result<(), Left> {
        let word = match input {
            Input::Stdin(data) => return self.input(data).await,
            Input::StdinEnd(_) => return self.end_input().await,
            Input::Resize(wire) => ToSession::Resize(size(&wire).map_err(Left::Refused)?),
            Input::Signal(number) => ToSession::Signal(
                crate::worker::spec::signal(number)
                    .map_err(|error| Left::Refused(crate::supervisor::invalid(error)))?,
            ),
            Input::Taken(offset) => ToSession::Taken { offset },
            Input::Open(_) | Input::Resume(_) | Input::Attach(_) => {
                return Err(Left::Refused(super::unusable("the session is open")));
            }
        };
        // After the end nothing is of use to it any more.
        if self.is_over { Ok(()) } else { Ok(self.link.say(&word).await?) }
    }

    /// Without an offset after what came before; what came before is left out.
    async fn input(&mut self, data: ExecBytes) -> Result<(), Left> {
        let offset = data.offset.unwrap_or(self.input_sent);
        let Some(known) = self.input_sent.checked_sub(offset) else {
            return Err(Left::Refused(super::unusable("input is missing")));
        };
        let known = usize::try_from(known).unwrap_or(usize::MAX);
        self.held.extend(data.bytes.get(known..).unwrap_or_default());
        self.send_held().await
    }

    async fn end_input(&mut self) -> Result<(), Left> {
        if self.input_ends {
            return Ok(());
        }
        self.input_ends = true;
        self.send_held().await
    }

    async fn send_held(&mut self) -> Result<(), Left> {
        while !self.is_over && !self.held.is_empty() {
            let window = WINDOW_BYTES as u64 - (self.input_sent - self.input_taken).min(WINDOW_BYTES as u64);
            let len = self.held.len().min(DATA_BYTES_MAX).min(usize::try_from(window).unwrap_or(0));
            if len == 0 {
                return Ok(());
            }
            let bytes: Vec<u8> = self.held.drain(..len).collect();
            self.link.say(&ToSession::Input { offset: self.input_sent, bytes }).await?;
            self.input_sent += len as u64;
        }
        if self.input_ends && !self.input_ended && !self.is_over && self.held.is_empty() {
            self.input_ended = true;
            self.link.say(&ToSession::InputEnd { offset: self.input_sent }).await?;
        }
        Ok(())
    }

    fn end(&mut self, end: &End) {
        let (how, not_started) = match end {
            End::Code(code) => (exit::How::Code((*code).into()), String::new()),
            End::Signal(signal) => (exit::How::Signal((*signal).into()), String::new()),
            End::NotStarted { code, failure } => (exit::How::Code((*code).into()), told(*code, failure, &self.program)),
        };
        self.next.push_back(Ok(Event::Ended(Exit { how: Some(how), not_started, ..Exit::default() })));
        self.is_over = true;
    }

    /// The end was handed over. Who can resume is waited for, so that a daemon that dies now has lost nothing.
    async fn leave(&mut self) -> Left {
        if self.acknowledge {
            let gone = async {
                loop {
                    tokio::select! {
                        () = self.events.closed() => return,
                        asked = self.inbound.message() => if !matches!(asked, Ok(Some(_))) { return },
                    }
                }
            };
            // Past it the session is given up all the same; but where the daemon leaves, its shim keeps it.
            tokio::select! {
                _ = tokio::time::timeout(LEAVES_WITHIN, gone) => {}
                () = self.leaving.begun() => return Left::Daemon,
            }
        }
        Left::Caller
    }

    /// A worker's end takes its sessions along, and its shim may be too quick to say so.
    async fn shim_left(&mut self, error: &LinkError) {
        let ended = tokio::time::timeout(ENDED_WITHIN, self.entry.ended()).await;
        let last = match ended {
            Ok(_) => {
                let how = Some(exit::How::Signal(9));
                Ok(ExecOutput { output: Some(Event::Ended(Exit { how, ..Exit::default() })) })
            }
            Err(_) => {
                let mut problem = cut_off(&self.entry, error);
                problem.set_reason(Reason::Internal);
                Err(problem.into())
            }
        };
        drop(self.events.send(last).await);
    }
}
