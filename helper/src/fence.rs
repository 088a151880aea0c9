//! Epochs: which daemon of an owner is listened to, and which of its predecessors' launches are still under way.

use crate::words::Uid;
use holdfast_proto::words::Epoch;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

/// Launches of one owner at once; a daemon that wants more waits its turn.
pub const LAUNCHES_MAX: usize = 64;
/// Longest wait for launches of earlier epochs: longer than any of them can take.
const FENCE_SECS_MAX: u64 = 45;

/// Why a call of a daemon was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FenceError {
    /// Another daemon started since.
    #[error("epoch {given} was given: {current} is current")]
    Stale {
        /// The call's.
        given: Epoch,
        /// The highest seen.
        current: Epoch,
    },
    /// Too many at once.
    #[error("{LAUNCHES_MAX} launches of this owner are under way")]
    Busy,
    /// Launches of earlier epochs did not end.
    #[error("launches of earlier epochs did not end within {FENCE_SECS_MAX} s")]
    Deadline,
}

/// The epochs of all owners.
#[derive(Debug, Default)]
pub struct Fences {
    owners: Mutex<BTreeMap<Uid, Arc<Owner>>>,
}

#[derive(Debug, Default)]
struct Owner {
    state: Mutex<State>,
    ended: Notify,
}

#[derive(Debug, Default)]
struct State {
    current: Epoch,
    /// Launches under way, by epoch.
    under_way: BTreeMap<Epoch, usize>,
}

/// A launch under way; its end is seen by who waits at the fence.
#[derive(Debug)]
pub struct UnderWay {
    owner: Arc<Owner>,
    epoch: Epoch,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fences {
    fn owner(&self, uid: Uid) -> Arc<Owner> {
        Arc::clone(lock(&self.owners).entry(uid).or_default())
    }

    /// Lets a call of `epoch` in, or not. A higher epoch than any before becomes the current one.
    pub fn check(&self, uid: Uid, epoch: Epoch) -> Result<(), FenceError> {
        lock(&self.owner(uid).state).admit(epoch)
    }

    /// The same for a launch, which is under way from now on.
    pub fn enter(&self, uid: Uid, epoch: Epoch) -> Result<UnderWay, FenceError> {
        let owner = self.owner(uid);
        {
            let mut state = lock(&owner.state);
            state.admit(epoch)?;
            if state.under_way.values().sum::<usize>() >= LAUNCHES_MAX {
                return Err(FenceError::Busy);
            }
            *state.under_way.entry(epoch).or_default() += 1;
        }
        Ok(UnderWay { owner, epoch })
    }

    /// Makes `epoch` the current one and waits until launches of lower ones have ended.
    pub async fn raise(&self, uid: Uid, epoch: Epoch) -> Result<(), FenceError> {
        let owner = self.owner(uid);
        lock(&owner.state).admit(epoch)?;
        let quiet = async {
            loop {
                let ended = owner.ended.notified();
                if lock(&owner.state).under_way.range(..epoch).next().is_none() {
                    return;
                }
                ended.await;
            }
        };
        timeout(Duration::from_secs(FENCE_SECS_MAX), quiet).await.map_err(|_| FenceError::Deadline)
    }
}

impl State {
    fn admit(&mut self, epoch: Epoch) -> Result<(), FenceError> {
        if epoch < self.current {
            return Err(FenceError::Stale { given: epoch, current: self.current });
        }
        self.current = epoch;
        Ok(())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut state = lock(&self.owner.state);
        if let Some(count) = state.under_way.get_mut(&self.epoch) {
            *count -= 1;
            if *count == 0 {
                state.under_way.remove(&self.epoch);
            }
        }
        drop(state);
        self.owner.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_fence_waits_for_earlier_launches_and_refuses_later_words_of_them() {
        let fences = Arc::new(Fences::default());
        let old = fences.enter(Uid(1), Epoch(1)).unwrap();
        let raised = tokio::spawn({
            let fences = Arc::clone(&fences);
            async move { fences.raise(Uid(1), Epoch(2)).await }
        });
        tokio::task::yield_now().await;
        assert!(!raised.is_finished());
        assert_eq!(fences.check(Uid(1), Epoch(1)), Err(FenceError::Stale { given: Epoch(1), current: Epoch(2) }));
        assert_eq!(fences.check(Uid(2), Epoch(1)), Ok(()));
        drop(old);
        assert_eq!(raised.await.unwrap(), Ok(()));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn launches_of_one_owner_are_bounded() {
        let fences = Fences::default();
        let held: Vec<_> = (0..LAUNCHES_MAX).map(|_| fences.enter(Uid(1), Epoch(1)).unwrap()).collect();
        assert_eq!(fences.enter(Uid(1), Epoch(1)).err(), Some(FenceError::Busy));
        assert!(fences.enter(Uid(2), Epoch(1)).is_ok());
        drop(held);
        assert!(fences.enter(Uid(1), Epoch(1)).is_ok());
    }
}
