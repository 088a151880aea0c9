//! Session mode: the same programs without systemd's help.

use crate::on_fresh;
use anyhow::{Context, ensure};
use holdfast_smoke::{Host, Output, Result, User, until};
use serde_json::Value;
use std::time::Duration;

const HOLDFAST: &str = "/mnt/holdfast-release/holdfast";

fn holdfast(user: User<'_>, arguments: &str) -> Result<Output> {
    user.run(&format!("export XDG_RUNTIME_DIR=/run/user/1000; {HOLDFAST} {arguments}"))
}

fn program_pids(host: &Host) -> Result<Vec<u64>> {
    let status: Value = holdfast(host.alice(), "status --json")?.ok()?.json()?;
    let programs = status["programs"].as_array().cloned().context("programs")?;
    ensure!(programs.len() >= 3 && programs.iter().all(|program| program["healthy"] == true), "{status}");
    Ok(programs
        .iter()
        .filter(|program| program["name"] != "supervisor")
        .filter_map(|program| program["pid"].as_u64())
        .collect())
}

#[test]
fn a_session_of_root_has_full_function_and_survives_kills() -> Result {
    on_fresh(|host| {
        let start = format!("{HOLDFAST} session start --owner alice");
        host.root().run(&start)?.ok()?;
        let alice = host.alice();
        holdfast(alice, "network create shop")?.ok()?;
        let web =
            "run -d --name web --network shop --publish 8080:80 --workdir /usr/share -- python3 -m http.server 80";
        holdfast(alice, web)?.ok()?;
        until("the page is there", Duration::from_secs(10), || {
            Ok(alice.run("curl -fsS -o /dev/null http://localhost:8080/")?.code == 0)
        })?;
        holdfast(alice, "run --rm --network shop -- curl -fsS -o /dev/null --max-time 5 http://web/")?.ok()?;
        let ps = || -> Result<Value> { holdfast(alice, "ps --json")?.ok()?.json() };
        let before = ps()?;
        let pids = program_pids(host)?;
        let words: Vec<String> = pids.iter().map(u64::to_string).collect();
        host.root().run(&format!("kill -9 {}", words.join(" ")))?.ok()?;
        until("all are back", Duration::from_secs(5), || {
            Ok(program_pids(host)?.iter().all(|pid| !pids.contains(pid)))
        })?;
        ensure!(ps()? == before, "before {before}\nafter {}", ps()?);
        alice.run("curl -fsS -o /dev/null http://localhost:8080/")?.ok()?;
        // The identities are those that the units would give.
        let helper = host.root().run("pgrep -x holdfast-helper | head -1")?.text().parse()?;
        ensure!(
            host.status_line(helper, "CapEff")? == "0000000000003000"
                && host.status_line(helper, "CapBnd")? == "0000000000003000"
        );
        ensure!(!host.status_line(helper, "Uid")?.starts_with("0\t"), "the helper of a session is root");
        let again = host.root().run(&start)?;
        ensure!([0, 5].contains(&again.code), "{again}");
        holdfast(alice, "rm -f web")?.ok()?;
        host.root().run(&format!("{HOLDFAST} session stop"))?.ok()?;
        let left = host.root().run("pgrep -fa 'holdfast-release|holdfastd|holdfast-' | grep -v pgrep; nft list tables | grep holdfast; ip -o link | grep ': hf'")?;
        ensure!(left.text().is_empty(), "left over\n{left}");
        Ok(())
    })
}

#[test]
fn a_session_of_root_needs_an_owner_that_is_not_root() -> Result {
    on_fresh(|host| {
        let start = |user: &str, words: &str| {
            host.as_user(user).run(&format!("env -u SUDO_USER {HOLDFAST} session start {words}"))
        };
        for (words, said) in [("", "--owner"), ("--owner root", "root"), ("--owner nobody-here", "nobody-here")] {
            let output = start("root", words)?;
            ensure!([2, 5].contains(&output.code) && output.stderr.contains(said), "{output}");
        }
        // By sudo the caller is the owner.
        host.alice().run(&format!("sudo {HOLDFAST} session start"))?.ok()?;
        holdfast(host.alice(), "run --rm -- true")?.ok()?;
        Ok(())
    })
}

#[test]
fn an_ordinary_users_session_has_no_network_and_says_how_to_get_one() -> Result {
    on_fresh(|host| {
        host.root().run("mkdir -p /run/user/1000 && chown alice /run/user/1000 && chmod 700 /run/user/1000")?.ok()?;
        let alice = host.alice();
        holdfast(alice, "session start")?.ok()?;
        ensure!(holdfast(alice, "run --rm --net none -- echo ran")?.ok()?.text() == "ran");
        let name = host.root().run("hostname")?.text();
        ensure!(holdfast(alice, "run --rm --net host -- hostname")?.ok()?.text() == name);
        let refused = holdfast(alice, "run --rm --net bridge -- true")?;
        ensure!(refused.code == 125 && refused.stderr.contains("sudo"), "no way out is said\n{refused}");
        holdfast(alice, "run -d --name w --net none -- sleep infinity")?.ok()?;
        let before: Value = holdfast(alice, "ps --json")?.ok()?.json()?;
        let words: Vec<String> = program_pids(host)?.iter().map(u64::to_string).collect();
        alice.run(&format!("kill -9 {}", words.join(" ")))?.ok()?;
        until("all are back", Duration::from_secs(5), || Ok(program_pids(host).is_ok()))?;
        let after: Value = holdfast(alice, "ps --json")?.ok()?.json()?;
        ensure!(before == after, "before {before}\nafter {after}");
        holdfast(alice, "rm -f w")?.ok()?;
        holdfast(alice, "session stop")?.ok()?;
        Ok(())
    })
}
