//! Terminals of workers and programs that are executed in running ones.

use crate::on_installed;
use anyhow::ensure;
use holdfast_smoke::Result;

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
