//! What TAB offers: live names, phases, networks. Silent where no daemon answers at once.

use crate::args::Args;
use crate::caller::Caller;
use crate::client;
use crate::view::phase;
use clap::CommandFactory;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use holdfast_proto::daemon::{ListRequest, Phase, Worker};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::time::Duration;

/// Most time for the daemon to say what there is: somebody waits with a finger on the key.
const ASK_MAX: Duration = Duration::from_millis(300);
/// Most names that are offered.
const NAMES_MAX: usize = 1000;
const FILTER_KEYS: [&str; 6] = ["label=", "name=", "id=", "external-id=", "network=", "phase="];

/// The command with what its words may be; each verb that takes a WORKER is offered names.
pub fn command() -> clap::Command {
    with_candidates(Args::command())
}

fn with_candidates(command: clap::Command) -> clap::Command {
    let verb = command.get_name().to_owned();
    command.mut_args(|arg| offer(&verb, arg)).mut_subcommands(with_candidates)
}

fn offer(verb: &str, arg: clap::Arg) -> clap::Arg {
    let value = arg.get_value_names().and_then(|names| names.first()).map(|name| name.to_string());
    let network = matches!(arg.get_long(), Some("net" | "network")) && arg.get_possible_values().is_empty();
    match value.as_deref() {
        Some("WORKER") => {
            let wanted = wanted_by(verb);
            arg.add(ArgValueCompleter::new(move |typed: &OsStr| named(&workers(), typed, wanted)))
        }
        Some("KEY=VALUE") if arg.get_long() == Some("filter") => {
            arg.add(ArgValueCompleter::new(|typed: &OsStr| filters(&workers(), typed)))
        }
        Some(_) if network => {
            arg.add(ArgValueCompleter::new(|typed: &OsStr| beginning(networks(&workers()), "", typed)))
        }
        Some("TOPIC|VERB") => {
            let topics = crate::help::TOPICS.map(|topic| topic.name);
            let verbs = Args::command();
            let verbs = verbs.get_subcommands().filter(|verb| !verb.is_hide_set()).map(|verb| verb.get_name());
            let words: Vec<String> = topics.into_iter().chain(verbs).map(str::to_owned).collect();
            arg.add(ArgValueCompleter::new(move |typed: &OsStr| beginning(words.iter().cloned(), "", typed)))
        }
        Some(_) | None => arg,
    }
}

/// Which workers a verb does something with.
fn wanted_by(verb: &str) -> fn(Phase) -> bool {
    match verb {
        "start" => |phase| !is_live(phase),
        "resume" => |phase| matches!(phase, Phase::Suspended | Phase::Suspending),
        "stop" | "kill" | "suspend" | "exec" | "stats" => |phase| is_live(phase) || phase == Phase::Waiting,
        _ => |_| true,
    }
}

fn is_live(phase: Phase) -> bool {
    !matches!(phase, Phase::Unspecified | Phase::Created | Phase::Stopped | Phase::Waiting | Phase::Failed)
}

fn named(workers: &[Worker], typed: &OsStr, wanted: fn(Phase) -> bool) -> Vec<CompletionCandidate> {
    let fitting = workers.iter().filter(|worker| wanted(worker.phase()));
    beginning(fitting.map(|worker| worker.name.clone()), "", typed)
}

fn networks(workers: &[Worker]) -> BTreeSet<String> {
    let used = workers.iter().map(|worker| worker.network.clone());
    used.chain(["bridge".to_owned(), "none".to_owned()]).collect()
}

fn filters(workers: &[Worker], typed: &OsStr) -> Vec<CompletionCandidate> {
    let all = |prefix: &'static str, values: BTreeSet<String>| beginning(values, prefix, typed);
    match typed.to_str().and_then(|typed| typed.split_once('=')).map(|(key, _)| key) {
        Some("phase") => {
            let phases =
                (1..=10).filter_map(|number| Phase::try_from(number).ok()).map(|known| phase(known).to_owned());
            all("phase=", phases.collect())
        }
        Some("network") => all("network=", networks(workers)),
        Some("name") => all("name=", workers.iter().map(|worker| worker.name.clone()).collect()),
        Some("label") => {
            let labels = workers.iter().flat_map(|worker| worker.labels.iter());
            all("label=", labels.map(|(key, value)| format!("{key}={value}")).collect())
        }
        Some(_) => Vec::new(),
        None => all("", FILTER_KEYS.map(str::to_owned).into()),
    }
}

/// What begins as it was typed; nothing with characters that a shell or a terminal would act on.
fn beginning(values: impl IntoIterator<Item = String>, prefix: &str, typed: &OsStr) -> Vec<CompletionCandidate> {
    let Some(typed) = typed.to_str() else { return Vec::new() };
    let plain = |value: &str| value.chars().all(|letter| letter.is_alphanumeric() || "-_.:/=*".contains(letter));
    let whole = values.into_iter().filter(|value| plain(value)).map(|value| format!("{prefix}{value}"));
    whole.filter(|value| value.starts_with(typed)).take(NAMES_MAX).map(CompletionCandidate::new).collect()
}

/// Every worker of the owner; none where that cannot be known at once.
fn workers() -> Vec<Worker> {
    let ask = || -> anyhow::Result<Vec<Worker>> {
        let caller = Caller::of_process(typed_owner().as_deref())?;
        let candidates = client::sockets(&caller);
        caller.become_owner()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let reply = runtime.block_on(async {
            let asked = async {
                let mut daemon = client::connect(&caller, &candidates).await?;
                let request = ListRequest { all: true, ..ListRequest::default() };
                anyhow::Ok(daemon.rpc.list(request).await?.into_inner().workers)
            };
            tokio::time::timeout(ASK_MAX, asked).await
        });
        runtime.shutdown_background();
        reply?
    };
    ask().unwrap_or_default()
}

/// Root says whose workers it means: as far as it was typed.
fn typed_owner() -> Option<String> {
    let mut words = std::env::args().skip_while(|word| word != "--").skip(1);
    while let Some(word) = words.next() {
        match word.strip_prefix("--owner") {
            Some("") => return words.next(),
            Some(given) => return given.strip_prefix('=').map(str::to_owned),
            None => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(name: &str, phase: Phase) -> Worker {
        let labels = [("app".to_owned(), "shop".to_owned())].into();
        Worker { name: name.into(), phase: phase.into(), network: "front".into(), labels, ..Worker::default() }
    }

    fn shown(candidates: Vec<CompletionCandidate>) -> Vec<String> {
        candidates.iter().map(|candidate| candidate.get_value().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_verb_is_offered_the_workers_that_it_does_something_with() {
        let all = [worker("web", Phase::Running), worker("wait", Phase::Waiting), worker("was", Phase::Stopped)];
        let offered = |verb: &str, typed: &str| shown(named(&all, OsStr::new(typed), wanted_by(verb)));
        assert_eq!(offered("stop", "w"), ["web", "wait"]);
        assert_eq!(offered("start", "w"), ["wait", "was"]);
        assert_eq!(offered("logs", "wa"), ["wait", "was"]);
        assert_eq!(offered("logs", "x"), [""; 0]);
        let hostile = [worker("$(reboot)", Phase::Running), worker("a\x1bb", Phase::Running)];
        assert_eq!(shown(named(&hostile, OsStr::new(""), wanted_by("logs"))), [""; 0]);
    }

    #[test]
    fn filters_are_offered_key_by_key() {
        let all = [worker("web", Phase::Running)];
        let offered = |typed: &str| shown(filters(&all, OsStr::new(typed)));
        assert_eq!(offered("n"), ["name=", "network="]);
        assert_eq!(
            offered("phase=s"),
            ["phase=starting", "phase=stopped", "phase=stopping", "phase=suspended", "phase=suspending"]
        );
        assert_eq!(offered("network="), ["network=bridge", "network=front", "network=none"]);
        assert_eq!(offered("name=w"), ["name=web"]);
        assert_eq!(offered("label=a"), ["label=app=shop"]);
        assert_eq!(offered("nosuch="), [""; 0]);
    }

    #[test]
    fn every_verb_that_takes_workers_has_candidates() {
        let command = command();
        for verb in command.get_subcommands() {
            for arg in verb.get_arguments() {
                if arg.get_value_names().is_some_and(|names| names.iter().any(|name| name.as_str() == "WORKER")) {
                    assert!(arg.get::<ArgValueCompleter>().is_some(), "{}", verb.get_name());
                }
            }
        }
    }
}
