//! How the daemon leaves: nothing more is taken, streams end where they stand, calls that change something end or are
//! handed back, all within a bound. What it hands back, and every stream, hears [`Reason::Leaving`]: ask again.
//!
//! A task that must not be cut short holds a [`Guard`]; nothing holds one by default, so what nobody waits for ends with
//! the process, as in a crash.

use holdfast_proto::problem::{Problem, Reason};
use std::future::Future;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::Status;

/// How long calls may take to end by themselves: a launch or a change takes milliseconds.
const END_WITHIN: Duration = Duration::from_secs(1);
/// How long handing back may take after that: readers who do not read are not waited for.
const HAND_BACK_WITHIN: Duration = Duration::from_millis(500);

/// Keeps the daemon from leaving until it is dropped, within the bound.
pub type Guard = TaskTrackerToken;

/// Whether the daemon leaves. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Leaving {
    begun: CancellationToken,
    handed_back: CancellationToken,
    guards: TaskTracker,
}

impl Leaving {
    /// For what is to be waited for.
    pub fn guard(&self) -> Guard {
        self.guards.token()
    }

    /// Whether the daemon takes nothing more.
    pub fn is_begun(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// Answers when the daemon takes nothing more: streams end now.
    pub async fn begun(&self) {
        self.begun.cancelled().await;
    }

    /// Answers when calls under way are handed back.
    pub async fn handed_back(&self) {
        self.handed_back.cancelled().await;
    }

    /// Has everything end, in order; answers when no guard is held any more, or the bound is over, with how many had to
    /// be handed back.
    pub async fn leave(&self) -> usize {
        self.begun.cancel();
        self.guards.close();
        if tokio::time::timeout(END_WITHIN, self.guards.wait()).await.is_ok() {
            return 0;
        }
        let handed_back = self.guards.len();
        self.handed_back.cancel();
        if tokio::time::timeout(HAND_BACK_WITHIN, self.guards.wait()).await.is_err() {
            tracing::info!(left = self.guards.len(), "calls that did not end are cut off");
        }
        handed_back
    }

    /// A call that changes something: done, or handed back where it takes longer than the daemon has.
    pub async fn or_hand_back<T>(&self, call: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
        tokio::select! {
            biased;
            outcome = call => outcome,
            () = self.handed_back() => Err(hand_back()),
        }
    }

    /// A stream until it ends, or the daemon leaves: then `last` is said, and that it goes on elsewhere.
    pub async fn or_go_on_elsewhere<T>(
        &self,
        told: impl Future<Output = ()>,
        last: impl FnOnce() -> Option<T>,
        events: &mpsc::Sender<Result<T, Status>>,
    ) {
        let guard = self.guard();
        tokio::select! {
            biased;
            () = told => return,
            () = self.begun() => {}
        }
        let words = last().map(Ok).into_iter().chain([Err(hand_back().into())]);
        let say = async {
            for word in words {
                // An error is a caller who has gone.
                drop(events.send(word).await);
            }
        };
        tokio::select! {
            () = say => {}
            () = self.handed_back() => {
                // Its reader is slow. A stream that just ended would read as a whole one: it breaks off with the process.
                drop(guard);
                std::future::pending().await
            }
        }
    }
}

/// What a call hears that the successor will answer.
pub fn hand_back() -> Problem {
    Problem::new(Reason::Leaving, "the daemon ends or is replaced").hint("ask again: another one answers soon")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nothing_holds_the_daemon_by_default() {
        let leaving = Leaving::default();
        let began = tokio::time::Instant::now();
        leaving.leave().await;
        assert!(began.elapsed() < Duration::from_millis(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_guard_is_waited_for_and_what_takes_too_long_is_handed_back() {
        let leaving = Leaving::default();
        let (quick, slow) = (leaving.guard(), leaving.clone());
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(10)).await;
            drop(quick);
        });
        let handed = tokio::spawn(async move {
            let _guard = slow.guard();
            slow.or_hand_back(std::future::pending::<Result<(), Problem>>()).await
        });
        tokio::task::yield_now().await;
        let began = tokio::time::Instant::now();
        leaving.leave().await;
        assert!(began.elapsed() >= END_WITHIN && began.elapsed() < END_WITHIN + HAND_BACK_WITHIN);
        assert_eq!(handed.await.unwrap().unwrap_err().reason(), Reason::Leaving);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_does_not_read_does_not_hold_the_daemon_and_never_hears_an_end() {
        let leaving = Leaving::default();
        let (events, mut stream) = mpsc::channel(1);
        let stays = leaving.clone();
        tokio::spawn(async move {
            let told = async { while events.send(Ok(1)).await.is_ok() {} };
            stays.or_go_on_elsewhere(told, || None, &events).await;
        });
        tokio::task::yield_now().await;
        tokio::time::timeout(END_WITHIN + HAND_BACK_WITHIN, leaving.leave()).await.unwrap();
        assert_eq!(stream.recv().await.unwrap().unwrap(), 1);
        assert!(tokio::time::timeout(Duration::from_secs(60), stream.recv()).await.is_err(), "an end was told");
    }

    #[tokio::test]
    async fn a_stream_is_told_that_it_goes_on_elsewhere() {
        let leaving = Leaving::default();
        let (events, mut stream) = mpsc::channel::<Result<u8, Status>>(4);
        let stays = leaving.clone();
        tokio::spawn(async move { stays.or_go_on_elsewhere(std::future::pending(), || Some(7), &events).await });
        tokio::task::yield_now().await;
        leaving.leave().await;
        assert_eq!(stream.recv().await.unwrap().unwrap(), 7);
        let last = stream.recv().await.unwrap().unwrap_err();
        assert_eq!(Problem::from_status(&last).reason(), Reason::Leaving);
        assert!(stream.recv().await.is_none());
    }
}
