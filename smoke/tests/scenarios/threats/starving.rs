//! What others can use up or take away: limits, descriptors, processes, disk, and the time of who answers.

use super::attempts;
use crate::on_installed;
use anyhow::{Context, ensure};
use holdfast_smoke::{Census, DAEMON, HELPER, Host, LAUNCHER, Result, scaled, until};
use std::path::PathBuf;
use std::time::Duration;

/// Asked over and over while something goes on: the median and the worst of a hundred, in milliseconds.
const TIMED: &str = "import subprocess, sys, time
times = []
for _ in range(int(sys.argv[1])):
    began = time.monotonic()
    done = subprocess.run(sys.argv[2:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    times.append((time.monotonic() - began) * 1000)
    if done.returncode: sys.exit(f'{done.returncode}: {done.stderr.decode()}')
times.sort()
print(f'median {times[len(times) // 2]:.1f} ms, p99 {times[max(0, len(times) * 99 // 100 - 1)]:.1f} ms of {len(times)}')";

/// How long a command took, each of many times in a row; each has to succeed.
fn timed(user: holdfast_smoke::User<'_>, times: u32, command: &str) -> Result<String> {
    Ok(user.feed(&format!("python3 - {times} {command}"), TIMED.as_bytes())?.ok()?.text())
}

#[test]
fn t02_the_owner_can_neither_stop_nor_starve_the_helper() -> Result {
    on_installed(|host| {
        let pid = host.main_pid(HELPER)?;
        let tried = attempts(host.alice(), include_str!("../probes/same_uid.py"), &pid.to_string())?;
        let starving =
            ["sigstop", "sigkill", "prlimit-nofile", "prlimit-nproc", "prlimit-fsize", "oom-score", "scheduler"];
        for name in starving {
            let (_, errno) =
                tried.iter().find(|(probe, _)| probe == name).with_context(|| format!("no probe {name}"))?;
            ensure!(["EPERM", "EACCES"].contains(&errno.as_str()), "{name} of the helper: {errno}");
        }
        // A fork bomb against her own limit of processes, which is counted by uid.
        let bomb = "ulimit -u 300; exec nice -n 19 python3 -c 'import os, time
end = time.time() + 60
while time.time() < end:
    try:
        if os.fork() == 0: time.sleep(60); os._exit(0)
    except OSError: time.sleep(0.01)'";
        let bomb = host.alice().start(bomb)?;
        until("the bomb is at its limit", Duration::from_secs(20), || {
            let count = host.root().run("pgrep -cu alice -x python3")?.text().parse::<u32>().unwrap_or(0);
            Ok(count > 100)
        })?;
        host.root().feed("cat > /root/h2.py", include_bytes!("../probes/h2.py"))?.ok()?;
        let health = "python3 /root/h2.py /run/holdfast/helper.sock holdfast.helper.v1.Helper/Health";
        let said = timed(host.root(), scaled(50), health)?;
        println!("helper's Health beside a fork bomb of the owner's: {said} (a Python start each)");
        ensure!(host.root().run(health)?.text() == "answered", "the helper does not answer");
        drop(bomb);
        host.root().run("pkill -9 -u alice -x python3")?;
        until("launches work", Duration::from_secs(20), || Ok(host.alice().holdfast("run --rm -- true")?.code == 0))?;
        ensure!(host.main_pid(HELPER)? == pid && host.status_line(pid, "State")?.starts_with('S'));
        Ok(())
    })
}

/// What a process of alice's can do to another of hers, when the unit's sandbox does not forbid it.
const HITS: &[&str] = &[
    "prlimit --pid PID --fsize=0:",
    "prlimit --pid PID --nofile=5:",
    "prlimit --pid PID --fsize=4096:",
    "prlimit --pid PID --nproc=0:",
    "prlimit --pid PID --fsize=0",
    "prlimit --pid PID --nofile=5",
    "prlimit --pid PID --as=1000000:",
    "prlimit --pid PID --cpu=1:",
    "kill -9 PID",
    "sh -c 'kill -STOP PID; sleep 0.3; kill -CONT PID'",
    "prlimit --pid PID --as=1000000",
    "prlimit --pid PID --data=0 --stack=0",
];

#[test]
fn t03_limits_set_on_daemon_and_launcher_cost_no_worker() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        for i in 0..5 {
            alice.run_worker(&format!("--name w{i} --publish {}:80 -- sleep infinity", 8080 + i))?;
        }
        let census = Census::take(host)?;
        // Launches go on all the while; each that was promised has to have run, and its code is kept.
        let launches = "i=0; while [ ! -e stop ]; do i=$((i+1)); id=$(timeout 60 holdfast run -d --name e$i --net none -- sh -c 'exit 7' 2>/dev/null) && echo $id; done";
        let launching = alice.start(launches)?;
        let rounds = scaled(HITS.len() as u32) as usize;
        let (mut slowest, mut hits) = (Duration::ZERO, 0);
        for round in 0..rounds {
            let unit = [DAEMON, LAUNCHER][(round + round / HITS.len()) % 2];
            let hit = HITS[round % HITS.len()];
            let pid = until_main(host, unit)?;
            // Past the last restart's first steps, at another point of a launch each time.
            std::thread::sleep(Duration::from_millis(150 + 13 * round as u64 % 97));
            let said = alice.run(&hit.replace("PID", &pid.to_string()))?;
            hits += u32::from(said.code == 0);
            let took = until("ps is right", Duration::from_secs(45), || {
                let now = Census::take_named(host, &census)?;
                Ok(now == census)
            })
            .with_context(|| format!("after {hit} on {unit}"))?;
            slowest = slowest.max(took);
            // It works again, too: a launch from end to end.
            until("launches work", Duration::from_secs(45), || Ok(alice.holdfast("run --rm -- true")?.code == 0))
                .with_context(|| format!("after {hit} on {unit}"))?;
        }
        alice.run("touch stop")?.ok()?;
        let ids = launching.wait_within(Duration::from_secs(90))?.text();
        let mut ended = 0;
        for id in ids.lines() {
            let code = alice.run_within(Duration::from_secs(20), &format!("holdfast wait {id}"))?;
            ensure!(code.text() == "7", "a worker that was promised ended otherwise\n{code}");
            ended += 1;
        }
        host.systemctl(&format!("restart {DAEMON}"))?;
        let check = "python3 -c 'import sqlite3; print(sqlite3.connect(\"/var/lib/holdfast/owners/alice/holdfast.db\").execute(\"pragma integrity_check\").fetchone()[0])'";
        ensure!(alice.run(check)?.ok()?.text() == "ok", "the database is damaged");
        println!(
            "{rounds} attempts, {hits} of them took: 5 workers as before, {ended} short ones with their code; ps right after at most {} ms",
            slowest.as_millis()
        );
        ensure!(hits > 0, "no hit took: the test shows nothing");
        Ok(())
    })
}

/// A unit that was just hit is down for a moment.
fn until_main(host: &Host, unit: &str) -> Result<u32> {
    let mut pid = 0;
    until("the unit has a main", Duration::from_secs(30), || {
        pid = host.main_pid(unit)?;
        Ok(pid != 0)
    })?;
    Ok(pid)
}

/// The directory of this process's thread of this name.
fn thread_named(host: &Host, pid: u32, name: &str) -> Result<PathBuf> {
    for task in std::fs::read_dir(host.path(&format!("/proc/{pid}/task")))? {
        let task = task?.path();
        if std::fs::read_to_string(task.join("comm"))?.trim_end() == name {
            return Ok(task);
        }
    }
    anyhow::bail!("process {pid} has no thread {name}")
}

#[test]
fn t12_used_up_descriptors_are_waited_out_and_a_hang_is_ended() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        alice.run_worker("--name lives --publish 8080:80 -- sleep infinity")?;
        let census = Census::take(host)?;
        host.drop_in(DAEMON, "LimitNOFILE=64\nWatchdogSec=5s")?;
        until("it answers", Duration::from_secs(20), || Ok(alice.ps()?.len() == 1))?;
        let pid = host.main_pid(DAEMON)?;
        alice.feed("cat > hold.py", include_bytes!("../probes/hold.py"))?.ok()?;
        let holding = alice.start("exec python3 -u hold.py /run/holdfast/owners/alice/daemon.sock 200")?;
        let accepting = thread_named(host, pid, "accept")?;
        // Time on a processor and time waiting for one (schedstat, ns): what spins has all of it, however busy the host.
        let busy = || -> Result<u64> {
            let text = std::fs::read_to_string(accepting.join("schedstat"))?;
            text.split_whitespace().take(2).map(|ns| Ok(ns.parse::<u64>()?)).sum()
        };
        let descriptors = || -> Result<usize> { Ok(std::fs::read_dir(host.path(&format!("/proc/{pid}/fd")))?.count()) };
        until("no descriptor is left", Duration::from_secs(20), || Ok(descriptors()? >= 64))?;
        let (before, began) = (busy()?, std::time::Instant::now());
        std::thread::sleep(Duration::from_secs(2));
        let share = (busy()? - before) as f64 / 1e7 / began.elapsed().as_secs_f64();
        ensure!(share < 80.0, "used-up descriptors cost {share:.0} % of a processor");
        drop(holding);
        let back = until("it serves again", Duration::from_secs(20), || Ok(alice.ps()?.len() == 1))?;
        println!(
            "at its limit of descriptors: {share:.0} % of a processor; serves {} ms after they are free",
            back.as_millis()
        );
        // One that hangs for good is ended and started again; nobody has to look.
        let pid = host.main_pid(DAEMON)?;
        alice.run(&format!("kill -STOP {pid}"))?.ok()?;
        let replaced = until("the watchdog ends it", Duration::from_secs(60), || Ok(host.main_pid(DAEMON)? != pid))?;
        until("the new one serves", Duration::from_secs(20), || Ok(Census::take(host)? == census))?;
        println!(
            "stopped for good: replaced after {} ms (watchdog at 5 s here, 30 s in the unit)",
            replaced.as_millis()
        );
        Ok(())
    })
}

#[test]
fn t46_a_flood_of_output_costs_its_cap_and_nobody_else() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        alice.run_worker("--name quiet -- sh -c 'while :; do echo tick; sleep 0.1; done'")?;
        let id = alice.run_worker("--name flood --log-size 8MiB --log-files 4 -- sh -c 'exec cat /dev/zero'")?;
        let place = host
            .root()
            .run(&format!("find /var/lib/holdfast/owners/alice -type d -name '{id}*' | head -n 1"))?
            .ok()?
            .text();
        let mut largest = 0;
        let ticks = || -> Result<usize> { Ok(alice.holdfast("logs quiet")?.ok()?.text().lines().count()) };
        let first = ticks()?;
        for _ in 0..scaled(10) {
            let size = host.root().run(&format!("du -sB1 --apparent-size {place} | cut -f1"))?.text().parse::<u64>()?;
            largest = largest.max(size);
            // Four files of 2 MiB, one of them being written, and the directories.
            ensure!(largest <= (8 << 20) + (1 << 20), "{largest} bytes are kept of a flood whose cap is 8 MiB");
            std::thread::sleep(Duration::from_millis(200));
        }
        let said = timed(alice, scaled(50), "holdfast ps")?;
        let inspected: serde_json::Value = alice.holdfast("inspect --json flood")?.ok()?.json()?;
        let dropped = inspected["log"]["dropped"].as_u64().context("log.dropped")?;
        ensure!(dropped > 8 << 20, "it is no flood: {dropped} bytes over the cap");
        until("the other worker goes on", Duration::from_secs(20), || Ok(ticks()? > first + 5))?;
        println!(
            "{} MiB dropped, at most {} KiB kept of a cap of 8192; ps meanwhile: {said}",
            dropped >> 20,
            largest >> 10
        );
        alice.holdfast("rm -f flood")?.ok()?;
        Ok(())
    })
}

#[test]
fn t46_what_a_worker_wrote_is_shown_to_a_terminal_and_not_done_by_it() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        let hostile = "printf 'plain\\tone \\033[31mred\\033[0m \\033[2J\\033]0;title\\007 \\033]52;c;cm0gLXJm\\007 \\033[6n \\302\\2332J \\177 \\r\\b end\\n'";
        alice.feed("cat > hostile.sh", hostile.as_bytes())?.ok()?;
        let run = "run --name talks --env \"DEL=$(printf '\\177\\302\\2332J')\" --volume ~/hostile.sh:/tmp/hostile.sh:ro -- sh /tmp/hostile.sh";
        alice.holdfast(&run.replacen("run ", "run -d ", 1))?.ok()?;
        alice.wait_code("talks")?;
        // To a file or a pipe: every byte as it was.
        let raw = alice.holdfast("logs talks")?.ok()?;
        ensure!(raw.stdout.windows(4).any(|bytes| bytes == b"\x1b[2J"), "bytes are lost on a pipe\n{raw}");
        // To a terminal: colours are colours, everything else is shown.
        let shown = alice.run("script -qec 'holdfast logs talks' /dev/null < /dev/null")?.ok()?;
        let harmless = String::from_utf8_lossy(&shown.stdout).replace("\x1b[31m", "").replace("\x1b[0m", "");
        let acts = |letter: char| letter.is_control() && !['\n', '\r', '\t'].contains(&letter);
        ensure!(!harmless.contains(acts), "a terminal is told what to do\n{harmless:?}");
        ensure!(harmless.contains("plain\tone") && harmless.contains("end"), "{harmless:?}");
        let json = alice.holdfast("inspect --json talks")?.ok()?.text();
        ensure!(
            !json.contains(|letter: char| letter.is_control() && letter != '\n'),
            "raw control characters in JSON\n{json}"
        );
        Ok(())
    })
}

#[test]
fn t11_floods_of_http2_cost_little_and_stop_nobody() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        alice.run_worker("--name lives --publish 8080:80 -- sleep infinity")?;
        let census = Census::take(host)?;
        let pid = host.main_pid(DAEMON)?;
        let kib = |host: &Host| -> Result<u64> {
            let line = host.status_line(pid, "VmRSS")?;
            Ok(line.split_whitespace().next().context("VmRSS")?.parse()?)
        };
        for (name, text) in
            [("h2.py", include_str!("../probes/h2.py")), ("flood.py", include_str!("../probes/flood.py"))]
        {
            host.root().feed(&format!("mkdir -p /srv/probes && cat > /srv/probes/{name}"), text.as_bytes())?.ok()?;
        }
        timed(alice, 20, "holdfast ps")?;
        let before = kib(host)?;
        for kind in ["rapid-reset", "continuation", "settings", "ping", "zero-window"] {
            let flood = format!(
                "exec python3 /srv/probes/flood.py /run/holdfast/owners/alice/daemon.sock {kind} {}",
                scaled(3)
            );
            let flooding = alice.start(&flood)?;
            let said = timed(alice, scaled(30), "holdfast ps").with_context(|| format!("beside a flood of {kind}"))?;
            let sent = flooding.wait_within(Duration::from_secs(120 + u64::from(scaled(3))))?;
            let grown = kib(host)?.saturating_sub(before);
            println!("{}; ps meanwhile {said}; resident {grown} KiB more than before", sent.text());
            ensure!(grown <= 32 << 10, "{kind}: the daemon grew by {grown} KiB");
        }
        ensure!(host.main_pid(DAEMON)? == pid, "the daemon was started again");
        until("nobody changed", Duration::from_secs(20), || Ok(Census::take(host)? == census))?;
        Ok(())
    })
}
