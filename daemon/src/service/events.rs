//! What happened and happens, by cursor.

use super::Events;
use super::tell::{Hangup, tell, until};
use crate::supervisor::{Shared, not_recorded};
use crate::worker::events::Wanted;
use holdfast_proto::daemon::EventsReply;
use holdfast_proto::problem::{Problem, Reason};
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;

/// One caller's place.
pub struct Following {
    shared: std::sync::Arc<Shared>,
    wanted: Wanted,
    follow: bool,
    /// The last event that was told or passed over.
    cursor: u64,
    newest: watch::Receiver<u64>,
}

impl Following {
    /// A stream after `cursor`; refused where events after it are not kept any more.
    pub async fn after(
        shared: &std::sync::Arc<Shared>,
        cursor: Option<u64>,
        follow: bool,
        wanted: Wanted,
    ) -> Result<Self, Problem> {
        let newest = shared.store.newest_event();
        let cursor = match cursor {
            Some(cursor) => cursor,
            None if follow => *newest.borrow(),
            None => 0,
        };
        let mut following = Self { shared: shared.clone(), wanted, follow, cursor, newest };
        if cursor == 0 {
            // From the oldest that is kept, whatever went before it.
            let oldest = following.page().await?.oldest;
            following.cursor = oldest.map_or(0, |oldest| oldest - 1);
        } else {
            following.page().await?;
        }
        Ok(following)
    }

    async fn page(&self) -> Result<crate::store::Page, Problem> {
        let page = self.shared.store.events(self.cursor).await.map_err(|error| not_recorded(&error))?;
        let gone = |message: String, hint: String| Err(Problem::new(Reason::CursorGone, message).hint(hint));
        let cursor = self.cursor;
        match page.oldest {
            _ if cursor == 0 => Ok(page),
            _ if cursor > page.newest => gone(
                format!("there is no event {cursor} yet; the newest is {}", page.newest),
                "ask with that one, or with 0 for all that is kept".into(),
            ),
            Some(oldest) if cursor + 1 < oldest => gone(
                format!("events after {cursor} are not kept any more; the oldest that is there is {oldest}"),
                format!("ask with {} to go on from there", oldest - 1),
            ),
            Some(_) | None => Ok(page),
        }
    }

    /// Tells events until there is none (or, following, until the caller or the daemon goes).
    pub async fn tell_all(mut self, events: Events<EventsReply>) {
        let leaving = self.shared.leaving.clone();
        let reached = AtomicU64::new(self.cursor);
        // An error is a caller who has gone.
        let told = async { drop(self.tell(&events, &reached).await) };
        // With a filter, further than the last event that was told.
        let last = || Some(EventsReply { cursor: reached.load(Ordering::Relaxed), event: None });
        leaving.or_go_on_elsewhere(told, last, &events).await;
    }

    async fn tell(&mut self, events: &Events<EventsReply>, reached: &AtomicU64) -> Result<(), Hangup> {
        tell(events, EventsReply { cursor: self.cursor, event: None }).await?;
        loop {
            self.newest.mark_unchanged();
            let page = match self.page().await {
                Ok(page) => page,
                Err(problem) => return events.send(Err(problem.into())).await.map_err(|_| Hangup),
            };
            let is_last = page.events.is_empty();
            for (cursor, event) in page.events {
                if self.wanted.ends_at(&event) {
                    return Ok(());
                }
                self.cursor = cursor;
                if self.wanted.admits(&event) {
                    tell(events, EventsReply { cursor, event: Some(event) }).await?;
                }
                reached.store(cursor, Ordering::Relaxed);
            }
            if is_last {
                if !self.follow {
                    return Ok(());
                }
                tokio::select! {
                    // An error is a store that has ended; so does the daemon.
                    changed = self.newest.changed() => changed.map_err(|_| Hangup)?,
                    () = events.closed() => return Err(Hangup),
                    () = until(self.wanted.until_ns()) => return Ok(()),
                }
            }
        }
    }
}
