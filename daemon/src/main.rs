//! `holdfastd`: one owner's daemon. It keeps what the owner wants, has it done, and tells what became of it.
//!
//! Never does: hold a capability, start a program, open a network socket, signal by number, touch a worker when it
//! ends or starts itself.

#![forbid(unsafe_code)]

mod confine;
mod exec;
mod follow;
mod handover;
mod helper;
mod hosts;
mod leave;
mod listen;
mod notify;
mod output;
mod peer;
mod reconcile;
mod resolv;
mod serve;
mod service;
mod shim;
mod stats;
mod store;
mod supervisor;
mod worker;

use clap::Parser;
use holdfast_proto::VERSION;
use holdfast_proto::layout::Layout;
use holdfast_proto::words::OwnerName;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// One owner's Holdfast daemon. Started by its unit or by `holdfast session start`.
#[derive(Debug, Parser)]
#[command(name = "holdfastd", version = VERSION)]
struct Args {
    /// Login name of the owner; the daemon must run as them.
    #[arg(long, value_name = "USER", required_unless_present_any = ["check_migrations", "check_state"])]
    owner: Option<OwnerName>,
    /// Directory of a session, instead of the installed system.
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Start a successor of the daemon that runs, and wait until it serves in its place. What the unit does at a reload.
    #[arg(long, requires = "owner", conflicts_with = "root")]
    succeed: bool,
    /// Be that successor.
    #[arg(long, hide = true, requires = "owner", conflicts_with_all = ["root", "succeed"])]
    take_over: bool,
    /// Migrate this COPY of a database, check it, and end. Never give the live file.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["owner", "root"])]
    check_migrations: Option<PathBuf>,
    /// Copy this database, in use or not, and check the copy as with --check-migrations.
    #[arg(long, value_name = "FILE", requires = "scratch", conflicts_with_all = ["owner", "root", "check_migrations"])]
    check_state: Option<PathBuf>,
    /// Where the copy goes: a new file.
    #[arg(long, value_name = "FILE", requires = "check_state")]
    scratch: Option<PathBuf>,
}

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Confine(#[from] confine::ConfineError),
    #[error(transparent)]
    Listen(#[from] listen::ListenError),
    #[error(transparent)]
    Lock(#[from] holdfast_launcher::lock::LockError),
    #[error(transparent)]
    Store(#[from] store::StoreError),
    #[error(transparent)]
    Helper(#[from] helper::BadPath),
    #[error(transparent)]
    Take(#[from] handover::TakeError),
    #[error("{what} failed")]
    Io {
        what: &'static str,
        #[source]
        source: std::io::Error,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = match (args.check_migrations, args.check_state.zip(args.scratch), args.owner) {
        (Some(copy), ..) => check_migrations(&copy),
        (None, Some((state, copy)), _) => check_state(&state, &copy),
        (None, None, Some(owner)) => {
            log_to_journal_or_stderr();
            let layout = args.root.map_or_else(Layout::system, Layout::below);
            match (args.succeed, args.take_over) {
                (true, _) => handover::succeed(owner.as_str(), &layout.daemon_socket(&owner)).map_err(StartError::from),
                (_, true) => serve::take_over(owner, layout),
                (false, false) => serve::start(owner, layout, systemd()),
            }
        }
        (None, None, None) => unreachable!("clap requires one of them"),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holdfastd: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// As the environment has it.
fn systemd() -> notify::Systemd {
    let socket = std::env::var("NOTIFY_SOCKET").unwrap_or_default();
    notify::Systemd { socket, watchdog: sd_notify::watchdog_enabled() }
}

fn check_migrations(copy: &Path) -> Result<(), StartError> {
    let check = store::check_migrations(copy)?;
    println!("{}: version {} -> {}, sound", copy.display(), check.from, check.to);
    Ok(())
}

fn check_state(state: &Path, copy: &Path) -> Result<(), StartError> {
    if !state.exists() {
        println!("{}: none yet", state.display());
        return Ok(());
    }
    store::copy(state, copy)?;
    check_migrations(copy)
}

/// Which boot of the host this is: the kernel's word, and a token of our own in the run directory, which a boot
/// empties. Neither is enough: a container boots without a new kernel, a session moves its directory.
fn boot_id(workers_run: &Path) -> std::io::Result<String> {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let path = workers_run.join("boot");
    let token = match std::fs::read_to_string(&path) {
        Ok(token) if !token.is_empty() => token,
        _ => {
            let mut bits = [0; 16];
            getrandom::fill(&mut bits).map_err(|_| std::io::ErrorKind::Other)?;
            let token = format!("{:032x}", u128::from_le_bytes(bits));
            std::fs::write(&path, &token)?;
            token
        }
    };
    Ok(format!("{} {token}", kernel.trim()))
}

fn log_to_journal_or_stderr() {
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::util::SubscriberInitExt;
    let registry = tracing_subscriber::registry().with(tracing_subscriber::filter::LevelFilter::INFO);
    let journal = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
    match journal {
        Some(journal) => registry.with(journal).init(),
        None => registry.with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false)).init(),
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
