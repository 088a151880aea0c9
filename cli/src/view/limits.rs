//! Limits and who enforces them, for people and for scripts.

use super::usage::bytes;
use holdfast_proto::daemon::{Enforced, Enforcer, InspectReply, Limits};
use serde::Serialize;

/// Where nothing was asked for.
const PIDS: u32 = 4096;

/// `limits` of `inspect --json`.
#[derive(Debug, Serialize)]
pub struct LimitsJson {
    memory_bytes: Option<u64>,
    cpus: Option<f64>,
    pids: u32,
    best_effort: bool,
    /// None where it does not run.
    enforced_by: Option<EnforcedJson>,
}

/// `cgroup`, `rlimit`, `nobody`; none where there is no such limit.
#[derive(Debug, Serialize)]
struct EnforcedJson {
    memory: Option<&'static str>,
    cpus: Option<&'static str>,
    pids: Option<&'static str>,
}

/// For scripts.
pub fn json(reply: &InspectReply) -> LimitsJson {
    let limits = asked(reply);
    let by = |enforced: &Enforced| EnforcedJson {
        memory: name(enforced.memory()),
        cpus: name(enforced.cpu()),
        pids: name(enforced.pids()),
    };
    LimitsJson {
        memory_bytes: limits.memory_bytes,
        cpus: limits.cpu_millis.map(processors),
        pids: limits.pids.unwrap_or(PIDS),
        best_effort: limits.best_effort,
        enforced_by: reply.enforced.as_ref().map(by),
    }
}

/// For people: `memory 512.0M (cgroup), pids 4096 (rlimit)`.
pub fn line(reply: &InspectReply) -> String {
    let limits = asked(reply);
    let enforced = reply.enforced.unwrap_or_default();
    let by = |enforcer| name(enforcer).map_or_else(String::new, |name| format!(" ({name})"));
    let memory = limits.memory_bytes.map(|limit| format!("memory {}{}", bytes(limit), by(enforced.memory())));
    let cpus = limits.cpu_millis.map(|millis| format!("cpus {}{}", processors(millis), by(enforced.cpu())));
    let pids = format!("pids {}{}", limits.pids.unwrap_or(PIDS), by(enforced.pids()));
    memory.into_iter().chain(cpus).chain([pids]).collect::<Vec<_>>().join(", ")
}

fn asked(reply: &InspectReply) -> Limits {
    reply.spec.as_ref().and_then(|spec| spec.limits).unwrap_or_default()
}

fn processors(millis: u32) -> f64 {
    f64::from(millis) / 1000.0
}

fn name(enforcer: Enforcer) -> Option<&'static str> {
    match enforcer {
        Enforcer::Unspecified => None,
        Enforcer::Cgroup => Some("cgroup"),
        Enforcer::Rlimit => Some("rlimit"),
        Enforcer::Nobody => Some("nobody"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_proto::daemon::WorkerSpec;

    #[test]
    fn limits_are_told_with_who_enforces_them() {
        let mut reply = InspectReply::default();
        assert_eq!(line(&reply), "pids 4096");
        let limits = Limits { memory_bytes: Some(512 << 20), cpu_millis: Some(1500), pids: Some(9), best_effort: true };
        reply.spec = Some(WorkerSpec { limits: Some(limits), ..WorkerSpec::default() });
        reply.enforced = Some(Enforced {
            memory: Enforcer::Cgroup.into(),
            cpu: Enforcer::Nobody.into(),
            pids: Enforcer::Rlimit.into(),
        });
        assert_eq!(line(&reply), "memory 512.0M (cgroup), cpus 1.5 (nobody), pids 9 (rlimit)");
        let expected = serde_json::json!({"memory_bytes": 512 << 20, "cpus": 1.5, "pids": 9, "best_effort": true,
            "enforced_by": {"memory": "cgroup", "cpus": "nobody", "pids": "rlimit"}});
        assert_eq!(serde_json::to_value(json(&reply)).unwrap(), expected);
    }
}
