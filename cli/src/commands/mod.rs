//! One file per subcommand.

pub mod system;

use crate::args::{Args, Command};
use holdfast_proto::layout::Layout;
use std::process::ExitCode;

/// Does what was typed.
pub fn run(typed: Args) -> anyhow::Result<ExitCode> {
    match typed.command {
        Command::System(args) => system::run(args, &Layout::system()),
    }
}
