//! A daemon gives way to another one: nobody is refused, and where the other one is no good, nothing changes.

use crate::on_installed;
use crate::unbroken::crowd;
use anyhow::ensure;
use holdfast_smoke::{DAEMON, Host, Result, scaled, until};
use serde_json::Value;
use std::time::Duration;

/// Speaks as a successor until a certain word, in the daemon's own unit and sandbox, and then does as it is told to.
const HOSTILE: &str = r#"
import socket, struct, sys, time
def word(kind, fields=b"", version=1):
    said = b"HFho" + struct.pack("<HH", version, len(fields) + 1) + bytes([kind]) + fields
    total = 0xcbf29ce484222325
    for byte in said:
        total = ((total ^ byte) * 0x100000001b3) % (1 << 64)
    return said + struct.pack("<Q", total)
text = lambda text: struct.pack("<H", len(text)) + text.encode()
hello, prepared, ready = word(1, text("9.9.9")), word(3), word(5)
line = socket.socket(socket.AF_UNIX)
line.connect("/run/holdfast/owners/alice/daemon.sock")
how = sys.argv[1]
if how == "newer":
    line.sendall(word(1, text("9.9.9"), 2))
elif how == "older":
    line.sendall(word(1, text("0.0.1"), 0))
elif how == "garbage":
    line.sendall(hello[:20] + b"\xff" * 40)
else:
    line.sendall(hello)
    line.recv(4096)
    if how == "vanishes":
        line.sendall(prepared)
    elif how == "says-no":
        line.sendall(word(7, text("its disk is on fire")))
    elif how == "out-of-turn":
        line.sendall(ready)
    elif how == "never-ready":
        line.sendall(prepared)
        line.recv(4096)
        time.sleep(300)
    elif how == "hangs":
        time.sleep(300)
if how != "vanishes":
    line.settimeout(60)
    try:
        line.recv(4096)
    except OSError:
        pass
sys.exit(3)
"#;

fn status(host: &Host) -> Result<Value> {
    let status: Value = host.alice().holdfast("status --json")?.ok()?.json()?;
    Ok(status["programs"][0].clone())
}

/// What the kernel says of a process that its sandbox decides; mounts without their numbers, which differ each time.
fn sandbox(host: &Host, pid: u32) -> Result<String> {
    let status =
        "grep -E '^(Uid|Gid|Groups|NoNewPrivs|Seccomp|Seccomp_filters|Cap|Umask|SigBlk|SigIgn)' /proc/PID/status";
    let mounts = "awk '{ $1=$2=$3=\"\"; print }' /proc/PID/mountinfo | sed 's/shared:[0-9]* //; s/master:[0-9]* //; s/systemd-private-[^ /]*//g' | sort";
    let line =
        format!("{status}; {mounts}; cat /proc/PID/limits; ls /proc/PID/task | wc -l").replace("PID", &pid.to_string());
    Ok(host.root().run(&line)?.ok()?.text())
}

fn descriptors(host: &Host, pid: u32) -> Result<String> {
    Ok(host.root().run(&format!("ls -l /proc/{pid}/fd | wc -l"))?.ok()?.text())
}

#[test]
fn handovers_under_load_refuse_lose_and_double_nothing() -> Result {
    on_installed(|host| {
        let (first, restarts) = (host.main_pid(DAEMON)?, host.property(DAEMON, "NRestarts")?);
        let before = sandbox(host, first)?;
        let (generation, count) = (status(host)?["generation"].as_u64(), scaled(4));
        crowd(host, "holdfast=holdfast network=bridge", || {
            for _ in 0..count {
                let old = host.main_pid(DAEMON)?;
                host.root().run("holdfast system handover")?.ok()?;
                until("the successor is the main process", Duration::from_secs(20), || {
                    Ok(host.main_pid(DAEMON)? != old && !host.path(&format!("/proc/{old}")).exists())
                })?;
                ensure!(host.property(DAEMON, "ActiveState")? == "active");
            }
            Ok(())
        })?;
        let shown = status(host)?;
        ensure!(shown["handovers"] == count, "{shown}");
        ensure!(shown["generation"].as_u64() == generation.map(|generation| generation + u64::from(count)), "{shown}");
        ensure!(host.property(DAEMON, "NRestarts")? == restarts, "systemd restarted it");
        let successor = sandbox(host, host.main_pid(DAEMON)?)?;
        ensure!(successor == before, "after a start\n{before}\nafter a handover\n{successor}");
        // It is systemd's own: a crash of it is seen, and its watchdog is fed.
        host.kill_mains(&[DAEMON])?;
        until("systemd starts another one", Duration::from_secs(20), || {
            Ok(host.main_pid(DAEMON).is_ok_and(|pid| pid != 0) && status(host)?["handovers"] == 0)
        })?;
        // A unit file that changed is no handover's affair.
        let (old, file) = (host.main_pid(DAEMON)?, "/etc/systemd/system/holdfastd@.service");
        host.root().run(&format!("echo '# changed' >> {file}"))?.ok()?;
        let said = host.root().run("holdfast system handover")?.ok()?;
        ensure!(said.stderr.contains("restart"), "{said}");
        ensure!(host.main_pid(DAEMON)? != old && status(host)?["handovers"] == 0);
        Ok(())
    })
}

#[test]
fn t63_successors_that_are_no_good_change_nothing() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        alice.run_worker("--name w --net none -- sleep infinity")?;
        host.root().feed("cat > /usr/local/bin/hostile.py", HOSTILE.as_bytes())?.ok()?;
        let python = |how: &str| format!("/usr/bin/python3 /usr/local/bin/hostile.py {how}");
        let pid = host.main_pid(DAEMON)?;
        let follower = alice.start("exec holdfast logs -f w")?;
        until("it is followed", Duration::from_secs(10), || Ok(alice.run("pgrep -xc holdfast")?.text() != "0"))?;
        let mut open = String::new();
        let cases = [
            ("exits", "/bin/false".to_owned(), ""),
            ("says-no", python("says-no"), "disk is on fire"),
            ("newer", python("newer"), "version 2"),
            ("older", python("older"), "version 0"),
            ("garbage", python("garbage"), "handover"),
            ("out-of-turn", python("out-of-turn"), "out of turn"),
            ("vanishes", python("vanishes"), "successor"),
            ("hangs", python("hangs"), "silent"),
            ("never-ready", python("never-ready"), "silent"),
        ];
        for (name, command, reason) in cases {
            let directory = format!("/run/systemd/system/{DAEMON}.d");
            let lines = format!("[Service]\nExecReload=\nExecReload={command}\n");
            host.root().run(&format!("mkdir -p {directory}"))?.ok()?;
            host.root().feed(&format!("cat > {directory}/hostile.conf"), lines.as_bytes())?.ok()?;
            host.systemctl("daemon-reload")?;
            let said = host.root().run("holdfast system handover")?;
            ensure!(said.code == 1, "{name}: {said}");
            ensure!(host.main_pid(DAEMON)? == pid, "{name}: another main process");
            let shown = status(host)?;
            ensure!(shown["handovers"] == 0 && shown["pid"] == pid, "{name}: {shown}");
            let why = shown["handover_failure"].as_str().unwrap_or_default().to_owned();
            ensure!(why.contains(reason), "{name}: {why:?}");
            alice.holdfast("run --rm --net none -- true")?.ok()?;
            // Nothing is left of it: neither a process of the unit nor a descriptor.
            until("the unit has one process", Duration::from_secs(10), || {
                let group = host.property(DAEMON, "ControlGroup")?;
                Ok(host.root().run(&format!("cat /sys/fs/cgroup{group}/cgroup.procs"))?.text() == pid.to_string())
            })?;
            let now = descriptors(host, pid)?;
            if open.is_empty() {
                open.clone_from(&now);
            }
            let fits = |now: &str| Ok::<bool, anyhow::Error>(now.parse::<i32>()? <= open.parse::<i32>()? + 2);
            ensure!(fits(&now)?, "{name}: {open} descriptors before, {now} after");
        }
        drop(follower);
        host.root().run(&format!("rm -r /run/systemd/system/{DAEMON}.d"))?.ok()?;
        host.systemctl("daemon-reload")?;
        host.root().run("holdfast system handover")?.ok()?;
        ensure!(host.main_pid(DAEMON)? != pid && status(host)?["handovers"] == 1);
        Ok(())
    })
}

#[test]
fn streams_go_on_over_handovers_and_crashes() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        let lines = 20_000;
        let writer = format!(
            "i=0; while [ $i -lt {lines} ]; do i=$((i+1)); echo $i; [ $((i % 50)) != 0 ] || sleep 0.02; done; exit 7"
        );
        alice.run_worker(&format!("--name w --net none -- sh -c '{writer}'"))?;
        alice.run_worker("--name shell --net none -- sleep infinity")?;
        let mut logs = alice.start("exec holdfast logs -f w")?;
        let wait = alice.start("exec holdfast wait w")?;
        let events = alice.start("exec holdfast events -f --json --since 1h")?;
        let exec = alice.start(
            "(i=0; while [ $i -lt 100 ]; do i=$((i+1)); echo in $i; sleep 0.05; done) | holdfast exec -i shell -- cat",
        )?;
        for round in 0..scaled(3) {
            match round % 2 {
                0 => drop(host.root().run("holdfast system handover")?.ok()?),
                _ => host.kill_mains(&[DAEMON])?,
            }
            until("it answers", Duration::from_secs(20), || Ok(alice.holdfast("ps -q")?.code == 0))?;
        }
        ensure!(logs.runs()?, "there was nothing left to follow");
        let said = logs.wait_within(Duration::from_secs(120))?.ok()?;
        let expected: String = (1..=lines).map(|line| format!("{line}\n")).collect();
        ensure!(
            said.stdout == expected.as_bytes(),
            "lines were lost, doubled or out of order: {} bytes",
            said.stdout.len()
        );
        ensure!(wait.wait_within(Duration::from_secs(30))?.ok()?.text() == "7");
        let echoed = exec.wait_within(Duration::from_secs(60))?.ok()?;
        let expected: String = (1..=100).map(|line| format!("in {line}\n")).collect();
        ensure!(echoed.stdout == expected.as_bytes(), "{echoed}");
        let told = events.kill()?;
        let cursors: Vec<u64> = told
            .text()
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok()?["cursor"].as_u64())
            .collect();
        ensure!(!cursors.is_empty() && cursors.windows(2).all(|two| two[1] == two[0] + 1), "{cursors:?}");
        Ok(())
    })
}
