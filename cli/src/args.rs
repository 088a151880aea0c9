//! What was typed.

use crate::commands;
use clap::{Parser, Subcommand};

/// Long-lived, network-isolated workers for an ordinary user.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version = holdfast_proto::VERSION, arg_required_else_help = true)]
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
    /// Install, look after and remove the system's Holdfast (root)
    System(commands::system::SystemArgs),
}
