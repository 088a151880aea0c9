//! The owner's networks: kept here by name; which addresses they have is the helper's to say.

use crate::store::NetworkRow;
use crate::worker::spec::Network;
use holdfast_proto::problem::{Problem, Reason};
use holdfast_proto::words::NetworkName;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most networks on record; the rules limit those in use.
pub const NETWORKS_MAX: usize = 1000;

/// All of them.
#[derive(Debug, Default)]
pub struct Networks(Mutex<BTreeMap<NetworkName, NetworkRow>>);

impl Networks {
    /// As the store had them.
    pub fn new(rows: &[NetworkRow]) -> Self {
        Self(Mutex::new(rows.iter().map(|row| (row.name, row.clone())).collect()))
    }

    /// Every network that can have a hosts file with others in it.
    pub fn all(&self) -> Vec<Network> {
        [Network::Bridge, Network::Tap]
            .into_iter()
            .chain(self.rows().keys().map(|name| Network::Named(*name)))
            .collect()
    }

    /// All rows, by name.
    pub fn list(&self) -> Vec<NetworkRow> {
        self.rows().values().cloned().collect()
    }

    /// The network of this name.
    pub fn find(&self, name: &str) -> Result<NetworkRow, Problem> {
        let row = name.parse().ok().and_then(|name: NetworkName| self.rows().get(&name).cloned());
        row.ok_or_else(|| no_such(name))
    }

    /// Refuses a worker of a network that is not there.
    pub fn require(&self, network: Network) -> Result<(), Problem> {
        match network {
            Network::Named(name) => self.find(name.as_str()).map(drop),
            _ => Ok(()),
        }
    }

    /// What a launch says of its network: the range to begin with, and whether it has a way out.
    pub fn launch_words(&self, network: Network) -> (String, bool) {
        let Network::Named(name) = network else { return Default::default() };
        self.rows().get(&name).map(|row| (row.subnet.clone(), row.internal)).unwrap_or_default()
    }

    /// Enters a new one.
    pub fn enter(&self, row: NetworkRow) -> Result<(), Problem> {
        let mut rows = self.rows();
        if rows.contains_key(&row.name) {
            let message = format!("a network named {:?} is there already", row.name.as_str());
            return Err(Problem::new(Reason::NameTaken, message)
                .hint(format!("`holdfast network inspect {}` shows it", row.name)));
        }
        if rows.len() >= NETWORKS_MAX {
            let message = format!("{NETWORKS_MAX} networks are on record, which is the most");
            return Err(Problem::new(Reason::Quota, message).hint("remove some with `holdfast network rm`"));
        }
        rows.insert(row.name, row);
        Ok(())
    }

    /// Strikes one out.
    pub fn strike(&self, name: NetworkName) -> Option<NetworkRow> {
        self.rows().remove(&name)
    }

    fn rows(&self) -> MutexGuard<'_, BTreeMap<NetworkName, NetworkRow>> {
        // Held for map operations alone, which leave nothing half-done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn no_such(name: &str) -> Problem {
    let shown: String = name.chars().take(64).collect();
    Problem::new(Reason::NoSuchNetwork, format!("there is no network {shown:?}"))
        .hint("use bridge or none, or make one with `holdfast network create NAME`; `holdfast network ls` lists all")
}
