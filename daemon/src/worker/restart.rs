//! Whether and when a worker that ended starts again. Pure.

use super::End;
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

/// When a worker that ended by itself starts again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Never.
    No,
    /// After an end other than code 0, at most so many strikes in a row where given.
    OnFailure(Option<u32>),
    /// After every end.
    Always,
    /// As `Always`; differs at a host's start alone, where a worker that was stopped stays so.
    UnlessStopped,
}

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

impl RestartPolicy {
    /// Judges an end that nobody planned, after `strikes` earlier ones in a row; `ran` is how long it was up.
    pub fn after(self, end: End, strikes: u32, ran: Duration) -> Verdict {
        let wanted = match self {
            Self::No => false,
            Self::OnFailure(_) => end != End::Code(0),
            Self::Always | Self::UnlessStopped => true,
        };
        let strikes = if ran >= WINDOW { 0 } else { strikes };
        let spent = matches!(self, Self::OnFailure(Some(max)) if strikes >= max);
        if !wanted || spent || is_permanent(end) {
            return Verdict::GiveUp;
        }
        Verdict::Retry { delay: backoff(strikes), strikes: strikes.saturating_add(1) }
    }

    /// The stored form, as an operator would write it.
    pub fn to_text(self) -> String {
        match self {
            Self::No => "no".into(),
            Self::OnFailure(None) => "on-failure".into(),
            Self::OnFailure(Some(max)) => format!("on-failure:{max}"),
            Self::Always => "always".into(),
            Self::UnlessStopped => "unless-stopped".into(),
        }
    }

    /// Reads [`RestartPolicy::to_text`].
    pub fn from_text(text: &str) -> Option<Self> {
        match text {
            "no" => Some(Self::No),
            "on-failure" => Some(Self::OnFailure(None)),
            "always" => Some(Self::Always),
            "unless-stopped" => Some(Self::UnlessStopped),
            _ => text.strip_prefix("on-failure:")?.parse().ok().map(|max| Self::OnFailure(Some(max))),
        }
    }
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
        let mut strikes = 0;
        let mut waits = Vec::new();
        for _ in 0..12 {
            match RestartPolicy::Always.after(End::Code(1), strikes, SHORT) {
                Verdict::Retry { delay, strikes: next } => {
                    waits.push(delay.as_millis());
                    strikes = next;
                }
                Verdict::GiveUp => panic!("gave up"),
            }
        }
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000]);
        let after_long = RestartPolicy::Always.after(End::Code(1), strikes, WINDOW);
        assert_eq!(after_long, Verdict::Retry { delay: BACKOFF_FIRST, strikes: 1 });
        let far = RestartPolicy::Always.after(End::Code(1), u32::MAX, SHORT);
        assert_eq!(far, Verdict::Retry { delay: BACKOFF_MAX, strikes: u32::MAX });
    }

    #[test]
    fn each_policy_judges_each_kind_of_end() {
        let ends = [
            (End::Code(0), [false, false, true, true]),
            (End::Code(1), [false, true, true, true]),
            (End::Code(78), [false, false, false, false]),
            (End::Code(125), [false, false, false, false]),
            (End::Signal(9), [false, true, true, true]),
            (End::NotStarted(127), [false, false, false, false]),
            (End::Lost, [false, true, true, true]),
        ];
        let policies =
            [RestartPolicy::No, RestartPolicy::OnFailure(None), RestartPolicy::Always, RestartPolicy::UnlessStopped];
        for (end, expected) in ends {
            for (policy, retries) in policies.into_iter().zip(expected) {
                let verdict = policy.after(end, 0, SHORT);
                assert_eq!(matches!(verdict, Verdict::Retry { .. }), retries, "{policy:?} after {end:?}");
            }
        }
    }

    #[test]
    fn on_failure_with_a_limit_gives_up_at_it() {
        let policy = RestartPolicy::OnFailure(Some(2));
        assert!(matches!(policy.after(End::Code(1), 1, SHORT), Verdict::Retry { strikes: 2, .. }));
        assert_eq!(policy.after(End::Code(1), 2, SHORT), Verdict::GiveUp);
    }

    #[test]
    fn the_stored_form_reads_back() {
        for policy in [
            RestartPolicy::No,
            RestartPolicy::OnFailure(None),
            RestartPolicy::OnFailure(Some(7)),
            RestartPolicy::Always,
            RestartPolicy::UnlessStopped,
        ] {
            assert_eq!(RestartPolicy::from_text(&policy.to_text()), Some(policy));
        }
        assert_eq!(RestartPolicy::from_text("sometimes"), None);
    }
}
