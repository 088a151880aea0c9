//! `holdfast-release`: makes, signs and checks releases. For maintainers; no host has it.

#![forbid(unsafe_code)]

mod build;
mod keys;
mod serve;
mod signing;

use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// Makes Holdfast releases.
///
/// Once:  holdfast-release keygen root-1 (and root-2, root-3, release-1), each where it will be kept
///        holdfast-release keyring --add release-1.pem keyring.json
///        holdfast-release sign --key root-1.key keyring.json (and root-2.key)
/// Then, for each release:
///        packaging/build out; holdfast-release build --version 1.4.0 --seq 17 --key-epoch 1 out
///        holdfast-release sign --key release-1.key out
///        holdfast-release verify --root root-1.pem --root root-2.pem --keyring keyring.json out
/// To try what will be published from another host:  holdfast-release serve public --listen 192.0.2.1:8080
///
/// Each signature may as well be made with openssl (docs/operations.md).
#[derive(Parser)]
#[command(name = "holdfast-release", version, verbatim_doc_comment)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a key pair: NAME.key, readable by its owner alone, and NAME.pem
    Keygen {
        /// Where, without the ending: root-1, release-2026
        name: PathBuf,
    },
    /// Write a keyring for the root keys to sign: the old one's keys, more, or less
    Keyring(keys::KeyringArgs),
    /// Write release.json and SHA256SUMS for the files of a folder, and check the result
    Build(build::BuildArgs),
    /// Sign a release folder with a release key, or a keyring.json with a root key
    Sign {
        /// The private key, PKCS#8 PEM
        #[arg(long)]
        key: PathBuf,
        /// The folder, or the keyring's file
        what: PathBuf,
    },
    /// Check a signed release folder as a host would that never saw one
    Verify(signing::VerifyArgs),
    /// Serve a source's folder by HTTP, to try a release before it is published
    Serve(serve::ServeArgs),
}

fn main() -> anyhow::Result<()> {
    let now = jiff::Timestamp::now();
    match Args::parse().command {
        Command::Keygen { name } => keys::generate(&name),
        Command::Keyring(args) => keys::write_keyring(&args, now),
        Command::Build(args) => build::complete(args, now),
        Command::Sign { key, what } => signing::sign(&key, &what),
        Command::Verify(args) => signing::verify(&args, now),
        Command::Serve(args) => serve::run(&args),
    }
}
