//! Calls that change something are done once, however often they are made: by the key of their caller.
//!
//! A call's row is on record before its effect. So whoever makes it again, of this daemon or of a later one, hears the
//! first answer; and where a daemon died between the two, the worker shows whether the call was done (`worker::again`).

use super::{Answered, Service};
use crate::store::{CallRow, Change, Outcome};
use crate::supervisor::{Answer, Ask, Entry, Shared, grace_of, not_recorded, now};
use crate::worker::again::{Again, again};
use crate::worker::{Timestamp, Verb};
use holdfast_proto::daemon::*;
use holdfast_proto::key::{KEY_HEADER, Key};
use holdfast_proto::problem::{Problem, Reason};
use holdfast_proto::words::{Generation, WorkerId};
use prost::Message;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::OwnedMutexGuard;
use tonic::{Request, Response};

/// Longest reply that is remembered.
const REPLY_BYTES_MAX: usize = 16 * 1024;
/// Keys in the table of calls under way before those that are over are looked for.
const UNDER_WAY_LOOK: usize = 512;

/// Attempts under way, by key: each waits for the one before it.
#[derive(Debug, Default)]
pub struct UnderWay(Mutex<HashMap<Key, Weak<tokio::sync::Mutex<()>>>>);

impl UnderWay {
    /// The turn of one attempt.
    pub async fn enter(&self, key: Key) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if turns.len() > UNDER_WAY_LOOK {
                turns.retain(|_, turn| turn.strong_count() > 0);
            }
            match turns.get(&key).and_then(Weak::upgrade) {
                Some(turn) => turn,
                None => {
                    let turn = Arc::default();
                    turns.insert(key, Arc::downgrade(&turn));
                    turn
                }
            }
        };
        turn.lock_owned().await
    }
}

/// A request that changes something.
pub trait Changing: Message + 'static {
    /// Part of what the key stands for.
    const VERB: &'static str;

    /// The worker that it is about.
    fn worker(&self) -> Option<&str> {
        None
    }
}

macro_rules! changing {
    ($($request:ty, $verb:literal $(, $worker:ident)?;)*) => {
        $(impl Changing for $request {
            const VERB: &'static str = $verb;
            $(fn worker(&self) -> Option<&str> {
                Some(&self.$worker)
            })?
        })*
    };
}

changing! {
    RunRequest, "run";
    StartRequest, "start", worker;
    StopRequest, "stop", worker;
    RestartRequest, "restart", worker;
    SuspendRequest, "suspend", worker;
    ResumeRequest, "resume", worker;
    KillRequest, "kill", worker;
    RemoveRequest, "rm", worker;
    PruneRequest, "prune";
    CreateNetworkRequest, "network create";
    RemoveNetworkRequest, "network rm";
}

/// What the key of a request says; `None`: it has none.
pub fn call_of<Q: Changing>(request: &Request<Q>) -> Result<Option<CallRow>, Problem> {
    let Some(key) = request.metadata().get(KEY_HEADER) else { return Ok(None) };
    let invalid = |error: &dyn std::fmt::Display| Problem::new(Reason::Invalid, error.to_string());
    let key = key.to_str().map_err(|error| invalid(&error))?.parse().map_err(|error| invalid(&error))?;
    let digest = digest(Q::VERB, &request.get_ref().encode_to_vec());
    Ok(Some(CallRow { key, digest, began_at: Timestamp(now().0), worker: None, outcome: Outcome::Begun }))
}

/// FNV-1a of 128 bits: the same in every build, and against mistakes alone: whoever has the key is the owner.
fn digest(verb: &str, request: &[u8]) -> [u8; 16] {
    const PRIME: u128 = 0x0000000001000000000000000000013B;
    const BASIS: u128 = 0x6c62272e07bb014262b821756295c58d;
    let bytes = verb.bytes().chain([0]).chain(request.iter().copied());
    bytes.fold(BASIS, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME)).to_be_bytes()
}

/// What was made of the same call before.
pub async fn before(shared: &Shared, call: &CallRow) -> Result<Option<CallRow>, Problem> {
    let before = shared.store.call(call.key).await.map_err(|error| not_recorded(&error))?;
    match before {
        Some(before) if before.digest != call.digest => {
            Err(Problem::new(Reason::Invalid, format!("this {KEY_HEADER} was used for another call"))
                .hint("give each call a key of its own, at random"))
        }
        before => Ok(before),
    }
}

/// The problem that a refused call met.
pub fn refused_before(problem: &[u8]) -> Problem {
    Problem::decode(problem).unwrap_or_else(|_| Problem::new(Reason::Internal, "the first answer cannot be read"))
}

/// What an attempt goes by.
pub struct Attempt {
    /// Everything else.
    pub shared: Arc<Shared>,
    /// The worker that it is about, if it is on record.
    pub entry: Option<Entry>,
    /// Its id.
    pub id: Option<WorkerId>,
    /// The call was begun before, at this generation of the worker, and nobody knows how it ended.
    pub begun: Option<Generation>,
}

impl Attempt {
    /// Asks the worker, where that is (still) to be done.
    pub async fn ask(&self, verb: Verb, make: impl FnOnce(Answer) -> Ask) -> Result<Worker, Problem> {
        let seen = self.entry.as_ref().map(|entry| (entry, entry.view()));
        let now = seen.as_ref().map(|(_, view)| (view.generation(), view.phase));
        let what = self.begun.map_or(Again::Do, |begun| again(verb, begun, now));
        match (what, seen) {
            (Again::Do, Some((entry, _))) => entry.ask(make).await,
            (Again::Answer, Some((_, view))) => Ok(view.worker),
            (Again::AwaitStart, Some((entry, _))) => self.shared.start_outcome(entry).await,
            (Again::Answer, None) => Ok(Worker { id: self.id(), ..Worker::default() }),
            (Again::Unknown, Some((entry, _))) => Err(not_known(verb, entry)),
            (Again::Gone | Again::Do | Again::AwaitStart | Again::Unknown, None) | (Again::Gone, Some(_)) => {
                Err(Problem::new(Reason::NoSuchWorker, format!("worker {} has been removed meanwhile", self.id())))
            }
        }
    }

    /// Of a stop: as asked, else the worker's own.
    pub fn grace(&self, asked: Option<u32>) -> Result<Duration, Problem> {
        self.entry.as_ref().map_or(Ok(Duration::ZERO), |entry| grace_of(entry, asked))
    }

    /// Of the worker that it is about.
    pub fn id(&self) -> String {
        self.id.map(|id| id.to_string()).unwrap_or_default()
    }
}

fn not_known(verb: Verb, entry: &Entry) -> Problem {
    let name = &entry.spec.name;
    let message = format!("the daemon ended over this {}: whether worker {name} got it is not known", verb.name());
    Problem::new(Reason::Internal, message).hint("it is not done twice; look at the worker, and ask anew")
}

impl Service {
    /// Does a call once. It is done to its end where its caller goes; where it takes longer than a daemon that leaves
    /// has, it is handed back.
    pub async fn once<Q, R, F>(
        &self,
        request: Request<Q>,
        act: impl FnOnce(Attempt, Q) -> F + Send + 'static,
    ) -> Answered<R>
    where
        Q: Changing,
        R: Message + Default + 'static,
        F: Future<Output = Result<R, Problem>> + Send + 'static,
    {
        let call = call_of(&request)?;
        let (shared, under_way) = (self.shared.clone(), self.under_way.clone());
        let _guard = shared.leaving.guard();
        let leaving = shared.leaving.clone();
        let task = tokio::spawn(attempt(shared, under_way, call, request.into_inner(), act));
        let ended = |_| Err(Problem::new(Reason::Internal, "the call ended without an answer"));
        let reply = leaving.or_hand_back(async { task.await.unwrap_or_else(ended) }).await?;
        Ok(Response::new(reply))
    }
}

async fn attempt<Q, R, F>(
    shared: Arc<Shared>,
    under_way: Arc<UnderWay>,
    call: Option<CallRow>,
    request: Q,
    act: impl FnOnce(Attempt, Q) -> F,
) -> Result<R, Problem>
where
    Q: Changing,
    R: Message + Default,
    F: Future<Output = Result<R, Problem>>,
{
    let find = || request.worker().map(|worker| shared.find(worker)).transpose();
    let Some(mut call) = call else {
        let entry = find()?;
        let id = entry.as_ref().map(|entry| entry.id);
        return act(Attempt { shared: shared.clone(), entry, id, begun: None }, request).await;
    };
    let _turn = under_way.enter(call.key).await;
    let attempt = match before(&shared, &call).await? {
        Some(CallRow { outcome: Outcome::Done(reply), .. }) => {
            let unreadable = |_| Problem::new(Reason::Internal, "the first answer cannot be read");
            return R::decode(reply.as_slice()).map_err(unreadable);
        }
        Some(CallRow { outcome: Outcome::Refused(problem), .. }) => return Err(refused_before(&problem)),
        Some(CallRow { outcome: Outcome::Begun, worker, .. }) => Attempt {
            shared: shared.clone(),
            entry: worker.and_then(|(id, _)| shared.by_id(id)),
            id: worker.map(|(id, _)| id),
            begun: Some(worker.map_or(Generation(0), |(_, generation)| generation)),
        },
        None => {
            let entry = find()?;
            call.worker = entry.as_ref().map(|entry| (entry.id, entry.view().generation()));
            let id = call.worker.map(|(id, _)| id);
            let begun = Change::BeginCall(Box::new(call.clone()));
            shared.store.commit(vec![begun]).await.map_err(|error| not_recorded(&error))?;
            Attempt { shared: shared.clone(), entry, id, begun: None }
        }
    };
    let outcome = act(attempt, request).await;
    let ended = match &outcome {
        // Made again, it is judged by what is seen.
        Ok(reply) if reply.encoded_len() > REPLY_BYTES_MAX => return outcome,
        Ok(reply) => Outcome::Done(reply.encode_to_vec()),
        Err(problem) => Outcome::Refused(problem.encode_to_vec()),
    };
    if let Err(error) = shared.store.note(vec![Change::EndCall(call.key, ended)]).await {
        tracing::warn!(%error, "a call's outcome is not on record");
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stands_for_one_verb_and_one_request() {
        let stop = StopRequest { worker: "w".into(), timeout_secs: None, for_shutdown: false }.encode_to_vec();
        let start = StartRequest { worker: "w".into() }.encode_to_vec();
        assert_eq!(stop, start, "alike on the wire");
        assert_ne!(digest(StopRequest::VERB, &stop), digest(StartRequest::VERB, &start));
        assert_ne!(digest("stop", b"w"), digest("stop", b"v"));
        // As published for the empty string's one byte, so that another build agrees.
        assert_eq!(digest("", b""), 0xd228cb69101a8caf78912b704e4a147f_u128.to_be_bytes());
    }

    #[tokio::test]
    async fn attempts_of_one_key_take_turns() {
        let under_way = UnderWay::default();
        let (one, other) = (Key::from_random([1; 16]), Key::from_random([2; 16]));
        let turn = under_way.enter(one).await;
        drop(under_way.enter(other).await);
        let waiting = under_way.enter(one);
        tokio::pin!(waiting);
        let soon = std::time::Duration::from_millis(10);
        assert!(tokio::time::timeout(soon, &mut waiting).await.is_err());
        drop(turn);
        drop(waiting.await);
    }
}
