//! Whether and when a worker that ended starts again. Pure.

use super::End;
pub use holdfast_proto::restart::RestartPolicy;
use std::time::Duration;

/// First wait before a start by policy; each further strike doubles it.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// Longest wait.
pub const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// A generation that ran for so long takes all strikes back.
pub const WINDOW: Duration = Duration::from_secs(10);

/// Exit code of Holdfast's own failures (the cage, a refusal): starting again would fail again.
const CODE_CAGE: u8 = 125;
/// EX_CONFIG of sysexits(3): the program says that its configuration is wrong.
const CODE_CONFIG: u8 = 78;

/// What follows an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Start again after this wait; the strikes are now so many.
    Retry {
        /// The wait.
        delay: Duration,
        /// Including this end.
        strikes: u32,
    },
    /// Stay down.
    GiveUp,
}

/// Judges an end that nobody planned, after `strikes` earlier ones in a row; `ran` is how long it was up.
pub fn judge(policy: RestartPolicy, end: End, strikes: u32, ran: Duration) -> Verdict {
    let wanted = match policy {
        RestartPolicy::No => false,
        RestartPolicy::OnFailure(_) => end != End::Code(0),
        RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
    };
    let strikes = if ran >= WINDOW { 0 } else { strikes };
    let spent = matches!(policy, RestartPolicy::OnFailure(Some(max)) if strikes >= max);
    if !wanted || spent || is_permanent(end) {
        return Verdict::GiveUp;
    }
    Verdict::Retry { delay: backoff(strikes), strikes: strikes.saturating_add(1) }
}

/// Whether starting again cannot help.
pub fn is_permanent(end: End) -> bool {
    match end {
        End::Code(code) => code == CODE_CAGE || code == CODE_CONFIG,
        End::NotStarted(_) => true,
        End::Signal(_) | End::Lost => false,
    }
}

fn backoff(strikes: u32) -> Duration {
    BACKOFF_FIRST.saturating_mul(2u32.saturating_pow(strikes)).min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(5);

    #[test]
    fn the_wait_doubles_up_to_its_ceiling_and_a_long_run_resets_it() {
        let always = |strikes, ran| judge(RestartPolicy::Always, End::Code(1), strikes, ran);
        let mut strikes = 0;
        let mut waits = Vec::new();
        for _ in 0..12 {
            match always(strikes, SHORT) {
                Verdict::Retry { delay, strikes: next } => {
                    waits.push(delay.as_millis());
                    strikes = next;
                }
                Verdict::GiveUp => panic!("gave up"),
            }
        }
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000]);
        assert_eq!(always(strikes, WINDOW), Verdict::Retry { delay: BACKOFF_FIRST, strikes: 1 });
        assert_eq!(always(u32::MAX, SHORT), Verdict::Retry { delay: BACKOFF_MAX, strikes: u32::MAX });
    }

    #[test]
    fn each_policy_judges_each_kind_of_end() {
        let ends = [
            (End::Code(0), [false, false, true, true]),
            (End::Code(1), [false, true, true, true]),
            (End::Code(78), [false, false, false, false]),
            (End::Code(125), [false, false, false, false]),
            (End::Signal(9), [false, true, true, true]),
            (End::Signal(15), [false, true, true, true]),
            (End::NotStarted(127), [false, false, false, false]),
            (End::Lost, [false, true, true, true]),
        ];
        let policies =
            [RestartPolicy::No, RestartPolicy::OnFailure(None), RestartPolicy::Always, RestartPolicy::UnlessStopped];
        for (end, expected) in ends {
            for (policy, retries) in policies.into_iter().zip(expected) {
                let verdict = judge(policy, end, 0, SHORT);
                assert_eq!(matches!(verdict, Verdict::Retry { .. }), retries, "{policy:?} after {end:?}");
            }
        }
    }

    #[test]
    fn on_failure_with_a_limit_gives_up_at_it_and_begins_anew_after_a_long_run() {
        let policy = RestartPolicy::OnFailure(Some(2));
        assert!(matches!(judge(policy, End::Code(1), 1, SHORT), Verdict::Retry { strikes: 2, .. }));
        assert_eq!(judge(policy, End::Code(1), 2, SHORT), Verdict::GiveUp);
        assert!(matches!(judge(policy, End::Code(1), 2, WINDOW), Verdict::Retry { strikes: 1, .. }));
    }
}
