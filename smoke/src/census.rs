//! Who lives: taken before and after something is done to the product, the two must be equal.

use crate::{Host, Result, WorkerShown, until};
use anyhow::{bail, ensure};
use std::collections::BTreeMap;
use std::time::Duration;

/// What a worker keeps for as long as it lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Host pid of its first process.
    pub pid: u32,
    /// The kernel's start time of that pid.
    pub start_ticks: u64,
    /// What `ps` says about its start.
    pub started_at: String,
    /// Which start it is.
    pub generation: u64,
    /// Its addresses.
    pub addresses: Vec<String>,
}

/// All live workers of alice, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Census(pub BTreeMap<String, Identity>);

impl Census {
    /// Asks `ps`, and the kernel about each pid it shows. Fails where `ps` shows a process that is not there.
    pub fn take(host: &Host) -> Result<Self> {
        let mut workers = BTreeMap::new();
        for worker in host.alice().ps()? {
            ensure!(worker.phase == "running", "{} is {}", worker.name, worker.phase);
            let identity = identity(host, &worker)?;
            workers.insert(worker.name, identity);
        }
        Ok(Self(workers))
    }

    /// As [`Census::take`], of the workers alone that `others` knows: more may come and go meanwhile.
    pub fn take_named(host: &Host, others: &Self) -> Result<Self> {
        let known = host.alice().ps()?.into_iter().filter(|worker| others.0.contains_key(&worker.name));
        known.map(|worker| Ok((worker.name.clone(), identity(host, &worker)?))).collect::<Result<_>>().map(Self)
    }

    /// `ps` must be right again within two seconds: the same workers, processes and start times.
    pub fn must_hold(&self, host: &Host, after: &str) -> Result<Duration> {
        let mut last = Err(anyhow::anyhow!("never asked"));
        let held = until("ps is right", Duration::from_secs(2), || {
            last = Self::take(host);
            Ok(matches!(&last, Ok(now) if now == self))
        });
        match (held, last) {
            (Ok(took), _) => Ok(took),
            (Err(_), Err(error)) => Err(error.context(format!("after {after}: no census"))),
            (Err(_), Ok(now)) => bail!("after {after}: {}", self.difference(&now)),
        }
    }

    fn difference(&self, now: &Self) -> String {
        let mut lines = Vec::new();
        for (name, before) in &self.0 {
            match now.0.get(name) {
                None => lines.push(format!("{name} is lost (was {before:?})")),
                Some(after) if after != before => lines.push(format!("{name} changed: {before:?} -> {after:?}")),
                Some(_) => {}
            }
        }
        lines.extend(now.0.keys().filter(|name| !self.0.contains_key(*name)).map(|name| format!("{name} appeared")));
        lines.join("\n")
    }
}

fn identity(host: &Host, worker: &WorkerShown) -> Result<Identity> {
    let pid = worker.live_pid()?;
    Ok(Identity {
        pid,
        start_ticks: host.start_ticks(pid)?,
        started_at: worker.started_at.clone().unwrap_or_default(),
        generation: worker.generation,
        addresses: worker.addresses.clone(),
    })
}
