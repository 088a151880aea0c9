//! A call that is made again after its daemon died over it: whether it was done is seen by the worker, never assumed.

use super::{Phase, Verb};
use holdfast_proto::words::Generation;

/// What a second attempt does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// What the first one would have done.
    Do,
    /// Nothing: it was done. Answer how the worker is.
    Answer,
    /// Nothing: it was begun. Answer when the worker is started, or cannot be.
    AwaitStart,
    /// Nothing: the worker has been removed since.
    Gone,
    /// Nothing: whether it was done cannot be known, and twice would be wrong.
    Unknown,
}

/// Decides it. `begun`: the generation when the call began; `now`: how the worker is, if it is on record.
pub fn again(verb: Verb, begun: Generation, now: Option<(Generation, Phase)>) -> Again {
    let Some((generation, phase)) = now else {
        return if verb == Verb::Remove { Again::Answer } else { Again::Gone };
    };
    let is_later = generation > begun;
    match verb {
        // Each start is a generation of its own.
        Verb::Start | Verb::Restart if is_later => Again::AwaitStart,
        Verb::Start | Verb::Restart => Again::Do,
        // It ended, or it could not have been started again.
        Verb::Stop if is_later => Again::Answer,
        Verb::Suspend if !is_later && phase == Phase::Suspended => Again::Answer,
        Verb::Resume if !is_later && phase == Phase::Running => Again::Answer,
        // A signal leaves no trace.
        Verb::Kill => Again::Unknown,
        Verb::Stop | Verb::Suspend | Verb::Resume | Verb::Remove | Verb::Exec => Again::Do,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One line a verb: in the same generation by phase, in a later one, and where the worker is gone.
    const TABLE: &str = "
                created starting running suspending suspended resuming stopping stopped waiting failed | later gone
        start   do      do       do      do         do        do       do       do      do      do     | await gone
        stop    do      do       do      do         do        do       do       do      do      do     | answer gone
        restart do      do       do      do         do        do       do       do      do      do     | await gone
        suspend do      do       do      do         answer    do       do       do      do      do     | do gone
        resume  do      do       answer  do         do        do       do       do      do      do     | do gone
        kill    unknown unknown  unknown unknown    unknown   unknown  unknown  unknown unknown unknown| unknown gone
        rm      do      do       do      do         do        do       do       do      do      do     | do answer
    ";
    const VERBS: [Verb; 7] =
        [Verb::Start, Verb::Stop, Verb::Restart, Verb::Suspend, Verb::Resume, Verb::Kill, Verb::Remove];

    fn word(again: Again) -> &'static str {
        match again {
            Again::Do => "do",
            Again::Answer => "answer",
            Again::AwaitStart => "await",
            Again::Gone => "gone",
            Again::Unknown => "unknown",
        }
    }

    #[test]
    fn a_second_attempt_is_as_the_table_says() {
        let table = TABLE.replace('|', " ");
        let mut rows = table.trim().lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        assert_eq!(rows.next().unwrap()[..10], Phase::ALL.map(Phase::name));
        for (row, verb) in rows.by_ref().zip(VERBS) {
            let at = |generation, phase| word(again(verb, Generation(3), Some((Generation(generation), phase))));
            assert_eq!(row[1..11], Phase::ALL.map(|phase| at(3, phase)), "{row:?}");
            for phase in [Phase::Starting, Phase::Stopped, Phase::Failed] {
                assert_eq!(row[11], at(4, phase), "{row:?} later");
            }
            assert_eq!(row[12], word(again(verb, Generation(3), None)), "{row:?} gone");
        }
        assert!(rows.next().is_none());
    }
}
