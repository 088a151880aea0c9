//! `holdfast-release`: completes a folder of files to a release. Used by `packaging/build`.

#![forbid(unsafe_code)]

mod build;

use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// Makes Holdfast releases.
#[derive(Parser)]
#[command(name = "holdfast-release", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write release.json and SHA256SUMS for the files of a folder, and check the result
    Build {
        /// What the programs print for --version
        #[arg(long)]
        version: semver::Version,
        /// Commit of the sources
        #[arg(long, default_value = "unknown")]
        commit: String,
        /// The folder: programs, units, conf files, LICENSE
        folder: PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::Build { version, commit, folder } => build::complete(&folder, version, commit, jiff::Timestamp::now()),
    }
}
