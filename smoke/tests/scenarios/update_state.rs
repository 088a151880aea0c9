//! A newer release has moved the owners' state to a newer form, and has written to it: the way back works all the same.
//!
//! The release that follows is built with two more forms (smoke/prepare): one that only adds, which is taken at once, and
//! one that takes away what older daemons need, which has to wait until nobody can go back to one.

use crate::on_installed;
use crate::update::{UPDATE_MAX, runs};
use anyhow::{Context, ensure};
use holdfast_smoke::{Census, DAEMON, Host, Publisher, RELEASE, Result, until};
use std::collections::BTreeSet;
use std::time::Duration;

const DATABASE: &str = "/var/lib/holdfast/owners/alice/holdfast.db";

/// The first column of the first row that a statement gives, as any program of the owner's could ask.
fn sql(host: &Host, statement: &str) -> Result<String> {
    let program = format!(
        "import sqlite3; c = sqlite3.connect(\"{DATABASE}\", timeout=10); r = c.execute(\"{statement}\").fetchone(); \
         c.commit(); print(r[0] if r else \"\")"
    );
    Ok(host.alice().run(&format!("python3 -c '{program}'"))?.ok()?.text())
}

fn form(host: &Host) -> Result<u32> {
    sql(host, "PRAGMA user_version")?.parse().context("user_version")
}

fn names(host: &Host) -> Result<BTreeSet<String>> {
    Ok(host.alice().ps_all()?.into_iter().map(|worker| worker.name).collect())
}

fn update(host: &Host, arguments: &str) -> Result {
    host.root().run_within(UPDATE_MAX, &format!("holdfast update --yes --soak 1 {arguments}"))?.ok().map(drop)
}

#[test]
fn update_back_after_the_newer_release_has_moved_and_written_state() -> Result {
    on_installed(|host| {
        let publisher = Publisher::new(host)?;
        publisher.trust()?;
        publisher.take_next("next")?;
        publisher.publish("next", "0.1.1", 1, "")?;
        let (old, alice) = (form(host)?, host.alice());
        for name in ["first", "second"] {
            alice.run_worker(&format!("--name {name} -- sleep infinity"))?;
        }
        alice.holdfast("network create ours")?.ok()?;
        let census = Census::take(host)?;

        update(host, "")?;
        runs(host, "0.1.1")?;
        ensure!(form(host)? == old + 1, "the form is {}, and was {old}", form(host)?);
        ensure!(sql(host, "SELECT word FROM next_only")? == "said by the next release");
        census.must_hold(host, "a move to a newer form")?;
        // A restart is no reason to take away what the release before needs.
        host.root().run(&format!("systemctl restart {DAEMON}"))?.ok()?;
        ensure!(form(host)? == old + 1, "the form is {} while one can go back", form(host)?);
        alice.run_worker("--name newer --restart always -- sleep infinity")?;
        alice.holdfast("network create theirs")?.ok()?;
        sql(host, "UPDATE workers SET next_words = \\x27said\\x27 WHERE name = \\x27newer\\x27")?;
        let census = Census::take(host)?;

        update(host, "--rollback")?;
        runs(host, "0.1.0")?;
        census.must_hold(host, "a way back from a newer form")?;
        ensure!(alice.holdfast("network ls --json")?.ok()?.text().contains("theirs"), "a network was forgotten");
        alice.holdfast("restart newer")?.ok()?;
        alice.holdfast("rm --force first")?.ok()?;
        alice.run_worker("--name older -- sleep infinity")?;
        let census = Census::take(host)?;

        update(host, "--rollback")?;
        runs(host, "0.1.1")?;
        census.must_hold(host, "forward again")?;
        let wanted = ["newer", "older", "second"].map(str::to_owned).into();
        ensure!(names(host)? == wanted, "{:?}", names(host)?);
        let words = |name: &str| sql(host, &format!("SELECT next_words FROM workers WHERE name = \\x27{name}\\x27"));
        ensure!(words("newer")? == "said" && words("older")? == "unsaid", "what only the newer release knows is lost");

        // Once the older release cannot be gone back to, the step that takes away is made, and not before.
        publisher.publish("next", "0.1.1", 2, "")?;
        let mut watched = host.root().start("holdfast update --yes --soak 5")?;
        until("the record is there", UPDATE_MAX, || {
            ensure!(watched.runs()?, "the update ended");
            Ok(host.root().run("test -e /var/lib/holdfast/txn")?.code == 0)
        })?;
        while watched.runs()? {
            let (found, tried) = (form(host)?, host.root().run("test -e /var/lib/holdfast/txn")?.code == 0);
            ensure!(found == old + 1 || !tried, "the form became {found} before the update was committed");
        }
        watched.wait_within(UPDATE_MAX)?.ok()?;
        host.root().run(&format!("systemctl restart {DAEMON}"))?.ok()?;
        until("the step is made", Duration::from_secs(20), || Ok(form(host)? == old + 2))?;
        census.must_hold(host, "a step that takes away")?;
        let check = format!("holdfastd --check-state {DATABASE} --scratch /tmp/copy.db");
        let said = alice.run(&format!("{RELEASE}/{check}"))?;
        ensure!(said.code == 1 && said.stderr.contains("newer"), "{said}");
        update(host, "--rollback")?;
        census.must_hold(host, "back to the same programs")?;
        runs(host, "0.1.1")
    })
}
