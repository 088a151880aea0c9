//! Forgets what has ended, with its files.

use crate::supervisor::{Ask, Shared};
use crate::worker::Phase;
use crate::worker::query::Filter;
use holdfast_proto::daemon::Pruned;
use holdfast_proto::problem::{Problem, Reason};
use std::path::Path;

/// Removes (or with `dry_run` lists) every worker that is stopped or failed and that the filter admits.
pub async fn prune(shared: &Shared, filter: &Filter, dry_run: bool) -> Result<Vec<Pruned>, Problem> {
    let mut pruned = Vec::new();
    for entry in shared.entries() {
        let view = entry.view();
        if !matches!(view.phase, Phase::Stopped | Phase::Failed) || !filter.admits(view.phase, &view.worker) {
            continue;
        }
        let log_dir = shared.log_dir(entry.id);
        let bytes = log_dir.parent().map_or(0, bytes_below);
        if !dry_run {
            match entry.ask(|answer| Ask::Remove { force: false, answer }).await {
                Ok(_) => {}
                // Started or removed meanwhile.
                Err(problem) if matches!(problem.reason(), Reason::WrongPhase | Reason::NoSuchWorker) => continue,
                Err(problem) => return Err(problem),
            }
        }
        let worker = view.worker;
        pruned.push(Pruned { id: worker.id, name: worker.name, phase: worker.phase, bytes });
        // Thousands are removed by turns with other calls.
        tokio::task::yield_now().await;
    }
    Ok(pruned)
}

/// Bytes of the files in a worker's directory and in its one level of directories; what cannot be read counts nothing.
fn bytes_below(dir: &Path) -> u64 {
    let files = |dir: &Path| -> Vec<std::fs::DirEntry> {
        std::fs::read_dir(dir).map(|entries| entries.filter_map(Result::ok).collect()).unwrap_or_default()
    };
    let length = |file: &std::fs::DirEntry| match file.metadata() {
        Ok(metadata) if metadata.is_file() => metadata.len(),
        Ok(_) | Err(_) => 0,
    };
    let here = files(dir);
    let below = here.iter().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let nested: u64 = below.flat_map(|entry| files(&entry.path())).map(|file| length(&file)).sum();
    nested + here.iter().map(length).sum::<u64>()
}
