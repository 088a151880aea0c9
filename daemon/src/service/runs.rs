//! A run from its beginning to its end.

use super::Events;
use super::once::{before, refused_before};
use super::tell::{Hangup, Span, output, tell};
use crate::output::Reader;
use crate::store::{CallRow, Change, Outcome};
use crate::supervisor::{Ask, Created, Entry, Shared, invalid};
use crate::worker::spec::SpecError;
use holdfast_proto::daemon::run_event::Event;
use holdfast_proto::daemon::{RunEvent, Worker, WorkerSpec};
use holdfast_proto::key::Key;
use holdfast_proto::problem::{Problem, Reason};
use prost::Message;
use std::sync::Arc;
use tokio::sync::OwnedMutexGuard;

/// The worker that a call asks for; made, unless an earlier attempt of the same call has made it.
pub async fn created(
    shared: &Arc<Shared>,
    spec: Option<WorkerSpec>,
    call: Option<CallRow>,
) -> Result<Created, Problem> {
    let spec = spec.ok_or_else(|| invalid(SpecError::Missing))?;
    let earlier = match &call {
        Some(call) => before(shared, call).await?,
        None => None,
    };
    match earlier {
        None => shared.create(spec, call).await,
        Some(CallRow { outcome: Outcome::Refused(problem), .. }) => Err(refused_before(&problem)),
        Some(CallRow { key, worker, .. }) => {
            let entry = worker.and_then(|(id, _)| shared.by_id(id));
            let entry = entry.ok_or_else(|| {
                Problem::new(Reason::NoSuchWorker, "the worker of this call was started, and has been removed since")
            })?;
            let watch = entry.watch();
            Ok(Created::Before { entry, watch, by_this_call: Some(key) })
        }
    }
}

/// Tells of it: on record, executed, and with `attach` its output and its end. Where the daemon leaves, a start has a
/// while to end; what comes after it goes on elsewhere. `turn` is held until it is known whether it was executed.
pub async fn run(
    shared: &Shared,
    (created, turn): (Created, Option<OwnedMutexGuard<()>>),
    attach: bool,
    events: &Events<RunEvent>,
) -> Result<(), Hangup> {
    let guard = shared.leaving.guard();
    let run = |event| RunEvent { event: Some(event) };
    let (first, entry, _watch, started) = match created {
        Created::Now { entry, watch, started } => {
            let first = Event::Created(entry.view().worker);
            let said = tell(events, run(first)).await;
            let ended = |_| Err(Problem::new(Reason::Internal, "the worker's loop has ended"));
            let started = async { started.await.unwrap_or_else(ended) };
            (said, entry, watch, shared.leaving.or_hand_back(started).await)
        }
        Created::Before { entry, watch, by_this_call: None } => {
            let said = tell(events, run(Event::Existing(entry.view().worker))).await;
            let started = shared.leaving.or_hand_back(entry.settled()).await;
            (said, entry, watch, started)
        }
        Created::Before { entry, watch, by_this_call: Some(key) } => {
            let said = tell(events, run(Event::Created(entry.view().worker))).await;
            let started = shared.leaving.or_hand_back(started_before(shared, &entry, key)).await;
            (said, entry, watch, started)
        }
    };
    drop(turn);
    // A caller who has gone comes back with the same call, and finds it there.
    first?;
    match started {
        Ok(worker) => tell(events, run(Event::Started(worker))).await?,
        Err(problem) => return events.send(Err(problem.into())).await.map_err(|_| Hangup),
    }
    drop(guard);
    if attach {
        let told = async { drop(attached(shared, &entry, events).await) };
        shared.leaving.or_go_on_elsewhere(told, || None, events).await;
    }
    Ok(())
}

/// As the first attempt would have answered: where the program could not be executed, the worker is forgotten.
async fn started_before(shared: &Shared, entry: &Entry, key: Key) -> Result<Worker, Problem> {
    let started = shared.start_outcome(entry).await;
    if let Err(problem) = &started
        && entry.view().worker.generation <= 1
    {
        // Where somebody else removed it, or started it again, that counts.
        let _ = entry.ask(|answer| Ask::Remove { force: false, answer }).await;
        let ended = Change::EndCall(key, Outcome::Refused(problem.encode_to_vec()));
        if let Err(error) = shared.store.note(vec![ended]).await {
            tracing::warn!(%error, "a call's outcome is not on record");
        }
    }
    started
}

async fn attached(shared: &Shared, entry: &Entry, events: &Events<RunEvent>) -> Result<(), Hangup> {
    let run = |event| RunEvent { event: Some(event) };
    let dir = shared.log_dir(entry.id);
    let follow = (entry, shared.changes.follow(&dir));
    output(Reader::from_start(&dir), Span::default(), Some(follow), events, |output| run(Event::Output(output)))
        .await?;
    tell(events, run(Event::Exited(entry.ended().await))).await
}
