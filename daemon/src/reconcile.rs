//! What became of the workers while no daemon was there. Seen, never assumed: the shim itself, or the record
//! that it left.

use crate::helper::{Fence, Helper};
use crate::shim::{self, Alive, Shim, ShimError, Word};
use crate::store::{EndRow, Opened, WorkerRow};
use crate::supervisor::Shared;
use crate::worker::Phase;
use holdfast_launcher::record::ExitRecord;
use holdfast_proto::words::{Generation, WorkerId};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// How long a live shim may take to answer a daemon's start; slower ones are taken up by their own loop.
const ANSWERS_WITHIN: Duration = Duration::from_millis(1500);

/// What was found of one worker.
#[derive(Debug)]
pub enum Found {
    /// It was not live.
    Resting,
    /// The host has booted since it was last started; with the record of the generation that was live, if it left one.
    Booted(Option<Box<ExitRecord>>),
    /// Its shim showed that it knows the nonce.
    Alive {
        /// To hear the end from.
        shim: Shim,
        /// As it says.
        alive: Alive,
    },
    /// Its record is there.
    Ended(Box<ExitRecord>),
    /// No shim and no record.
    Lost {
        /// For a person.
        why: &'static str,
    },
    /// It was being launched, or its shim has not said yet: its loop finds out.
    Undecided,
}

impl Found {
    /// The same where the host has booted since, as it seems: a shim that answers says otherwise, and counts.
    fn across_a_boot(self) -> Self {
        match self {
            Self::Alive { shim, alive } => Self::Alive { shim, alive },
            Self::Ended(record) => Self::Booted(Some(record)),
            Self::Resting | Self::Booted(_) | Self::Lost { .. } | Self::Undecided => Self::Booted(None),
        }
    }
}

/// Takes every worker on record up. Answers when all are resolved but those that wait for the helper.
pub async fn reconcile(shared: &Arc<Shared>, opened: Opened) {
    if !opened.last_boot.is_empty() && opened.last_boot != shared.boot_id {
        tracing::info!("the host has booted since the last start");
    }
    let mut ends: HashMap<WorkerId, EndRow> = opened.ends.into_iter().map(|end| (end.worker, end)).collect();
    let mut looks = JoinSet::new();
    let mut resumed = Vec::with_capacity(opened.workers.len());
    for row in opened.workers {
        if !row.worker.phase.is_live() {
            let end = ends.remove(&row.id);
            let found = if row.boot_id == shared.boot_id { Found::Resting } else { Found::Booted(None) };
            resumed.push(shared.resume(row, end, found));
            continue;
        }
        let state_dir = shared.layout.worker_state(&shared.owner, row.id);
        let socket = shared.layout.workers_run(&shared.owner).join(format!("{}.sock", row.id));
        let booted = row.boot_id != shared.boot_id;
        looks.spawn(async move {
            let found = look(&row, &state_dir, &socket).await;
            (row, if booted { found.across_a_boot() } else { found })
        });
    }
    let (mut adopted, mut ended, mut lost) = (0, 0, 0);
    while let Some(look) = looks.join_next().await {
        let Ok((row, found)) = look else { continue };
        match &found {
            Found::Alive { .. } => adopted += 1,
            Found::Ended(_) => ended += 1,
            Found::Lost { .. } => lost += 1,
            Found::Resting | Found::Booted(_) | Found::Undecided => {}
        }
        let end = ends.remove(&row.id);
        resumed.push(shared.resume(row, end, found));
    }
    for shows in resumed {
        // An error is a worker that is not taken up, which its log line says.
        drop(shows.await);
    }
    tracing::info!(adopted, ended, lost, epoch = %shared.epoch, "workers taken up");
}

async fn look(row: &WorkerRow, state_dir: &Path, socket: &Path) -> Found {
    let generation = row.worker.generation.0;
    let record = || shim::read_record(state_dir, generation, row.nonce).map(|record| Found::Ended(Box::new(record)));
    if let Some(ended) = record() {
        return ended;
    }
    let word = match Shim::connect(socket, row.nonce) {
        Ok(mut shim) => tokio::time::timeout(ANSWERS_WITHIN, shim.next(generation)).await.map(|word| (shim, word)),
        Err(ShimError::Nobody) => {
            // It may have ended between the two looks.
            return record().unwrap_or_else(|| nobody(row));
        }
        Err(error) => {
            tracing::error!(worker = %row.id, error = &error as &dyn std::error::Error, "the shim cannot be heard");
            return Found::Undecided;
        }
    };
    match word {
        Ok((shim, Ok(Word::Running(alive)))) => Found::Alive { shim, alive },
        Ok((_, Ok(Word::Ended(record)))) => Found::Ended(record),
        Ok((_, Ok(Word::Gone))) => record().unwrap_or_else(|| nobody(row)),
        Ok((_, Ok(Word::Preparing | Word::Frozen | Word::Thawed | Word::NotFrozen(_) | Word::NotThawed(_))))
        | Err(_) => Found::Undecided,
        Ok((_, Err(error))) => {
            tracing::error!(worker = %row.id, error = &error as &dyn std::error::Error, "the shim cannot be read");
            Found::Undecided
        }
    }
}

fn nobody(row: &WorkerRow) -> Found {
    match row.worker.phase {
        // An order of the daemon before us may still be under way.
        Phase::Starting => Found::Undecided,
        Phase::Stopping if row.worker.started_at.is_none() => Found::Undecided,
        Phase::Running | Phase::Suspending | Phase::Suspended | Phase::Resuming | Phase::Stopping => {
            Found::Lost { why: "its shim vanished without a record" }
        }
        Phase::Created | Phase::Stopped | Phase::Waiting | Phase::Failed => Found::Resting,
    }
}

/// Once the helper answers: fences it, and gives back what is attached for workers that are not live.
pub async fn settle_helper(shared: Arc<Shared>, helper: Helper, fence: Fence) {
    tokio::spawn(fence.until_done());
    helper.fenced().await;
    let attached = match helper.attached().await {
        Ok(attached) => attached,
        Err(problem) => return tracing::warn!(%problem, "what is attached could not be read"),
    };
    let views: HashMap<WorkerId, _> = shared.entries().into_iter().map(|entry| (entry.id, entry.view())).collect();
    for attachment in attached {
        let Ok(worker) = attachment.worker.parse::<WorkerId>() else { continue };
        let current = views.get(&worker).filter(|view| view.phase.is_live()).map(|view| view.worker.generation);
        if current != Some(attachment.generation) {
            helper.detach_until_done(worker, Generation(attachment.generation)).await;
        }
    }
}
