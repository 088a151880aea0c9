//! What every other scenario takes for granted.

use crate::on_fresh;
use anyhow::ensure;
use holdfast_smoke::{Outside, Result};

#[test]
fn a_fresh_host_boots_a_real_systemd_with_ordinary_users() -> Result {
    on_fresh(|host| {
        ensure!(host.root().run("cat /proc/1/comm")?.ok()?.text() == "systemd");
        ensure!(
            host.alice().run("id -u; id -g; echo $HOME; pwd")?.ok()?.text() == "1000\n1000\n/home/alice\n/home/alice"
        );
        host.alice().run("sudo -n true")?.ok()?;
        ensure!(host.as_user("bob").run("sudo -n true")?.code != 0);
        // A worker's cage needs exactly this of the host.
        host.alice().run("unshare --user --map-root-user --pid --fork --net --mount-proc true")?.ok()?;
        Ok(())
    })
}

#[test]
fn the_outside_has_addresses_of_its_own() -> Result {
    on_fresh(|host| {
        let outside = Outside::attach(host)?;
        let mut server = outside.start("exec python3 -u -m http.server --bind 198.51.100.7 8000")?;
        holdfast_smoke::until("the server outside answers", std::time::Duration::from_secs(5), || {
            Ok(host.alice().run("curl -fsS http://198.51.100.7:8000/")?.code == 0)
        })?;
        ensure!(server.runs()?);
        let said = server.kill()?;
        ensure!(said.stderr.contains(Outside::HOST), "the server saw another client\n{said}");
        Ok(())
    })
}
