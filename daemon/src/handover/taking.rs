//! The successor's side.

use super::line::{Line, LineError};
use super::words::{Offer, State, Word};
use crate::notify::Systemd;
use holdfast_proto::VERSION;
use rustix::fd::OwnedFd;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

/// How long the old daemon may take to answer, and then to act no more: longer than its own deadlines.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const YOURS_WITHIN: Duration = Duration::from_secs(15);
/// How long it may take to say that systemd knows.
const MAIN_WITHIN: Duration = Duration::from_secs(10);
/// What a successor prints once it is the main process.
pub const SERVES: &str = "serves";

/// Why nothing was taken over.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// Nobody to succeed.
    #[error("the running daemon cannot be called at {path}")]
    Dial {
        /// Its socket.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The line.
    #[error("the running daemon: {0}")]
    Line(#[from] LineError),
    /// It said no.
    #[error("the running daemon refuses: {0}")]
    Refused(String),
    /// What came is not what has to come.
    #[error("the running daemon gave {0}")]
    Given(&'static str),
    /// It still holds the lock, which it said it had let go.
    #[error("the running daemon still acts")]
    Acts,
    /// The store shows something else than it said.
    #[error("{0}")]
    State(String),
    /// The successor.
    #[error("the successor {0}")]
    Failed(String),
}

/// The daemon that runs, seen from the one that succeeds it.
#[derive(Debug)]
pub struct Predecessor {
    line: Line,
    /// Where systemd is told things.
    pub systemd: Systemd,
}

impl Predecessor {
    /// Calls it at its own socket, and takes the listener.
    pub fn dial(socket: &Path) -> Result<(Self, UnixListener), TakeError> {
        let dialled = UnixStream::connect(socket);
        let line = Line(dialled.map_err(|source| TakeError::Dial { path: socket.display().to_string(), source })?);
        line.say(&Word::Hello(VERSION.to_owned()), None)?;
        let (offer, descriptor) = match line.hear(ANSWER_WITHIN)? {
            (Word::Offer(offer), Some(descriptor)) => (offer, descriptor),
            (Word::No(why), _) => return Err(TakeError::Refused(why)),
            _ => return Err(TakeError::Given("no listener")),
        };
        let listener = listener_at(descriptor, socket)?;
        let Offer { notify_socket, watchdog_us } = offer;
        let watchdog = Some(Duration::from_micros(watchdog_us)).filter(|every| !every.is_zero());
        Ok((Self { line, systemd: Systemd { socket: notify_socket, watchdog } }, listener))
    }

    /// Says that all that can fail has been done, and waits until the old daemon acts no more.
    pub fn prepared(&self) -> Result<State, TakeError> {
        self.line.say(&Word::Prepared, None)?;
        match self.line.hear(YOURS_WITHIN)?.0 {
            Word::Yours(state) => Ok(state),
            Word::No(why) => Err(TakeError::Refused(why)),
            _ => Err(TakeError::Given("no word to begin")),
        }
    }

    /// Says that this one serves; answers when systemd knows it, or cannot be told any more.
    pub async fn ready(&self) {
        let heard = async {
            self.line.say(&Word::Ready, None)?;
            self.line.readable().await?;
            self.line.hear(ANSWER_WITHIN)
        };
        match tokio::time::timeout(MAIN_WITHIN, heard).await {
            Ok(Ok((Word::Main, _))) => println!("{SERVES}"),
            // Then systemd starts one anew, which ends this one.
            Ok(Ok(_)) | Err(_) => tracing::warn!("the old daemon did not say that systemd knows its successor"),
            Ok(Err(error)) => tracing::warn!(%error, "the old daemon did not say that systemd knows its successor"),
        }
    }

    /// Says why not.
    pub fn refuse(&self, why: &str) {
        println!("{}", why.replace('\n', " "));
        drop(self.line.say(&Word::No(why.to_owned()), None));
    }
}

fn listener_at(descriptor: OwnedFd, socket: &Path) -> Result<UnixListener, TakeError> {
    let listening = rustix::net::sockopt::socket_acceptconn(&descriptor).unwrap_or(false);
    let listener = UnixListener::from(descriptor);
    match listener.local_addr() {
        Ok(address) if listening && address.as_pathname() == Some(socket) => Ok(listener),
        Ok(_) | Err(_) => Err(TakeError::Given("a descriptor that is not its listener")),
    }
}
