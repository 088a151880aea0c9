//! The kernel's network objects, and the one thread that speaks to the kernel about them.
//!
//! Jobs come by a bounded queue and answer by a oneshot; whoever waits has a deadline. The thread itself
//! waits only for the kernel, never for anything that an owner holds.

mod blockers;
mod conntrack;
mod elements;
mod expr;
mod kernel;
mod links;
mod macvlan;
mod nft;
pub mod rules_watch;
mod ruleset;
mod sockets;
mod tables;
mod uplinks;
pub mod watch;
mod wire;

pub use kernel::{Kernel, NetError};
pub use links::{INSIDE, Traffic};
pub use wire::WireError;

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;
use tokio::sync::oneshot;

/// Jobs that may wait; more means that the kernel does not keep up, and is said to the caller.
const JOBS_MAX: usize = 256;
/// Longest wait for one job, its turn included.
const JOB_SECS_MAX: u64 = 10;
/// Reads netlink answers into its own buffers; depth of calls is small.
const STACK_BYTES: usize = 256 * 1024;

type Job = Box<dyn FnOnce(&mut Kernel) + Send>;

/// Where jobs are left.
#[derive(Debug, Clone)]
pub struct Net {
    jobs: SyncSender<Job>,
}

impl Net {
    /// Starts the thread and returns when it runs: the filter of system calls that comes next has no
    /// room for those of a thread's start. It ends when the last handle is gone.
    pub fn start(kernel: Kernel) -> std::io::Result<Self> {
        let (jobs, queue) = sync_channel::<Job>(JOBS_MAX);
        let (up, is_up) = sync_channel(1);
        let thread = std::thread::Builder::new().name("net".into()).stack_size(STACK_BYTES);
        thread.spawn(move || {
            let _ = up.send(());
            serve(kernel, &queue);
        })?;
        is_up.recv().map_err(std::io::Error::other)?;
        Ok(Self { jobs })
    }

    /// Has the thread do `job`. It is done even where nobody waits for its answer any more.
    pub async fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Kernel) -> Result<T, NetError> + Send + 'static,
    ) -> Result<T, NetError> {
        let (answer, answered) = oneshot::channel();
        let boxed: Job = Box::new(move |kernel| {
            let _ = answer.send(job(kernel));
        });
        self.jobs.try_send(boxed).map_err(|error| match error {
            TrySendError::Full(_) => NetError::Busy,
            TrySendError::Disconnected(_) => NetError::Gone,
        })?;
        match tokio::time::timeout(Duration::from_secs(JOB_SECS_MAX), answered).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(NetError::Gone),
            Err(_) => Err(NetError::Deadline),
        }
    }
}

fn serve(mut kernel: Kernel, queue: &Receiver<Job>) {
    while let Ok(job) = queue.recv() {
        job(&mut kernel);
    }
}
