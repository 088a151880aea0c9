//! Several updates at once, Ctrl-C, and terminals that go away.

use crate::on_installed;
use crate::update::{UPDATE_MAX, runs, update};
use anyhow::ensure;
use holdfast_smoke::{Host, Publisher, Result, until};
use serde_json::Value;

fn published(host: &Host) -> Result {
    let publisher = Publisher::new(host)?;
    publisher.trust()?;
    publisher.take_next("next")?;
    publisher.publish("next", "0.1.1", 5, "")
}

#[test]
fn t60_of_many_updates_at_once_one_runs_and_the_others_say_which() -> Result {
    on_installed(|host| {
        published(host)?;
        let line = "exec holdfast update --yes --soak 3 --json";
        let all = (0..8).map(|_| host.root().start(line)).collect::<Result<Vec<_>>>()?;
        let mut outcomes = Vec::new();
        for one in all {
            let said = one.wait_within(UPDATE_MAX)?;
            let json: Value = said.json()?;
            let of = "locked: update (process ";
            let locked = said.code == 5 && json["refusal"] == "locked" && said.stderr.contains(of);
            outcomes.push(if locked { "locked".to_owned() } else { format!("{} {}", said.code, json["result"]) });
        }
        let count = |outcome: &str| outcomes.iter().filter(|one| *one == outcome).count();
        // Who came when the one had ended found nothing to do.
        let (updated, locked, current) = (count("0 \"updated\""), count("locked"), count("0 \"current\""));
        let one_at_a_time = updated == 1 && locked > 0 && updated + locked + current == outcomes.len();
        ensure!(one_at_a_time, "not one at a time: {outcomes:?}");
        runs(host, "0.1.1")?;
        let mode = host.root().run("stat -c '%U %a' /run/holdfast-system.lock")?.ok()?.text();
        ensure!(mode == "root 600", "the lock's file is {mode}");
        // A link in its place is nobody's but root's to make: /run is root's. One that root made is followed nowhere else.
        host.alice().run("ln -s /etc/passwd /run/holdfast-system.lock")?.exits(1)?;
        Ok(())
    })
}

/// The process of the update that runs.
fn update_pid(host: &Host) -> Result<String> {
    let pid =
        host.root().run("sed -n 's/^update (process \\([0-9]*\\))$/\\1/p' /run/holdfast-system.lock")?.ok()?.text();
    ensure!(!pid.is_empty(), "no update holds the lock");
    Ok(pid)
}

#[test]
fn update_at_a_terminal_shows_a_bar_and_outlives_it() -> Result {
    on_installed(|host| {
        published(host)?;
        let seen = host
            .root()
            .run_within(UPDATE_MAX, "TERM=xterm script -qec 'holdfast update --dry-run' /dev/null")?
            .ok()?
            .text();
        ensure!(seen.contains("fetched") && seen.contains("[==="), "no bar: {seen}");
        let plain = update(host, "--dry-run")?.ok()?;
        ensure!(!plain.stderr.contains("[===") && plain.stderr.contains("fetch holdfastd ("), "{plain}");

        // Ctrl-C while it fetches: it ends, and nothing has changed.
        let fetching = host.root().start("exec holdfast update --yes --soak 1")?;
        until("it fetches", UPDATE_MAX, || {
            Ok(host.root().run("ls -d /usr/local/lib/holdfast/releases/.stage-*")?.code == 0)
        })?;
        host.root().run(&format!("kill -INT {}", update_pid(host)?))?.ok()?;
        let ended = fetching.wait_within(UPDATE_MAX)?;
        ensure!(ended.code == 130, "it was not ended: {ended}");
        runs(host, "0.1.0")?;

        // Once the programs change, Ctrl-C and a terminal that goes away change nothing.
        let at_terminal = host.root().start("exec script -qec 'holdfast update --yes --soak 5' /dev/null")?;
        until("the change is under way", UPDATE_MAX, || {
            Ok(host.root().run("test -e /var/lib/holdfast/txn")?.code == 0)
        })?;
        let pid = update_pid(host)?;
        host.root().run(&format!("kill -INT -$(ps -o pgid= -p {pid} | tr -d ' '); kill -HUP {pid}"))?.ok()?;
        // Its terminal's other end is closed.
        at_terminal.kill()?;
        until("it has ended", UPDATE_MAX, || Ok(host.root().run(&format!("test -e /proc/{pid}"))?.code == 1))?;
        runs(host, "0.1.1")?;
        let history: Value = host.alice().run("holdfast update --history --json")?.ok()?.json()?;
        ensure!(history.as_array().is_some_and(|all| all.len() == 1 && all[0]["result"] == "updated"), "{history}");
        Ok(())
    })
}
