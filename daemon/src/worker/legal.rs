//! Which verbs a phase allows, and what works instead where it does not. Pure.

use super::Phase;

/// What an owner asks of one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// `start`.
    Start,
    /// `stop`; always allowed, without effect where it is down.
    Stop,
    /// `restart`; always allowed.
    Restart,
    /// `suspend`.
    Suspend,
    /// `resume`.
    Resume,
    /// `kill`, with any signal.
    Kill,
    /// `rm` without `-f`.
    Remove,
    /// `exec`.
    Exec,
}

impl Verb {
    /// The word that is typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Suspend => "suspend",
            Self::Resume => "resume",
            Self::Kill => "kill",
            Self::Remove => "rm",
            Self::Exec => "exec",
        }
    }
}

/// What works where a verb does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instead {
    /// It is on its way already: look again.
    Wait,
    /// `start`.
    Start,
    /// `restart`.
    Restart,
    /// `resume`.
    Resume,
    /// `stop`.
    Stop,
}

impl Instead {
    /// For a person, about the worker `name`.
    pub fn hint(self, name: &str) -> String {
        match self {
            Self::Wait => {
                format!("it is on its way: look again with `holdfast ps -a`, or end it with `holdfast stop {name}`")
            }
            Self::Start => format!("`holdfast start {name}` starts it"),
            Self::Restart => format!("`holdfast restart {name}` starts it anew"),
            Self::Resume => format!("`holdfast resume {name}` lets it go on, `holdfast restart {name}` starts it anew"),
            Self::Stop => format!("stop it first with `holdfast stop {name}`"),
        }
    }
}

/// `None`: the phase allows it.
pub fn instead(verb: Verb, phase: Phase) -> Option<Instead> {
    match verb {
        Verb::Start => start(phase),
        Verb::Stop | Verb::Restart => None,
        Verb::Suspend => suspend(phase),
        Verb::Resume => resume(phase),
        Verb::Kill => kill(phase),
        Verb::Remove => remove(phase),
        Verb::Exec => exec(phase),
    }
}

fn start(phase: Phase) -> Option<Instead> {
    match phase {
        Phase::Created | Phase::Stopped | Phase::Waiting | Phase::Failed => None,
        Phase::Starting | Phase::Stopping => Some(Instead::Wait),
        Phase::Running => Some(Instead::Restart),
        Phase::Suspending | Phase::Suspended | Phase::Resuming => Some(Instead::Resume),
    }
}

fn suspend(phase: Phase) -> Option<Instead> {
    match phase {
        Phase::Running | Phase::Suspending | Phase::Suspended => None,
        Phase::Starting | Phase::Resuming | Phase::Stopping => Some(Instead::Wait),
        Phase::Created | Phase::Stopped | Phase::Waiting | Phase::Failed => Some(Instead::Start),
    }
}

fn resume(phase: Phase) -> Option<Instead> {
    match phase {
        Phase::Running | Phase::Suspending | Phase::Suspended | Phase::Resuming => None,
        Phase::Starting | Phase::Stopping => Some(Instead::Wait),
        Phase::Created | Phase::Stopped | Phase::Waiting | Phase::Failed => Some(Instead::Start),
    }
}

fn kill(phase: Phase) -> Option<Instead> {
    match phase {
        Phase::Running | Phase::Suspending | Phase::Suspended | Phase::Resuming | Phase::Stopping => None,
        Phase::Starting => Some(Instead::Wait),
        Phase::Waiting => Some(Instead::Stop),
        Phase::Created | Phase::Stopped | Phase::Failed => Some(Instead::Start),
    }
}

fn exec(phase: Phase) -> Option<Instead> {
    match phase {
        Phase::Running => None,
        Phase::Suspending | Phase::Suspended => Some(Instead::Resume),
        Phase::Starting | Phase::Resuming | Phase::Stopping => Some(Instead::Wait),
        Phase::Created | Phase::Stopped | Phase::Waiting | Phase::Failed => Some(Instead::Start),
    }
}

fn remove(phase: Phase) -> Option<Instead> {
    match phase {
        Phase::Created | Phase::Stopped | Phase::Failed => None,
        Phase::Starting
        | Phase::Running
        | Phase::Suspending
        | Phase::Suspended
        | Phase::Resuming
        | Phase::Stopping
        | Phase::Waiting => Some(Instead::Stop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::{Action, Command, Event, RestartPolicy, Timestamp, Worker, step};
    use std::time::Duration;

    const VERBS: [Verb; 8] =
        [Verb::Start, Verb::Stop, Verb::Restart, Verb::Suspend, Verb::Resume, Verb::Kill, Verb::Remove, Verb::Exec];

    /// `.`: allowed; else what works instead.
    const TABLE: &str = "
verb     created starting running suspending suspended resuming stopping stopped waiting failed
start    .       wait     restart resume     resume    resume   wait     .       .       .
stop     .       .        .       .          .         .        .        .       .       .
restart  .       .        .       .          .         .        .        .       .       .
suspend  start   wait     .       .          .         wait     wait     start   start   start
resume   start   wait     .       .          .         .        wait     start   start   start
kill     start   wait     .       .          .         .        .        start   stop    start
rm       .       stop     stop    stop       stop      stop     stop     .       stop    .
exec     start   wait     .       resume     resume    wait     wait     start   start   start
";

    fn word(verb: Verb, phase: Phase) -> &'static str {
        match instead(verb, phase) {
            None => ".",
            Some(Instead::Wait) => "wait",
            Some(Instead::Start) => "start",
            Some(Instead::Restart) => "restart",
            Some(Instead::Resume) => "resume",
            Some(Instead::Stop) => "stop",
        }
    }

    #[test]
    fn every_verb_meets_every_phase_as_the_table_says() {
        let mut rows = TABLE.trim().lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        assert_eq!(rows.next().unwrap()[1..], Phase::ALL.map(Phase::name));
        for (row, verb) in rows.by_ref().zip(VERBS) {
            assert_eq!(row[0], verb.name());
            assert_eq!(row[1..], Phase::ALL.map(|phase| word(verb, phase)), "{}", verb.name());
        }
        assert!(rows.next().is_none());
    }

    /// The table of refusals and the table of steps are one: neither refuses what the other does.
    #[test]
    fn what_is_refused_is_what_step_refuses() {
        let grace = Duration::ZERO;
        let commands = [
            (Verb::Start, Command::Start),
            (Verb::Stop, Command::Stop { grace }),
            (Verb::Stop, Command::PowerOff { grace }),
            (Verb::Restart, Command::Restart { grace }),
            (Verb::Suspend, Command::Suspend),
            (Verb::Resume, Command::Resume),
        ];
        for (verb, command) in commands {
            for phase in Phase::ALL {
                let worker = Worker { phase, ..Worker::created(RestartPolicy::No) };
                let (after, actions) = step(&worker, Event::Told(command), Timestamp(1));
                let refused = instead(verb, phase).is_some();
                assert_eq!(actions.contains(&Action::Refuse), refused, "{} in {}", verb.name(), phase.name());
                assert!(!refused || after == worker);
            }
        }
    }

    #[test]
    fn each_hint_names_the_worker() {
        for way in [Instead::Wait, Instead::Start, Instead::Restart, Instead::Resume, Instead::Stop] {
            assert!(way.hint("web").contains("web"));
        }
    }
}
