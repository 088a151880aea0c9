//! Wakes those who follow output, by one inotify instance for all of them.
//!
//! One for all, because closing an instance waits for an SRCU grace period (some 7 ms, measured): taking a watch
//! back does not. And a user has 128 instances, but 2,000 workers.

use rustix::fs::inotify;
use rustix::io::Errno;
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::unix::pipe;
use tokio::sync::Notify;

/// How often a follower looks where the kernel grants no (more) watches.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Head of a struct inotify_event: wd, mask, cookie, len (inotify(7)).
const EVENT_HEAD_BYTES: usize = 16;

/// The instance. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Changes(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// No pipe, but read and waited for like one. `None`: no instance was granted.
    inotify: Option<pipe::Receiver>,
    watches: Mutex<HashMap<i32, Watch>>,
}

#[derive(Debug)]
struct Watch {
    followers: usize,
    changed: Arc<Notify>,
}

/// One follower of one directory.
#[derive(Debug)]
pub struct Follow {
    changes: Changes,
    watch: Option<(i32, Arc<Notify>)>,
}

impl Changes {
    /// Makes the instance; within a runtime. [`Changes::tell`] is to run beside.
    pub fn new() -> Self {
        let inotify = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)
            .map_err(io::Error::from)
            .and_then(pipe::Receiver::from_owned_fd_unchecked)
            .inspect_err(|error| tracing::warn!(%error, "no inotify instance; output is followed by time"))
            .ok();
        Self(Arc::new(Inner { inotify, watches: Mutex::default() }))
    }

    /// Wakes followers as directories change. Never ends.
    pub async fn tell(self) {
        let Some(inotify) = &self.0.inotify else { return };
        let mut events = vec![0; 64 * 1024];
        while inotify.readable().await.is_ok() {
            match inotify.try_read(&mut events) {
                Ok(len) => self.wake(&events[..len]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return tracing::error!(%error, "inotify failed; followers look no more"),
            }
        }
    }

    fn wake(&self, mut events: &[u8]) {
        let watches = self.watches();
        while let Some((head, rest)) = events.split_first_chunk::<EVENT_HEAD_BYTES>() {
            let [wd, _, _, len] = [0, 4, 8, 12].map(|at| [head[at], head[at + 1], head[at + 2], head[at + 3]]);
            match watches.get(&i32::from_ne_bytes(wd)) {
                Some(watch) => watch.changed.notify_waiters(),
                // The queue ran over (wd -1), or the watch was taken back: everybody looks once more.
                None => watches.values().for_each(|watch| watch.changed.notify_waiters()),
            }
            events = rest.get(u32::from_ne_bytes(len) as usize..).unwrap_or_default();
        }
    }

    /// Follows a worker's log directory. To be made before the first read, so that no change is missed.
    pub fn follow(&self, log_dir: &Path) -> Follow {
        let mut watches = self.watches();
        let flags = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::ONLYDIR;
        let added = match &self.0.inotify {
            Some(inotify) => inotify::add_watch(inotify, log_dir, flags),
            None => Err(Errno::MFILE),
        };
        let watch = added.ok().map(|wd| {
            // The same directory has the same number.
            let watch = watches.entry(wd).or_insert_with(|| Watch { followers: 0, changed: Arc::default() });
            watch.followers += 1;
            (wd, watch.changed.clone())
        });
        Follow { changes: self.clone(), watch }
    }

    fn watches(&self) -> MutexGuard<'_, HashMap<i32, Watch>> {
        // Held for map operations alone, which leave nothing half-done.
        self.0.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Follow {
    /// The next change, to be asked for before reading and waited for after it.
    pub async fn changed(&self, seen: Option<tokio::sync::futures::Notified<'_>>) {
        match seen {
            Some(changed) => changed.await,
            None => tokio::time::sleep(LOOK_EVERY).await,
        }
    }

    /// From now on changes count; `None` where they are looked for by time.
    pub fn next(&self) -> Option<tokio::sync::futures::Notified<'_>> {
        self.watch.as_ref().map(|(_, changed)| changed.notified())
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        let Some((wd, _)) = &self.watch else { return };
        let mut watches = self.changes.watches();
        let Some(watch) = watches.get_mut(wd) else { return };
        watch.followers -= 1;
        if watch.followers == 0 {
            watches.remove(wd);
            if let Some(inotify) = &self.changes.0.inotify {
                // The directory may be gone, and its watch with it.
                let _ = inotify::remove_watch(inotify, *wd);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn wakes(follow: &Follow, change: impl FnOnce()) -> bool {
        let next = follow.next();
        change();
        tokio::time::timeout(Duration::from_millis(300), follow.changed(next)).await.is_ok()
    }

    #[tokio::test]
    async fn followers_of_a_directory_are_woken_by_writes_and_new_files_in_it() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let changes = Changes::new();
        tokio::spawn(changes.clone().tell());
        let (first, second) = (changes.follow(one.path()), changes.follow(one.path()));
        let elsewhere = changes.follow(other.path());
        assert!(!wakes(&first, || {}).await);
        assert!(wakes(&first, || std::fs::write(one.path().join("a"), "x").unwrap()).await);
        drop(first);
        assert!(wakes(&second, || std::fs::write(one.path().join("a"), "y").unwrap()).await);
        assert!(!wakes(&elsewhere, || std::fs::write(one.path().join("a"), "z").unwrap()).await);
        drop((second, elsewhere));
        assert!(changes.watches().is_empty());
    }

    #[tokio::test]
    async fn without_a_watch_a_follower_looks_by_time() {
        let changes = Changes::new();
        let follow = changes.follow(Path::new("/nonexistent"));
        assert!(follow.next().is_none());
        assert!(wakes(&follow, || {}).await);
    }
}
