//! The other programs, as the daemon sees them.

use crate::supervisor::Shared;
use holdfast_proto::daemon::ProgramStatus;

/// Helper and launcher, by the helper's word.
pub async fn programs(shared: &Shared) -> Vec<ProgramStatus> {
    let health = match shared.helper.health().await {
        Ok(health) => health,
        Err(problem) => {
            let program = |name: &str| ProgramStatus {
                name: name.into(),
                version: String::new(),
                pid: 0,
                healthy: false,
                why: problem.to_string(),
            };
            return vec![program("holdfast-helper"), program("holdfast-launcher")];
        }
    };
    let helper = ProgramStatus {
        name: "holdfast-helper".into(),
        version: health.version,
        pid: health.pid,
        healthy: true,
        why: health.forward_blockers.join("; "),
    };
    let why = if health.launcher_connected {
        String::new()
    } else {
        format!("the helper has no connection of {}'s launcher; it dials by itself when it runs", shared.owner)
    };
    let launcher = ProgramStatus {
        name: "holdfast-launcher".into(),
        version: health.launcher_version,
        pid: health.launcher_pid,
        healthy: health.launcher_connected,
        why,
    };
    vec![helper, launcher]
}
