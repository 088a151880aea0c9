//! What was typed after `holdfast network`.

use crate::spec;
use clap::{Args, Subcommand};

/// `network`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  holdfast network create shop                      workers of it see each other, also by name
  holdfast run -d --name db --network shop -- postgres
  holdfast run -d --name web --network shop -p 8080:80 -- webd      (reaches db as `db`)
  holdfast network create vault --internal          nothing but its own workers in reach
  holdfast network ls
  holdfast network inspect shop --json | jq -r '.workers[].name'
  holdfast network rm shop

Workers of different networks, and those of the default network `bridge`, do not see each other: they reach the
outside, and what others publish.")]
pub struct NetworkArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: NetworkCommand,
}

/// What to do with networks.
#[derive(Debug, Subcommand)]
pub enum NetworkCommand {
    /// Make a network
    Create(CreateArgs),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Show everything about a network
    Inspect(InspectArgs),
    /// Remove networks that no worker is of
    #[command(visible_alias = "remove")]
    Rm(RmArgs),
}

/// `network create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// 1 to 32 of a-z, 0-9 and '-'
    #[arg(value_name = "NAME", value_parser = spec::network_name)]
    pub name: String,
    /// Addresses to begin with: a /22 of your pool, as 10.88.4.0/22 [default: one is chosen, always the same]
    #[arg(long, value_name = "SUBNET")]
    pub subnet: Option<String>,
    /// Nothing outside of the network is in reach, and no port can be published
    #[arg(long)]
    pub internal: bool,
    /// The network as a JSON document
    #[arg(long)]
    pub json: bool,
}

/// `network ls`.
#[derive(Debug, Args)]
pub struct LsArgs {
    /// Names alone
    #[arg(short, long, conflicts_with = "json")]
    pub quiet: bool,
    /// A JSON array
    #[arg(long)]
    pub json: bool,
}

/// `network inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Which
    #[arg(value_name = "NAME")]
    pub name: String,
    /// One JSON document
    #[arg(long)]
    pub json: bool,
}

/// `network rm`.
#[derive(Debug, Args)]
pub struct RmArgs {
    /// Which
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
    /// What went, as a JSON array
    #[arg(long)]
    pub json: bool,
}
