//! Where workers live: cgroups of their own, which neither systemd nor a crash of Holdfast's programs touches.

use crate::{on_fresh, on_installed};
use anyhow::{Context, ensure};
use holdfast_smoke::{Census, DAEMON, ExitShown, HELPER, Host, LAUNCHER, Result, WORKERS, scaled, until};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);
const SLICE: &str = "/sys/fs/cgroup/holdfast.slice/holdfast-alice:.slice";

/// Switches controllers on where nobody else does: systemd knows nothing of hugetlb, all that v2 has on some machines.
fn switch_on(host: &Host, controllers: &[String]) -> Result {
    let words: Vec<String> = controllers.iter().map(|name| format!("+{name}")).collect();
    let script = format!(
        "for g in /sys/fs/cgroup /sys/fs/cgroup/holdfast.slice {SLICE} {SLICE}/{WORKERS} {SLICE}/{WORKERS}/w-*; do
           for c in {}; do echo $c > $g/cgroup.subtree_control || exit 1; done
         done",
        words.join(" ")
    );
    host.root().run(&script)?.ok()?;
    Ok(())
}

/// Every cgroup of the owner's workers: whose it is, who is in it, what it hands on, how it limits.
fn shape(host: &Host) -> Result<String> {
    let script = format!(
        "stat -c '%n %U' {SLICE}/cgroup.procs; cat {SLICE}/cgroup.subtree_control
         for g in $(find {SLICE}/{WORKERS} -type d ! -name .control | sort); do
           echo $g $(stat -c %U $g $g/cgroup.procs) : $(cat $g/cgroup.procs) : $(cat $g/cgroup.subtree_control) : \
             $(cat $g/memory.max $g/cpu.max $g/pids.max $g/cgroup.freeze 2>/dev/null)
         done"
    );
    Ok(host.root().run(&script)?.ok()?.text())
}

/// A launcher of the release before: its workers are below its own unit. With a controller on, systemd 252 cannot start it.
fn old_layout(host: &Host, controller: &str) -> Result<String> {
    let program = format!(
        "#!/bin/sh\nset -e\ng=/sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup)\nmkdir -p $g/launcher $g/worker\n\
         echo $$ > $g/launcher/cgroup.procs\necho +{controller} > $g/cgroup.subtree_control\n\
         sh -c 'echo $$ > '$g'/worker/cgroup.procs; exec sleep 1000' &\nexec sleep 1000\n"
    );
    host.root().feed("cat > /srv/old && chmod 755 /srv/old", program.as_bytes())?.ok()?;
    let unit = "[Service]\nExecStart=/srv/old\nDelegate=yes\nKillMode=process\nSendSIGKILL=no\nRestart=always\nRestartSec=100ms\n";
    host.root().feed("cat > /run/systemd/system/old.service", unit.as_bytes())?.ok()?;
    let offer = format!("echo +{controller} > /sys/fs/cgroup/system.slice/cgroup.subtree_control");
    host.root().run(&offer)?.ok()?;
    host.systemctl("daemon-reload")?;
    host.systemctl("start old.service")?;
    let grown = "cat /sys/fs/cgroup/system.slice/old.service/worker/cgroup.procs";
    until("it has a worker", PATIENCE, || Ok(!host.root().run(grown)?.text().is_empty()))?;
    host.kill_mains(&["old.service"])?;
    // A newer systemd may start it: then there is nothing more to tell.
    let failed = || host.property("old.service", "ExecMainStatus");
    let _ = until("it fails", Duration::from_secs(5), || Ok(failed()? == "219"));
    let said = format!("{} ({})", failed()?, host.property("old.service", "Result")?);
    host.root().run("systemctl stop old.service; echo 1 > /sys/fs/cgroup/system.slice/old.service/cgroup.kill")?;
    Ok(said)
}

#[test]
fn t49_nothing_that_systemd_does_moves_workers_or_resets_their_cgroups() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        let controllers = host.offer_controllers()?;
        for number in 0..3 {
            alice.run_worker(&format!("--name w{number} --net none --pids 50 -- sleep infinity"))?;
        }
        switch_on(host, &controllers)?;
        let (lives, before) = (Census::take(host)?, shape(host)?);
        println!("controllers on for workers: {}", controllers.join(" "));
        for round in 0..scaled(20) {
            host.kill_mains(&[LAUNCHER])?;
            match round % 5 {
                1 => drop(host.systemctl("daemon-reload")?),
                2 => drop(host.systemctl("daemon-reexec")?),
                3 => drop(host.systemctl(&format!("restart {LAUNCHER}"))?),
                4 => drop(host.systemctl("daemon-reload && systemctl daemon-reexec && systemctl daemon-reload")?),
                _ => {}
            }
            until("the launcher launches", PATIENCE, || Ok(alice.holdfast("run --rm --net none -- true")?.code == 0))?;
            let settled = until("cgroups are as before", PATIENCE, || Ok(shape(host)? == before));
            settled.with_context(|| {
                format!("round {round}: before\n{before}\nafter\n{}", shape(host).unwrap_or_default())
            })?;
        }
        lives.must_hold(host, "kills, reloads and re-executions")?;
        let refused = host.root().run(&format!("systemctl restart {WORKERS}"))?;
        ensure!(refused.code != 0, "the unit that workers live in can be restarted\n{refused}");
        alice.holdfast("suspend w0")?.ok()?;
        alice.holdfast("resume w0")?.ok()?;
        lives.must_hold(host, "a suspension")?;
        match controllers.first() {
            Some(controller) => println!(
                "the layout before, with {controller} on, a worker alive and its main killed: {}",
                old_layout(host, controller)?
            ),
            None => println!("not seen here: this machine's cgroup v2 has no controller at all"),
        }
        Ok(())
    })
}

#[test]
fn t48_a_worker_out_of_memory_stops_no_unit() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        host.offer_controllers()?;
        alice.run_worker("--name other --net none -- sleep infinity")?;
        let units = [HELPER, DAEMON, LAUNCHER, WORKERS];
        let state = || -> Result<String> {
            host.systemctl(&format!(
                "show --property ActiveState,SubState,MainPID,NRestarts,Result {}",
                units.join(" ")
            ))
        };
        let (lives, before) = (Census::take(host)?, state()?);
        for unit in units {
            ensure!(host.property(unit, "OOMPolicy")? == "continue", "{unit}");
        }
        let take = "--name hungry --memory 64m --net none -- python3 -c 'x = bytearray(1 << 30)'";
        let is_limited = alice.holdfast(&format!("run {take}"))?.code == 137;
        for _ in 0..scaled(3) {
            alice.holdfast("rm -f hungry")?;
            if is_limited {
                alice.holdfast(&format!("run {take}"))?;
                let end = alice.worker("hungry")?.exit.context("it lives")?;
                ensure!(end == ExitShown::signal(9), "{end:?}");
                let told: serde_json::Value = alice.holdfast("inspect hungry --json")?.ok()?.json()?;
                ensure!(told["history"][0]["oom"] == true, "{told:#}");
                ensure!(alice.holdfast("ps -a")?.ok()?.text().contains("out of memory"));
            } else {
                // As the kernel would end it: every process of it, from outside.
                alice.run_worker("--name hungry --net none -- sh -c 'sleep 100 & sleep 100'")?;
                let id = alice.worker("hungry")?.id;
                host.root().run(&format!("kill -9 $(cat {SLICE}/{WORKERS}/w-{id}/worker/cgroup.procs)"))?.ok()?;
                until("it has ended", PATIENCE, || Ok(alice.worker("hungry")?.phase != "running"))?;
            }
        }
        ensure!(state()? == before, "before\n{before}\nafter\n{}", state()?);
        lives.must_hold(host, "workers that ran out of memory")?;
        if !is_limited {
            println!(
                "not seen here: memory.max at work (v2 has no memory controller on this machine); killed from outside instead"
            );
        }
        Ok(())
    })
}

#[test]
fn a_killed_keeper_costs_nothing_and_comes_back_when_no_worker_lives() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        alice.run_worker("--name lives --net none -- sleep infinity")?;
        let lives = Census::take(host)?;
        let keeper = host.main_pid(WORKERS)?;
        alice.run(&format!("kill -9 {keeper}"))?.ok()?;
        until("systemd knows", PATIENCE, || Ok(host.property(WORKERS, "MainPID")? == "0"))?;
        ensure!(host.property(WORKERS, "ActiveState")? == "active");
        host.kill_mains(&[LAUNCHER])?;
        until("the launcher launches", PATIENCE, || Ok(alice.holdfast("run --rm --net none -- true")?.code == 0))?;
        lives.must_hold(host, "the keeper's death")?;
        alice.holdfast("stop lives")?.ok()?;
        let is_kept =
            || Ok(host.property(WORKERS, "ActiveState")? == "active" && host.property(WORKERS, "MainPID")? != "0");
        until("another keeper", PATIENCE, is_kept)?;
        // Below the cgroup that the launcher knew there is nothing any more.
        alice.holdfast("run --rm --net none -- true")?.ok()?;
        let keeper = host.main_pid(WORKERS)?;
        alice.run(&format!("kill -9 {keeper}"))?.ok()?;
        alice.holdfast("run --rm --net none -- true")?.ok()?;
        Ok(())
    })
}

#[test]
fn an_owners_slice_opens_nothing_to_another_owner() -> Result {
    on_fresh(|host| {
        host.root().run("useradd -m john && useradd -m john-doe && useradd -m john--doe")?.ok()?;
        host.install("--owner john")?;
        host.install("--owner john-doe")?;
        let twice = host.root().run("/usr/local/bin/holdfast system install --owner john--doe")?;
        twice.refuses(5, &["two '-' in a row"])?;
        let (john, doe) = (host.as_user("john"), host.as_user("john-doe"));
        for user in [&john, &doe] {
            user.holdfast("run -d --name w --net none -- sleep infinity")?.ok()?;
            user.holdfast("suspend w")?.ok()?;
            user.holdfast("resume w")?.ok()?;
        }
        let pid = doe.worker("w")?.live_pid()?;
        let place = host.root().run(&format!("sed -n s/^0:://p /proc/{pid}/cgroup"))?.ok()?.text();
        let expected =
            "/holdfast.slice/holdfast-john.slice/holdfast-john-doe:.slice/holdfast-workers@john-doe.service/w-";
        ensure!(place.starts_with(expected), "{place}");
        // Into any cgroup of john's, and out of any that is not.
        let theft = format!(
            "for g in $(find /sys/fs/cgroup/holdfast.slice -type d); do
               echo {pid} 2>/dev/null > $g/cgroup.procs && echo moved to $g
               echo 1 2>/dev/null > $g/cgroup.freeze && case $g in *john-doe*) echo froze $g;; *) echo 0 > $g/cgroup.freeze;; esac
             done; true"
        );
        let said = john.run(&theft)?.ok()?;
        ensure!(said.text().is_empty(), "john reaches john-doe's worker\n{said}");
        ensure!(host.root().run(&format!("sed -n s/^0:://p /proc/{pid}/cgroup"))?.ok()?.text() == place);
        // Root's command opens the slice that it runs in, and that of the named owner, or none.
        for user in [&john, &host.root()] {
            ensure!(user.run("/usr/local/bin/holdfast system open-slice --owner john")?.code != 0);
        }
        let owners = host.root().run("find /sys/fs/cgroup -maxdepth 4 -name cgroup.procs -user john")?.ok()?.text();
        ensure!(owners.lines().all(|path| path.contains("/holdfast-john:.slice/")), "{owners}");
        host.root().run("/usr/local/bin/holdfast system uninstall --purge --stop-workers")?.ok()?;
        let left = host
            .root()
            .run("find /sys/fs/cgroup -path '*/holdfast*'; systemctl list-units --all --no-legend 'holdfast*'")?;
        ensure!(left.text().is_empty(), "{left}");
        Ok(())
    })
}
