//! Limits as an owner asks for them, parsed. Pure.

use holdfast_launcher::limits::{
    CPU_MILLIS_MAX, CPU_MILLIS_MIN, Limit, Limits, MEMORY_BYTES_MIN, TASKS_DEFAULT, TASKS_MAX,
};
use holdfast_proto::daemon as wire;

/// Why a limit was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// Nothing could start.
    #[error("a memory limit of {0} bytes is too small: use {MEMORY_BYTES_MIN} or more")]
    Memory(u64),
    /// Less than the kernel takes, or more than there can be.
    #[error("a limit of {0} thousandths of a processor: use {CPU_MILLIS_MIN} to {CPU_MILLIS_MAX}")]
    Cpu(u32),
    /// None, or more than can be numbered.
    #[error("a limit of {0} processes and threads: use 1 to {TASKS_MAX}")]
    Pids(u32),
}

/// Limits of a spec; no message is no wish.
pub fn limits(asked: Option<&wire::Limits>) -> Result<Limits, LimitError> {
    let Some(asked) = asked else { return Ok(Limits::default()) };
    if let Some(bytes) = asked.memory_bytes.filter(|bytes| *bytes < MEMORY_BYTES_MIN) {
        return Err(LimitError::Memory(bytes));
    }
    if let Some(millis) = asked.cpu_millis.filter(|millis| !(CPU_MILLIS_MIN..=CPU_MILLIS_MAX).contains(millis)) {
        return Err(LimitError::Cpu(millis));
    }
    let tasks = asked.pids.unwrap_or(TASKS_DEFAULT);
    if !(1..=TASKS_MAX).contains(&tasks) {
        return Err(LimitError::Pids(tasks));
    }
    let (memory_bytes, cpu_millis) = (asked.memory_bytes, asked.cpu_millis);
    Ok(Limits { memory_bytes, cpu_millis, tasks, best_effort: asked.best_effort })
}

/// What is met, and what works instead, where a host cannot enforce a limit.
pub fn not_enforceable(limit: Limit) -> (String, String) {
    let name = limit.name();
    let option = match limit {
        Limit::Memory => "--memory",
        Limit::Cpu => "--cpus",
    };
    (
        format!("{option} cannot be enforced here: the worker's cgroup has no {name} controller"),
        format!(
            "--best-effort runs it without that limit; docs/operations.md (Limits) says which hosts have the {name} controller"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_those_asked_for_or_the_defaults() {
        assert_eq!(limits(None).unwrap(), Limits::default());
        assert_eq!(limits(Some(&wire::Limits::default())).unwrap().tasks, TASKS_DEFAULT);
        let asked =
            wire::Limits { memory_bytes: Some(1 << 20), cpu_millis: Some(10), pids: Some(1), best_effort: true };
        let parsed = Limits { memory_bytes: Some(1 << 20), cpu_millis: Some(10), tasks: 1, best_effort: true };
        assert_eq!(limits(Some(&asked)).unwrap(), parsed);
    }

    #[test]
    fn limits_that_nothing_could_run_under_are_refused() {
        let asked = wire::Limits::default();
        for (asked, error) in [
            (wire::Limits { memory_bytes: Some(0), ..asked }, LimitError::Memory(0)),
            (wire::Limits { memory_bytes: Some((1 << 20) - 1), ..asked }, LimitError::Memory((1 << 20) - 1)),
            (wire::Limits { cpu_millis: Some(0), ..asked }, LimitError::Cpu(0)),
            (wire::Limits { cpu_millis: Some(u32::MAX), ..asked }, LimitError::Cpu(u32::MAX)),
            (wire::Limits { pids: Some(0), ..asked }, LimitError::Pids(0)),
            (wire::Limits { pids: Some(u32::MAX), ..asked }, LimitError::Pids(u32::MAX)),
        ] {
            assert_eq!(limits(Some(&asked)), Err(error));
        }
    }

    #[test]
    fn a_refusal_names_option_controller_and_way_out() {
        for (limit, option, controller) in [(Limit::Memory, "--memory", "memory"), (Limit::Cpu, "--cpus", "cpu")] {
            let (met, way_out) = not_enforceable(limit);
            assert!(
                met.contains(option) && met.contains(controller) && way_out.contains("--best-effort"),
                "{met} {way_out}"
            );
        }
    }
}
