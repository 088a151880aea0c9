//! Finding the daemon, making sure that it is the right one, and calling it with bounds.

mod again;
mod candidates;
mod trust;

pub use again::{Patience, key, keyed};
pub use candidates::{Candidate, Origin, session_root, sockets};
pub use trust::check_directories;

use crate::caller::Caller;
use crate::exit::Stop;
use holdfast_proto::daemon::daemon_client::DaemonClient;
use holdfast_proto::problem::{Problem, Reason};
use hyper_util::rt::TokioIo;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

/// Most time for a socket to take a connection: a listener held for a daemon takes it at once.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// Pause before a full backlog is tried again.
const BACKLOG_PAUSE: Duration = Duration::from_millis(20);
/// Most time for an answer that needs no worker to do anything.
pub const ANSWER_MAX: Duration = Duration::from_secs(8);
/// A daemon that answers no ping for so long while a stream is open is gone.
const PING_MAX: Duration = Duration::from_secs(8);
/// Most bytes of one answer: 2,000 workers with long commands fit.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most memory of its own that this process takes while it talks (RLIMIT_DATA): a daemon that sends a list of
/// millions of empty entries ends the command, not the host.
const MEMORY_BYTES_MAX: u64 = 96 * 1024 * 1024;

/// Why a call brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens. The text says what to do.
    #[error("{0}")]
    NoDaemon(String),
    /// A socket that others could have put there.
    #[error("{0}")]
    Untrusted(String),
    /// The daemon refused, or failed, and said why.
    #[error("{0}")]
    Problem(Problem),
    /// Question or answer is too long, or not of the contract.
    #[error("the daemon and this command do not understand each other: {0}")]
    Unusable(String),
    /// The daemon went away during the call.
    #[error("the daemon went away before it answered; `holdfast ps -a` shows what became of it")]
    Lost,
    /// The daemon did not answer in time.
    #[error("the daemon took the call and did not answer within {} s; `holdfast doctor` looks for the cause", .0.as_secs())]
    Deadline(Duration),
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        // Without a problem in its details, it was made on this side or on the way.
        let on_the_way = status.details().is_empty();
        match status.code() {
            Code::OutOfRange | Code::Unimplemented | Code::Internal if on_the_way && !is_transport(&status) => {
                Self::Unusable(status.message().to_owned())
            }
            _ if on_the_way && is_transport(&status) => Self::Lost,
            _ => match Problem::from_status(&status) {
                // Handed back, or to be gone on with: another one answers soon.
                leaving if leaving.reason() == Reason::Leaving => Self::Lost,
                problem => Self::Problem(problem),
            },
        }
    }
}

/// The connection broke, as HTTP/2 or the socket tells it.
fn is_transport(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
        || matches!(status.code(), Code::Unavailable | Code::Cancelled | Code::Unknown)
}

/// A connection to the owner's daemon.
#[derive(Clone)]
pub struct Daemon {
    /// The contract's calls. Unary ones go through [`answer`].
    pub rpc: DaemonClient<Channel>,
    /// How it was found, to find it again.
    way: Arc<(Caller, Vec<Candidate>)>,
}

impl Daemon {
    /// Asks what changes nothing: where the daemon goes away over it, its successor is asked.
    ///
    /// # Errors
    /// As [`answer`], and [`CallError::NoDaemon`] where none comes back.
    pub async fn ask<T>(
        &self,
        call: impl AsyncFn(DaemonClient<Channel>) -> Result<Response<T>, Status>,
    ) -> Result<T, CallError> {
        let mut patience = Patience::default();
        let mut outcome = answer(ANSWER_MAX, call(self.rpc.clone())).await;
        while matches!(outcome, Err(CallError::Lost)) {
            outcome = answer(ANSWER_MAX, call(self.again(&mut patience).await?.rpc)).await;
        }
        outcome
    }

    /// Has something changed, once: made again over any restart or crash of the daemon, with the same key, by which the
    /// daemon knows what it has done already.
    ///
    /// # Errors
    /// As [`answer`], and [`CallError::NoDaemon`] where none comes back.
    pub async fn change<Q: Clone, T, R>(
        &self,
        limit: Duration,
        request: Q,
        call: impl Fn(DaemonClient<Channel>, Request<Q>) -> R,
    ) -> Result<T, CallError>
    where
        R: Future<Output = Result<Response<T>, Status>>,
    {
        let key = again::key()?;
        let mut patience = Patience::default();
        let mut rpc = self.rpc.clone();
        loop {
            match answer(limit, call(rpc, again::keyed(request.clone(), key))).await {
                Err(CallError::Lost) => rpc = self.again(&mut patience).await?.rpc,
                outcome => return outcome,
            }
        }
    }

    /// Waits until a daemon answers again: it was killed, or is being updated.
    ///
    /// # Errors
    /// [`CallError::NoDaemon`] where none does for long.
    pub async fn again(&self, patience: &mut Patience) -> Result<Self, CallError> {
        loop {
            patience.pause().await;
            if !patience.is_left() {
                return Err(CallError::Lost);
            }
            let attempt = async {
                let daemon = connect(&self.way.0, &self.way.1).await?;
                // A listener that is held for a daemon takes connections before one is there: only an answer counts.
                answer(ANSWER_MAX, again::nothing(daemon.rpc.clone())).await?;
                Ok(daemon)
            };
            match attempt.await {
                Err(_) if patience.is_left() => {}
                outcome => return outcome,
            }
        }
    }
}

/// Connects in the owner's name and talks, on this thread alone.
///
/// # Errors
/// What `talk` returns, or [`CallError`] where no daemon is to be had.
pub fn with_daemon<T>(caller: &Caller, talk: impl AsyncFnOnce(Daemon) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let candidates = sockets(caller);
    caller.become_owner()?;
    bound_memory();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let mut patience = Patience::default();
        loop {
            match connect(caller, &candidates).await {
                // It was killed between taking the connection and its first word.
                Err(CallError::Lost) if patience.is_left() => patience.pause().await,
                outcome => return talk(outcome?).await,
            }
        }
    });
    runtime.shutdown_background();
    result
}

/// Connects to the first of the candidates that listens.
///
/// # Errors
/// [`CallError::NoDaemon`] where none does, [`CallError::Untrusted`] where others could have put the socket there.
pub async fn connect(caller: &Caller, candidates: &[Candidate]) -> Result<Daemon, CallError> {
    let mut dead = None;
    for candidate in candidates {
        if !candidate.path.exists() && candidate.origin != Origin::Named {
            continue;
        }
        trust::check_directories(&candidate.path, trusted_uid(caller, candidate.origin))
            .map_err(|error| CallError::Untrusted(error.to_string()))?;
        match dial(&candidate.path).await {
            Ok(stream) => {
                let rpc = speak(caller, candidate, stream).await?;
                return Ok(Daemon { rpc, way: Arc::new((caller.clone(), candidates.to_vec())) });
            }
            Err(error) => dead = dead.or(Some((candidate, error))),
        }
        if candidate.origin == Origin::Named {
            break; // Who names a socket means no other.
        }
    }
    Err(CallError::NoDaemon(candidates::what_to_do(caller, dead)))
}

/// Runs one unary call with a deadline.
///
/// # Errors
/// [`CallError`], every kind but `NoDaemon`.
pub async fn answer<T>(
    limit: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, CallError> {
    match tokio::time::timeout(limit, call).await {
        Ok(reply) => Ok(reply?.into_inner()),
        Err(_) => Err(CallError::Deadline(limit)),
    }
}

/// The contract always sends a worker here; one that is missing is a daemon's fault.
///
/// # Errors
/// Where it is missing.
pub fn present<T>(field: Option<T>) -> Result<T, Stop> {
    field.ok_or_else(|| Stop { code: crate::exit::FAILED, text: "the daemon's answer lacks a part".to_owned() })
}

/// The one uid, besides root's, that the socket's directories may belong to.
fn trusted_uid(caller: &Caller, origin: Origin) -> Option<u32> {
    match origin {
        Origin::Installed => None,
        Origin::Named | Origin::Session => (!caller.is_root).then_some(caller.uid),
    }
}

async fn dial(path: &Path) -> std::io::Result<UnixStream> {
    let attempt = async {
        loop {
            match UnixStream::connect(path).await {
                // A Unix socket answers so where its backlog is full (unix(7)).
                Err(error) if error.kind() == ErrorKind::WouldBlock => tokio::time::sleep(BACKLOG_PAUSE).await,
                outcome => return outcome,
            }
        }
    };
    tokio::time::timeout(CONNECT_MAX, attempt).await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}

/// Checks who listens, and makes a channel of this very connection.
async fn speak(caller: &Caller, candidate: &Candidate, stream: UnixStream) -> Result<DaemonClient<Channel>, CallError> {
    let untrusted = |why: String| CallError::Untrusted(format!("{} is not used: {why}", candidate.path.display()));
    let peer = stream.peer_cred().map_err(|error| untrusted(format!("its listener is unknown ({error})")))?;
    if peer.uid() != 0 && peer.uid() != caller.uid {
        return Err(untrusted(format!("uid {} listens there, neither root nor {}", peer.uid(), caller.owner)));
    }
    let mut stream = Some(stream);
    let connector = tower::service_fn(move |_| {
        let stream = stream.take().map(TokioIo::new);
        async move { stream.ok_or_else(|| std::io::Error::from(ErrorKind::ConnectionReset)) }
    });
    // The name is never resolved: the connector brings the connection.
    let channel = Endpoint::from_static("http://holdfast")
        .http2_keep_alive_interval(PING_MAX)
        .keep_alive_timeout(PING_MAX)
        .connect_with_connector(connector)
        .await
        .map_err(|_| CallError::Lost)?;
    Ok(DaemonClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX))
}

fn bound_memory() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    // Where the host has a lower limit, that one stays; a refusal leaves the message cap as the bound.
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_DATA) {
        let _ = setrlimit(Resource::RLIMIT_DATA, soft.min(MEMORY_BYTES_MAX), hard);
    }
}
