//! `holdfast system`: the installed system, looked after by root.

use clap::{Args, Subcommand};
use holdfast_proto::layout::Layout;
use std::process::ExitCode;

/// What was typed after `holdfast system`.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub struct SystemArgs {
    /// What to do with the installed system.
    #[command(subcommand)]
    pub action: Action,
}

/// The verbs of the installed system.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Say what is installed and what runs
    Status {
        /// Of this owner; the same id and type as the global option of `args.rs`, which it shadows.
        #[arg(long, value_name = "USER")]
        owner: Option<String>,
    },
}

/// Does it to the system at `layout`.
pub fn run(args: SystemArgs, layout: &Layout) -> anyhow::Result<ExitCode> {
    match args.action {
        Action::Status { owner } => {
            let there = layout.install_toml().exists();
            let owner = owner.as_deref().unwrap_or("nobody in particular");
            anstream::println!("installed: {there} (asked for {owner})");
            Ok(ExitCode::SUCCESS)
        }
    }
}
