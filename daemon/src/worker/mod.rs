//! What a worker is, and what happens to it next. Pure: no clock, no file, no socket, no runtime.

pub mod again;
mod boot;
pub mod cage;
pub mod events;
mod freeze;
pub mod legal;
pub mod limits;
mod network;
pub mod query;
pub mod restart;
pub mod spec;
pub mod step;

pub use legal::{Instead, Verb, instead};
pub use restart::RestartPolicy;
pub use spec::Spec;
pub use step::{Action, Command, Event, Seen, step};

use holdfast_proto::words::Generation;
use std::time::Duration;

/// A moment, in nanoseconds since the Unix epoch. Comes in as a value wherever something is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// So much later.
    pub fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(wait.as_nanos()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this is; zero where the clock went back.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// Where a worker is. Persisted by name; the transitional ones are resolved by what is seen after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// On record, never started.
    Created,
    /// Ordered from the helper; not yet known to be executed.
    Starting,
    /// Executed, and not ended.
    Running,
    /// To be frozen.
    Suspending,
    /// Frozen.
    Suspended,
    /// To be thawed.
    Resuming,
    /// Asked to end, or killed, and not ended yet.
    Stopping,
    /// Ended by intent, or by itself with code 0.
    Stopped,
    /// Ended; starts again when its back-off is over.
    Waiting,
    /// Ended in another way than [`Phase::Stopped`], and will not start by itself.
    Failed,
}

impl Phase {
    /// All of them, in the order of a life.
    pub const ALL: [Self; 10] = [
        Self::Created,
        Self::Starting,
        Self::Running,
        Self::Suspending,
        Self::Suspended,
        Self::Resuming,
        Self::Stopping,
        Self::Stopped,
        Self::Waiting,
        Self::Failed,
    ];

    /// Whether it runs or will by itself: not down for good.
    pub fn is_up(self) -> bool {
        self.is_live() || self == Self::Waiting
    }

    /// Whether a shim of this worker is there, or may be.
    pub fn is_live(self) -> bool {
        match self {
            Self::Starting | Self::Running | Self::Suspending | Self::Suspended | Self::Resuming | Self::Stopping => {
                true
            }
            Self::Created | Self::Stopped | Self::Waiting | Self::Failed => false,
        }
    }

    /// The word of the contract, also its stored form.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Suspending => "suspending",
            Self::Suspended => "suspended",
            Self::Resuming => "resuming",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Waiting => "waiting",
            Self::Failed => "failed",
        }
    }

    /// The phase of a stored name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.name() == name)
    }
}

/// What the owner wants of a worker that is stopping: stay down, or come up again (a restart).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Goal {
    /// It shall run.
    Up,
    /// It shall not.
    Down,
    /// It shall run, and was stopped because the host goes down.
    UpAfterBoot,
}

/// How one generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself, with this code.
    Code(u8),
    /// By this signal.
    Signal(u8),
    /// Never executed; 125, 126 or 127 as the exit record has it.
    NotStarted(u8),
    /// Its shim vanished without a record.
    Lost,
}

/// The state that [`step`] decides upon. Everything else about a worker never changes or decides nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// Where it is.
    pub phase: Phase,
    /// Which start it is in, or was last in.
    pub generation: Generation,
    /// What the owner wants.
    pub goal: Goal,
    /// How it comes up again by itself.
    pub policy: RestartPolicy,
    /// Starts by the policy since its owner last started it.
    pub restarts: u32,
    /// Ends in a row without a run as long as [`restart::WINDOW`]: sets the back-off.
    pub strikes: u32,
    /// When the current generation was executed; `None` where it was not (yet).
    pub started_at: Option<Timestamp>,
    /// Grace of the stop under way.
    pub grace: Duration,
    /// In [`Phase::Waiting`]: when it is started again.
    pub due: Option<Timestamp>,
}

impl Worker {
    /// A worker on record that was never started.
    pub fn created(policy: RestartPolicy) -> Self {
        Self {
            phase: Phase::Created,
            generation: Generation(0),
            goal: Goal::Down,
            policy,
            restarts: 0,
            strikes: 0,
            started_at: None,
            grace: Duration::ZERO,
            due: None,
        }
    }
}
