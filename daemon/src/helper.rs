//! The daemon's end of the helper's contract: launches, detaches, the fence. Every wait has a deadline.

use holdfast_proto::MESSAGE_BYTES_MAX;
use holdfast_proto::helper::helper_client::HelperClient;
use holdfast_proto::helper::{
    AttachedRequest, Attachment, CheckNetworkRequest, DetachRequest, FenceRequest, HealthReply, HealthRequest,
    LaunchReply, LaunchRequest,
};
use holdfast_proto::problem::{Problem, Reason};
use holdfast_proto::words::{Epoch, Generation, WorkerId};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

/// Longer than the helper's own deadlines for a launch, so that its answer is heard.
const LAUNCH_WITHIN: Duration = Duration::from_secs(30);
const FENCE_WITHIN: Duration = Duration::from_secs(30);
const DETACH_WITHIN: Duration = Duration::from_secs(5);
const ASK_WITHIN: Duration = Duration::from_secs(1);
/// How long a launch waits for a helper that is away.
const AWAY_WITHIN: Duration = Duration::from_secs(5);
/// Questions in a row without an answer, after which a helper counts as away; each takes up to two seconds.
const SILENT_MAX: u32 = 3;
/// Wait between two tries, doubled up to the longest.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// The socket's path cannot be made an endpoint of.
#[derive(Debug, thiserror::Error)]
#[error("the helper's socket {path} cannot be named in a URI")]
pub struct BadPath {
    path: PathBuf,
    #[source]
    source: tonic::transport::Error,
}

/// The helper, for this daemon's epoch. Cheap to clone; connects when it is needed.
#[derive(Debug, Clone)]
pub struct Helper {
    client: HelperClient<Channel>,
    path: PathBuf,
    epoch: Epoch,
    fenced: watch::Receiver<bool>,
}

/// A helper that this daemon has not fenced yet: [`Fence::until_done`] goes beside everything else.
#[derive(Debug)]
pub struct Fence {
    helper: Helper,
    done: watch::Sender<bool>,
}

/// Names the helper; connects to nothing yet.
pub fn helper(path: &Path, epoch: Epoch) -> Result<(Helper, Fence), BadPath> {
    let endpoint = Endpoint::from_shared(format!("unix://{}", path.display()))
        .map_err(|source| BadPath { path: path.into(), source })?
        .connect_timeout(ASK_WITHIN);
    let client = HelperClient::new(endpoint.connect_lazy())
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let (done, fenced) = watch::channel(false);
    let helper = Helper { client, path: path.into(), epoch, fenced };
    Ok((helper.clone(), Fence { helper, done }))
}

impl Fence {
    /// Tries until the helper has taken the epoch: from then on nothing of an earlier daemon comes after us.
    pub async fn until_done(self) {
        let mut wait = RETRY_FIRST;
        let mut told = false;
        loop {
            let mut client = self.helper.client.clone();
            let request = FenceRequest { epoch: self.helper.epoch.0 };
            match within(FENCE_WITHIN, client.fence(request)).await {
                Ok(_) => break,
                Err(status) if !told => {
                    told = true;
                    tracing::warn!(why = status.message(), "the helper does not take the fence yet; trying on");
                }
                Err(_) => {}
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
        self.done.send_replace(true);
        // The sender lives on, so that `Helper::fenced` never reads a closed channel as an unfenced helper.
        self.done.closed().await;
    }
}

impl Helper {
    /// Answers once launches of earlier daemons have ended.
    pub async fn fenced(&self) {
        let mut fenced = self.fenced.clone();
        if fenced.wait_for(|done| *done).await.is_err() {
            // Only at the end of the program: the fence's task is gone.
            std::future::pending::<()>().await;
        }
    }

    /// Has a worker launched. An `Err` of [`LaunchError::Unknown`] says that it may run all the same.
    pub async fn launch(&self, request: LaunchRequest) -> Result<LaunchReply, LaunchError> {
        if tokio::time::timeout(AWAY_WITHIN, self.fenced()).await.is_err() {
            return Err(LaunchError::Refused(self.away()));
        }
        let mut client = self.client.clone();
        let outcome = tokio::select! {
            biased;
            outcome = within(LAUNCH_WITHIN, client.launch(request)) => outcome,
            () = self.vanished() => Err(Status::unavailable("the helper is away")),
        };
        match outcome {
            Ok(reply) => Ok(reply.into_inner()),
            Err(status) if !status.details().is_empty() => Err(LaunchError::Refused(Problem::from_status(&status))),
            Err(status) => Err(LaunchError::Unknown(self.problem(&status))),
        }
    }

    /// Answers once the helper has not answered several times in a row. Its listener is systemd's and takes a call
    /// also while no helper lives to read it, so a call that waits says nothing of that.
    async fn vanished(&self) {
        let mut silent = 0;
        while silent < SILENT_MAX {
            tokio::time::sleep(ASK_WITHIN).await;
            silent = if self.health().await.is_ok() { 0 } else { silent + 1 };
        }
    }

    /// Gives ports and addresses of an ended generation back; one try.
    pub async fn detach(&self, worker: WorkerId, generation: Generation) -> Result<(), Problem> {
        let mut client = self.client.clone();
        let request = DetachRequest { epoch: self.epoch.0, worker: worker.to_string(), generation: generation.0 };
        within(DETACH_WITHIN, client.detach(request)).await.map(drop).map_err(|status| self.problem(&status))
    }

    /// As [`Helper::detach`], again and again until the helper has done it.
    pub async fn detach_until_done(&self, worker: WorkerId, generation: Generation) {
        let mut wait = RETRY_FIRST;
        while let Err(problem) = self.detach(worker, generation).await {
            // A later daemon's fence makes this its work.
            if problem.reason() == Reason::StaleEpoch {
                return;
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    /// What is attached now for this owner.
    pub async fn attached(&self) -> Result<Vec<Attachment>, Problem> {
        let mut client = self.client.clone();
        let reply = within(DETACH_WITHIN, client.attached(AttachedRequest {})).await;
        reply.map(|reply| reply.into_inner().attachments).map_err(|status| self.problem(&status))
    }

    /// The ranges that a named network has, or would begin with; or why it cannot be had.
    pub async fn check_network(&self, network: &str, subnet: &str) -> Result<Vec<String>, Problem> {
        let mut client = self.client.clone();
        let request = CheckNetworkRequest { network: network.into(), subnet: subnet.into() };
        let reply = within(ASK_WITHIN, client.check_network(request)).await;
        reply.map(|reply| reply.into_inner().subnets).map_err(|status| self.problem(&status))
    }

    /// How the helper is.
    pub async fn health(&self) -> Result<HealthReply, Problem> {
        let mut client = self.client.clone();
        let reply = within(ASK_WITHIN, client.health(HealthRequest {})).await;
        reply.map(Response::into_inner).map_err(|status| self.problem(&status))
    }

    fn problem(&self, status: &Status) -> Problem {
        if status.details().is_empty() { self.away() } else { Problem::from_status(status) }
    }

    fn away(&self) -> Problem {
        Problem::new(Reason::Unavailable, format!("the helper does not answer on {}", self.path.display()))
            .hint("see `holdfast status`; workers that run are not touched")
    }
}

/// Why a launch gave no worker.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The helper refused or undid it: nothing is left.
    #[error("{0}")]
    Refused(Problem),
    /// Its answer was lost.
    #[error("{0}")]
    Unknown(Problem),
}

async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<Response<T>, Status> {
    match tokio::time::timeout(limit, call).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Status::deadline_exceeded("the helper took too long")),
    }
}
