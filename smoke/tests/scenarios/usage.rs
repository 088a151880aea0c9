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

/// A terminal of its own for `top`: types, resizes, ends it, and says what is on the screen and what became of the
/// terminal. `screen` understands what ratatui writes: cursor addresses, clearing, text.
const TERMINAL: &str = r#"
import fcntl, os, re, select, signal, struct, subprocess, sys, termios, time
master, slave = os.openpty()
def size(rows, columns): fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
size(24, 80)
before = termios.tcgetattr(slave)
def own():
    os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0)
top = subprocess.Popen(["holdfast", "top"], stdin=slave, stdout=slave, stderr=slave, preexec_fn=own)
raw, screen = b"", {}
def read(seconds):
    global raw, screen
    while select.select([master], [], [], seconds)[0]:
        raw += os.read(master, 65536); seconds = 0.05
    row = column = 1; screen = {}
    for part in re.finditer(r"\x1b\[([0-9;?]*)([A-Za-z])|\x1b.|([^\x1b])", raw.decode(errors="replace")):
        numbers, letter, text = part.groups()
        if letter == "H": row, column = [int(n) for n in (numbers or "1;1").split(";")]
        elif letter == "J": screen = {}
        elif text: screen[row, column] = text; column += 1
def shown():
    return "\n".join("".join(screen.get((r, c), " ") for c in range(1, 201)) for r in range(1, 51))
def expect(word, there=True):
    end = time.time() + 30
    while (word in shown()) != there:
        if time.time() > end: top.kill(); sys.exit("%r: wanted %s on this screen:\n%s" % (word, there, shown()))
        read(0.2)
expect("web"); expect("busy"); expect("RESTARTS"); expect("COMMAND", False); expect("q quit")
os.write(master, b"/we"); expect("1 of 2 workers"); expect("busy", False)
os.write(master, b"\x1b"); expect("busy")
size(50, 200); os.kill(top.pid, signal.SIGWINCH); expect("COMMAND"); expect("while :")
how = sys.argv[1]
if how == "restart": subprocess.run(["pkill", "-KILL", "-x", "holdfastd"]); expect("web"); how = "q"
if how == "q": os.write(master, b"q")
elif how == "^C": os.write(master, b"\x03")
else: top.send_signal(getattr(signal, how))
code = top.wait(30); read(0.2)
left = raw.rindex(b"\x1b[?1049l"); visible = raw.rindex(b"\x1b[?25h")
same = termios.tcgetattr(slave) == before
print(code, "same" if same else "changed", "left" if left > raw.rindex(b"\x1b[?1049h") else "stayed")
"#;

#[test]
fn top_shows_all_of_it_and_gives_the_terminal_back() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        alice.holdfast("top")?.refuses(2, &["terminal", "stats --no-stream"])?;
        alice.run_worker("--name web -- sleep 1000")?;
        alice.run_worker("--name busy --net none -- sh -c 'while :; do :; done'")?;
        for (how, code) in [("q", 0), ("^C", 0), ("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130), ("restart", 0)] {
            let said = alice.feed(&format!("python3 - '{how}'"), TERMINAL.as_bytes())?.ok()?.text();
            ensure!(said == format!("{code} same left"), "{how}: {said}");
        }
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
