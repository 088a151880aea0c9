//! `holdfastd`: one owner's daemon. It keeps what the owner wants, has it done, and tells what became of it.
//!
//! Never does: hold a capability, start a program, open a network socket, signal by number, touch a worker when it
//! ends or starts itself.

#![forbid(unsafe_code)]

mod confine;
mod exec;
mod follow;
mod helper;
mod hosts;
mod leave;
mod listen;
mod notify;
mod output;
mod peer;
mod reconcile;
mod resolv;
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
use std::sync::Arc;
use std::time::Duration;
use supervisor::Shared;
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::StreamExt;

/// How long connections may take to close once no call is under way any more. Workers are not concerned.
const CLOSE_WITHIN: Duration = Duration::from_millis(500);
/// Calls of one connection at once, as HTTP/2 tells the other side.
const CALLS_PER_CONNECTION_MAX: u32 = 128;
/// Headers of one call; ours are a few hundred bytes. More frames of headers than this fills end the connection (threat T11).
const HEADER_BYTES_MAX: u32 = 16 * 1024;

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
            serve(owner, layout)
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

/// The start, in the order of docs/architecture.md: identity, lock-down, lock, store, reconcile, ready.
fn serve(owner: OwnerName, layout: Layout) -> Result<(), StartError> {
    let io = |what| move |source| StartError::Io { what, source };
    let uid = confine::check_identity(owner.as_str())?;
    let (listener, socket) = listen::inherited()?;
    // The cage closes root's tree.
    let needed_form = store::oldest_needed(&layout);
    let (state, workers_run) = (layout.owner_state(&owner), layout.workers_run(&owner));
    confine::drop_privileges()?;
    let door = peer::watch(listener, uid.as_raw()).map_err(io("starting to accept"))?;
    confine::restrict_files(&[state.clone(), workers_run.clone()])?;
    let store = store::start().map_err(io("starting the store"))?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(io("starting the runtime"))?;
    confine::restrict_system_calls()?;
    confine::verify()?;
    let lock = holdfast_launcher::lock::take(&state.join("lock"))?;
    if lock.ended > 0 {
        tracing::warn!("an older daemon held the lock and was ended");
    }
    runtime.block_on(async {
        // A write over RLIMIT_FSIZE, which others of the owner's uid can set, is then an error and no death.
        let _too_large = signal(SignalKind::from_raw(libc::SIGXFSZ)).map_err(io("catching SIGXFSZ"))?;
        let boot_id = boot_id(&workers_run).map_err(io("reading the boot id"))?;
        let (store, opened) = store.open(&state.join("holdfast.db"), &boot_id, needed_form)?;
        let named = opened.networks.iter().map(|row| row.name);
        hosts::prepare(&workers_run, named).map_err(io("writing the hosts files"))?;
        let (helper, fence) = helper::helper(&layout.helper_socket(), opened.epoch)?;
        let shared =
            Arc::new(Shared::new(owner, layout, (opened.epoch, boot_id), (store, &opened.networks), helper.clone()));
        tokio::spawn(shared.clone().keep_hosts());
        tokio::spawn(shared.changes.clone().tell());
        reconcile::reconcile(&shared, opened).await;
        tokio::spawn(reconcile::settle_helper(shared.clone(), helper, fence));
        answer(shared, &door, &socket).await.map_err(io("serving"))
    })
}

/// Serves until SIGTERM or SIGINT. Then, in this order: takes nothing more (what waits at the listener is for the
/// successor), ends streams, lets calls end or hands them back, and closes its connections.
async fn answer(shared: Arc<Shared>, door: &peer::Door, socket: &Path) -> std::io::Result<()> {
    let (mut terminated, mut interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (drain, drained) = tokio::sync::oneshot::channel::<()>();
    let connections = tokio_stream::wrappers::ReceiverStream::new(door.open()).map(peer::Connection::new);
    let live = shared.entries().iter().filter(|entry| entry.view().phase.is_live()).count();
    let leaving = shared.leaving.clone();
    let server = tonic::transport::Server::builder()
        .max_concurrent_streams(CALLS_PER_CONNECTION_MAX)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .add_service(service::Service::guarded(shared))
        .add_service(service::standard::health().await)
        .add_service(service::standard::reflection().map_err(std::io::Error::other)?)
        .add_service(service::standard::reflection_v1alpha().map_err(std::io::Error::other)?)
        .serve_with_incoming_shutdown(connections, async { drop(drained.await) });
    tokio::pin!(server);
    notify::ready(live);
    tokio::select! {
        ended = &mut server => return ended.map_err(std::io::Error::other),
        () = notify::feed_watchdog(socket) => {}
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
    }
    notify::stopping();
    door.close();
    drop(drain);
    let left = async {
        leaving.leave().await;
        tokio::time::sleep(CLOSE_WITHIN).await;
    };
    tokio::select! {
        ended = &mut server => ended.map_err(std::io::Error::other),
        // A client that holds a silent connection open would keep the server waiting for ever (hyperium/hyper#4170).
        () = left => Ok(()),
    }
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
