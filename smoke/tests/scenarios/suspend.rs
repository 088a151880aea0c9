//! Suspend and resume: a worker stands still with everything it has, and goes on as if nothing had been.

use crate::on_installed;
use anyhow::ensure;
use holdfast_smoke::{DAEMON, ExitShown, Host, Result, WorkerShown, until};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

/// What the kernel says of the worker's cgroup.
fn is_frozen(host: &Host, worker: &WorkerShown) -> Result<bool> {
    let find = format!("cat $(find /sys/fs/cgroup -path '*w-{}/worker/cgroup.events')", worker.id);
    Ok(host.root().run(&find)?.ok()?.text().lines().any(|line| line == "frozen 1"))
}

fn until_phase(host: &Host, name: &str, phase: &str) -> Result<WorkerShown> {
    until(&format!("{name} is {phase}"), PATIENCE, || Ok(host.alice().worker(name)?.phase == phase))?;
    host.alice().worker(name)
}

#[test]
fn a_download_through_a_suspended_and_resumed_worker_completes() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        alice.run("mkdir -p site && head -c 50000000 /dev/urandom > site/big")?.ok()?;
        alice.run_web("web", 8090, "~/site")?;
        let before = alice.worker("web")?;
        let download = alice.start("exec curl -fsS --limit-rate 15M -o got http://localhost:8090/big")?;
        let size = || Ok::<u64, anyhow::Error>(alice.run("stat -c %s got")?.text().parse().unwrap_or(0));
        until("the download has begun", PATIENCE, || Ok(size()? > 1_000_000))?;
        let began = Instant::now();
        alice.holdfast("suspend web")?.ok()?;
        println!("suspend: {} ms", began.elapsed().as_millis());
        let suspended = alice.worker("web")?;
        ensure!(suspended.phase == "suspended" && is_frozen(host, &suspended)?, "{suspended:?}");
        ensure!(alice.holdfast("ps")?.ok()?.text().contains("suspended"), "ps hides a suspended worker");
        // What was under way in sockets still arrives; then nothing does.
        until("nothing comes any more", PATIENCE, || {
            let before = size()?;
            std::thread::sleep(Duration::from_millis(500));
            Ok(size()? == before)
        })?;
        ensure!(size()? < 50_000_000, "all of it had come: nothing was shown");
        let began = Instant::now();
        alice.holdfast("resume web")?.ok()?;
        println!("resume: {} ms", began.elapsed().as_millis());
        download.wait_within(Duration::from_secs(60))?.ok()?;
        alice.run("cmp got site/big")?.ok()?;
        let after = alice.worker("web")?;
        ensure!(after == before, "{before:?} became {after:?}");
        Ok(())
    })
}

#[test]
fn a_suspended_worker_is_stopped_killed_and_started_anew() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        let polite = "trap \"echo told; exit 7\" TERM; echo up; while :; do sleep 0.1; done";
        alice.run_worker(&format!("--name polite -- sh -c '{polite}'"))?;
        until("it listens", PATIENCE, || Ok(alice.holdfast("logs polite")?.text() == "up"))?;
        // Twice at once is as good as once; each wrong verb says what works.
        let (one, two) = (alice.start("exec holdfast suspend polite")?, alice.start("exec holdfast suspend polite")?);
        one.wait_within(PATIENCE)?.ok()?;
        two.wait_within(PATIENCE)?.ok()?;
        let suspended = alice.worker("polite")?;
        ensure!(suspended.phase == "suspended" && is_frozen(host, &suspended)?, "{suspended:?}");
        alice.holdfast("start polite")?.refuses(5, &["suspended", "holdfast resume polite"])?;
        alice.holdfast("rm polite")?.refuses(5, &["suspended", "holdfast stop polite"])?;
        // Its own handler ran: it was thawed before it was asked.
        alice.holdfast("stop polite")?.ok()?;
        let stopped = alice.worker("polite")?;
        ensure!(stopped.phase == "stopped" && stopped.exit == Some(ExitShown::code(7)), "{stopped:?}");
        ensure!(alice.holdfast("logs polite")?.ok()?.text() == "up\ntold");
        alice.holdfast("suspend polite")?.refuses(5, &["stopped", "holdfast start polite"])?;
        alice.holdfast("resume polite")?.refuses(5, &["stopped", "holdfast start polite"])?;
        alice.holdfast("suspend nosuch")?.refuses(4, &["nosuch"])?;
        ensure!(alice.worker("polite")? == stopped, "a refused verb changed it");
        // The next start is not born frozen, also where the last one was killed in its ice.
        alice.holdfast("start polite")?.ok()?;
        alice.holdfast("suspend polite")?.ok()?;
        alice.holdfast("kill polite")?.ok()?;
        let killed = until_phase(host, "polite", "failed")?;
        ensure!(killed.exit == Some(ExitShown::signal(9)), "{killed:?}");
        alice.holdfast("start polite")?.ok()?;
        until("it has written", PATIENCE, || Ok(alice.holdfast("logs polite")?.text().matches("up").count() == 3))?;
        alice.holdfast("suspend polite")?.ok()?;
        alice.holdfast("restart polite")?.ok()?;
        let anew = alice.worker("polite")?;
        ensure!((anew.phase.as_str(), anew.generation) == ("running", 4), "{anew:?}");
        ensure!(!is_frozen(host, &anew)?, "it was born frozen");
        Ok(())
    })
}

/// Whatever was under way when the daemon died: what is shown afterwards is what the kernel says.
#[test]
fn a_daemon_killed_in_any_phase_is_followed_by_the_truth() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        alice.run_worker("--name web --restart always -- sleep infinity")?;
        let first = alice.worker("web")?;
        for (round, verb) in ["suspend", "resume", "suspend", "resume", "stop", "start", "restart"].iter().enumerate() {
            let command = alice.start(&format!("exec holdfast {verb} web"))?;
            // At another moment of the command each round.
            std::thread::sleep(Duration::from_millis(7 * round as u64));
            host.kill_mains(&[DAEMON])?;
            command.wait_within(Duration::from_secs(60))?;
            until("the daemon answers", PATIENCE, || Ok(alice.ps_all().is_ok()))?;
            until("the phase is settled and true", PATIENCE, || {
                let worker = alice.worker("web")?;
                Ok(match worker.phase.as_str() {
                    "running" => worker.live_pid().is_ok() && !is_frozen(host, &worker)?,
                    "suspended" => worker.live_pid().is_ok() && is_frozen(host, &worker)?,
                    "stopped" => worker.pid.is_none() && host.shims()? == 0,
                    _ => false,
                })
            })?;
            let worker = alice.worker("web")?;
            println!("{verb}, cut off: {} in generation {}", worker.phase, worker.generation);
            // Whichever it was, the same verb again is done.
            if !["start", "restart"].contains(verb) || worker.phase == "stopped" {
                alice.holdfast(&format!("{verb} web"))?.ok()?;
            }
            ensure!(round >= 4 || alice.worker("web")?.pid == first.pid, "suspend and resume keep the process");
        }
        // Frozen by hand while nobody looked.
        until_phase(host, "web", "running")?;
        host.keep_down(&[DAEMON])?;
        let freeze = format!("echo 1 > $(find /sys/fs/cgroup -path '*w-{}/worker/cgroup.freeze')", first.id);
        host.root().run(&freeze)?.ok()?;
        host.bring_up(&[DAEMON])?;
        until_phase(host, "web", "suspended")?;
        alice.holdfast("resume web")?.ok()?;
        until_phase(host, "web", "running")?;
        Ok(())
    })
}
