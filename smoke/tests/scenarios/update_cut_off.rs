//! An update whose program is killed: with nobody there, the release that was committed last runs again.

use crate::on_installed;
use crate::update::{UPDATE_MAX, runs, with_workers};
use anyhow::ensure;
use holdfast_smoke::{Host, Publisher, Result, Running, until};
use serde_json::Value;
use std::time::Duration;

/// The timer's wait, a restart of everything on a loaded machine, and the probes. The promise is 60 s.
const BACK_WITHIN: Duration = Duration::from_secs(120);

/// Where the update is cut off.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// While it fetches: nothing has changed.
    Fetch,
    /// Its record is there.
    Record,
    /// `current` points to the new release.
    Flip,
    /// The new daemon answers.
    Soak,
}

impl Cut {
    fn is_there(self, host: &Host) -> Result<bool> {
        match self {
            Self::Fetch => Ok(host.root().run("ls -d /usr/local/lib/holdfast/releases/.stage-*")?.code == 0),
            Self::Record => Ok(host.root().run("test -e /var/lib/holdfast/txn")?.code == 0),
            Self::Flip => Ok(host.root().run("readlink /usr/local/lib/holdfast/current")?.text().contains("0.1.1-")),
            Self::Soak => {
                let said = host.alice().holdfast("status --json")?;
                Ok(said.code == 0 && said.json::<Value>()?["version"] == "0.1.1")
            }
        }
    }
}

/// Starts an update whose process is known.
fn start(host: &Host) -> Result<Running> {
    host.root().start("echo $$ > /run/smoke-update.pid; exec holdfast update --yes --soak 30")
}

#[test]
fn update_cut_off_anywhere_is_undone_with_nobody_there() -> Result {
    on_installed(|host| {
        let publisher = Publisher::new(host)?;
        publisher.trust()?;
        publisher.take_next("next")?;
        publisher.publish("next", "0.1.1", 1, "")?;
        with_workers(host, |census| {
            for cut in [Cut::Fetch, Cut::Record, Cut::Flip, Cut::Soak] {
                let mut updates = start(host)?;
                until("the update is where it will be cut off", UPDATE_MAX, || {
                    ensure!(updates.runs()?, "{cut:?}: the update ended");
                    cut.is_there(host)
                })?;
                host.root().run("kill -9 $(cat /run/smoke-update.pid)")?.ok()?;
                ensure!(updates.wait_within(Duration::from_secs(10))?.code == 137, "{cut:?}: it was not killed");
                let took = until("the old release runs again", BACK_WITHIN, || runs(host, "0.1.0").map(|()| true))?;
                println!("{cut:?}: back after {:.1} s", took.as_secs_f32());
                census.must_hold(host, &format!("{cut:?}"))?;
            }
            let timer = host.root().run("systemctl is-active holdfast-recover.timer")?.text();
            ensure!(timer == "inactive", "the timer is {timer}");
            host.root().run_within(UPDATE_MAX, "holdfast update --yes --soak 1")?.ok()?;
            census.must_hold(host, "the update that was not cut off")?;
            runs(host, "0.1.1")?;
            let left = host.root().run("ls -A /usr/local/lib/holdfast/releases")?.ok()?.text();
            ensure!(left.lines().count() == 2, "left over: {left}");
            Ok(())
        })
    })
}
