//! `system install|status|restart|uninstall`: a plan that describes, applies and reverts itself (features B1–B24).

use crate::{on_fresh, on_installed};
use anyhow::ensure;
use holdfast_smoke::{Census, DAEMON, HELPER, Host, LAUNCHER, Result, UNITS, tree_hash};
use serde_json::Value;

/// Everything that an install may touch on disk.
const TOUCHED: &str = "/etc /usr/local /var/lib";

/// What a host keeps of a Holdfast that was there: nothing but a system account's free number may differ, and that
/// is in files that `useradd` rewrites with a backup.
fn must_be_as_before(host: &Host, before: &[String]) -> Result {
    let now = tree_hash(host, TOUCHED)?;
    let ignored = |line: &&String| {
        let path = line.split_whitespace().next().unwrap_or_default();
        ["/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow", "/var/lib/systemd", "/etc/.pwd.lock"]
            .iter()
            .any(|prefix| path.starts_with(prefix))
    };
    let left: Vec<_> = now.iter().filter(|line| !ignored(line) && !before.contains(line)).collect();
    let lost: Vec<_> = before.iter().filter(|line| !ignored(line) && !now.contains(line)).collect();
    ensure!(left.is_empty() && lost.is_empty(), "the host is not as before\nnow: {left:#?}\nbefore: {lost:#?}");
    Ok(())
}

fn answers(host: &Host) -> Result {
    let status: Value = host.alice().holdfast("status --json")?.ok()?.json()?;
    ensure!(status["owner"] == "alice", "{status}");
    let programs = status["programs"].as_array().cloned().unwrap_or_default();
    ensure!(programs.len() >= 3 && programs.iter().all(|program| program["healthy"] == true), "{status}");
    Ok(())
}

#[test]
fn install_makes_a_host_that_alice_can_use_without_sudo() -> Result {
    on_installed(|host| {
        for unit in UNITS {
            ensure!(host.systemctl(&format!("is-active {unit}"))? == "active");
            ensure!(
                ["enabled", "indirect", "static"].contains(&host.property(unit, "UnitFileState")?.as_str()),
                "{unit}"
            );
        }
        answers(host)?;
        let said = host.root().run("readlink /usr/local/bin/holdfast /usr/local/lib/holdfast/current")?.ok()?.text();
        let (command, current) = said.split_once('\n').unwrap_or_default();
        ensure!(command == "../lib/holdfast/current/holdfast", "{said}");
        let release = current.trim_start_matches("/usr/local/lib/holdfast/");
        let sums = host.root().run("sha256sum /usr/local/lib/holdfast/current/SHA256SUMS")?.ok()?.text();
        ensure!(release.starts_with("releases/") && release.ends_with(&format!("-{}", &sums[..12])), "{said} {sums}");
        host.root().run("cd /usr/local/lib/holdfast/current && sha256sum --check --strict --quiet SHA256SUMS")?.ok()?;
        Ok(())
    })
}

#[test]
fn paths_owners_and_modes_are_those_of_the_contract() -> Result {
    const EXPECTED: &[&str] = &[
        "/etc/holdfast root:root 755",
        "/etc/holdfast/install.toml root:root 644",
        "/etc/holdfast/rules.toml root:root 644",
        "/run/holdfast/helper.sock root:holdfast 660",
        "/run/holdfast/launch.sock root:holdfast 660",
        "/run/holdfast/owners/alice/daemon.sock alice:alice 600",
        "/run/holdfast/owners/alice/workers alice:alice 700",
        "/var/lib/holdfast/owners/alice alice:alice 700",
    ];
    const ROOTS_ALONE: &str = "/run/holdfast /run/holdfast/owners /run/holdfast/owners/alice /var/lib/holdfast \
        /var/lib/holdfast/owners /usr/local/lib/holdfast /usr/local/lib/holdfast/releases";
    on_installed(|host| {
        for line in EXPECTED {
            let path = line.split_whitespace().next().unwrap_or_default();
            let found = host.root().run(&format!("stat -c '%n %U:%G %a' {path}"))?.ok()?.text();
            ensure!(found == *line, "{found} where {line} was promised");
        }
        let found = host.root().run(&format!("stat -c '%n %U %A' {ROOTS_ALONE}"))?.ok()?.text();
        for line in found.lines() {
            let mode = line.rsplit(' ').next().unwrap_or_default();
            ensure!(line.contains(" root "), "{line}: not root's");
            ensure!(mode.as_bytes()[5] != b'w' && mode.as_bytes()[8] != b'w', "{line}: others can write");
        }
        let writable = host.root().run("find -L /usr/local/lib/holdfast -perm /022 ! -type l")?.ok()?.text();
        ensure!(writable.is_empty(), "a release that others can write: {writable}");
        Ok(())
    })
}

#[test]
fn install_again_keeps_workers_and_changes_nothing_else() -> Result {
    on_installed(|host| {
        host.alice().run_worker("--name stays -- sleep infinity")?;
        let census = Census::take(host)?;
        let before = tree_hash(host, "/usr/local /etc/systemd /etc/holdfast")?;
        host.install("--owner alice")?;
        census.must_hold(host, "a second install")?;
        let after = tree_hash(host, "/usr/local /etc/systemd /etc/holdfast")?;
        let differs = |line: &&String| !before.contains(line) && !line.contains("install.toml");
        ensure!(!after.iter().any(|line| differs(&line)), "{:#?}", after.iter().filter(differs).collect::<Vec<_>>());
        answers(host)
    })
}

#[test]
fn a_second_owner_is_added_beside_the_first() -> Result {
    on_installed(|host| {
        host.alice().run_worker("--name hers -- sleep infinity")?;
        let census = Census::take(host)?;
        host.install("--owner bob")?;
        census.must_hold(host, "the second owner's install")?;
        host.as_user("bob").run_worker("--name his -- sleep infinity")?;
        let names = |user: &str| -> Result<Vec<String>> {
            Ok(host.as_user(user).ps()?.into_iter().map(|worker| worker.name).collect())
        };
        ensure!(names("alice")? == ["hers"] && names("bob")? == ["his"]);
        host.root()
            .run_within(std::time::Duration::from_secs(60), "holdfast system uninstall --owner bob --stop-workers")?
            .ok()?;
        census.must_hold(host, "the second owner's uninstall")?;
        Ok(())
    })
}

#[test]
fn system_status_is_for_everybody() -> Result {
    on_installed(|host| {
        let said = host.as_user("bob").holdfast("system status")?.ok()?;
        for word in [HELPER, DAEMON, LAUNCHER, "active", "enabled"] {
            ensure!(said.text().contains(word), "system status does not say {word}\n{said}");
        }
        host.systemctl("stop holdfast-helper.service holdfast-helper.socket")?;
        let said = host.as_user("bob").holdfast("system status")?;
        ensure!(said.text().contains("inactive"), "{said}");
        Ok(())
    })
}

#[test]
fn system_restart_keeps_workers() -> Result {
    on_installed(|host| {
        host.alice().run_worker("--name stays -- sleep infinity")?;
        let census = Census::take(host)?;
        let before = UNITS.map(|unit| host.main_pid(unit).unwrap_or_default());
        host.root().holdfast("system restart")?.ok()?;
        census.must_hold(host, "system restart")?;
        for (unit, old) in UNITS.iter().zip(before) {
            ensure!(host.main_pid(unit)? != old, "{unit} was not restarted");
        }
        answers(host)
    })
}

#[test]
fn uninstall_refuses_while_workers_live_then_leaves_the_host_as_it_was() -> Result {
    on_fresh(|host| {
        let before = tree_hash(host, TOUCHED)?;
        host.install("--owner alice")?;
        host.alice().run_worker("--name lives -- sleep infinity")?;
        let census = Census::take(host)?;
        host.root().run("holdfast system uninstall")?.refuses(5, &["live", "--stop-workers"])?;
        census.must_hold(host, "a refused uninstall")?;
        answers(host)?;
        host.root().run("holdfast system uninstall --stop-workers --purge")?.ok()?;
        must_be_as_before(host, &before)?;
        let left = host.root().run("pgrep -fa 'holdfast|sleep infinity' | grep -v pgrep; nft list tables; ls -d /run/holdfast; ip -o link | grep hf")?;
        ensure!(left.text().is_empty(), "left over\n{left}");
        Ok(())
    })
}

#[test]
fn uninstall_without_purge_keeps_state_and_an_install_finds_it() -> Result {
    on_installed(|host| {
        host.alice().run_worker("--name once -- sh -c 'echo last words; exit 7'")?;
        ensure!(host.alice().wait_code("once")? == "7");
        host.root().run("holdfast system uninstall")?.ok()?;
        host.root().run("test -d /var/lib/holdfast/owners/alice && test ! -e /usr/local/bin/holdfast")?.ok()?;
        host.install("--owner alice")?;
        ensure!(host.alice().worker("once")?.exit.and_then(|exit| exit.code) == Some(7));
        ensure!(host.alice().holdfast("logs once")?.ok()?.text() == "last words");
        Ok(())
    })
}

#[test]
fn a_refused_install_leaves_the_host_as_it_was() -> Result {
    on_fresh(|host| {
        let before = tree_hash(host, TOUCHED)?;
        let install = |user: &str, arguments: &str| {
            host.as_user(user).run(&format!("/mnt/holdfast-release/holdfast system install {arguments}"))
        };
        let refused = |output: holdfast_smoke::Output, words: &[&str]| -> Result {
            ensure!([2, 5].contains(&output.code), "{output}");
            let code = output.code;
            output.refuses(code, words)?;
            must_be_as_before(host, &before)
        };
        refused(install("alice", "--owner alice")?, &["root", "sudo"])?;
        refused(install("root", "")?, &["owner"])?;
        refused(install("root", "--owner root")?, &["root"])?;
        refused(install("root", "--owner nobody-here")?, &["nobody-here"])?;
        refused(install("root", r"--owner 'DOM\user'")?, &["user"])?;
        refused(install("root", "--owner alice --ports 0-99999")?, &["99999"])?;
        refused(install("root", "--owner alice --from /nowhere")?, &["/nowhere"]).or_else(|_| {
            // A folder that is not there is a failure more than a refusal: 1 is as good.
            let output = install("root", "--owner alice --from /nowhere")?;
            output.refuses(1, &["/nowhere"])?;
            must_be_as_before(host, &before)
        })?;
        let copy = "cp -r /mnt/holdfast-release /root/broken";
        host.root().run(&format!("{copy} && chmod -R u+w /root/broken && rm /root/broken/holdfast-shim"))?.ok()?;
        let output = install("root", "--owner alice --from /root/broken")?;
        ensure!(output.code != 0 && output.stderr.contains("holdfast-shim"), "a missing companion\n{output}");
        must_be_as_before(host, &before)?;
        host.root().run("rm -r /root/broken && cp -r /mnt/holdfast-release /root/broken && chmod -R u+w /root/broken && echo >> /root/broken/holdfastd")?.ok()?;
        let output = install("root", "--owner alice --from /root/broken")?;
        ensure!(output.code != 0 && output.stderr.contains("holdfastd"), "a changed program\n{output}");
        must_be_as_before(host, &before)
    })
}

#[test]
fn an_install_that_fails_half_way_is_reverted() -> Result {
    on_fresh(|host| {
        // The daemon's state directory cannot be made: a file is in its way.
        host.root().run("touch /var/lib/holdfast")?.ok()?;
        let before = tree_hash(host, TOUCHED)?;
        let output = host.root().run("/mnt/holdfast-release/holdfast system install --owner alice")?;
        ensure!(output.code != 0 && output.stderr.contains("/var/lib/holdfast"), "{output}");
        must_be_as_before(host, &before)?;
        host.root().run("rm /var/lib/holdfast")?.ok()?;
        host.install("--owner alice")?;
        answers(host)
    })
}

#[test]
fn a_dry_run_describes_and_changes_nothing() -> Result {
    on_fresh(|host| {
        let before = tree_hash(host, TOUCHED)?;
        let said = host.root().run("/mnt/holdfast-release/holdfast system install --owner alice --dry-run")?.ok()?;
        let all = format!("{}{}", said.text(), said.stderr);
        ensure!(all.contains("unit files") && all.contains("/usr/local/lib/holdfast"), "{said}");
        must_be_as_before(host, &before)
    })
}
