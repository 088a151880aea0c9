//! Several updates at once.

use crate::on_installed;
use crate::update::{UPDATE_MAX, runs};
use anyhow::ensure;
use holdfast_smoke::{Host, Publisher, Result};
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
