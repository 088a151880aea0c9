//! No exit status and no byte of output is lost, whoever is down when a worker ends.

use crate::on_installed;
use anyhow::{Context, ensure};
use holdfast_smoke::{DAEMON, ExitShown, Host, Result, UNITS, until};
use std::time::Duration;

const MIB: usize = 1024 * 1024;

/// The four ends, each as the last thing of a program that writes its output first.
const ENDS: [(&str, &str); 4] =
    [("zero", "exit 0"), ("answer", "exit 42"), ("segv", "kill -SEGV $$"), ("kill", "kill -KILL $$")];

fn end_of(name: &str) -> ExitShown {
    match name {
        "zero" => ExitShown::code(0),
        "answer" => ExitShown::code(42),
        "segv" => ExitShown::signal(11),
        _ => ExitShown::signal(9),
    }
}

/// Starts the four; each writes when the file `go` appears in its directory, then ends.
fn start_all(host: &Host, bytes: usize) -> Result {
    host.alice().run("mkdir -p gate && rm -f gate/go")?.ok()?;
    for (name, end) in ENDS {
        let program = format!(
            "until [ -e go ]; do sleep 0.05; done; head -c {} /dev/zero | tr \"\\0\" x; echo; echo last line of {name}; {end}",
            bytes - 1 - "last line of \n".len() - name.len()
        );
        host.alice().run_worker(&format!("--name {name} --log-size 200MiB --workdir ~/gate -- sh -c '{program}'"))?;
    }
    Ok(())
}

fn open_gate(host: &Host) -> Result {
    host.alice().run("touch gate/go")?.ok()?;
    Ok(())
}

/// All shims are gone: everything that will be recorded is recorded, by nobody but them.
fn await_ends(host: &Host) -> Result {
    until("every worker has ended", Duration::from_secs(30), || Ok(host.shims()? == 0))?;
    Ok(())
}

fn check(host: &Host, bytes: usize) -> Result {
    let alice = host.alice();
    for (name, _) in ENDS {
        let worker = alice.worker(name)?;
        ensure!(worker.exit == Some(end_of(name)), "{name}: {worker:?}");
        ensure!(worker.phase == "stopped" || worker.phase == "failed", "{name}: {worker:?}");
        let output = alice
            .run(&format!(
                "holdfast logs {name} > out && wc -c < out && head -c {} out | tr -d x | wc -c && tail -n 1 out",
                bytes / 2
            ))?
            .ok()?;
        ensure!(
            output.text() == format!("{bytes}\n0\nlast line of {name}"),
            "{name}: its output is not complete\n{output}"
        );
        let records =
            host.root().run(&format!("ls /var/lib/holdfast/owners/alice/workers/{} | grep -c '^exit'", worker.id))?;
        ensure!(records.text() == "1", "{name}: {} records", records.text());
        let code = alice.wait_code(name)?;
        let expected = match end_of(name) {
            ExitShown { signal: Some(signal), .. } => 128 + signal,
            ExitShown { code, .. } => code.context("one of the two")?,
        };
        ensure!(code == expected.to_string(), "{name}: wait says {code}");
        alice.holdfast(&format!("rm {name}"))?.ok()?;
    }
    Ok(())
}

#[test]
fn ends_are_recorded_while_everything_is_up() -> Result {
    on_installed(|host| {
        start_all(host, MIB)?;
        open_gate(host)?;
        for (name, _) in ENDS {
            host.alice().wait_code(name)?;
        }
        check(host, MIB)
    })
}

#[test]
fn ends_are_recorded_while_the_daemon_is_down() -> Result {
    on_installed(|host| ends_while_down(host, &[DAEMON], MIB))
}

#[test]
fn ends_are_recorded_while_all_three_are_down() -> Result {
    on_installed(|host| ends_while_down(host, &UNITS, MIB))
}

fn ends_while_down(host: &Host, units: &[&str], bytes: usize) -> Result {
    start_all(host, bytes)?;
    host.keep_down(units)?;
    open_gate(host)?;
    await_ends(host)?;
    host.bring_up(units)?;
    until("the daemon lists the ends", Duration::from_secs(2), || {
        let all = host.alice().ps_all()?;
        Ok(all.len() == ENDS.len() && all.iter().all(|worker| worker.exit.is_some()))
    })?;
    check(host, bytes)
}

/// At full speed in three workers at once, through kills of everything.
#[test]
fn a_hundred_mebibytes_are_complete_through_kills() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        const BYTES: usize = 100 * MIB;
        for name in ["a", "b", "c"] {
            let program = format!("yes 0123456789abcde | head -c {BYTES}; exit 42");
            alice.run_worker(&format!("--name {name} --log-size 200MiB -- sh -c '{program}'"))?;
        }
        host.kill_mains(&UNITS)?;
        std::thread::sleep(Duration::from_millis(300));
        let _ = host.kill_mains(&[DAEMON]);
        let expected = alice.run(&format!("yes 0123456789abcde | head -c {BYTES} | sha256sum"))?.ok()?.text();
        for name in ["a", "b", "c"] {
            until("the daemon answers", Duration::from_secs(5), || Ok(alice.ps().is_ok()))?;
            let code = alice.run_within(Duration::from_secs(120), &format!("holdfast wait {name}"))?.ok()?.text();
            ensure!(code == "42", "{name} ended with {code}");
            let found =
                alice.run_within(Duration::from_secs(120), &format!("holdfast logs {name} | sha256sum"))?.ok()?.text();
            ensure!(found == expected, "{name}: the output differs");
        }
        Ok(())
    })
}

#[test]
fn a_missing_reader_and_a_full_disk_never_block_a_worker() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        let state = "/var/lib/holdfast/owners/alice/workers";
        host.root().run(&format!("install -d -o alice -g alice -m 700 {state} && mount -t tmpfs -o size=4m,mode=0700,uid=1000,gid=1000 tmpfs {state}"))?.ok()?;
        alice.run_worker("--name loud -- sh -c 'head -c 20000000 /dev/zero; echo done >&2; sleep infinity'")?;
        until("it wrote everything", Duration::from_secs(20), || {
            Ok(host.root().run("pgrep -x head")?.code == 1 && host.root().run("pgrep -x sleep")?.code == 0)
        })?;
        // While the disk is full there is no room to note what is missing; the record of the end, which has its room
        // from the start, says it all.
        alice.holdfast("stop loud")?.ok()?;
        let inspected: serde_json::Value = alice.holdfast("inspect --json loud")?.ok()?.json()?;
        let log = &inspected["log"];
        ensure!(log["dropped"].as_u64().is_some_and(|dropped| dropped > 10_000_000), "{log}");
        ensure!(log["bytes"].as_u64() == Some(20_000_005), "{log}");
        alice.holdfast("rm loud")?.ok()?;
        host.root().run(&format!("umount {state}"))?.ok()?;
        Ok(())
    })
}

#[test]
fn a_killed_shim_is_reported_as_lost_and_its_network_freed() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        alice.run_worker("--name orphan --publish 8088:80 -- sleep infinity")?;
        let inspected: serde_json::Value = alice.holdfast("inspect --json orphan")?.ok()?.json()?;
        let shim = inspected["shim"]["pid"].as_u64().context("shim.pid")?;
        let pid = alice.worker("orphan")?.live_pid()?;
        host.root().run(&format!("kill -9 {shim}"))?.ok()?;
        until("it is failed", Duration::from_secs(2), || Ok(alice.worker("orphan")?.phase == "failed"))?;
        ensure!(!host.path(&format!("/proc/{pid}")).exists(), "the worker outlived its shim");
        until("its network is freed", Duration::from_secs(2), || {
            Ok(host.root().run("ip -o link | grep -c ': hf.*@'")?.text() == "0")
        })?;
        alice.run_worker("--name heir --publish 8088:80 -- sleep infinity")?;
        Ok(())
    })
}
