//! `holdfast-helper [--root DIR]`: the one program with capabilities.
//!
//! Never does: execute or fork anything, open a path that a request names, hold a capability other than
//! CAP_NET_ADMIN and CAP_NET_RAW, serve before it has checked what it is. It leaves all kernel objects when
//! it ends, and finds them by their tags when it starts.

#![deny(unsafe_code)]

mod confine;
mod fence;
mod lan;
mod launch;
mod launcher;
mod ledger;
mod net;
mod netns;
mod notify;
mod peer;
mod policy;
mod prefix6;
mod rules;
mod rules_file;
mod serve;
mod service;
mod sockets;
mod subnet;
#[allow(unsafe_code)]
mod sys;
mod words;

use holdfast_proto::layout::Layout;
use std::process::ExitCode;

/// Why the helper did not start, or stopped. One line says it.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("usage: holdfast-helper [--root DIR] | --version")]
    Usage,
    #[error("{0}")]
    Confine(#[from] confine::ConfineError),
    #[error("{0}")]
    Sockets(#[from] sockets::SocketsError),
    #[error("lock: {0}")]
    Lock(#[from] holdfast_launcher::lock::LockError),
    #[error("rules: {0}")]
    Rules(#[from] rules_file::RulesFileError),
    #[error("network: {0}")]
    Net(#[from] net::NetError),
    #[error("network: {0}")]
    Watch(#[from] net::WireError),
    #[error("{step}: {source}")]
    Step { step: &'static str, source: std::io::Error },
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments == ["--version"] {
        println!("holdfast-helper {}", holdfast_proto::VERSION);
        return ExitCode::SUCCESS;
    }
    log();
    match start(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &[String]) -> Result<(), StartError> {
    let layout = match arguments {
        [] => Layout::system(),
        [flag, root] if flag == "--root" && root.starts_with('/') => Layout::below(root),
        _ => return Err(StartError::Usage),
    };
    let standing = confine::check_identity(&layout)?;
    let listeners = sockets::inherited()?;
    confine::give_up_the_rest()?;
    let lock = holdfast_launcher::lock::take(&layout.helper_run().join("lock"))?;
    if lock.ended > 0 {
        tracing::warn!("an older helper held the lock and was ended");
    }
    let own_uid = rustix::process::getuid().as_raw();
    let rules = rules_file::RulesFile::open(layout.rules_toml(), own_uid)?;
    confine::limit_files(&layout)?;
    let prepared = serve::Prepared::new(standing, rules, listeners)?;
    confine::limit_calls()?;
    confine::read_back(standing)?;
    prepared.run()?;
    drop(lock);
    Ok(())
}

/// To journald where systemd started this, else to stderr.
fn log() {
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::util::SubscriberInitExt;
    let level = tracing_subscriber::filter::LevelFilter::INFO;
    let registry = tracing_subscriber::registry().with(level);
    let journal = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
    match journal {
        Some(journal) => registry.with(journal).init(),
        None => registry
            .with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr).without_time().with_ansi(false))
            .init(),
    }
}
