//! A program beside a worker's own, from here: its streams, its signals, its exit code. A daemon that goes away
//! meanwhile is waited for, and the session goes on where it broke off.

pub mod input;
pub mod keys;
pub mod own;
pub mod terminal;

use crate::attach::Signals;
use crate::client::{ANSWER_MAX, CallError, Daemon, Patience};
use crate::exit::{SIGNAL_BASE, Stop};
use crate::sink::Sink;
use holdfast_proto::daemon::exec_input::Input;
use holdfast_proto::daemon::exec_output::Output as Event;
use holdfast_proto::daemon::exit::How;
use holdfast_proto::daemon::{ExecBytes, ExecEnd, ExecInput, ExecOpen, ExecOutput, ExecResume, Exit, Output};
use holdfast_proto::problem::Reason;
use input::Untaken;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// Messages that wait for the connection.
const MESSAGES_MAX: usize = 16;
/// signal(7).
const SIGPIPE: u32 = 13;
/// Pause before a slow terminal is offered the next piece.
const SLOW_PAUSE: Duration = Duration::from_millis(5);

/// Runs the program and stays until it ended.
///
/// # Errors
/// [`CallError`] where it could not be started, or nobody can say any more how it ended.
pub async fn run(daemon: Daemon, open: ExecOpen, escape: bool) -> anyhow::Result<Exit> {
    let mut session = Session {
        daemon,
        stdin: open.stdin.then(input::read_stdin),
        is_terminal: open.terminal.is_some(),
        open,
        signals: Signals::new()?,
        resized: signal(SignalKind::window_change())?,
        sink: Sink::new(escape),
        input: Untaken::default(),
        taken: 0,
        is_open: false,
        was_open: false,
    };
    let ended = session.until_its_end().await;
    session.sink.finish();
    ended
}

struct Session {
    daemon: Daemon,
    open: ExecOpen,
    is_terminal: bool,
    /// `None`: nothing is passed on, or nothing comes any more.
    stdin: Option<mpsc::Receiver<Vec<u8>>>,
    signals: Signals,
    resized: Signal,
    sink: Sink,
    input: Untaken,
    /// Bytes of output that arrived.
    taken: u64,
    is_open: bool,
    /// Some daemon said that the session is there.
    was_open: bool,
}

/// One connection of it.
struct Line {
    to: mpsc::Sender<ExecInput>,
    from: Streaming<ExecOutput>,
    end_said: bool,
}

/// How a conversation ended.
enum Last {
    Ended(Exit),
    /// This number was sent to us, and we sit at a terminal.
    Told(u32),
}

/// What one connection waits for.
enum Happening {
    Event(Option<Event>),
    Typed(Option<Vec<u8>>),
    Signalled(u32),
    Resized,
}

impl Session {
    async fn until_its_end(&mut self) -> anyhow::Result<Exit> {
        let mut patience = Patience::default();
        let mut outcome = self.talk(Input::Open(self.open.clone())).await;
        loop {
            match outcome {
                Err(CallError::Lost) => {}
                // The daemon ended before the shim heard of it: there is no such session, and never was.
                Err(CallError::Problem(problem)) if problem.reason() == Reason::NotFound && !self.was_open => {
                    outcome = self.talk(Input::Open(self.open.clone())).await;
                    if !matches!(outcome, Err(CallError::Lost)) {
                        continue;
                    }
                }
                Err(error) => return Err(error.into()),
                Ok(Last::Ended(exit)) => return Ok(exit),
                Ok(Last::Told(number)) => {
                    return Err(leave(number, "its terminal was given up, and the program hung up"));
                }
            }
            tokio::select! {
                again = self.daemon.again(&mut patience) => self.daemon = again?,
                number = self.signals.next() => {
                    return Err(leave(number, "the program goes on for a while: no daemon was there to end it"));
                }
            }
            let (worker, session) = (self.open.worker.clone(), self.open.session);
            outcome = self.talk(Input::Resume(ExecResume { worker, session, taken: self.taken })).await;
        }
    }

    /// From the first message to the program's end, or to the daemon's.
    async fn talk(&mut self, first: Input) -> Result<Last, CallError> {
        let (to, outbound) = mpsc::channel(MESSAGES_MAX);
        let first = ExecInput { input: Some(first) };
        to.send(first).await.map_err(|_| CallError::Lost)?;
        let call = self.daemon.rpc.exec(ReceiverStream::new(outbound));
        let from =
            tokio::time::timeout(ANSWER_MAX, call).await.map_err(|_| CallError::Deadline(ANSWER_MAX))??.into_inner();
        let mut line = Line { to, from, end_said: false };
        self.is_open = false;
        loop {
            match self.next(&mut line).await? {
                Happening::Event(Some(event)) => {
                    if let Some(exit) = self.hear(&mut line, event).await? {
                        return Ok(Last::Ended(exit));
                    }
                }
                Happening::Event(None) => return Err(CallError::Lost),
                Happening::Typed(Some(bytes)) => {
                    self.input.push(&bytes);
                    send_input(&mut self.input, &mut line).await?;
                }
                Happening::Typed(None) => {
                    self.stdin = None;
                    self.input.ended = true;
                    send_input(&mut self.input, &mut line).await?;
                }
                // What is typed there is no signal to us: somebody wants us to end.
                Happening::Signalled(number) if self.is_terminal => return Ok(Last::Told(number)),
                Happening::Signalled(number) => say(&line, Input::Signal(number)).await?,
                Happening::Resized => say(&line, Input::Resize(terminal::size())).await?,
            }
        }
    }

    async fn next(&mut self, line: &mut Line) -> Result<Happening, CallError> {
        let reads = self.is_open && self.input.has_room();
        Ok(tokio::select! {
            event = line.from.message() => Happening::Event(event?.and_then(|event| event.output)),
            typed = typed(self.stdin.as_mut()), if reads => Happening::Typed(typed),
            number = self.signals.next() => Happening::Signalled(number),
            _ = self.resized.recv(), if self.is_terminal => Happening::Resized,
        })
    }

    async fn hear(&mut self, line: &mut Line, event: Event) -> Result<Option<Exit>, CallError> {
        match event {
            Event::Opened(opened) => {
                (self.is_open, self.was_open) = (true, true);
                self.input.resume(opened.stdin_received);
                if self.is_terminal {
                    // It may have changed while nobody listened.
                    say(line, Input::Resize(terminal::size())).await?;
                }
                send_input(&mut self.input, line).await?;
            }
            Event::Data(data) => {
                self.output(line, data).await?;
                // As a program of this host would end, whose reader left.
                if self.sink.is_unread() {
                    return Ok(Some(Exit { how: Some(How::Signal(SIGPIPE)), ..Exit::default() }));
                }
            }
            Event::StdinTaken(offset) => self.input.take(offset),
            Event::Ended(exit) => return Ok(Some(exit)),
        }
        Ok(None)
    }

    /// Acknowledged once it is in our hands, which a daemon's death does not empty.
    async fn output(&mut self, line: &Line, data: ExecBytes) -> Result<(), CallError> {
        let known = self.taken.saturating_sub(data.offset());
        let known = usize::try_from(known).unwrap_or(usize::MAX).min(data.bytes.len());
        let bytes = data.bytes[known..].to_vec();
        self.taken += bytes.len() as u64;
        let mut piece = Output { stream: data.stream, bytes, ..Output::default() };
        while let Err(back) = self.sink.offer(piece) {
            piece = back;
            tokio::select! {
                () = tokio::time::sleep(SLOW_PAUSE) => {}
                number = self.signals.next() => say(line, Input::Signal(number)).await?,
            }
        }
        say(line, Input::Taken(self.taken)).await
    }
}

/// What was typed and not sent on this line yet, and that it has ended.
async fn send_input(input: &mut Untaken, line: &mut Line) -> Result<(), CallError> {
    while let Some((offset, bytes)) = input.next() {
        say(line, Input::Stdin(ExecBytes { stream: 0, offset: Some(offset), bytes })).await?;
    }
    if input.ended && !line.end_said {
        line.end_said = true;
        say(line, Input::StdinEnd(ExecEnd {})).await?;
    }
    Ok(())
}

fn leave(number: u32, why: &str) -> anyhow::Error {
    let code = u8::try_from(number).unwrap_or(0) + SIGNAL_BASE;
    Stop { code, text: format!("signal {number}: {why}") }.into()
}

async fn say(line: &Line, input: Input) -> Result<(), CallError> {
    // Where the connection is gone, its other half says why.
    drop(line.to.send(ExecInput { input: Some(input) }).await);
    Ok(())
}

async fn typed(stdin: Option<&mut mpsc::Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    match stdin {
        Some(pieces) => pieces.recv().await,
        None => std::future::pending().await,
    }
}
