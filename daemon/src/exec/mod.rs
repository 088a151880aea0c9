//! Programs beside a worker's own (`exec`): from the caller's stream to the worker's shim and back.
//!
//! The shim has the program, its bytes that are under way, and its end; this is the way to it, and no more. So a
//! daemon that dies takes nothing along: the next one goes on by the session's number.

mod link;
mod program;
mod relay;

pub use program::input_of;

use crate::supervisor::{Entry, Shared, random};
use crate::worker::{Instead, Phase, Verb, instead};
use holdfast_launcher::session::{Call, End, FromSession, OWN, Refusal, SESSIONS_MAX, Size};
use holdfast_proto::daemon::exec_input::Input;
use holdfast_proto::daemon::{ExecInput, ExecOpen, ExecOutput, ExecResume};
use holdfast_proto::problem::{Problem, Reason};
use link::{Link, LinkError};
use relay::Relay;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// How long a caller may take to say what it wants.
const FIRST_MESSAGE_WITHIN: Duration = Duration::from_secs(5);
/// How long a shim may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Messages that wait for a slow caller; the program waits behind them.
const MESSAGES_MAX: usize = 4;

/// The stream of one session.
pub type Output = ReceiverStream<Result<ExecOutput, Status>>;

/// Starts a session or goes on with one, and relays it until it ends or its caller goes.
pub async fn exec(shared: Arc<Shared>, mut inbound: Streaming<ExecInput>) -> Result<Output, Status> {
    let first = tokio::time::timeout(FIRST_MESSAGE_WITHIN, inbound.message()).await;
    let first = first.map_err(|_| unusable("nothing was asked for"))??.and_then(|message| message.input);
    let opened = match first {
        Some(Input::Open(open)) => Opened::open(&shared, open).await?,
        Some(Input::Resume(resume)) => Opened::resume(&shared, &resume).await?,
        Some(Input::Attach(attach)) => Opened::attach(&shared, &attach.worker).await?,
        _ => return Err(unusable("the first message is `open`, `resume` or `attach`").into()),
    };
    let (events, stream) = mpsc::channel(MESSAGES_MAX);
    tokio::spawn(Relay::new(opened, inbound, events, shared.leaving.clone()).run());
    Ok(ReceiverStream::new(stream))
}

/// A session that is there.
struct Opened {
    entry: Entry,
    link: Link,
    session: u64,
    /// Bytes of input that the shim has.
    input: u64,
    /// Already over: it was never executed, or ended before it was resumed.
    ended: Option<End>,
    /// For messages.
    program: Vec<u8>,
    acknowledge: bool,
}

impl Opened {
    async fn open(shared: &Shared, open: ExecOpen) -> Result<Self, Problem> {
        let entry = shared.find(&open.worker)?;
        let view = entry.view();
        if instead(Verb::Exec, view.phase).is_some() {
            return Err(not_running(&entry, view.phase));
        }
        let program = program::of(&open, &entry.spec, &owner_ids(shared)).map_err(crate::supervisor::invalid)?;
        let terminal = open.terminal.as_ref().map(size).transpose()?;
        let session = match open.session {
            OWN => u64::from_le_bytes(random()?).max(1),
            given => given,
        };
        let call = Call::Open { nonce: view.nonce, session, terminal, input: open.stdin };
        let link = Link::dial(&shared.socket(entry.id), &call, Some(&program)).map_err(|e| cut_off(&entry, &e))?;
        let name = open.command.into_iter().next().unwrap_or_default();
        Self { entry, link, session, input: 0, ended: None, program: name, acknowledge: open.acknowledge }
            .greeted()
            .await
    }

    async fn resume(shared: &Shared, resume: &ExecResume) -> Result<Self, Problem> {
        let entry = shared.find(&resume.worker)?;
        let call = Call::Resume { nonce: entry.view().nonce, session: resume.session, taken: resume.taken };
        let link = Link::dial(&shared.socket(entry.id), &call, None).map_err(|e| cut_off(&entry, &e))?;
        let (session, program) = (resume.session, Vec::new());
        Self { entry, link, session, input: 0, ended: None, program, acknowledge: true }.greeted().await
    }

    /// The worker's own input.
    async fn attach(shared: &Shared, worker: &str) -> Result<Self, Problem> {
        let entry = shared.find(worker)?;
        let call = Call::Resume { nonce: entry.view().nonce, session: OWN, taken: 0 };
        let link = Link::dial(&shared.socket(entry.id), &call, None).map_err(|e| cut_off(&entry, &e))?;
        Self { entry, link, session: OWN, input: 0, ended: None, program: Vec::new(), acknowledge: false }
            .greeted()
            .await
    }

    /// Hears the shim's first word.
    async fn greeted(mut self) -> Result<Self, Problem> {
        let word = tokio::time::timeout(ANSWER_WITHIN, self.link.next()).await;
        match word.unwrap_or(Err(LinkError::Silent)).map_err(|error| cut_off(&self.entry, &error))? {
            Some(FromSession::Opened { input }) => self.input = input,
            Some(FromSession::Ended(end)) => self.ended = Some(end),
            Some(FromSession::Refused(Refusal::Unknown)) if self.session == OWN => return Err(no_input(&self.entry)),
            Some(FromSession::Refused(refusal)) => return Err(refused(&self.entry, refusal)),
            Some(FromSession::Output { .. } | FromSession::InputTaken { .. }) => {
                return Err(cut_off(&self.entry, &LinkError::Form));
            }
            None => return Err(cut_off(&self.entry, &LinkError::Closed)),
        }
        Ok(self)
    }
}

fn size(wire: &holdfast_proto::daemon::TerminalSize) -> Result<Size, Problem> {
    let side = |given: u32| u16::try_from(given).map_err(|_| unusable("a terminal has at most 65535 rows and columns"));
    Ok(Size { rows: side(wire.rows)?, columns: side(wire.columns)? })
}

fn unusable(why: &str) -> Problem {
    Problem::new(Reason::Invalid, format!("this cannot be executed: {why}"))
}

fn not_running(entry: &Entry, phase: Phase) -> Problem {
    let name = &entry.spec.name;
    let way = instead(Verb::Exec, phase).unwrap_or(Instead::Wait);
    let message = format!("worker {name} is {}, which does not allow exec", phase.name());
    Problem::new(Reason::WrongPhase, message).hint(way.hint(name))
}

fn no_input(entry: &Entry) -> Problem {
    Problem::new(Reason::WrongPhase, format!("worker {} has no input to attach to", entry.spec.name))
        .hint("`holdfast run -i` and `run -it` make workers that have one; `holdfast logs -f` shows output")
}

fn refused(entry: &Entry, refusal: Refusal) -> Problem {
    let name = &entry.spec.name;
    match refusal {
        Refusal::Full => {
            Problem::new(Reason::Quota, format!("worker {name} has {SESSIONS_MAX} sessions open, which is the most"))
                .hint("end one of them")
        }
        Refusal::Unknown => Problem::new(Reason::NotFound, format!("worker {name} has no such session any more")),
        Refusal::Taken => {
            Problem::new(Reason::Invalid, "a session of this number is open").hint("choose another number")
        }
        Refusal::NotRunning => not_running(entry, entry.view().phase),
        Refusal::Invalid => Problem::new(Reason::Invalid, "the program cannot be handed on"),
    }
}

fn cut_off(entry: &Entry, error: &LinkError) -> Problem {
    let (name, phase) = (&entry.spec.name, entry.view().phase);
    match error {
        LinkError::Nobody | LinkError::Closed if phase != Phase::Running => not_running(entry, phase),
        LinkError::Closed => Problem::new(Reason::Host, format!("worker {name} was started by an older Holdfast"))
            .hint(format!("`holdfast restart {name}` lets programs be executed in it")),
        _ => Problem::new(Reason::Internal, format!("worker {name} cannot be reached: {error}"))
            .hint("see the daemon's log"),
    }
}

/// The daemon is its owner's.
fn owner_ids(shared: &Shared) -> program::Ids<'_> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    program::Ids { name: shared.owner.as_str(), uid, gid }
}
