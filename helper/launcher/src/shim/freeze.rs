//! Freezes and thaws the worker by its cgroup (cgroup v2, "cgroup.freeze"). The shim lives in another one and goes on.

use holdfast_launcher::control::{Order, Report};
use holdfast_launcher::launch::Failure;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// How long the kernel may take: a process in an uninterruptible wait cannot be frozen before that is over.
const WITHIN: Duration = Duration::from_secs(5);

/// The worker's state, and the change under way.
#[derive(Default)]
pub struct Freezer {
    /// As last seen.
    pub frozen: bool,
    change: Option<Change>,
}

struct Change {
    freeze: bool,
    /// `cgroup.events`, which wakes a poll when it changes.
    events: OwnedFd,
    deadline: Instant,
}

impl Freezer {
    /// Begins what was ordered; a change under way is overtaken. Answers at once only where it cannot begin.
    pub fn obey(&mut self, order: &Order, generation: u64, cgroup: Option<&OwnedFd>) -> Option<Report> {
        let freeze = match order {
            Order::Freeze { generation: of } if *of == generation => true,
            Order::Thaw { generation: of } if *of == generation => false,
            // About another start: nothing to do, and nobody to tell.
            Order::Freeze { .. } | Order::Thaw { .. } => return None,
        };
        self.change = None;
        match begin(cgroup, freeze) {
            Ok(events) => {
                self.change = Some(Change { freeze, events, deadline: Instant::now() + WITHIN });
                None
            }
            Err(failure) => Some(not_done(freeze, generation, failure)),
        }
    }

    /// What has come of the change under way, once something has.
    pub fn look(&mut self, generation: u64, cgroup: Option<&OwnedFd>) -> Option<Report> {
        let change = self.change.as_ref()?;
        let outcome = match is_frozen(&change.events) {
            Ok(frozen) if frozen == change.freeze => Ok(frozen),
            Ok(_) if Instant::now() < change.deadline => return None,
            Ok(_) => Err(Failure { step: "cgroup.events".to_owned(), errno: Errno::TIMEDOUT.raw_os_error() }),
            Err(errno) => Err(Failure { step: "cgroup.events".to_owned(), errno: errno.raw_os_error() }),
        };
        let freeze = change.freeze;
        self.change = None;
        Some(match outcome {
            Ok(frozen) => {
                self.frozen = frozen;
                if frozen { Report::Frozen { generation } } else { Report::Thawed { generation } }
            }
            Err(failure) => {
                // Half frozen is neither: back to where it was.
                if freeze {
                    let _ = write(cgroup, false);
                }
                not_done(freeze, generation, failure)
            }
        })
    }

    /// Looks at the kernel's own word, for whoever is about to be told: it may have been frozen by hand.
    pub fn look_anew(&mut self, cgroup: Option<&OwnedFd>) {
        let Some(dir) = cgroup else { return };
        let events = rustix::fs::openat(dir, "cgroup.events", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        if let Ok(frozen) = events.and_then(|events| is_frozen(&events)) {
            self.frozen = frozen;
        }
    }

    /// To be polled for a change (POLLPRI).
    pub fn events(&self) -> Option<&OwnedFd> {
        self.change.as_ref().map(|change| &change.events)
    }

    /// When the change under way has taken too long.
    pub fn deadline(&self) -> Option<Instant> {
        self.change.as_ref().map(|change| change.deadline)
    }
}

/// Leaves the cgroup as it is for the next start, which may find it still there.
pub fn leave(cgroup: Option<&OwnedFd>) {
    let _ = write(cgroup, false);
}

fn not_done(freeze: bool, generation: u64, failure: Failure) -> Report {
    if freeze { Report::NotFrozen { generation, failure } } else { Report::NotThawed { generation, failure } }
}

fn begin(cgroup: Option<&OwnedFd>, freeze: bool) -> Result<OwnedFd, Failure> {
    let failed = |step: &str| {
        let step = step.to_owned();
        move |errno: Errno| Failure { step, errno: errno.raw_os_error() }
    };
    let dir = cgroup.ok_or_else(|| failed("cgroup of the worker")(Errno::NOTSUP))?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let events = rustix::fs::openat(dir, "cgroup.events", flags, Mode::empty()).map_err(failed("cgroup.events"))?;
    write(cgroup, freeze).map_err(failed("cgroup.freeze"))?;
    Ok(events)
}

fn write(cgroup: Option<&OwnedFd>, freeze: bool) -> rustix::io::Result<()> {
    let Some(dir) = cgroup else { return Ok(()) };
    let file = rustix::fs::openat(dir, "cgroup.freeze", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, if freeze { b"1" } else { b"0" }).map(drop)
}

fn is_frozen(events: &OwnedFd) -> rustix::io::Result<bool> {
    let mut buffer = [0; 256];
    let len = rustix::io::pread(events, &mut buffer, 0)?;
    Ok(buffer[..len].split(|byte| *byte == b'\n').any(|line| line == b"frozen 1"))
}
