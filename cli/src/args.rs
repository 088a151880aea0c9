//! What was typed: the verbs, their options, and the help that teaches them.

pub mod exec;
pub mod limits;
pub mod network;
pub mod query;
pub mod run;
pub mod stats;

use crate::commands;
use clap::{Args as ClapArgs, Parser, Subcommand};
use std::path::PathBuf;

const FIRST_STEPS: &str = "\
First steps:
  sudo holdfast system install --owner $USER       once, by root; afterwards nobody types sudo
  holdfast run -d --name web -p 8080:80 -w ~/site -- python3 -m http.server 80
  holdfast ps
  curl localhost:8080
  holdfast logs -f web
  holdfast stop web && holdfast rm web

Without systemd (a container, CI, a first try):
  sudo holdfast session start --owner $USER

Something wrong? `holdfast doctor` says what, and what to do.
Every verb has examples: holdfast VERB --help
Pages: holdfast help networks | rules | limits | rootfs
Documentation: docs/ of the source (operations.md, privileges.md, contract.md)";

/// Long-lived, network-isolated workers for an ordinary user: whatever happens to Holdfast, they stay alive
#[derive(Debug, Parser)]
#[command(name = "holdfast", version = holdfast_proto::VERSION, arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = FIRST_STEPS, max_term_width = 110)]
pub struct Args {
    /// Whose workers: root has to say, everybody else has their own
    #[arg(long, value_name = "USER", global = true)]
    pub owner: Option<String>,
    /// The verb.
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a worker and start it
    Run(Box<run::RunArgs>),
    /// Run one more program in a running worker
    Exec(exec::ExecArgs),
    /// Sit down at a running worker: its output from now on, and its input
    Attach(exec::AttachArgs),
    /// List workers
    Ps(query::PsArgs),
    /// Show what a worker wrote
    Logs(query::LogsArgs),
    /// Show what happened to workers and networks, and what happens
    Events(query::EventsArgs),
    /// Show everything about a worker
    Inspect(InspectArgs),
    /// Start workers that are not live
    Start(WorkersArgs),
    /// Stop workers: their stop signal, then SIGKILL after the grace
    Stop(StopArgs),
    /// Stop (where they live) and start workers
    Restart(StopArgs),
    /// Freeze workers; addresses, ports and connections stay
    Suspend(SuspendArgs),
    /// Let suspended workers go on
    Resume(SuspendArgs),
    /// Send workers a signal
    Kill(KillArgs),
    /// Forget workers, with their output
    Rm(RmArgs),
    /// Forget all workers that ended, with their output
    Prune(query::PruneArgs),
    /// Wait until workers are down for good, and print their exit codes
    Wait(WorkersArgs),
    /// List a worker's published ports
    Port(PortArgs),
    /// Make, list, look at and remove networks
    Network(network::NetworkArgs),
    /// Show what workers use: CPU, memory, tasks, network
    Stats(stats::StatsArgs),
    /// Watch what workers use, live
    Top(stats::TopArgs),
    /// Say what runs of Holdfast itself
    Status(JsonArgs),
    /// Find out what this host lacks, and what to do
    Doctor(JsonArgs),
    /// Print the version
    Version(JsonArgs),
    /// Print a completion script for a shell: TAB then knows the workers that are there
    Completion(CompletionArgs),
    /// Print a page (networks, rules, limits, rootfs), or the help of a verb
    Help(HelpArgs),
    /// Run Holdfast without systemd
    Session(commands::session::SessionArgs),
    /// Install, look after and remove the system's Holdfast (root)
    System(commands::system::SystemArgs),
    /// See whether there is a newer release, change to it, or go back (root); workers stay
    Update(commands::update::UpdateArgs),
    /// Brings one file of a release to stdout (by `update`, without its rights)
    #[command(hide = true)]
    Fetch(crate::update::fetch::FetchArgs),
    /// Takes on an identity and executes a program (by a session's supervisor)
    #[command(hide = true)]
    SessionExec(crate::session::exec::ExecArgs),
    /// Keeps a session's programs running (by `session start`)
    #[command(hide = true)]
    SessionSupervise(crate::session::supervise::SuperviseArgs),
    /// Removes what is the owner's in a session (by `session stop`)
    #[command(hide = true)]
    SessionClear(crate::session::clear::ClearArgs),
    /// Tries what a worker's cage needs (by `doctor`)
    #[command(hide = true)]
    Probe(crate::doctor::probe::ProbeArgs),
}

/// A verb that takes nothing but the choice of form.
#[derive(Debug, ClapArgs)]
pub struct JsonArgs {
    /// One JSON document instead of prose
    #[arg(long)]
    pub json: bool,
}

/// `inspect`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  holdfast inspect web
  holdfast inspect web --json | jq .history")]
pub struct InspectArgs {
    /// Name, id, or the first four or more characters of an id
    #[arg(value_name = "WORKER")]
    pub worker: String,
    /// One JSON document
    #[arg(long)]
    pub json: bool,
}

/// `start`, `wait`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  holdfast start web db
  holdfast wait web            prints the exit code alone (128+N for signal N)

A worker that its --restart policy starts again is waited for until it is down for good.")]
pub struct WorkersArgs {
    /// Names, ids, or the first four or more characters of ids
    #[arg(value_name = "WORKER", required = true)]
    pub workers: Vec<String>,
}

/// `stop`, `restart`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  holdfast stop web db         returns when they are gone
  holdfast stop -t 60 db       60 seconds to end by itself
  holdfast restart web")]
pub struct StopArgs {
    /// Grace before SIGKILL, instead of the worker's own
    #[arg(short, long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(..=86_400))]
    pub timeout: Option<u32>,
    /// Names, ids, or the first four or more characters of ids
    #[arg(value_name = "WORKER", required = true)]
    pub workers: Vec<String>,
}

/// `suspend`, `resume`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  holdfast suspend web         returns when all of it is frozen; it uses no CPU from then on
  holdfast resume web          it goes on where it was: same pid, same connections

What a client sends meanwhile waits in the kernel; a client that gives up does so by its own timeout.
`holdfast stop` and `holdfast restart` work on a suspended worker, too.")]
pub struct SuspendArgs {
    /// Names, ids, or the first four or more characters of ids
    #[arg(value_name = "WORKER", required = true)]
    pub workers: Vec<String>,
}

/// `kill`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  holdfast kill web            SIGKILL
  holdfast kill -s HUP web     as name or number")]
pub struct KillArgs {
    /// Name (HUP, SIGHUP) or number
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL", value_parser = crate::spec::signal)]
    pub signal: u32,
    /// Names, ids, or the first four or more characters of ids
    #[arg(value_name = "WORKER", required = true)]
    pub workers: Vec<String>,
}

/// `rm`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  holdfast rm web
  holdfast rm -f web           kill it first")]
pub struct RmArgs {
    /// Kill first what is live
    #[arg(short, long)]
    pub force: bool,
    /// Names, ids, or the first four or more characters of ids
    #[arg(value_name = "WORKER", required = true)]
    pub workers: Vec<String>,
}

/// `port`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  holdfast port web            80/tcp -> 0.0.0.0:8080
  holdfast port web --json")]
pub struct PortArgs {
    /// Name, id, or the first four or more characters of an id
    #[arg(value_name = "WORKER")]
    pub worker: String,
    /// A JSON array
    #[arg(long)]
    pub json: bool,
}

/// `completion`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  source <(holdfast completion bash)                      in ~/.bashrc
  source <(holdfast completion zsh)                       in ~/.zshrc
  holdfast completion fish > ~/.config/fish/completions/holdfast.fish

TAB then completes verbs, options, the names of workers that a verb can do something with, filters, phases and networks
(bash: filters up to their `=`); where no daemon answers within 0.3 s, nothing.")]
pub struct CompletionArgs {
    /// Which shell
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// `help`.
#[derive(Debug, ClapArgs)]
pub struct HelpArgs {
    /// A topic (networks, rules, limits, rootfs) or a verb
    #[arg(value_name = "TOPIC|VERB")]
    pub words: Vec<String>,
}

/// A session's directory, as its hidden verbs are told.
#[derive(Debug, ClapArgs)]
pub struct RootArgs {
    /// The session's directory
    #[arg(long, value_name = "DIR")]
    pub root: PathBuf,
}
