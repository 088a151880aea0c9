//! What was typed after the verbs that look for workers: `ps`, `prune`, `logs`, `events`.

use crate::moment::Moment;
use crate::view::template::Template;
use clap::Args;

/// `ps`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  holdfast ps                  live workers
  holdfast ps -a               also those that ended
  holdfast ps --filter label=app=shop --filter network=bridge
  holdfast ps --filter phase=failed --format '{{.Name}} {{.ExitCode}}'
  holdfast ps --format 'table {{.Name}}\\t{{.Ports}}\\t{{.Label \"app\"}}'
  holdfast rm $(holdfast ps -aq)
  holdfast ps -a --json | jq -r '.[] | select(.exit.code != 0) | .name'

Filters, all of which must hold: label=KEY, label=KEY=VALUE, name=NAME (* for any characters), id=PREFIX,
external-id=ID, network=NETWORK, phase=PHASE (several: any of them; brings workers that ended without -a).
Fields of --format: .ID .Name .Phase .Status .Since .Pid .Addresses .Ports .Command .Network .Labels .Owner
.Generation .Restarts .ExitCode .ExternalID .CreatedAt .StartedAt .FinishedAt, and .Label \"KEY\"")]
pub struct PsArgs {
    /// Also workers that are down and stay down
    #[arg(short, long)]
    pub all: bool,
    /// Only workers that are so: KEY=VALUE, repeatable
    #[arg(short, long = "filter", value_name = "KEY=VALUE")]
    pub filters: Vec<String>,
    /// A line each by this template, as '{{.Name}} {{.Phase}}'; after the word `table`, columns with heads
    #[arg(long, value_name = "TEMPLATE", conflicts_with_all = ["json", "quiet"])]
    pub format: Option<Template>,
    /// Ids alone
    #[arg(short, long, conflicts_with = "json")]
    pub quiet: bool,
    /// A JSON array
    #[arg(long)]
    pub json: bool,
}

/// `prune`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  holdfast prune               asks first
  holdfast prune --yes         for scripts
  holdfast prune --filter label=app=shop --filter phase=stopped --yes

Forgets workers that are stopped or failed, with their output. Live ones, and those that wait to be started again,
stay. Filters are those of `holdfast ps --help`.")]
pub struct PruneArgs {
    /// Only workers that are so: KEY=VALUE, repeatable
    #[arg(long = "filter", value_name = "KEY=VALUE")]
    pub filters: Vec<String>,
    /// Do not ask
    #[arg(short, long, visible_short_alias = 'f')]
    pub yes: bool,
    /// What went, as a JSON document
    #[arg(long)]
    pub json: bool,
}

/// `events`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  holdfast events                       what is kept, oldest first
  holdfast events -f                    from now on, until Ctrl-C
  holdfast events -f --since 10m --filter label=app=shop --filter kind=failed
  holdfast events -f --cursor 1734 --json | while read -r event; do ...; done

Each event has a cursor; --cursor N goes on after it, and misses nothing and repeats nothing, whatever was restarted
meanwhile. The newest 100,000 events are kept.
Kinds: created, started, exited, restarting, suspended, resumed, stopped, failed, removed, network-created,
network-removed. Other filters are those of `holdfast ps --help`, but for phase.")]
pub struct EventsArgs {
    /// Go on with what happens
    #[arg(short, long)]
    pub follow: bool,
    /// Only events of this time or later: 10m (ago), 2026-11-21T15:30:00Z
    #[arg(long, value_name = "TIME|DURATION")]
    pub since: Option<Moment>,
    /// Only events before this time
    #[arg(long, value_name = "TIME|DURATION")]
    pub until: Option<Moment>,
    /// Only events after this one; 0: from the oldest that is kept
    #[arg(long, value_name = "N")]
    pub cursor: Option<u64>,
    /// Only events that are so: KEY=VALUE, repeatable
    #[arg(long = "filter", value_name = "KEY=VALUE")]
    pub filters: Vec<String>,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// `logs`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  holdfast logs web            everything that is kept; stdout to stdout, stderr to stderr
  holdfast logs --tail 20 web
  holdfast logs -f web         go on until the worker ends
  holdfast logs --since 10m --until 5m --timestamps web
  holdfast logs -f --since '2026-11-21 15:30' web

--since and --until take 90s, 10m, 1h30m, 2d (ago), 2026-11-21T15:30:00Z, a date with or without time (here), or
seconds since 1970.")]
pub struct LogsArgs {
    /// Go on until the worker is down for good
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last N lines
    #[arg(short = 'n', long, value_name = "N")]
    pub tail: Option<u64>,
    /// Only what was written at this time or later
    #[arg(long, value_name = "TIME|DURATION")]
    pub since: Option<Moment>,
    /// Only what was written before this time
    #[arg(long, value_name = "TIME|DURATION")]
    pub until: Option<Moment>,
    /// Begin each line with the time when it was written
    #[arg(short, long)]
    pub timestamps: bool,
    /// Name, id, or the first four or more characters of an id
    #[arg(value_name = "WORKER")]
    pub worker: String,
}
