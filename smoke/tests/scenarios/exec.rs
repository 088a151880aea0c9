//! Terminals of workers and programs that are executed in running ones.

use crate::on_installed;
use anyhow::{Context, ensure};
use holdfast_smoke::{DAEMON, Host, Result, until};
use std::time::Duration;

/// A terminal of one's own can be opened, written through, and named; none of the host's is there.
const OWN_TERMINAL: &str = "\
import os, stat
master = os.open('/dev/ptmx', os.O_RDWR | os.O_NOCTTY); os.close(master)
master, slave = os.openpty()
name = os.ttyname(slave)
assert name == '/dev/pts/0', name
assert stat.S_ISCHR(os.stat(name).st_mode)
assert sorted(os.listdir('/dev/pts')) == ['0', 'ptmx'], os.listdir('/dev/pts')
os.write(slave, b'through')
assert os.read(master, 7) == b'through'
print('opened')
";

#[test]
fn a_worker_opens_terminals_of_its_own() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        let said = alice.feed(
            "cat > own_terminal.py; holdfast run --rm --workdir ~ -- python3 own_terminal.py",
            OWN_TERMINAL.as_bytes(),
        )?;
        ensure!(said.ok()?.text() == "opened");
        // What programs use: script(1) starts a shell on a new terminal.
        let said = alice.holdfast("run --rm -- script -qec 'tty; test -t 0 && echo on a terminal' /dev/null")?.ok()?;
        ensure!(said.text().contains("/dev/pts/0") && said.text().contains("on a terminal"), "{said}");
        let options = alice.holdfast("run --rm -- sh -c 'grep \" /dev/pts \" /proc/self/mountinfo'")?.ok()?.text();
        ensure!(options.contains("nosuid") && options.contains("noexec"), "{options}");
        Ok(())
    })
}

/// A worker that does nothing, on the bridge.
fn with_worker(host: &Host) -> Result {
    host.alice().run_worker("--name w --publish 8085:7000 --env WHO=worker --workdir /var/tmp -- sleep infinity")?;
    Ok(())
}

#[test]
fn exec_ends_as_its_program_does_and_says_what_is_wrong_with_the_worker() -> Result {
    on_installed(|host| {
        with_worker(host)?;
        let alice = host.alice();
        let said = alice.holdfast("exec w -- sh -c 'echo out; echo err >&2; exit 3'")?.exits(3)?;
        ensure!(said.text() == "out" && said.stderr == "err\n", "{said}");
        alice.holdfast("exec w -- true")?.ok()?;
        alice.holdfast("exec w -- sh -c 'kill -TERM $$'")?.exits(128 + 15)?;
        alice.holdfast("exec w -- no-such-program")?.refuses(127, &["no-such-program", "not found"])?;
        alice.holdfast("exec w -- /etc/passwd")?.refuses(126, &["/etc/passwd", "permission denied"])?;
        alice.holdfast("exec --workdir /nowhere w -- true")?.refuses(127, &["/nowhere"])?;
        alice.holdfast("exec --workdir relative w -- true")?.refuses(2, &["absolute"])?;
        alice.holdfast("exec -t w -- true")?.refuses(2, &["terminal"])?;
        alice.holdfast("exec nobody -- true")?.refuses(4, &["nobody"])?;
        // The worker's own environment and directory, unless said otherwise; no input, unless said otherwise.
        let said = alice.holdfast("exec w -- sh -c 'echo $WHO; pwd; cat'")?.ok()?;
        ensure!(said.text() == "worker\n/var/tmp", "{said}");
        let said = alice.run("A=here holdfast exec -e WHO=caller -e A -w /tmp w -- sh -c 'echo $WHO $A; pwd'")?.ok()?;
        ensure!(said.text() == "caller here\n/tmp", "{said}");
        let said = alice.feed("holdfast exec -i w -- sh -c 'read line; echo got $line; cat'", b"one\ntwo\n")?.ok()?;
        ensure!(said.text() == "got one\ntwo", "{said}");
        // A signal to holdfast is one to the program; the program decides.
        let signalled = alice.run(
            "holdfast exec w -- sh -c 'trap \"echo told; exit 9\" INT; echo ready; while :; do sleep 0.05; done' > out & \
             until grep -q ready out; do sleep 0.05; done; kill -INT $!; wait $!; echo $?; cat out",
        )?;
        ensure!(signalled.ok()?.text() == "9\nready\ntold");
        // A session sleeps and wakes with its worker; a sleeping worker takes no new one.
        let session = alice.start("holdfast exec w -- sh -c 'touch /tmp/up; sleep 0.5; echo slept'")?;
        until("it is up", Duration::from_secs(10), || Ok(alice.holdfast("exec w -- test -e /tmp/up")?.code == 0))?;
        alice.holdfast("suspend w")?.ok()?;
        alice.holdfast("exec w -- true")?.refuses(5, &["w", "suspended", "holdfast resume w"])?;
        alice.holdfast("resume w")?.ok()?;
        ensure!(session.wait_within(Duration::from_secs(20))?.ok()?.text() == "slept");
        alice.holdfast("stop w")?.ok()?;
        alice.holdfast("exec w -- true")?.refuses(5, &["w", "stopped", "holdfast start w"])?;
        Ok(())
    })
}

#[test]
fn exec_passes_fifty_mebibytes_in_and_out_byte_for_byte() -> Result {
    on_installed(|host| {
        with_worker(host)?;
        let alice = host.alice();
        alice.run("head -c 52428800 /dev/urandom > bytes")?.ok()?;
        let expected = alice.run("sha256sum < bytes")?.ok()?.text();
        let within = Duration::from_secs(120);
        let inside = alice.run_within(within, "holdfast exec -i w -- sha256sum < bytes")?.ok()?;
        ensure!(inside.text() == expected, "on the way in\n{inside}");
        let through = alice.run_within(within, "holdfast exec -i w -- cat < bytes | sha256sum")?.ok()?;
        ensure!(through.text() == expected, "on the way out\n{through}");
        eprintln!("50 MiB: in {} ms, in and out {} ms", inside.took.as_millis(), through.took.as_millis());
        // Two at once do not mix, and one whose reader sleeps does not hold the other up.
        let stuck = alice.start("holdfast exec w -- cat /dev/zero | sleep 1000")?;
        let both = alice.run_within(within, "for n in 1 2; do holdfast exec w -- seq $n 2 200000 > out$n & done; wait; sha256sum out1 out2; seq 1 2 200000 | sha256sum; seq 2 2 200000 | sha256sum")?.ok()?;
        let sums: Vec<String> = both.text().lines().map(|line| line[..64].to_owned()).collect();
        ensure!(sums.len() == 4 && sums[0] == sums[2] && sums[1] == sums[3], "{both}");
        drop(stuck);
        Ok(())
    })
}

#[test]
fn t30_exec_is_in_the_workers_cage() -> Result {
    on_installed(|host| {
        with_worker(host)?;
        let alice = host.alice();
        let inside = |line: &str| -> Result<String> { Ok(alice.holdfast(&format!("exec w -- {line}"))?.ok()?.text()) };
        let address = alice.worker("w")?.address()?.to_owned();
        ensure!(inside("ip -o -4 address show eth0")?.contains(&address));
        ensure!(inside("hostname")? == "w");
        ensure!(inside("cat /proc/self/cgroup")?.ends_with("0::/"), "its cgroup is not the worker's");
        ensure!(inside("sh -c 'ls /proc/$$/fd | tr \"\\n\" \" \"'")? == "0 1 2", "descriptors came along");
        let status = inside("grep -E '^(Cap...|NoNewPrivs|Seccomp):' /proc/self/status")?;
        let mine = host
            .root()
            .run(&format!("grep -E '^(Cap...|NoNewPrivs|Seccomp):' /proc/{}/status", alice.worker("w")?.live_pid()?))?;
        ensure!(
            status == mine.text() && status.contains("Seccomp:\t2") && status.contains("CapBnd:\t0000000000000000"),
            "{status}"
        );
        let nested = alice.holdfast("exec w -- unshare --user true")?;
        ensure!(nested.code != 0, "it made a nested user namespace\n{nested}");
        ensure!(inside("sh -c 'kill -9 1 2>/dev/null; ls /proc/1/fd 2>/dev/null | wc -l'")? == "0");
        ensure!(inside("sh -c 'ls -A /run /home /var/lib/holdfast 2>/dev/null | grep -c sock'; true").is_ok());
        // The end of the worker is the end of everything in it.
        let session = alice.start("holdfast exec w -- sleep 1000")?;
        until("it runs", Duration::from_secs(10), || Ok(inside("sh -c 'pgrep -fx \"sleep 1000\" | wc -l'")? == "1"))?;
        alice.holdfast("stop -t 0 w")?.ok()?;
        session.wait_within(Duration::from_secs(20))?.exits(128 + 9)?;
        ensure!(host.root().run("pgrep -fx 'sleep 1000'")?.code == 1, "it outlived its worker");
        Ok(())
    })
}

#[test]
fn exec_goes_on_through_the_daemons_death() -> Result {
    on_installed(|host| {
        with_worker(host)?;
        let alice = host.alice();
        // Input before and after, output all the while, the end while nobody is there to hear it.
        let script = "read a; echo $a; n=0; while [ $n -lt 400 ]; do echo line $n; n=$((n+1)); sleep 0.005; done; read b; echo $b; exit 7";
        let session = alice.start(&format!(
            "(echo first; until [ -e go ]; do sleep 0.05; done; echo second) | holdfast exec -i w -- sh -c '{script}' > out"
        ))?;
        for _ in 0..3 {
            until("more came out", Duration::from_secs(10), || Ok(alice.run("test -s out")?.code == 0))?;
            host.kill_mains(&[DAEMON])?;
            until("the daemon answers again", Duration::from_secs(10), || Ok(alice.ps().is_ok()))?;
        }
        alice.run("touch go")?.ok()?;
        session.wait_within(Duration::from_secs(60))?.exits(7)?;
        let expected = alice.run("echo first; for n in $(seq 0 399); do echo line $n; done; echo second")?.ok()?.text();
        let out = alice.run("cat out")?.ok()?.text();
        ensure!(out == expected, "{} lines instead of {}", out.lines().count(), expected.lines().count());
        Ok(())
    })
}

#[test]
fn exec_refuses_what_is_too_much_and_leaves_nothing() -> Result {
    on_installed(|host| {
        with_worker(host)?;
        let alice = host.alice();
        let mut open: Vec<_> =
            (0..16).map(|_| alice.start("exec holdfast exec w -- sleep 500")).collect::<Result<_>>()?;
        let sleeping = || -> Result<String> { Ok(host.root().run("pgrep -cfx 'sleep 500'")?.text()) };
        until("sixteen run", Duration::from_secs(20), || Ok(sleeping()? == "16"))?;
        alice.holdfast("exec w -- true")?.refuses(125, &["16 sessions"])?;
        // Who is killed hangs up, and makes room.
        drop(open.pop().context("sixteen")?);
        until("there is room", Duration::from_secs(20), || Ok(alice.holdfast("exec w -- true")?.code == 0))?;
        until("its program is gone", Duration::from_secs(20), || Ok(sleeping()? == "15"))?;
        drop(open);
        until("all are gone", Duration::from_secs(20), || Ok(sleeping()? == "0"))?;
        // One argument over the kernel's 128 KiB cannot even be typed; a mebibyte of them is refused here.
        let many = alice.run("holdfast exec w -- echo $(head -c 1100000 /dev/zero | tr '\\0' x | fold -w 100000)")?;
        many.refuses(2, &["bytes"])?;
        // A program that floods, one that closes its input, one that leaves others behind.
        let flood =
            alice.run_within(Duration::from_secs(60), "holdfast exec w -- cat /dev/zero | head -c 10000000 | wc -c")?;
        ensure!(flood.text() == "10000000", "{flood}");
        alice.run("head -c 10000000 /dev/zero | holdfast exec -i w -- sh -c 'exec <&-; exit 4'")?.exits(4)?;
        let left =
            alice.run_within(Duration::from_secs(20), "holdfast exec w -- sh -c 'sleep 300 & echo left'")?.ok()?;
        ensure!(left.text() == "left");
        alice.holdfast("exec w -- true")?.ok()?;
        Ok(())
    })
}
