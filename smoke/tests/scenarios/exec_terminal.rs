//! A person at a terminal: `exec -it` driven through a pseudo-terminal, key by key.

use crate::on_installed;
use anyhow::ensure;
use holdfast_smoke::{DAEMON, Host, Output, Result, until};
use std::time::Duration;

/// What each script begins with: a terminal of 30 by 100 that `holdfast` runs on, words to type and to wait for.
const DRIVER: &str = "\
import fcntl, os, re, select, signal, struct, subprocess, sys, termios, time
def size(fd, rows, columns): fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack('HHHH', rows, columns, 0, 0))
master, slave = os.openpty()
size(slave, 30, 100)
before = termios.tcgetattr(slave)
seen = ''
def start(*argv):
    global child
    def lead(): os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    child = subprocess.Popen(['holdfast', *argv], stdin=slave, stdout=slave, stderr=slave, preexec_fn=lead)
def press(text): os.write(master, text.encode())
def see(pattern, within=40):
    global seen
    end = time.monotonic() + within
    while True:
        found = re.search(pattern, seen)
        if found:
            seen = seen[found.end():]
            return found
        left = end - time.monotonic()
        if left <= 0 or not select.select([master], [], [], left)[0]: sys.exit(f'{pattern!r} did not come, but {seen[-2000:]!r}')
        seen += os.read(master, 65536).decode(errors='replace')
def code(within=40): return child.wait(within)
def is_as_before(): return termios.tcgetattr(slave) == before
";

/// Runs a script of keys as alice.
fn drive(host: &Host, script: &str) -> Result<Output> {
    let text = format!("{DRIVER}{script}");
    host.alice().feed("cat > drive.py; TERM=xterm-256color timeout 100 python3 drive.py", text.as_bytes())
}

#[test]
fn a_shell_on_a_terminal_feels_like_one() -> Result {
    on_installed(|host| {
        host.alice().run_worker("--name w -- sleep infinity")?;
        let said = drive(
            host,
            "\
start('exec', '-it', '-e', 'PS1=ready> ', 'w', '--', 'bash', '--norc', '--noprofile', '--noediting')
see('ready> ')
press('stty size; tty; echo $TERM\\n'); see(r'30 100\\r\\n/dev/pts/0\\r\\nxterm-256color\\r\\n')
assert not is_as_before(), 'not raw'
size(master, 41, 121)
for _ in range(50):
    press('stty size\\n')
    if '41 121' in see(r'(\\d+ \\d+)\\r\\n').group(1): break
else: sys.exit('never resized')
press('sleep 1000\\n'); time.sleep(0.3); press('\\x03'); see(r'\\^C')
press('echo code $?\\n'); see(r'code 130\\r\\n')
press('sleep 1001 &\\n'); see(r'\\[1\\] \\d+')
press('jobs\\n'); see('Running')
press('fg\\n'); see(r'sleep 1001\\r\\n'); time.sleep(0.3); press('\\x1a'); see('Stopped')
press('kill %1; wait; echo do\\'\\'ne\\n'); see(r'done\\r\\n')
press('printf %s \\'\\u00e4\\u20ac\\' | wc -c\\n'); see(r'(?<!\\d)5\\r\\n')
press('exit 5\\n')
assert code() == 5, child.returncode
assert is_as_before(), 'the terminal is not as it was'
# A program that is not there leaves the terminal as it was, too.
start('exec', '-it', 'w', '--', 'nowhere'); see('not found'); assert code() == 127 and is_as_before()
start('exec', '-it', 'nobody', '--', 'true'); see('nobody'); assert code() == 4 and is_as_before()
print('driven')
",
        )?;
        ensure!(said.ok()?.text() == "driven");
        Ok(())
    })
}

#[test]
fn a_terminal_that_goes_away_takes_its_program_along() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        alice.run_worker("--name w -- sleep infinity")?;
        let deaf = "trap '' HUP TERM; echo deaf; while :; do sleep 0.1; done";
        let gone = || Ok(alice.holdfast("exec w -- pgrep -cf deaf")?.text() == "0");
        for (end, expected) in [("child.kill()", "-9"), ("child.terminate()", "143")] {
            let said = drive(
                host,
                &format!(
                    "start('exec', '-it', 'w', '--', 'sh', '-c', {deaf:?}); see('deaf')\n{end}\nprint(code(), is_as_before())"
                ),
            )?
            .ok()?;
            // Only SIGKILL leaves the terminal raw: nobody is there to set it back.
            ensure!(
                said.text() == format!("{expected} {}", if expected == "143" { "True" } else { "False" }),
                "{said}"
            );
            until("the deaf program is killed after its grace", Duration::from_secs(30), gone)?;
        }
        Ok(())
    })
}

#[test]
fn a_shell_outlives_the_daemon() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        alice.run_worker("--name w -- sleep infinity")?;
        let shell = alice.start(&format!(
            "cat > drive.py <<'END'\n{DRIVER}{}\nEND\nexec timeout 100 python3 drive.py",
            "\
start('exec', '-it', '-e', 'PS1=ready> ', 'w', '--', 'bash', '--norc', '--noprofile', '--noediting')
see('ready> '); press('N=42; echo u\\'\\'p\\n'); see(r'up\\r\\n'); open('up', 'w').close()
while not os.path.exists('go'): time.sleep(0.05)
press('echo still $N\\n'); see(r'still 42\\r\\n'); press('exit 6\\n')
sys.exit(code())
"
        ))?;
        until("the shell is up", Duration::from_secs(30), || Ok(alice.run("test -e up")?.code == 0))?;
        host.kill_mains(&[DAEMON])?;
        alice.run("touch go")?.ok()?;
        shell.wait_within(Duration::from_secs(60))?.exits(6)?;
        Ok(())
    })
}

#[test]
fn a_worker_on_a_terminal_is_left_and_come_back_to() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        let script = "\
start('run', '--name', 's', '-it', '-e', 'PS1=ready> ', '--', 'bash', '--norc', '--noprofile', '--noediting')
see('ready> ')
for _ in range(50):
    press('stty size; tty\\n')
    if see(r'(\\d+ \\d+)\\r\\n/dev/pts/0\\r\\n').group(1) == '30 100': break
else: sys.exit('never resized')
press('N=7; sleep 1000\\n'); time.sleep(0.3); press('\\x03'); see(r'\\^C')
press('\\x10\\x11'); see('left it running'); assert code() == 0 and is_as_before(), child.returncode
start('attach', 's'); time.sleep(0.5); press('echo still $N\\n'); see(r'still 7\\r\\n'); open('sits', 'w').close()
while not os.path.exists('go'): time.sleep(0.05)
press('echo again $N\\n'); see(r'again 7\\r\\n')
press('exit 3\\n'); assert code() == 3 and is_as_before(), child.returncode
";
        let driver = alice.start(&format!(
            "cat > drive.py <<'END'\n{DRIVER}{script}\nEND\nTERM=xterm exec timeout 100 python3 drive.py"
        ))?;
        until("somebody sits there again", Duration::from_secs(60), || Ok(alice.run("test -e sits")?.code == 0))?;
        host.kill_mains(&[DAEMON])?;
        alice.run("touch go")?.ok()?;
        driver.wait_within(Duration::from_secs(60))?.ok()?;
        ensure!(alice.wait_code("s")? == "3");
        ensure!(alice.holdfast("logs s")?.ok()?.text().contains("again 7"), "what was on the terminal is not kept");
        Ok(())
    })
}

#[test]
fn a_worker_reads_what_is_piped_to_it() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        let said = alice.feed("holdfast run --rm -i -- sh -c 'read a; echo got $a; cat; exit 4'", b"one\ntwo\n")?;
        ensure!(said.exits(4)?.text() == "got one\ntwo");
        alice.run("head -c 20000000 /dev/urandom > bytes")?.ok()?;
        let expected = alice.run("sha256sum < bytes")?.ok()?.text();
        let within = Duration::from_secs(60);
        let inside = alice.run_within(within, "holdfast run --rm -i -- sha256sum < bytes")?.ok()?;
        ensure!(inside.text() == expected, "{inside}");
        // In the background, with input from whoever attaches; the last one types.
        alice.run_worker("--name w -i -- sh -c 'while read a; do echo got $a; done; echo end; exit 6'")?;
        let said = alice.feed("(cat; sleep 4) | timeout -s KILL 3 holdfast attach w", b"first\n")?;
        ensure!(said.text() == "got first", "{said}");
        let said = alice.feed("holdfast attach w", b"second\n")?.exits(6)?;
        ensure!(said.text() == "got second\nend", "output from before, or too little\n{said}");
        alice.holdfast("attach w")?.refuses(5, &["w", "failed"])?;
        alice.holdfast("attach nobody")?.refuses(4, &["nobody"])?;
        alice.holdfast("run --rm -it -- true")?.refuses(2, &["terminal"])?;
        // A worker without input is watched alone.
        alice.run_worker("--name quiet -- sh -c 'cat; sleep 2; echo late; exit 7'")?;
        ensure!(alice.holdfast("attach quiet")?.exits(7)?.text() == "late");
        ensure!(alice.ps()?.is_empty(), "something is left");
        Ok(())
    })
}
