//! What a worker may use at most, and what becomes of the others when it tries for more.

use crate::on_installed;
use anyhow::{Context, ensure};
use holdfast_smoke::{Census, Host, Result, User, scaled, until};
use std::time::{Duration, Instant};

/// Forks until it is refused (a thousand times at most, so that a host without the defence survives it), lets each
/// child go on trying for three seconds, and says how many tasks it got.
const BOMB: &str = r#"
import os, time
got = 1
end = time.time() + 3
while got < 1000:
    try: child = os.fork()
    except OSError: break
    if child == 0:
        while time.time() < end:
            try:
                if os.fork() == 0: os._exit(0)
                os.wait()
            except OSError: pass
            time.sleep(0.02)
        time.sleep(1000)
    got += 1
print("tasks", got, flush=True)
time.sleep(1000)
"#;

/// Starts a detached worker that runs this Python program.
fn run_python(alice: &User<'_>, options: &str, program: &str) -> Result {
    let file = format!("{}.py", options.split_whitespace().nth(1).unwrap_or("program"));
    alice.feed(&format!("mkdir -p programs && cat > programs/{file}"), program.as_bytes())?.ok()?;
    alice.run_worker(&format!("{options} --workdir ~/programs -- python3 -u {file}"))?;
    Ok(())
}

fn limits_of(host: &Host, worker: &str) -> Result<serde_json::Value> {
    let shown: serde_json::Value = host.alice().holdfast(&format!("inspect {worker} --json"))?.ok()?.json()?;
    Ok(shown["limits"].clone())
}

/// Whether this host's workers have that controller: then a limit is enforced, else it is refused.
fn has_controller(host: &Host, worker: &str, controller: &str) -> Result<bool> {
    let pid = host.alice().worker(worker)?.live_pid()?;
    let there =
        host.root().run(&format!("cat /sys/fs/cgroup$(sed -n s/^0:://p /proc/{pid}/cgroup)/cgroup.controllers"))?;
    Ok(there.ok()?.text().split_whitespace().any(|word| word == controller))
}

#[test]
fn t47_a_bomb_in_one_worker_leaves_the_others_alone() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        let others = scaled(10);
        for number in 0..others {
            alice.run_worker(&format!("--name other-{number} --net none -- sleep infinity"))?;
        }
        let before = Census::take(host)?;
        run_python(&alice, "--name bomb --net none --pids 100", BOMB)?;
        let mut took = Vec::new();
        until("the bomb met its limit", Duration::from_secs(60), || {
            let began = Instant::now();
            alice.ps()?;
            took.push(began.elapsed());
            Ok(alice.holdfast("logs bomb")?.ok()?.text().contains("tasks"))
        })?;
        let said = alice.holdfast("logs bomb")?.ok()?.text();
        let got: u32 = said.strip_prefix("tasks ").and_then(|count| count.trim().parse().ok()).context("no count")?;
        // Those that its children made in the same moment count as well.
        ensure!((20..=100).contains(&got), "a limit of 100 tasks, and the worker had others: {said}");
        for _ in 0..40 {
            let began = Instant::now();
            alice.ps()?;
            took.push(began.elapsed());
        }
        took.sort();
        println!(
            "ps beside a bomb in one of {}: median {:?}, p99 {:?}, worst {:?}",
            others + 1,
            took[took.len() / 2],
            took[took.len() * 99 / 100],
            took[took.len() - 1]
        );
        // Another worker of the same owner has a count of its own.
        let ran = alice.holdfast("run --rm --net none --pids 100 -- sh -c 'sleep 0 & wait; echo fine'")?.ok()?;
        ensure!(ran.text() == "fine", "{ran}");
        // It is counted where it should be, and goes as a whole.
        ensure!(limits_of(host, "bomb")?["pids"] == 100);
        let used: serde_json::Value = alice.holdfast("stats --no-stream --json bomb")?.ok()?.json()?;
        ensure!(used[0]["tasks"].as_u64().is_some_and(|tasks| tasks <= 100), "{used}");
        alice.holdfast("kill bomb")?.ok()?;
        ensure!(alice.wait_code("bomb")? == "137");
        alice.holdfast("rm bomb")?.ok()?;
        before.must_hold(host, "a bomb")?;
        Ok(())
    })
}

#[test]
fn limits_are_enforced_or_refused_by_name() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        alice.run_worker("--name plain --net none -- sleep infinity")?;
        let shown = limits_of(host, "plain")?;
        ensure!(shown["pids"] == 4096 && shown["memory_bytes"].is_null() && shown["enforced_by"]["memory"].is_null());
        let by = shown["enforced_by"]["pids"].as_str().context("nobody enforces pids")?.to_owned();
        ensure!(by == if has_controller(host, "plain", "pids")? { "cgroup" } else { "rlimit" }, "pids by {by}");
        for (option, controller) in [("--memory 64m", "memory"), ("--cpus 0.5", "cpu")] {
            let name = format!("best-{controller}");
            alice.run_worker(&format!("--name {name} --net none --best-effort {option} -- sleep infinity"))?;
            let key = if controller == "cpu" { "cpus" } else { controller };
            let by = limits_of(host, &name)?["enforced_by"][key].as_str().unwrap_or("null").to_owned();
            let ran = alice.holdfast(&format!("run --net none --name tried {option} -- true"))?;
            if has_controller(host, "plain", controller)? {
                ran.ok()?;
                ensure!(by == "cgroup", "{option}: {by}");
                alice.holdfast("rm tried")?.ok()?;
            } else {
                println!("SKIPPED: no {controller} controller for workers here: {option} is refused, not enforced");
                let said = ran.refuses(125, &[controller, "controller", "--best-effort"])?;
                ensure!(said.stderr.contains(option.split(' ').next().unwrap_or(option)), "{said}");
                ensure!(by == "nobody", "{option}: {by}");
                ensure!(
                    alice.ps_all()?.iter().all(|worker| worker.name != "tried"),
                    "a refused worker stays on record"
                );
            }
        }
        // A worker cannot raise what it was given, nor count against anybody else.
        let tried = "ulimit -u; ulimit -Hu; ulimit -u 5000 2>/dev/null && echo raised; true";
        let said = alice.holdfast(&format!("run --rm --net none --pids 50 -- bash -c '{tried}'"))?.ok()?.text();
        ensure!(!said.contains("raised"), "{said}");
        println!("pids enforced by {by}; inside, ulimit -u says {:?}", said.lines().collect::<Vec<_>>());
        // Also what runs beside the program counts.
        let one = alice.holdfast("run --rm --net none --pids 1 -- sh -c 'echo alone; sleep 0 & wait'")?;
        ensure!(one.text() == "alone", "{one}");
        for wrong in ["--memory 1", "--memory lots", "--cpus 0", "--cpus two", "--pids 0", "--pids many"] {
            alice
                .holdfast(&format!("run --net none {wrong} -- true"))?
                .refuses(2, &[wrong.split(' ').next().unwrap_or(wrong)])?;
        }
        Ok(())
    })
}
