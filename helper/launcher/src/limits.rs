//! What a worker may use at most, and how each limit is enforced on this host. Pure.
//!
//! A limit is enforced by the worker's cgroup where that has the controller. Processes and threads can be limited
//! without one: RLIMIT_NPROC counts within the worker's own user namespace (since Linux 5.14), so it is the worker's
//! alone. Memory and CPU time have no such equivalent: RLIMIT_AS and RLIMIT_CPU limit one process each, and not what
//! was asked for.

use crate::codec::{Reader, WireError, Writer};

/// Least memory that a limit may leave: less would not start a program.
pub const MEMORY_BYTES_MIN: u64 = 1 << 20;
/// Least CPU time, in thousandths of a processor: the kernel takes no quota below 1 ms per period (cpu.max).
pub const CPU_MILLIS_MIN: u32 = 10;
/// Most processors that can be asked for.
pub const CPU_MILLIS_MAX: u32 = 1_024_000;
/// Most tasks that the kernel can number (PID_MAX_LIMIT).
pub const TASKS_MAX: u32 = 4 << 20;
/// Where nothing was asked for: more than any program that is well, less than what makes a host stumble.
pub const TASKS_DEFAULT: u32 = 4096;

/// Period of the CPU quota, the kernel's own default, in microseconds.
const PERIOD_US: u64 = 100_000;

/// What a worker may use at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes.
    pub memory_bytes: Option<u64>,
    /// Thousandths of a processor.
    pub cpu_millis: Option<u32>,
    /// Processes and threads together.
    pub tasks: u32,
    /// Run also where a limit cannot be enforced.
    pub best_effort: bool,
}

/// One of the things that are limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Memory.
    Memory,
    /// CPU time.
    Cpu,
}

/// Who enforces a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enforcer {
    /// The kernel, by the worker's cgroup.
    Cgroup,
    /// The kernel, by a resource limit of its processes.
    Rlimit,
    /// Nobody: this host cannot, and best effort was asked for.
    Nobody,
}

/// Who enforces which limit; none where there is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Enforced {
    /// Memory.
    pub memory: Option<Enforcer>,
    /// CPU time.
    pub cpu: Option<Enforcer>,
    /// Processes and threads.
    pub tasks: Option<Enforcer>,
}

/// The controllers of a worker's cgroup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Controllers {
    /// `memory`.
    pub memory: bool,
    /// `cpu`.
    pub cpu: bool,
    /// `pids`.
    pub pids: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_bytes: None, cpu_millis: None, tasks: TASKS_DEFAULT, best_effort: false }
    }
}

impl Controllers {
    /// Reads `cgroup.controllers`.
    pub fn parse(text: &str) -> Self {
        let has = |name| text.split_ascii_whitespace().any(|word| word == name);
        Self { memory: has("memory"), cpu: has("cpu"), pids: has("pids") }
    }
}

impl Limit {
    /// Names the step that failed, in a record; read back by [`Limit::of_step`].
    pub fn step(self) -> &'static str {
        match self {
            Self::Memory => "limit of memory: no controller",
            Self::Cpu => "limit of cpu: no controller",
        }
    }

    /// The limit that a failed step names.
    pub fn of_step(step: &str) -> Option<Self> {
        [Self::Memory, Self::Cpu].into_iter().find(|limit| limit.step() == step)
    }

    /// Its controller, and what it is called on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
        }
    }
}

/// How each limit is enforced with these controllers; or the first that cannot be.
pub fn decide(limits: &Limits, there: Controllers) -> Result<Enforced, Limit> {
    let by_cgroup = |wanted: bool, there: bool, limit: Limit| match (wanted, there) {
        (false, _) => Ok(None),
        (true, true) => Ok(Some(Enforcer::Cgroup)),
        (true, false) if limits.best_effort => Ok(Some(Enforcer::Nobody)),
        (true, false) => Err(limit),
    };
    Ok(Enforced {
        memory: by_cgroup(limits.memory_bytes.is_some(), there.memory, Limit::Memory)?,
        cpu: by_cgroup(limits.cpu_millis.is_some(), there.cpu, Limit::Cpu)?,
        tasks: Some(if there.pids { Enforcer::Cgroup } else { Enforcer::Rlimit }),
    })
}

/// A cgroup file to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// In the worker's cgroup.
    pub file: &'static str,
    /// What is written.
    pub value: String,
    /// Some hosts lack it, and the limit holds without it.
    pub may_be_missing: bool,
}

/// What is written into the worker's cgroup, in this order.
pub fn settings(limits: &Limits, enforced: &Enforced) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut set = |file, value: String, may_be_missing| settings.push(Setting { file, value, may_be_missing });
    if let (Some(bytes), Some(Enforcer::Cgroup)) = (limits.memory_bytes, enforced.memory) {
        // Without swap accounting there is no such file; with it, what is over the limit would go there.
        set("memory.swap.max", "0".to_owned(), true);
        // A worker that lost one of its processes is no worker any more: all of it goes, and its end says so.
        set("memory.oom.group", "1".to_owned(), true);
        set("memory.max", bytes.to_string(), false);
    }
    if let (Some(millis), Some(Enforcer::Cgroup)) = (limits.cpu_millis, enforced.cpu) {
        set("cpu.max", format!("{} {PERIOD_US}", u64::from(millis) * PERIOD_US / 1000), false);
    }
    if enforced.tasks == Some(Enforcer::Cgroup) {
        set("pids.max", limits.tasks.to_string(), false);
    }
    settings
}

impl Limits {
    /// Writes the wire form, within another.
    pub fn write(&self, w: &mut Writer) {
        w.u64(self.memory_bytes.unwrap_or(0)).u32(self.cpu_millis.unwrap_or(0)).u32(self.tasks);
        w.u8(self.best_effort.into());
    }

    /// Reads the wire form. A limit that nothing could run under is refused.
    pub fn read(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let limits = Self {
            memory_bytes: Some(r.u64()?).filter(|bytes| *bytes > 0),
            cpu_millis: Some(r.u32()?).filter(|millis| *millis > 0),
            tasks: r.u32()?,
            best_effort: r.bool("best effort")?,
        };
        let memory = limits.memory_bytes.is_none_or(|bytes| bytes >= MEMORY_BYTES_MIN);
        let cpu = limits.cpu_millis.is_none_or(|millis| (CPU_MILLIS_MIN..=CPU_MILLIS_MAX).contains(&millis));
        if memory && cpu && (1..=TASKS_MAX).contains(&limits.tasks) {
            Ok(limits)
        } else {
            Err(WireError::Value("limit"))
        }
    }
}

impl Enforced {
    /// Writes the wire form, within another.
    pub fn write(&self, w: &mut Writer) {
        for enforcer in [self.memory, self.cpu, self.tasks] {
            w.u8(match enforcer {
                None => 0,
                Some(Enforcer::Cgroup) => 1,
                Some(Enforcer::Rlimit) => 2,
                Some(Enforcer::Nobody) => 3,
            });
        }
    }

    /// Reads the wire form.
    pub fn read(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let mut one = || match r.u8()? {
            0 => Ok(None),
            1 => Ok(Some(Enforcer::Cgroup)),
            2 => Ok(Some(Enforcer::Rlimit)),
            3 => Ok(Some(Enforcer::Nobody)),
            _ => Err(WireError::Value("enforcer")),
        };
        Ok(Self { memory: one()?, cpu: one()?, tasks: one()? })
    }
}

#[cfg(test)]
#[path = "limits_tests.rs"]
mod tests;
