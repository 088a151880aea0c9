//! A Run that is repeated by its external id gets the worker that is there.

use super::{Entry, Shared, Watch, invalid};
use crate::worker::{Phase, Spec};
use holdfast_proto::daemon as wire;
use holdfast_proto::key::Key;
use holdfast_proto::problem::{Problem, Reason};
use tokio::sync::oneshot;

/// What a Run found or made.
#[derive(Debug)]
pub enum Created {
    /// It is on record since now.
    Now {
        /// The worker.
        entry: Entry,
        /// Keeps it from being removed by its own exit.
        watch: Watch,
        /// Answers when it is executed, or says why it is not; then it is forgotten again.
        started: oneshot::Receiver<Result<wire::Worker, Problem>>,
    },
    /// It was there, with the same external id and the same spec, or made by an earlier attempt of the same call.
    Before {
        /// The worker.
        entry: Entry,
        /// Keeps it from being removed by its own exit.
        watch: Watch,
        /// The call of that attempt.
        by_this_call: Option<Key>,
    },
}

impl Shared {
    /// The worker that has the external id which is asked for; refused where it is another one than is asked for.
    pub(super) fn existing(&self, asked: &wire::WorkerSpec) -> Result<Option<Entry>, Problem> {
        let entry = {
            let workers = self.workers();
            let id = workers.by_external_id.get(&asked.external_id).filter(|_| !asked.external_id.is_empty());
            id.and_then(|id| workers.by_id.get(id)).cloned()
        };
        let Some(entry) = entry else { return Ok(None) };
        let mut asked = asked.clone();
        if asked.name.is_empty() {
            asked.name.clone_from(&entry.spec.name);
        }
        // As parsed: what is left to its default and what spells the default out is the same.
        let there = Spec::try_from(&*entry.spec).map_err(invalid)?;
        if Spec::try_from(&asked).map_err(invalid)? == there {
            return Ok(Some(entry));
        }
        let message = format!("worker {} has the external id {:?} and another spec", there.name, there.external_id);
        let hint =
            format!("ask with the spec that `holdfast inspect {}` shows, or with another external id", there.name);
        Err(Problem::new(Reason::NameTaken, message).hint(hint))
    }
}

impl Shared {
    /// What became of a start that somebody else waited for: the worker once it is executed, or why it is not.
    pub async fn start_outcome(&self, entry: &Entry) -> Result<wire::Worker, Problem> {
        let worker = entry.settled().await?;
        if worker.started_at != 0 {
            return Ok(worker);
        }
        let not_started = worker.exit.as_ref().map(|exit| (exit.how, exit.not_started.clone()));
        let (reason, why) = match not_started {
            Some((Some(wire::exit::How::Code(126)), why)) => (Reason::CannotExecute, why),
            Some((Some(wire::exit::How::Code(127)), why)) => (Reason::NotFound, why),
            Some((_, why)) => (Reason::Host, why),
            // Refused: its history has the reason.
            None => {
                let history = self.store.history(entry.id).await.unwrap_or_default();
                (Reason::Host, history.into_iter().next_back().map(|note| note.why).unwrap_or_default())
            }
        };
        Err(Problem::new(reason, why).hint("nothing was started"))
    }
}

impl Entry {
    /// Waits until it is no longer being started; a problem where that start failed and it was forgotten.
    pub async fn settled(&self) -> Result<wire::Worker, Problem> {
        let mut view = self.view.clone();
        match view.wait_for(|view| !matches!(view.phase, Phase::Created | Phase::Starting)).await {
            Ok(view) => Ok(view.worker.clone()),
            Err(_) => Err(Problem::new(Reason::Unavailable, "the start of the worker of this external id has failed")
                .hint("ask again: nothing is left of it")),
        }
    }
}
