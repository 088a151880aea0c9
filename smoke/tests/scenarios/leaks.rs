//! What a launch makes is gone when its worker is gone, and a launch that fails makes nothing.

use crate::on_installed;
use anyhow::ensure;
use holdfast_smoke::{HELPER, Host, LAUNCHER, Residue, Result, scaled, until};
use std::time::Duration;

/// The first launch makes what stays: the switches of forwarding, the hosts file.
fn warmed_up(host: &Host) -> Result<Residue> {
    host.alice().holdfast("run --rm -- true")?.ok()?;
    host.alice().holdfast("run --rm --publish 9000:80 -- true")?.ok()?;
    std::thread::sleep(Duration::from_millis(300));
    Residue::take(host)
}

#[test]
fn two_hundred_launches_and_stops_leave_the_host_as_before() -> Result {
    on_installed(|host| {
        let before = warmed_up(host)?;
        let count = scaled(200);
        let script = format!(
            "for i in $(seq 1 {count}); do
               holdfast run -d --name w$i --publish $((9000 + i % 1000)):80 -- sleep infinity >/dev/null || exit 1
               [ $((i % 10)) = 0 ] || continue
               for j in $(seq $((i - 9)) $i); do
                 holdfast stop w$j >/dev/null || exit 2
                 holdfast rm w$j >/dev/null || exit 3
               done
             done
             holdfast rm -f $(holdfast ps -aq) 2>/dev/null; true"
        );
        host.alice().run_within(Duration::from_secs(300) * count.div_ceil(200), &script)?.ok()?;
        ensure!(host.alice().ps_all()?.is_empty());
        Residue::must_become(host, &before)?;
        println!("{count} launches and stops: descriptors, links, rules, namespaces, cgroups and files as before");
        Ok(())
    })
}

#[test]
fn workers_that_end_while_everything_is_killed_leave_nothing() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        let before = warmed_up(host)?;
        for round in 0..scaled(5) {
            for i in 0..4 {
                alice.run_worker(&format!("--name r{i} --publish {}:80 -- sleep 0.{i}", 9100 + i))?;
            }
            std::thread::sleep(Duration::from_millis(100 * u64::from(round)));
            host.kill_mains(&holdfast_smoke::UNITS)?;
            until("all have ended", Duration::from_secs(5), || Ok(alice.ps()?.is_empty()))?;
            alice.remove_all()?;
        }
        Residue::must_become(host, &before)
    })
}

/// System calls of the launcher and its shim that make the cage, each failed by a seccomp filter that
/// systemd sets from outside.
#[test]
fn a_launch_fails_clean_when_a_call_of_the_launcher_is_refused() -> Result {
    on_installed(|host| {
        let calls: &[(&str, &[&str])] = &[
            ("clone3", &["user namespace"]),
            ("move_mount", &[]),
            ("open_tree", &[]),
            ("fsopen", &[]),
            ("pivot_root", &[]),
            ("setns", &[]),
            ("sethostname", &[]),
            ("umount2", &[]),
            ("seccomp", &[]),
            ("capset", &[]),
            ("setuid", &[]),
        ];
        for (call, words) in calls {
            let before = warmed_up(host)?;
            let refused = format!("SystemCallFilter=~{call}\nSystemCallErrorNumber=EPERM");
            if let Err(error) = host.drop_in(LAUNCHER, &refused) {
                println!("{call}: the launcher refuses to serve: {error}");
            }
            let run = "holdfast run -d --name broken -- sleep infinity";
            let said = host.alice().run_within(Duration::from_secs(30), run)?;
            if said.code == 0 {
                println!("{call}: not needed by a launch");
                host.alice().holdfast("rm -f broken")?.ok()?;
            } else {
                ensure!(said.code == 125, "{call}: the launch was to fail with 125\n{said}");
                for word in *words {
                    ensure!(said.stderr.contains(word), "{call}: the cause is not named ({word})\n{said}");
                }
                let again = scaled(1) - 1;
                let script = format!("for i in $(seq {again}); do {run} 2>/dev/null; [ $? = 125 ] || exit 1; done");
                host.alice().run_within(Duration::from_secs(30) + Duration::from_secs(2) * again, &script)?.ok()?;
                println!("{call}, {} times: {}", again + 1, said.stderr.trim());
            }
            ensure!(host.alice().ps_all()?.is_empty(), "{call}: a refused launch is on record");
            let _ = host.systemctl(&format!("reset-failed {LAUNCHER}"));
            host.no_drop_in(LAUNCHER)?;
            until("a launch works again", Duration::from_secs(5), || {
                Ok(host.alice().holdfast("run --rm -- true")?.code == 0)
            })?;
            Residue::must_become(host, &before).map_err(|error| error.context(format!("after {call} was refused")))?;
        }
        Ok(())
    })
}

/// The helper's netlink requests, each failed once by ptrace.
#[test]
fn a_launch_fails_clean_at_each_netlink_request_of_the_helper() -> Result {
    on_installed(|host| {
        let before = warmed_up(host)?;
        let mut failed = 0;
        for nth in (0..scaled(12)).map(|round| 1 + round % 12) {
            let pid = host.main_pid(HELPER)?;
            let strace = host.root().start(&format!(
                "exec strace -f -q -o /dev/null -p {pid} -e trace=sendto,sendmsg -e inject=sendto,sendmsg:error=ENOBUFS:when={nth}"
            ))?;
            until(
                "strace holds the helper",
                Duration::from_secs(5),
                || Ok(host.status_line(pid, "TracerPid")? != "0"),
            )?;
            let said = host.alice().run_within(
                Duration::from_secs(30),
                "holdfast run -d --name broken --publish 9001:80 -- sleep infinity",
            )?;
            host.root().run("kill -INT $(pgrep -x strace)")?;
            drop(strace);
            until("strace let go", Duration::from_secs(5), || Ok(host.root().run("pgrep -x strace")?.code == 1))?;
            match said.code {
                0 => {}
                3 | 125 => failed += 1,
                _ => anyhow::bail!("message {nth}: not a promised exit code\n{said}"),
            }
            until("nothing is on record", Duration::from_secs(5), || {
                host.alice().remove_all()?;
                Ok(host.alice().holdfast("run --rm -- true")?.code == 0 && host.alice().ps_all()?.is_empty())
            })?;
            Residue::must_become(host, &before).map_err(|error| error.context(format!("message {nth} failed")))?;
        }
        ensure!(failed > 0, "no injected failure reached a launch");
        println!("{failed} launches failed at a message of the helper, nothing left");
        Ok(())
    })
}

/// A helper that cannot start: a launch is refused in good time, and nothing of it is left.
#[test]
fn a_launch_fails_clean_while_the_helper_cannot_start() -> Result {
    on_installed(|host| {
        let before = warmed_up(host)?;
        ensure!(host.drop_in(HELPER, "SystemCallFilter=~sendmsg sendto\nSystemCallErrorNumber=EPERM").is_err());
        let run = "holdfast run -d --name broken --publish 9001:80 -- sleep infinity";
        let said = host.alice().run_within(Duration::from_secs(30), run)?.refuses(125, &["helper"])?;
        println!("after {} ms: {}", said.took.as_millis(), said.stderr.trim());
        ensure!(host.alice().ps_all()?.is_empty(), "a refused launch is on record");
        let _ = host.root().run("systemctl reset-failed 'holdfast*'")?;
        host.no_drop_in(HELPER)?;
        Residue::must_become(host, &before)?;
        host.alice().holdfast("run --rm --publish 9001:80 -- true")?.ok()?;
        Ok(())
    })
}

/// The helper is given hardly more descriptors than it needs for itself: it refuses, and recovers.
#[test]
fn a_launch_fails_clean_when_the_helper_has_no_descriptor_left() -> Result {
    on_installed(|host| {
        let before = warmed_up(host)?;
        let held = std::fs::read_dir(host.path(&format!("/proc/{}/fd", host.main_pid(HELPER)?)))?.count();
        for spare in 0..scaled(6) as usize {
            if let Err(error) = host.drop_in(HELPER, &format!("LimitNOFILE={}", held + spare)) {
                println!("{spare} descriptors to spare: the helper refuses to serve: {error}");
            }
            let run = "holdfast run -d --name tight --publish 9001:80 -- sleep infinity";
            let said = host.alice().run_within(Duration::from_secs(30), run)?;
            ensure!([0, 3, 125].contains(&said.code), "with {spare} descriptors to spare\n{said}");
            let _ = host.root().run("systemctl reset-failed 'holdfast*'")?;
            host.no_drop_in(HELPER)?;
            until("it serves again", Duration::from_secs(5), || {
                host.alice().remove_all()?;
                Ok(host.alice().holdfast("run --rm -- true")?.code == 0)
            })?;
        }
        Residue::must_become(host, &before)
    })
}
