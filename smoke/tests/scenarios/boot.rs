//! After a boot: what should run runs again, and nothing else.

use anyhow::{Context, ensure};
use holdfast_smoke::{Down, Host, Result, WorkerShown, until};
use serde_json::Value;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
const OFF_WITHIN: Duration = Duration::from_secs(60);

#[test]
fn always_and_unless_stopped_come_back_and_what_was_stopped_does_not() -> Result {
    let mut host = Host::installed()?;
    let outcome = boots(&mut host);
    host.explain(outcome)
}

fn boots(host: &mut Host) -> Result {
    let alice = host.alice();
    for (name, options) in [
        ("always", "--restart always --publish 8087:80"),
        ("unless", "--restart unless-stopped"),
        ("told", "--restart unless-stopped"),
        ("failing", "--restart on-failure"),
        ("plain", ""),
        ("frozen", "--restart unless-stopped"),
    ] {
        alice.run_worker(&format!("--name {name} {options} -- sleep infinity"))?;
    }
    alice.run_worker("--name waits --restart always -- sh -c 'exit 1'")?;
    alice.run_worker("--name config --restart always -- sh -c 'exit 78'")?;
    alice.holdfast("stop -t 1 told")?.ok()?;
    alice.holdfast("suspend frozen")?.ok()?;
    let took = host.reboot(Down::Orderly, OFF_WITHIN)?;
    println!("orderly way down with 7 workers: {:.1} s", took.as_secs_f32());
    let back = [("always", 2), ("unless", 2), ("frozen", 2)];
    await_running(host, &back)?;
    down(host, &[("told", "stopped"), ("failing", "stopped"), ("plain", "stopped"), ("config", "failed")])?;
    until("what waited goes on", PATIENCE, || Ok(host.alice().worker("waits")?.generation > 2))?;
    let history = inspect(host, "unless")?["history"].to_string();
    ensure!(history.contains("the host goes down") && history.contains("the host has booted"), "{history}");
    ensure!(host.alice().worker("always")?.restarts == 1, "a start by the boot is one by policy");
    // A power cut: nothing was asked, nothing was recorded.
    host.alice().holdfast("start plain failing")?.ok()?;
    host.alice().holdfast("stop waits")?.ok()?;
    host.reboot(Down::Cut, OFF_WITHIN)?;
    await_running(host, &back.map(|(name, generation)| (name, generation + 1)))?;
    down(host, &[("told", "stopped"), ("failing", "failed"), ("plain", "failed"), ("config", "failed")])?;
    let history = inspect(host, "plain")?["history"].to_string();
    ensure!(history.contains("the host has booted"), "it does not say why it is down: {history}");
    // `always` means it, also after a stop by hand; each can be had back.
    until("always is always", PATIENCE, || Ok(host.alice().worker("waits")?.restarts > 0))?;
    host.alice().holdfast("start plain told")?.ok()?;
    Ok(())
}

fn await_running(host: &Host, names: &[(&str, u64)]) -> Result {
    for (name, generation) in names {
        let mut last: Option<WorkerShown> = None;
        let outcome = until(&format!("{name} runs again"), PATIENCE, || {
            let worker = host.alice().worker(name)?;
            let runs = worker.phase == "running" && worker.generation == *generation;
            last = Some(worker);
            Ok(runs)
        });
        outcome.with_context(|| format!("{last:?}"))?;
    }
    Ok(())
}

fn down(host: &Host, expected: &[(&str, &str)]) -> Result {
    for (name, phase) in expected {
        let worker = host.alice().worker(name)?;
        ensure!(worker.phase == *phase && worker.pid.is_none(), "{name} is not {phase}: {worker:?}");
    }
    Ok(())
}

fn inspect(host: &Host, name: &str) -> Result<Value> {
    host.alice().holdfast(&format!("inspect --json {name}"))?.ok()?.json()
}
