//! Who lives: taken before the flip and after it. A worker that is not the same afterwards, and did not end by itself,
//! was lost by the update.

use crate::install::command::Commands;
use crate::install::ready;
use crate::install::record::Account;
use anyhow::Context;
use holdfast_proto::layout::Layout;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// How long a published port may take to answer.
const PORT_MAX: Duration = Duration::from_secs(1);
/// Most ports that are tried.
const PORTS_MAX: usize = 64;

/// All workers of all owners, and the published ports that answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Census {
    workers: BTreeMap<(String, String), Seen>,
    ports: BTreeSet<SocketAddr>,
}

/// One worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// Its name.
    pub name: String,
    /// Host pid of its first process; none where it is not live.
    pub pid: Option<u32>,
    /// When that process started, in the kernel's clock ticks.
    pub start_ticks: Option<u64>,
    /// Which start of the worker it is.
    pub generation: u64,
    /// Whether it is known how this generation ended.
    pub ended: bool,
}

#[derive(Debug, Deserialize)]
struct Listed {
    id: String,
    name: String,
    pid: Option<u32>,
    generation: u64,
    exit: Option<serde_json::Value>,
    ports: Vec<Published>,
}

#[derive(Debug, Deserialize)]
struct Published {
    host: u16,
    proto: String,
    address: String,
}

impl Census {
    /// Asks each owner's daemon, the kernel about each process, and each port.
    ///
    /// # Errors
    /// Where a daemon does not answer.
    pub fn take(layout: &Layout, commands: &dyn Commands, owners: &[Account]) -> anyhow::Result<Self> {
        let mut census = Self::default();
        for owner in owners {
            let said = commands.run(&ready::as_owner(layout, &owner.name, ["ps", "-a", "--json"]))?;
            let listed: Vec<Listed> = serde_json::from_str(&said).context("ps --json")?;
            for worker in listed {
                let pid = worker.pid.filter(|pid| *pid != 0);
                if pid.is_some() {
                    let addresses = worker.ports.iter().filter_map(Published::socket);
                    census.ports.extend(addresses.filter(answers));
                }
                let start_ticks = pid.and_then(start_ticks);
                let (ended, generation) = (worker.exit.is_some(), worker.generation);
                let seen = Seen { name: worker.name, pid, start_ticks, generation, ended };
                census.workers.insert((owner.name.to_string(), worker.id), seen);
            }
            while census.ports.len() > PORTS_MAX {
                census.ports.pop_last();
            }
        }
        Ok(census)
    }

    /// How many live.
    pub fn live(&self) -> usize {
        self.workers.values().filter(|worker| worker.pid.is_some()).count()
    }

    /// Each live worker as `owner/name`, with its process.
    pub fn listed(&self) -> BTreeMap<String, Seen> {
        let live = self.workers.iter().filter(|(_, worker)| worker.pid.is_some());
        live.map(|((owner, _), worker)| (format!("{owner}/{}", worker.name), worker.clone())).collect()
    }

    /// What was there before and is not now, for a person. What ended by itself, or was started again, is not lost.
    pub fn lost_by(&self, after: &Self) -> Vec<String> {
        let mut lost = Vec::new();
        for ((owner, id), before) in self.workers.iter().filter(|(_, worker)| worker.pid.is_some()) {
            let name = format!("{owner}/{}", before.name);
            match after.workers.get(&(owner.clone(), id.clone())) {
                // Who forgot it meanwhile is its owner; a process that lives on without an entry is not.
                None if before.pid.and_then(start_ticks) == before.start_ticks => {
                    lost.push(format!("{name} is not listed any more and lives"));
                }
                None => {}
                Some(now) if now.generation != before.generation => {}
                Some(now) if now.pid.is_none() && now.ended => {}
                Some(now) if (now.pid, now.start_ticks) == (before.pid, before.start_ticks) => {}
                Some(now) => lost.push(format!("{name} had the process {:?}, now {:?}", before.pid, now.pid)),
            }
        }
        let silent = self.ports.difference(&after.ports).filter(|port| !answers(port));
        lost.extend(silent.map(|port| format!("the published port {port} does not answer any more")));
        lost
    }
}

impl Published {
    /// Where it can be tried from the host itself.
    fn socket(&self) -> Option<SocketAddr> {
        let address: IpAddr = self.address.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let address = if address.is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { address };
        (self.proto == "tcp").then(|| SocketAddr::new(address, self.host))
    }
}

fn answers(port: &SocketAddr) -> bool {
    TcpStream::connect_timeout(port, PORT_MAX).is_ok()
}

/// proc_pid_stat(5): starttime is field 22, the 20th after the name.
fn start_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn census(worker: Option<Seen>) -> Census {
        let workers = worker.map(|worker| (("alice".to_owned(), "1".to_owned()), worker)).into_iter().collect();
        Census { workers, ports: BTreeSet::new() }
    }

    #[test]
    fn only_what_vanished_unasked_is_lost() {
        let me = std::process::id();
        let seen = |pid, start_ticks, generation, ended| {
            Some(Seen { name: "web".into(), pid, start_ticks, generation, ended })
        };
        let before = census(seen(Some(me), start_ticks(me), 1, false));
        for (after, lost) in [
            (seen(Some(me), start_ticks(me), 1, false), false),
            (seen(Some(me), Some(1), 1, false), true),
            (seen(Some(1), start_ticks(1), 1, false), true),
            (seen(None, None, 1, false), true),
            (seen(None, None, 1, true), false),
            (seen(Some(77), Some(9), 2, true), false),
            (None, true),
        ] {
            assert_eq!(!before.lost_by(&census(after.clone())).is_empty(), lost, "{after:?}");
        }
        // It was not live before: nothing could be lost.
        assert!(census(seen(None, None, 1, true)).lost_by(&census(None)).is_empty());
        assert_eq!((before.live(), census(None).live()), (1, 0));
    }
}
