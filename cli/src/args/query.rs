//! What was typed after the verbs that look for workers: `ps`, `prune`.

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
