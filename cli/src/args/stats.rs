//! What was typed after `holdfast stats` and `holdfast top`.

use clap::Args;

/// `stats`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  holdfast stats                       live workers, every second until Ctrl-C
  holdfast stats --no-stream web db    once
  holdfast stats --no-stream --json | jq -r '.[] | [.name, .memory_bytes] | @tsv'

CPU % is of one processor: 250 is two and a half of them. TASKS are processes and threads.
MEMORY with ~ is the resident sets of its processes added up, pages that they share several times: this host
has no memory controller for it. DISK is counted where there is an io controller.
With --json and without --no-stream: one JSON array a line.")]
pub struct StatsArgs {
    /// Names, ids, or the first four or more characters of ids [default: all live workers]
    #[arg(value_name = "WORKER", conflicts_with = "all")]
    pub workers: Vec<String>,
    /// Also workers that are not live
    #[arg(short, long)]
    pub all: bool,
    /// Show it once and end
    #[arg(long)]
    pub no_stream: bool,
    /// A JSON array
    #[arg(long)]
    pub json: bool,
}

/// `top`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  holdfast top
  holdfast top -a              also workers that ended

Keys: c m n r u a sort by CPU, memory, network, restarts, uptime, name; R turns the order; / filters by name;
arrows and pages scroll; q quits. The figures are those of `holdfast stats`, which scripts use instead.")]
pub struct TopArgs {
    /// Also workers that are not live
    #[arg(short, long)]
    pub all: bool,
}
