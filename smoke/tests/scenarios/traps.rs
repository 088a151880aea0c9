//! Traps of units whose processes outlive their main (docs/traps.md), where no other scenario walks into them.

use crate::on_installed;
use anyhow::ensure;
use holdfast_smoke::{Census, UNITS, WORKERS, until};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// Trap 5: a descriptor store that systemd drops or fills. Trap 10: the journal calls workers leftovers.
#[test]
fn trap5_and_trap10_systemd_keeps_no_descriptor_and_reports_no_leftover() -> holdfast_smoke::Result {
    on_installed(|host| {
        let alice = host.alice();
        alice.run_echo("echo", 8070)?;
        alice.run_worker("--name ends --net none -- sh -c 'echo before; until [ -e /tmp/go ]; do sleep 0.1; done; echo after; exit 7'")?;
        alice.holdfast("exec ends -- true")?.ok()?;
        let lives = Census::take(host)?;
        for round in 0..3 {
            host.kill_mains(&UNITS)?;
            if round == 1 {
                host.systemctl(&format!("stop {}", UNITS.join(" ")))?;
            }
            host.systemctl(&format!("restart {}", UNITS.join(" ")))?;
            until("the daemon answers", PATIENCE, || Ok(alice.holdfast("ps")?.code == 0))?;
            lives.must_hold(host, "everything was killed and started again")?;
        }
        for unit in UNITS.iter().chain([&WORKERS]) {
            for property in ["FileDescriptorStoreMax", "NFileDescriptorStore"] {
                ensure!(host.property(unit, property)? == "0", "{unit}: {property}");
            }
        }
        // Found again without any: its control socket, output and end.
        alice.holdfast("exec ends -- touch /tmp/go")?.ok()?;
        until("it has ended", PATIENCE, || Ok(alice.worker("ends")?.phase != "running"))?;
        ensure!(alice.wait_code("ends")? == "7");
        ensure!(alice.holdfast("logs ends")?.ok()?.text() == "before\nafter");
        let journal =
            host.root().run("journalctl --no-pager -b | grep -i 'left-over process' | grep -i holdfast; true")?;
        ensure!(journal.ok()?.text().is_empty(), "systemd reports workers as leftovers");
        Ok(())
    })
}
