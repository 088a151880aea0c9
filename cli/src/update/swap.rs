//! Makes another release the one that runs, by the steps of an install, and sees whether it does. What fails is taken
//! back, and the old release is asked whether it serves again.

use super::census::Census;
use super::leftover;
use super::state::HostState;
use super::txn::{self, Txn};
use crate::install::command::{Call, Commands};
use crate::install::facts;
use crate::install::plan::{self, HELPER_UNIT, Plan, RECOVER_TIMER, RECOVER_UNIT, Request};
use crate::install::ready;
use crate::install::record::{Account, Installed};
use crate::install::step::{FILE_MODE, Host, Program, Step};
use crate::install::{apply, disk, rules};
use anyhow::Context;
use holdfast_proto::layout::Layout;
use holdfast_release::{Folder, ReleaseId};
use std::time::{Duration, Instant};

/// How long a daemon may take to answer after a restart: a machine under load is no bad release.
const READY_MAX: Duration = Duration::from_secs(30);

/// The host whose release changes.
pub struct Swap<'a> {
    /// Paths.
    pub layout: &'a Layout,
    /// Programs.
    pub commands: &'a dyn Commands,
    /// Who owns what is installed.
    pub installed: &'a Installed,
    /// How long the new release has to run without a restart before it counts.
    pub soak: Duration,
}

/// What became of it.
#[derive(Debug)]
pub enum Outcome {
    /// It runs, and was committed.
    Done {
        /// Who lived before and after.
        workers: (Census, Census),
        /// From the first restart until everything answered.
        api_gap: Duration,
        /// What could not be made new any more, after it counted. The next update does it.
        left: Option<String>,
    },
    /// It did not, and the old one was put back.
    Back {
        /// What failed.
        forward: String,
        /// Whether the old one serves again.
        rollback: Result<(), String>,
        /// Who lived before.
        before: Census,
    },
}

impl Swap<'_> {
    /// What will be done for `folder`, in this order.
    ///
    /// # Errors
    /// Where the host does not allow it at all.
    pub fn plan(&self, folder: &Folder) -> anyhow::Result<Plan> {
        let first = self.installed.owners.first().context("no owner is installed")?;
        let facts = facts::gather(self.layout, self.commands, folder, first.clone())?;
        let mut plan = self.plan_from(&facts)?;
        keep_recovery(&mut plan.steps, self.layout);
        plan.steps.extend(self.checks(folder, &self.installed.owners[1..]));
        Ok(plan)
    }

    fn plan_from(&self, facts: &facts::Facts) -> anyhow::Result<Plan> {
        let (pool6, now) = (rules::fresh_prefix()?, jiff::Timestamp::now());
        let request = Request { ports: Vec::new(), pool6, now };
        plan::plan(facts, &request, self.layout).map_err(anyhow::Error::from)
    }

    /// The other owners' daemons answer, and what runs is what was installed.
    fn checks(&self, folder: &Folder, others: &[Account]) -> Vec<Step> {
        let version = folder.release().version.to_string();
        let awaited = others.iter().map(|owner| Step::Await {
            owner: owner.name.clone(),
            uid: owner.uid,
            version: version.clone(),
        });
        awaited.chain([Step::Programs { programs: self.programs(), id: folder.id().to_string() }]).collect()
    }

    fn programs(&self) -> Vec<Program> {
        let program = |unit: String, file: &str| Program { unit, file: file.to_owned() };
        let mut programs = vec![program(HELPER_UNIT.to_owned(), "holdfast-helper")];
        for owner in &self.installed.owners {
            programs.push(program(format!("holdfast-launcher@{}.service", owner.name), "holdfast-launcher"));
            programs.push(program(format!("holdfastd@{}.service", owner.name), "holdfastd"));
        }
        programs
    }

    /// Does it. While it is under way, the record on disk says so; afterwards it does not.
    ///
    /// # Errors
    /// Where nothing was changed.
    pub fn apply(&self, folder: &Folder, state: &HostState, tell: &mut dyn FnMut(&Step)) -> anyhow::Result<Outcome> {
        let mut plan = self.plan(folder)?;
        let owners = &self.installed.owners;
        let before = Census::take(self.layout, self.commands, owners).context("before the update")?;
        plan.steps.push(Step::Workers { owners: owners.clone(), before: before.clone() });
        plan.steps.push(Step::Soak {
            programs: self.programs(),
            owners: owners.clone(),
            before: before.clone(),
            time: self.soak,
        });
        let host = Host { layout: self.layout, commands: self.commands, folder, ready_max: READY_MAX };
        let previous = state.previous.as_ref();
        let txn = txn::begin(self.layout, self.commands, state.current.as_str(), previous, folder.id().as_str())?;
        let (mut last, mut away, mut answered) = (Instant::now(), None, Instant::now());
        let applied = apply::apply(&plan.steps, &host, &mut |step| {
            match step {
                // It began when the step before it was done.
                Step::Restart { .. } | Step::Relisten { .. } => _ = away.get_or_insert(last),
                Step::Await { .. } => answered = Instant::now(),
                _ => {}
            }
            last = Instant::now();
            tell(step);
        });
        match applied {
            Ok(()) => {
                // Committed by this: from here on nobody goes back unasked.
                if let Err(error) = txn::end(self.layout, self.commands) {
                    let forward = format!("commit: {error:#}");
                    let rollback = self.recover(&txn, &mut |_| {}).map_err(|error| format!("{error:#}"));
                    return Ok(Outcome::Back { forward, rollback, before });
                }
                let left = self.commit_recovery(folder).err().map(|error| format!("{error:#}"));
                let after = Census::take(self.layout, self.commands, owners).unwrap_or_default();
                let api_gap = away.map_or(Duration::ZERO, |away| answered.saturating_duration_since(away));
                Ok(Outcome::Done { workers: (before, after), api_gap, left })
            }
            Err(failed) => {
                let forward = format!("{}: {:#}", failed.step, failed.cause);
                leftover::end(&self.layout.releases().join(&txn.to));
                let rollback = match failed.left.is_empty() {
                    true => self.probe(&state.current, &state.running.version.to_string(), &before),
                    false => Err(format!("left over: {}", failed.left.join("; "))),
                };
                if rollback.is_ok() {
                    txn::end(self.layout, self.commands)?;
                }
                Ok(Outcome::Back { forward, rollback, before })
            }
        }
    }

    /// Whether a release serves: its programs run, every daemon answers, every worker is there.
    fn probe(&self, id: &ReleaseId, version: &str, before: &Census) -> Result<(), String> {
        let owners = &self.installed.owners;
        let look = || -> anyhow::Result<()> {
            for owner in owners {
                ready::wait(self.layout, self.commands, &owner.name, version, READY_MAX)?;
            }
            ready::check_programs(self.layout, self.commands, &self.programs(), id.as_str())?;
            ready::check_workers(self.layout, self.commands, owners, before)
        };
        look().map_err(|error| format!("{error:#}"))
    }

    /// Goes back to the release that was committed last, after whoever tried another one was cut off.
    ///
    /// # Errors
    /// Where that release does not serve; the record stays, and it can be tried again.
    pub fn recover(&self, txn: &Txn, tell: &mut dyn FnMut(&Step)) -> anyhow::Result<()> {
        let folder = self.whole(txn)?;
        let first = self.installed.owners.first().context("no owner is installed")?;
        let mut facts = facts::gather(self.layout, self.commands, &folder, first.clone())?;
        // Whatever `current` says by now: what runs may still be the release that was tried.
        facts.current = Some(format!("releases/{}", txn.to));
        let mut plan = self.plan_from(&facts)?;
        // `current.previous` becomes what it was, and not the release that was tried.
        plan.steps.retain(|step| !matches!(step, Step::Link { path, .. } if *path == self.layout.previous()));
        plan.steps.extend(self.checks(&folder, &self.installed.owners[1..]));
        let host = Host { layout: self.layout, commands: self.commands, folder: &folder, ready_max: READY_MAX };
        let advanced = apply::advance(&plan.steps, &host, tell);
        leftover::end(&self.layout.releases().join(&txn.to));
        advanced?;
        match &txn.previous {
            Some(previous) => disk::write_link(&self.layout.previous(), &format!("releases/{previous}"))?,
            None => drop(disk::remove_file(&self.layout.previous())?),
        }
        txn::end(self.layout, self.commands)
    }

    /// At boot: what starts next starts from the release that was committed last. The rest waits for the timer.
    ///
    /// # Errors
    /// Where the link cannot be written.
    pub fn recover_link(&self, txn: &Txn) -> anyhow::Result<()> {
        let folder = self.whole(txn)?;
        disk::write_link(&self.layout.current(), &format!("releases/{}", folder.id()))?;
        txn::arm(self.commands)
    }

    /// The release to go back to: the one that was committed last, and the one before it where a disk has spoiled that.
    fn whole(&self, txn: &Txn) -> anyhow::Result<Folder> {
        let open = |id: &str| Folder::open(&self.layout.releases().join(id)).with_context(|| id.to_owned());
        open(&txn.from).or_else(|error| match &txn.previous {
            Some(previous) => open(previous).map_err(|_| error),
            None => Err(error),
        })
    }

    /// From now on the new release is the one that recovers.
    fn commit_recovery(&self, folder: &Folder) -> anyhow::Result<()> {
        disk::write_link(&plan::committed(self.layout), &format!("releases/{}", folder.id()))?;
        let mut changed = false;
        for file in folder.release().files() {
            let Some(unit) = file.unit_name().filter(|unit| is_recovery(unit)) else { continue };
            let (bytes, path) = (folder.read(&file.name)?, self.layout.units().join(unit));
            if disk::read_if_there(&path)?.as_ref() != Some(&bytes) {
                disk::write_file(&path, &bytes, FILE_MODE)?;
                changed = true;
            }
        }
        if changed {
            self.commands.run(&Call::systemctl(["daemon-reload"]))?;
        }
        Ok(())
    }
}

fn is_recovery(unit: &str) -> bool {
    [RECOVER_UNIT, RECOVER_TIMER].contains(&unit)
}

/// A release that is only tried has no say in how it is undone.
fn keep_recovery(steps: &mut Vec<Step>, layout: &Layout) {
    let committed = plan::committed(layout);
    steps.retain(|step| !matches!(step, Step::Link { path, .. } if *path == committed));
    for step in steps {
        if let Step::Units { files } = step {
            files.retain(|unit, _| !is_recovery(unit));
        }
    }
}

#[cfg(test)]
#[path = "swap_tests.rs"]
mod tests;
