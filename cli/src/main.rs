//! `holdfast`: the command that people type.
//!
//! Never does: decide about workers, hold a privilege of its own, talk to the helper.

mod args;
mod commands;
mod exit;
mod install;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let typed = args::Args::parse();
    match commands::run(typed) {
        Ok(code) => code,
        Err(error) => exit::report(&error),
    }
}
