//! Who wants to see a worker's end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// Those of one worker. While there is one, `remove_on_exit` waits.
#[derive(Debug, Default)]
pub struct Watchers {
    /// How many there are.
    pub count: AtomicUsize,
    /// Told when one goes.
    pub changed: Notify,
}

/// Keeps a worker from being removed by its own exit until it is dropped.
#[derive(Debug)]
pub struct Watch(Arc<Watchers>);

impl Watch {
    /// One more.
    pub fn of(watchers: &Arc<Watchers>) -> Self {
        watchers.count.fetch_add(1, Ordering::AcqRel);
        Self(watchers.clone())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::AcqRel);
        self.0.changed.notify_one();
    }
}
