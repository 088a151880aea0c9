//! The limits that a main started with, against prlimit(2) by another process of its owner (threat T03): the kernel lets
//! any process of the same uid change them. A soft limit is put back; a hard one that was lowered cannot be, so the
//! process must end and be started again. That costs nothing: no worker depends on it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::sync::OnceLock;

/// What can make a call of ours fail or end us. Descriptors, files, processes, memory, time.
const WATCHED: &[(Resource, &str)] = &[
    (Resource::Nofile, "open files"),
    (Resource::Fsize, "file size"),
    (Resource::Nproc, "processes"),
    (Resource::As, "address space"),
    (Resource::Data, "data"),
    (Resource::Stack, "stack"),
    (Resource::Cpu, "CPU time"),
    (Resource::Memlock, "locked memory"),
    (Resource::Sigpending, "pending signals"),
];

static AT_START: OnceLock<Vec<Rlimit>> = OnceLock::new();

/// A hard limit is lower than at the start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("somebody lowered this process's limit of {0} for good")]
pub struct Lowered(&'static str);

/// Notes the limits as they are. To be called once they are as they should be.
pub fn remember() {
    let now = WATCHED.iter().map(|(resource, _)| getrlimit(*resource)).collect();
    // A second call changes nothing: the first ones are right.
    let _ = AT_START.set(now);
}

/// Puts soft limits back, and returns whether one had been changed. Costs one system call a limit.
///
/// # Errors
/// Where a hard limit was lowered.
pub fn put_back() -> Result<bool, Lowered> {
    let Some(at_start) = AT_START.get() else { return Ok(false) };
    let mut changed = false;
    for ((resource, name), start) in WATCHED.iter().zip(at_start) {
        match judge(start, &getrlimit(*resource)) {
            Verdict::AsItWas => {}
            Verdict::PutBack(limit) => {
                setrlimit(*resource, limit).map_err(|_| Lowered(name))?;
                changed = true;
            }
            Verdict::ForGood => return Err(Lowered(name)),
        }
    }
    Ok(changed)
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    AsItWas,
    PutBack(Rlimit),
    ForGood,
}

/// No limit at all is above every limit.
fn judge(start: &Rlimit, now: &Rlimit) -> Verdict {
    let height = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
    if height(now.maximum) < height(start.maximum) {
        Verdict::ForGood
    } else if now.current == start.current {
        Verdict::AsItWas
    } else {
        Verdict::PutBack(Rlimit { current: start.current, maximum: now.maximum })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn limit(current: Option<u64>, maximum: Option<u64>) -> Rlimit {
        Rlimit { current, maximum }
    }

    #[test]
    fn soft_limits_come_back_and_hard_ones_that_were_lowered_do_not() {
        let values = [Some(0), Some(5), Some(1024), None];
        for start in values.iter().flat_map(|soft| values.iter().map(|hard| limit(*soft, *hard))) {
            for now in values.iter().flat_map(|soft| values.iter().map(|hard| limit(*soft, *hard))) {
                let lower = now.maximum.unwrap_or(u64::MAX) < start.maximum.unwrap_or(u64::MAX);
                let expected = match (lower, now.current == start.current) {
                    (true, _) => Verdict::ForGood,
                    (false, true) => Verdict::AsItWas,
                    (false, false) => Verdict::PutBack(limit(start.current, now.maximum)),
                };
                assert_eq!(judge(&start, &now), expected, "{start:?} {now:?}");
            }
        }
    }

    #[test]
    fn a_limit_that_another_lowers_is_as_before_after_the_next_look() {
        remember();
        let before = getrlimit(Resource::Fsize);
        assert_eq!(put_back(), Ok(false));
        setrlimit(Resource::Fsize, limit(Some(1 << 30), before.maximum)).unwrap();
        assert_eq!(put_back(), Ok(true));
        assert_eq!(getrlimit(Resource::Fsize), before);
    }
}
