//! `holdfast`: the command that people type.
//!
//! Never does: decide about workers, hold a privilege of its own, talk to the helper.

mod args;
mod attach;
mod cage;
mod caller;
mod client;
mod commands;
mod complete;
mod doctor;
mod exec;
mod exit;
mod help;
mod install;
mod moment;
mod out;
mod session;
mod sink;
mod spec;
mod sys;
mod top;
mod update;
mod view;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    // At a TAB, the shell asks this program in other words ($COMPLETE): then it answers and ends here.
    clap_complete::CompleteEnv::with_factory(complete::command).bin("holdfast").complete();
    let typed = args::Args::parse();
    match commands::run(typed) {
        Ok(code) => code,
        Err(error) => exit::report(&error),
    }
}
