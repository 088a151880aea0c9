//! The owner's networks: made, listed, looked at, removed.

use crate::hosts;
use crate::store::{Change, EventRow, NetworkRow};
use crate::supervisor::{Shared, not_recorded, now};
use crate::worker::spec::Network as Mode;
use holdfast_proto::daemon::{CreateNetworkRequest, EventKind, Member, Network};
use holdfast_proto::problem::{Problem, Reason};
use holdfast_proto::words::NetworkName;
use std::time::Duration;
use tokio::time::Instant;

/// The modes that are there without being made.
const BUILT_IN: [Mode; 4] = [Mode::Bridge, Mode::None, Mode::Host, Mode::Tap];

/// How long a new network waits for a helper that is away: less than its caller waits.
const AWAY_WITHIN: Duration = Duration::from_secs(5);
/// Between two looks for it.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Most names in a refusal.
const NAMES_SHOWN_MAX: usize = 8;

/// Puts a network on record, if the helper's rules allow it.
pub async fn create(shared: &Shared, request: CreateNetworkRequest) -> Result<Network, Problem> {
    let invalid = |error: &dyn std::fmt::Display| Problem::new(Reason::Invalid, error.to_string());
    let name: NetworkName = request.name.parse().map_err(|error| invalid(&error))?;
    if shared.networks.find(name.as_str()).is_err() {
        allowed(shared, name, &request.subnet).await?;
    }
    let row = NetworkRow { name, subnet: request.subnet, internal: request.internal, created_at: now() };
    shared.networks.enter(row.clone())?;
    let file = hosts::prepare(&shared.workers_run(), std::iter::once(name));
    let recorded = match file {
        Ok(()) => shared
            .store
            .commit(vec![Change::PutNetwork(row.clone()), told(EventKind::NetworkCreated, name)])
            .await
            .map_err(|e| not_recorded(&e)),
        Err(error) => Err(Problem::new(Reason::Internal, format!("the network's hosts file cannot be made: {error}"))),
    };
    if let Err(problem) = recorded {
        shared.networks.strike(name);
        return Err(problem);
    }
    Ok(show(shared, &row).await)
}

/// Whether the rules allow it; a helper that is being replaced is waited for.
async fn allowed(shared: &Shared, name: NetworkName, subnet: &str) -> Result<(), Problem> {
    let until = Instant::now() + AWAY_WITHIN;
    loop {
        match shared.helper.check_network(name.as_str(), subnet).await {
            Err(away) if away.reason() == Reason::Unavailable && Instant::now() < until => {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            outcome => return outcome.map(drop),
        }
    }
}

/// The modes that everybody has, and the owner's networks.
pub async fn list(shared: &Shared) -> Vec<Network> {
    let mut all: Vec<_> = BUILT_IN.into_iter().map(|mode| built_in(shared, mode)).collect();
    for row in shared.networks.list() {
        all.push(show(shared, &row).await);
    }
    all
}

/// One of them.
pub async fn inspect(shared: &Shared, name: &str) -> Result<Network, Problem> {
    match BUILT_IN.into_iter().find(|mode| mode.name() == name) {
        Some(mode) => Ok(built_in(shared, mode)),
        None => Ok(show(shared, &shared.networks.find(name)?).await),
    }
}

/// Forgets one that no worker is of.
pub async fn remove(shared: &Shared, name: &str) -> Result<(), Problem> {
    if BUILT_IN.iter().any(|mode| mode.name() == name) {
        return Err(Problem::new(Reason::Invalid, format!("network {name} is always there: it cannot be removed")));
    }
    let row = shared.networks.find(name)?;
    let members = members(shared, Mode::Named(row.name));
    if !members.is_empty() {
        let mut names: Vec<&str> = members.iter().take(NAMES_SHOWN_MAX).map(|member| member.name.as_str()).collect();
        if members.len() > names.len() {
            names.push("…");
        }
        let message = format!("network {name} is in use by {} of your workers: {}", members.len(), names.join(", "));
        return Err(Problem::new(Reason::NetworkInUse, message).hint("remove them first with `holdfast rm`"));
    }
    // Struck before anything is waited for: no worker of it can be made from here on.
    shared.networks.strike(row.name);
    if let Err(error) =
        shared.store.commit(vec![Change::DeleteNetwork(row.name), told(EventKind::NetworkRemoved, row.name)]).await
    {
        let _ = shared.networks.enter(row);
        return Err(not_recorded(&error));
    }
    let file = hosts::path(&shared.workers_run(), Mode::Named(row.name));
    if let Err(error) = shared.store.remove_files(vec![file]).await {
        tracing::warn!(%error, "a removed network's hosts file stays");
    }
    Ok(())
}

fn told(kind: EventKind, name: NetworkName) -> Change {
    Change::Event(Box::new(EventRow::network(kind, name.as_str(), now().0)))
}

fn built_in(shared: &Shared, mode: Mode) -> Network {
    let workers = members(shared, mode);
    Network { name: mode.name().to_owned(), built_in: true, workers, ..Default::default() }
}

/// The network that is on record as it is asked for.
pub fn as_asked(shared: &Shared, request: &CreateNetworkRequest) -> Option<NetworkRow> {
    let row = shared.networks.find(&request.name).ok()?;
    (row.subnet == request.subnet && row.internal == request.internal).then_some(row)
}

/// One of the owner's, as callers get it.
pub async fn show(shared: &Shared, row: &NetworkRow) -> Network {
    // Without a helper: as it was asked for.
    let asked = || (!row.subnet.is_empty()).then(|| row.subnet.clone()).into_iter().collect();
    let subnets = shared.helper.check_network(row.name.as_str(), &row.subnet).await.unwrap_or_else(|_| asked());
    Network {
        name: row.name.to_string(),
        built_in: false,
        internal: row.internal,
        subnets,
        created_at: row.created_at.0,
        workers: members(shared, Mode::Named(row.name)),
    }
}

fn members(shared: &Shared, network: Mode) -> Vec<Member> {
    let views = shared.entries().into_iter().map(|entry| entry.view()).filter(|view| view.network == network);
    views.map(|view| Member { id: view.worker.id, name: view.worker.name, addresses: view.worker.addresses }).collect()
}
