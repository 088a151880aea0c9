//! A worker's own input: what is typed here goes there, beside whatever shows its output.

use super::input::{Untaken, read_stdin};
use super::keys::Keys;
use super::{Line, say, send_input, terminal};
use crate::client::{ANSWER_MAX, CallError, Daemon, Patience};
use holdfast_proto::daemon::exec_input::Input;
use holdfast_proto::daemon::exec_output::Output as Event;
use holdfast_proto::daemon::{ExecAttach, ExecInput};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Messages that wait for the connection.
const MESSAGES_MAX: usize = 16;

/// How somebody sits at a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seat {
    /// Not at all: it is watched.
    None,
    /// Standard input goes along.
    Pipe,
    /// At its terminal.
    Terminal,
}

impl Seat {
    /// As a worker was made.
    pub fn of(stdin: bool, terminal: bool) -> Self {
        match (terminal, stdin) {
            (true, _) => Self::Terminal,
            (false, true) => Self::Pipe,
            (false, false) => Self::None,
        }
    }
}

/// Passes input on until the worker ends, whatever becomes of daemons. Says so when the keys to leave were typed.
pub async fn pass_on(mut daemon: Daemon, worker: String, seat: Seat, left: mpsc::Sender<()>) {
    let Ok(resized) = signal(SignalKind::window_change()) else { return };
    let mut own = Own {
        worker,
        seat,
        stdin: Some(read_stdin()),
        keys: Keys::default(),
        input: Untaken::default(),
        is_begun: false,
        resized,
    };
    let mut patience = Patience::default();
    loop {
        match own.talk(&mut daemon).await {
            Ok(true) => {
                // Where nobody waits for it, the worker ended in the same moment.
                let _ = left.send(()).await;
                return;
            }
            // The worker has ended, which others tell.
            Ok(false) => return,
            Err(CallError::Lost) => match daemon.again(&mut patience).await {
                Ok(again) => daemon = again,
                Err(_) => return,
            },
            Err(error) => return crate::exit::say(&anyhow::Error::from(error).context("input is not passed on")),
        }
    }
}

struct Own {
    worker: String,
    seat: Seat,
    stdin: Option<mpsc::Receiver<Vec<u8>>>,
    keys: Keys,
    input: Untaken,
    is_begun: bool,
    resized: Signal,
}

impl Own {
    /// Over one connection. True: the keys to leave were typed.
    async fn talk(&mut self, daemon: &mut Daemon) -> Result<bool, CallError> {
        let (to, outbound) = mpsc::channel(MESSAGES_MAX);
        let first = Input::Attach(ExecAttach { worker: self.worker.clone() });
        to.send(ExecInput { input: Some(first) }).await.map_err(|_| CallError::Lost)?;
        let call = daemon.rpc.exec(ReceiverStream::new(outbound));
        let from =
            tokio::time::timeout(ANSWER_MAX, call).await.map_err(|_| CallError::Deadline(ANSWER_MAX))??.into_inner();
        let mut line = Line { to, from, end_said: false };
        let mut is_open = false;
        loop {
            let reads = is_open && self.input.has_room();
            tokio::select! {
                event = line.from.message() => match event?.and_then(|event| event.output) {
                    Some(Event::Opened(opened)) => {
                        is_open = true;
                        if !std::mem::replace(&mut self.is_begun, true) {
                            self.input.begin(opened.stdin_received);
                        }
                        self.input.resume(opened.stdin_received);
                        if self.seat == Seat::Terminal {
                            say(&line, Input::Resize(terminal::size())).await?;
                        }
                    }
                    Some(Event::StdinTaken(offset)) => self.input.take(offset),
                    Some(Event::Ended(_)) => return Ok(false),
                    Some(Event::Data(_)) => {}
                    None => return Err(CallError::Lost),
                },
                typed = super::typed(self.stdin.as_mut()), if reads => if self.typed(typed) { return Ok(true) },
                _ = self.resized.recv(), if self.seat == Seat::Terminal => {
                    say(&line, Input::Resize(terminal::size())).await?;
                }
            }
            if is_open {
                send_input(&mut self.input, &mut line).await?;
            }
        }
    }

    /// True: the keys to leave.
    fn typed(&mut self, typed: Option<Vec<u8>>) -> bool {
        match typed {
            Some(bytes) if self.seat == Seat::Terminal => {
                let (passed, leaves) = self.keys.pass(&bytes);
                self.input.push(&passed);
                leaves
            }
            Some(bytes) => {
                self.input.push(&bytes);
                false
            }
            None => {
                self.stdin = None;
                self.input.ended = true;
                false
            }
        }
    }
}
