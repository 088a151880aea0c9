//! What workers use, as `stats` and `top` show it.

use crate::on_installed;
use anyhow::{Context, ensure};
use holdfast_smoke::{Host, Result, until};
use serde::Deserialize;
use std::time::Duration;

/// One entry of `stats --json`.
#[derive(Debug, Deserialize)]
struct Used {
    name: String,
    phase: String,
    cpu_percent: Option<f64>,
    cpu_seconds: Option<f64>,
    memory_bytes: Option<u64>,
    memory_source: Option<String>,
    tasks: Option<u64>,
    received_bytes: Option<u64>,
    sent_bytes: Option<u64>,
    restarts: u32,
    uptime_seconds: Option<u64>,
}

fn stats(host: &Host, workers: &str) -> Result<Vec<Used>> {
    host.alice().holdfast(&format!("stats --no-stream --json {workers}"))?.ok()?.json()
}

fn one(host: &Host, worker: &str) -> Result<Used> {
    stats(host, worker)?.into_iter().next().with_context(|| format!("stats does not list {worker}"))
}

#[test]
fn stats_tell_what_each_worker_uses() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        alice.run_worker("--name busy --net none -- sh -c 'while :; do :; done'")?;
        alice.run_worker("--name six --net none -- sh -c 'for i in 1 2 3 4 5; do sleep 1000 & done; wait'")?;
        alice.run_worker(
            "--name large --net none -- python3 -c 'import time; b = bytearray(b\"x\") * (64 << 20); time.sleep(1000)'",
        )?;
        alice.run("mkdir site && head -c 1048576 /dev/urandom > site/file")?.ok()?;
        alice.run_web("web", 8080, "~/site")?;
        until("the large worker has its memory", Duration::from_secs(20), || {
            Ok(one(host, "large")?.memory_bytes.is_some_and(|bytes| bytes > 64 << 20))
        })?;
        until("the worker of six has its six", Duration::from_secs(20), || Ok(one(host, "six")?.tasks == Some(6)))?;
        let busy = one(host, "busy")?;
        ensure!(busy.cpu_percent.is_some_and(|percent| percent > 5.0), "{busy:?}");
        let idle = one(host, "six")?;
        ensure!(idle.cpu_percent.is_some_and(|percent| percent < 5.0), "{idle:?}");
        ensure!(idle.received_bytes.is_none() && idle.sent_bytes.is_none(), "network none has no link: {idle:?}");

        let before = one(host, "web")?;
        alice.run("curl -fsS -o /dev/null http://localhost:8080/file")?.ok()?;
        let after = one(host, "web")?;
        let sent = after.sent_bytes.unwrap_or(0) - before.sent_bytes.unwrap_or(0);
        ensure!((1 << 20..2 << 20).contains(&sent), "1 MiB was fetched, {sent} bytes were sent");
        ensure!(after.received_bytes > before.received_bytes && after.restarts == 0, "{after:?}");
        println!("memory is counted by {:?} on this host", after.memory_source);

        // What a daemon does not remember it cannot lose.
        let before = one(host, "busy")?;
        host.kill_mains(&["holdfastd@alice"])?;
        let after = one(host, "busy")?;
        ensure!(after.cpu_seconds > before.cpu_seconds && after.uptime_seconds >= before.uptime_seconds, "{after:?}");
        ensure!(after.cpu_percent.is_some_and(|percent| percent > 5.0), "{after:?}");

        alice.holdfast("kill busy")?.ok()?;
        alice.holdfast("wait busy")?.ok()?;
        let all = stats(host, "")?;
        ensure!(all.len() == 3 && all.iter().all(|used| used.phase == "running"), "{all:?}");
        let ended = one(host, "busy")?;
        ensure!(
            ended.memory_bytes.is_none() && ended.uptime_seconds.is_none() && ended.phase != "running",
            "{ended:?}"
        );
        ensure!(stats(host, "--all")?.iter().any(|used| used.name == "busy"), "--all shows who has ended, too");
        let table = alice.holdfast("stats --no-stream large web")?.ok()?.text();
        ensure!(table.starts_with("NAME") && table.lines().count() == 3, "{table}");
        alice.holdfast("stats --no-stream nobody")?.refuses(4, &["nobody"])?;
        host.as_user("bob").holdfast("stats --no-stream")?.refuses(3, &[])?;
        Ok(())
    })
}

/// A shim that does not answer costs nobody else anything, and nobody can put another `/proc` where it counts.
#[test]
fn stats_wait_for_no_shim_and_walk_into_no_trap() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        alice.run("mkdir -p trap/1/net && mkfifo trap/1/net/dev trap/1/stat trap/7")?.ok()?;
        alice.holdfast("run -d --name trap -v ~/trap:/proc -- sleep 1000")?.refuses(126, &["/proc"])?;
        alice.run_worker("--name stuck --net none -- sleep 1000")?;
        alice.run_worker("--name plain -- sleep 1000")?;
        let shown: serde_json::Value = alice.holdfast("inspect stuck --json")?.ok()?.json()?;
        let shim = shown["shim"]["pid"].as_u64().context("inspect shows no shim")?;
        alice.run(&format!("kill -STOP {shim}"))?.ok()?;
        let all = stats(host, "")?;
        alice.run(&format!("kill -CONT {shim}"))?.ok()?;
        let named = |name: &str| all.iter().find(|used| used.name == name).with_context(|| format!("no {name}"));
        ensure!(named("stuck")?.memory_bytes.is_none(), "a stopped shim answered: {all:?}");
        ensure!(named("plain")?.tasks == Some(1) && named("plain")?.received_bytes.is_some(), "{all:?}");
        ensure!(one(host, "stuck")?.tasks == Some(1), "it goes on, and answers again");
        Ok(())
    })
}
