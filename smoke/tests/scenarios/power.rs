//! Units do not stop workers, so power-off has to: in order, with a bounded grace.

use crate::on_installed;
use anyhow::ensure;
use holdfast_smoke::{Down, Host, Result, UNITS, scaled, until};
use std::time::Duration;

#[test]
fn power_off_asks_workers_to_end_and_waits_no_longer_than_its_grace() -> Result {
    let mut host = Host::installed()?;
    let alice = host.alice();
    let deaf = scaled(5);
    for i in 0..deaf {
        alice.run_worker(&format!("--name deaf{i} -- sh -c 'trap \"\" TERM; while :; do sleep 1; done'"))?;
    }
    alice.run("mkdir -p told")?.ok()?;
    let polite = "trap \"echo told > word; sync; exit 0\" TERM; touch ready; while :; do sleep 0.1; done";
    alice.run_worker(&format!("--name polite --workdir ~/told -- sh -c '{polite}'"))?;
    until("it listens", Duration::from_secs(5), || Ok(alice.run("test -e told/ready")?.code == 0))?;
    // Suspended, it hears nothing until it is thawed; thawed it is asked like the others.
    let thawed = polite.replace("word", "word2").replace("ready", "ready2");
    alice.run_worker(&format!("--name frozen --workdir ~/told -- sh -c '{thawed}'"))?;
    until("it listens", Duration::from_secs(20), || Ok(alice.run("test -e told/ready2")?.code == 0))?;
    alice.holdfast("suspend frozen")?.ok()?;
    let took = host.reboot(Down::Orderly, Duration::from_secs(40))?;
    println!("power-off with {deaf} deaf workers: {:.1} s", took.as_secs_f32());
    ensure!(took < Duration::from_secs(15), "power-off took {took:?}");
    let told = host.alice().run("cat told/word told/word2")?.ok()?.text();
    ensure!(told == "told\ntold", "not every worker was asked: {told:?}");
    let all = host.alice().ps_all()?;
    ensure!(all.len() == deaf as usize + 2 && all.iter().all(|worker| worker.phase == "stopped"), "{all:?}");
    ensure!(all.iter().all(|worker| worker.exit.is_some()), "an end is not on record: {all:?}");
    Ok(())
}

#[test]
fn a_start_of_the_units_needs_no_order_and_no_owner_at_hand() -> Result {
    on_installed(|host| {
        host.alice().run_worker("--name stays -- sleep infinity")?;
        let census = holdfast_smoke::Census::take(host)?;
        // As after an isolate, or an administrator's broad stop: the sockets bring back what is asked for.
        // A start that a caller asks for meanwhile cancels the stop of that unit, and that is as good.
        let _ = host.root().run(&format!("systemctl stop {}", UNITS.join(" ")))?;
        census.must_hold(host, "a stop of all three, by the sockets alone")?;
        ensure!(host.alice().holdfast("status")?.code == 0);
        Ok(())
    })
}
