//! A worker's whole life: it starts again by its policy, whoever was down when it ended, and stops when it is told.

use crate::on_installed;
use anyhow::{Context, ensure};
use holdfast_smoke::{DAEMON, ExitShown, Host, Result, WorkerShown, until};
use serde_json::Value;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until the worker is so; it as it then is.
fn until_worker(host: &Host, name: &str, what: &str, holds: impl Fn(&WorkerShown) -> bool) -> Result<WorkerShown> {
    let mut last = None;
    let found = until(&format!("{name} {what}"), PATIENCE, || {
        let worker = host.alice().worker(name)?;
        let so = holds(&worker);
        last = Some(worker);
        Ok(so)
    });
    let last = last.with_context(|| format!("{name} was never seen"));
    found.with_context(|| format!("{last:?}"))?;
    last
}

fn inspect(host: &Host, name: &str) -> Result<Value> {
    host.alice().holdfast(&format!("inspect --json {name}"))?.ok()?.json()
}

/// The pauses between each end and the start that follows it, as the history has them.
fn pauses_ms(host: &Host, name: &str) -> Result<Vec<i64>> {
    let inspected = inspect(host, name)?;
    let history = inspected["history"].as_array().context("history")?;
    let times = history.iter().map(|entry| {
        let time: jiff::Timestamp = entry["time"].as_str().context("time")?.parse()?;
        Ok((entry["phase"].as_str().unwrap_or_default().to_owned(), time.as_millisecond()))
    });
    let times = times.collect::<Result<Vec<_>>>()?;
    let pairs = times.windows(2).filter(|pair| pair[0].0 == "waiting" && pair[1].0 == "starting");
    Ok(pairs.map(|pair| pair[1].1 - pair[0].1).collect())
}

#[test]
fn each_policy_starts_again_what_it_promises() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        for bad in ["banana", "on-failure:0", "on-failure:x", "always:3", "\"\""] {
            alice.holdfast(&format!("run -d --restart {bad} -- true"))?.refuses(2, &["unless-stopped"])?;
        }
        ensure!(alice.ps_all()?.is_empty(), "a refused worker is on record");
        // No policy starts again what says that it cannot work (125, 78), and on-failure nothing that went well.
        for (policy, code) in [("always", 78), ("unless-stopped", 125), ("on-failure", 0), ("no", 1)] {
            alice.run_worker(&format!("--name ends --restart {policy} -- sh -c 'exit {code}'"))?;
            let ended =
                until_worker(host, "ends", "is down", |worker| ["stopped", "failed"].contains(&worker.phase.as_str()))?;
            ensure!(ended.exit == Some(ExitShown::code(code)) && ended.generation == 1, "{policy}: {ended:?}");
            ensure!(ended.phase == if code == 0 { "stopped" } else { "failed" }, "{policy}: {ended:?}");
            alice.holdfast("rm ends")?.ok()?;
        }
        // In the foreground: one run, all its output, the last exit code, and nothing left.
        let three = alice.holdfast("run --rm --restart on-failure:2 -- sh -c 'echo turn; exit 9'")?.exits(9)?;
        ensure!(three.text() == "turn\nturn\nturn", "{three}");
        ensure!(alice.ps_all()?.is_empty(), "--rm left the worker");
        alice.run_worker("--name tries --restart on-failure:3 -- sh -c 'exit 3'")?;
        let spent = until_worker(host, "tries", "gave up", |worker| worker.phase == "failed")?;
        ensure!((spent.restarts, spent.generation) == (3, 4), "{spent:?}");
        println!("on-failure:3: pauses of {:?} ms", pauses_ms(host, "tries")?);
        // By hand it begins anew.
        alice.holdfast("start tries")?.ok()?;
        let again = until_worker(host, "tries", "gave up again", |worker| worker.generation == 8)?;
        ensure!(again.restarts == 3, "{again:?}");
        // Ends well, and is started again all the same; a published port comes back with it.
        alice.run_worker("--name always --restart always --publish 8085:80 -- sh -c 'sleep 0.3'")?;
        let third = until_worker(host, "always", "has its third start", |worker| worker.generation >= 3)?;
        ensure!(third.exit == Some(ExitShown::code(0)) && third.restarts >= 2, "{third:?}");
        Ok(())
    })
}

#[test]
fn a_planned_stop_ends_a_policy_and_an_outside_signal_does_not() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        alice.run_worker("--name web --restart always -- sleep infinity")?;
        let started = |generation| {
            move |worker: &WorkerShown| (worker.generation, worker.phase.as_str()) == (generation, "running")
        };
        let first = until_worker(host, "web", "runs", started(1))?;
        alice.holdfast("kill -s TERM web")?.ok()?;
        let second = until_worker(host, "web", "runs again after holdfast kill", started(2))?;
        let began = std::time::Instant::now();
        host.root().run(&format!("kill -9 {}", second.live_pid()?))?.ok()?;
        let third = until_worker(host, "web", "runs again after kill -9 from outside", started(3))?;
        println!("kill -9 from outside until it runs again: {} ms", began.elapsed().as_millis());
        ensure!(third.restarts == 2 && third.exit == Some(ExitShown::signal(9)), "{third:?}");
        ensure!(third.pid != first.pid && third.id == first.id);
        alice.holdfast("stop web")?.ok()?;
        let stopped = alice.worker("web")?;
        ensure!((stopped.phase.as_str(), stopped.next_start_at.as_ref()) == ("stopped", None), "{stopped:?}");
        // A start by hand forgives; a stop of one that waits for its next start cancels that start.
        alice.run_worker("--name waits --restart on-failure -- sh -c 'exit 1'")?;
        let waits = until_worker(host, "waits", "waits", |worker| worker.phase == "waiting" && worker.restarts >= 4)?;
        ensure!(waits.next_start_at.is_some(), "{waits:?}");
        let listed = alice.holdfast("ps")?.ok()?.text();
        ensure!(listed.lines().any(|line| line.contains("waits")), "ps hides a worker that will start again\n{listed}");
        ensure!(alice.holdfast("inspect waits")?.ok()?.text().contains("on-failure"), "inspect hides the policy");
        alice.holdfast("rm waits")?.refuses(5, &["waiting", "stop"])?;
        alice.holdfast("stop waits")?.ok()?;
        let stopped = alice.worker("waits")?;
        ensure!((stopped.phase.as_str(), stopped.next_start_at.as_ref()) == ("stopped", None), "{stopped:?}");
        std::thread::sleep(Duration::from_secs(2));
        ensure!(alice.worker("waits")? == stopped, "it started after its stop");
        alice.holdfast("rm waits web")?.ok()?;
        Ok(())
    })
}

#[test]
fn a_start_that_is_owed_survives_the_daemon() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        alice.run_worker("--name waits --restart always -- sh -c 'exit 1'")?;
        alice.run_worker("--name dies --restart always --publish 8086:80 -- sleep infinity")?;
        alice.run_worker("--name stays-down -- sleep infinity")?;
        let dies = alice.worker("dies")?;
        let stays_down = alice.worker("stays-down")?;
        // Long enough a pause that the daemon is killed within it.
        let waits = until_worker(host, "waits", "waits", |worker| worker.phase == "waiting" && worker.restarts >= 3)?;
        host.keep_down(&[DAEMON])?;
        host.root().run(&format!("kill -9 {} {}", dies.live_pid()?, stays_down.live_pid()?))?.ok()?;
        until("their shims have ended", PATIENCE, || Ok(host.shims()? == 0))?;
        host.bring_up(&[DAEMON])?;
        let began = std::time::Instant::now();
        let back = until_worker(host, "dies", "runs again", |worker| worker.phase == "running")?;
        println!("owed start: {} ms after the daemon's", began.elapsed().as_millis());
        ensure!((back.generation, back.restarts) == (2, 1) && back.exit == Some(ExitShown::signal(9)), "{back:?}");
        until_worker(host, "waits", "is started again", |worker| worker.generation > waits.generation)?;
        let down = alice.worker("stays-down")?;
        ensure!((down.phase.as_str(), down.generation) == ("failed", 1), "{down:?}");
        // And a crash at any moment: after each the policy goes on.
        for _ in 0..3 {
            let before = alice.worker("waits")?.generation;
            let _ = host.kill_mains(&[DAEMON]);
            until("the daemon answers", PATIENCE, || Ok(alice.ps().is_ok()))?;
            until_worker(host, "waits", "goes on", |worker| worker.generation > before)?;
        }
        Ok(())
    })
}

/// A shim that was stopped is the nearest that a test comes to a process which the kernel does not let go of.
#[test]
fn what_cannot_be_killed_is_said_and_watched_until_it_goes() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        alice.run_worker("--name stuck --restart always -- sleep infinity")?;
        let shim = inspect(host, "stuck")?["shim"]["pid"].as_u64().context("shim.pid")?;
        host.root().run(&format!("kill -STOP {shim}"))?.ok()?;
        let stop = alice.run_within(Duration::from_secs(60), "holdfast stop -t 1 stuck")?;
        stop.refuses(5, &["stuck", "still there", "watched"])?;
        ensure!(alice.worker("stuck")?.phase == "stopping", "it is shown as something that it is not");
        alice.holdfast("start stuck")?.refuses(5, &["stopping"])?;
        host.root().run(&format!("kill -CONT {shim}"))?.ok()?;
        let gone = until_worker(host, "stuck", "is stopped", |worker| worker.phase == "stopped")?;
        ensure!(gone.exit == Some(ExitShown::signal(15)) && gone.generation == 1, "{gone:?}");
        Ok(())
    })
}

/// V13: a launch that fails counts like an end, and is tried again with growing pauses until what stands in its way is gone.
#[test]
fn a_start_that_fails_for_a_while_is_tried_again() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        alice.run_worker("--name web --restart always --publish 8091:80 -- sleep infinity")?;
        let first = alice.worker("web")?;
        host.keep_down(&[DAEMON])?;
        host.root().run(&format!("kill -9 {}", first.live_pid()?))?.ok()?;
        until("its shim has ended", PATIENCE, || Ok(host.shims()? == 0))?;
        let other = host.root().start("exec nc -l -k 8091")?;
        until("another program has the port", PATIENCE, || Ok(host.root().run("nc -z 127.0.0.1 8091")?.code == 0))?;
        host.bring_up(&[DAEMON])?;
        let waits = until_worker(host, "web", "was refused twice and waits", |worker| {
            worker.phase == "waiting" && worker.generation >= first.generation + 2
        })?;
        ensure!(waits.restarts >= 2, "failed launches do not count: {waits:?}");
        let history = inspect(host, "web")?["history"].to_string();
        ensure!(history.contains("8091"), "it does not say why it waits: {history}");
        other.kill()?;
        let back = until_worker(host, "web", "runs again", |worker| worker.phase == "running")?;
        ensure!(back.ports.iter().any(|port| port.host == 8091), "{back:?}");
        Ok(())
    })
}
