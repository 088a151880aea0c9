//! Updates over HTTP: from a maintainer's own server, from mirrors that mean ill, and by a child that has no rights.

use crate::on_installed;
use crate::update::{UPDATE_MAX, runs, update};
use anyhow::{Context, ensure};
use holdfast_smoke::{Fault, Host, Mirror, Output, Publisher, Result, Running, tree_hash, until};
use serde_json::Value;
use std::time::Duration;

/// What an update may change: all of it has to be as before where one is refused.
const PLACES: &str = "/usr/local/lib/holdfast /usr/local/bin /etc /var/lib/holdfast/floor /var/lib/holdfast/receipts";

/// A host that trusts a publisher, who has published 0.1.1 over an older set of his.
fn published(host: &Host) -> Result<Publisher<'_>> {
    let publisher = Publisher::new(host)?;
    publisher.trust()?;
    publisher.take_next("next")?;
    publisher.publish("next", "0.1.1", 5, "")?;
    Ok(publisher)
}

fn follow(publisher: &Publisher, mirrors: &[&Mirror]) -> Result {
    let sources: Vec<String> = mirrors.iter().map(|mirror| format!("{:?}", mirror.source())).collect();
    publisher.configure(&format!("sources = [{}]\n", sources.join(", ")))
}

/// The maintainer's server, and the source that it names.
fn serve(host: &Host) -> Result<(Running, String)> {
    let said = "/root/desk/served";
    let line = format!("exec /root/desk/holdfast-release serve /srv/holdfast --listen 127.0.0.1:0 > {said}");
    let server = host.root().start(&line)?;
    let mut source = String::new();
    until("the server says its address", Duration::from_secs(20), || {
        let text = host.root().run(&format!("cat {said}"))?.text();
        source = text.rsplit_once(" at ").map(|(_, at)| at.to_owned()).unwrap_or_default();
        Ok(!source.is_empty())
    })?;
    Ok((server, source))
}

#[test]
fn update_over_http_from_a_server_that_breaks_off() -> Result {
    on_installed(|host| {
        let publisher = published(host)?;
        let (_server, source) = serve(host)?;
        publisher.configure(&format!("sources = [\"{source}\"]\n"))?;
        // Only the proxy of update.toml counts, never one of the environment.
        let odd = "http_proxy=http://127.0.0.1:9 HTTP_PROXY=http://127.0.0.1:9 ALL_PROXY=http://127.0.0.1:9";
        host.alice().run(&format!("{odd} holdfast update --check"))?.exits(10)?;
        publisher.configure(&format!("sources = [\"{source}\"]\nproxy = \"http://127.0.0.1:9\"\n"))?;
        host.alice().run("holdfast update --check")?.refuses(1, &["by the proxy http://127.0.0.1:9", "refused"])?;
        let ranged = host.root().run(&format!("curl -s -r 10-19 {source}/keyring.json | wc -c"))?.ok()?.text();
        ensure!(ranged == "10", "a range of 10 bytes had {ranged}");
        for path in ["", "stable/", "../desk/root-1.key", "%2e%2e/desk/root-1.key", "stable/../../desk/root-1.key"] {
            let line = format!("curl -s --path-as-is -o /dev/null -w '%{{http_code}}' '{source}/{path}'");
            let code = host.root().run(&line)?.ok()?.text();
            ensure!(code == "404", "{path:?} was answered with {code}");
        }

        let cut = Mirror::start(host, Fault::Cut)?;
        follow(&publisher, &[&cut])?;
        let done = update(host, "--yes --soak 1")?.ok()?;
        ensure!(done.stderr.contains("going on at byte"), "no line broke: {done}");
        ensure!(!done.stderr.contains("%") && !done.stderr.contains("\u{1b}"), "a bar without a terminal: {done}");
        runs(host, "0.1.1")?;
        let asked = cut.asked();
        let names = host.root().run("ls -A /usr/local/lib/holdfast/current/")?.ok()?.text();
        for path in &asked {
            let name = path.rsplit('/').next().unwrap_or_default();
            let known = names.lines().any(|line| line == name) || name.starts_with("keyring.json");
            ensure!(known, "{path} was asked for, and no set names it");
        }
        Ok(())
    })
}

/// Runs an update that hangs in its child, and returns what /proc says of that child.
fn child_of(host: &Host, user: &str, line: &str) -> Result<Output> {
    let running = host.as_user(user).start(line)?;
    let mut pid = String::new();
    until("the child asks the mirror", Duration::from_secs(20), || {
        pid = host.root().run("pgrep -f '^[^ ]*holdfast fetch '")?.text();
        let exe = host.root().run(&format!("readlink /proc/{pid}/exe"))?.text();
        Ok(exe.ends_with("/holdfast") && host.root().run(&format!("ls -l /proc/{pid}/fd"))?.text().contains("socket:"))
    })?;
    let script = format!(
        "cat /proc/{pid}/status; ls -l /proc/{pid}/fd; tr '\\0' '\\n' < /proc/{pid}/environ; ls -ld /proc/{pid}/cwd"
    );
    let said = host.root().run(&script)?.ok()?;
    running.kill()?;
    until("the child is gone with its parent", Duration::from_secs(20), || {
        Ok(host.root().run("pgrep -f '^[^ ]*holdfast fetch '")?.code == 1)
    })?;
    Ok(said)
}

#[test]
fn update_is_fetched_by_a_child_without_rights() -> Result {
    on_installed(|host| {
        let publisher = published(host)?;
        let silent = Mirror::start(host, Fault::Silent)?;
        follow(&publisher, &[&silent])?;
        host.root().run("echo secret > /root/secret && chmod 600 /root/secret")?.ok()?;
        for (user, line, uid) in [
            ("root", "exec 7</root/secret; SECRET=1 exec holdfast update --yes", "65534"),
            ("alice", "SECRET=1 exec holdfast update --check", "1000"),
        ] {
            let said = child_of(host, user, line)?.text();
            let status = |name: &str| {
                let line = said.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
                line.map(|rest| rest.split_whitespace().collect::<Vec<_>>().join(" ")).context("no such line")
            };
            ensure!(status("Uid")? == [uid; 4].join(" ") && status("Gid")? == [uid; 4].join(" "), "{said}");
            for set in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
                ensure!(status(set)? == "0000000000000000", "{user}: {set}\n{said}");
            }
            ensure!(status("NoNewPrivs")? == "1", "{user}: it may gain rights\n{said}");
            ensure!(user != "root" || status("Groups")?.is_empty(), "{user}: it kept groups\n{said}");
            ensure!(
                !said.contains("secret") && !said.contains("SECRET"),
                "{user}: it has what was its caller's\n{said}"
            );
            ensure!(said.lines().any(|line| line.ends_with("cwd -> /")), "{said}");
        }
        Ok(())
    })
}

#[test]
fn update_from_mirrors_that_mean_ill() -> Result {
    on_installed(|host| {
        let publisher = published(host)?;
        let good = Mirror::start(host, Fault::None)?;
        follow(&publisher, &[&good])?;
        // Once, so that what it remembers of the keyring does not count as a change later.
        update(host, "--dry-run")?.ok()?;
        let before = tree_hash(host, PLACES)?;
        let releases =
            || -> Result<String> { Ok(host.root().run("ls -A /usr/local/lib/holdfast/releases")?.ok()?.text()) };
        let only = releases()?;

        let drip = Mirror::start(host, Fault::Drip)?;
        follow(&publisher, &[&drip])?;
        let slow = host.alice().start("exec holdfast update --check --json")?;
        until("it is asked", Duration::from_secs(20), || Ok(!drip.asked().is_empty()))?;

        let nowhere = "http://127.0.0.1:9".to_owned();
        for (code, refusal, words, fault) in [
            (1, None, "no such file", Fault::NotFound),
            (5, Some("keyring-threshold"), "keyring.json", Fault::Html),
            (5, Some("too-large"), "more than", Fault::Endless),
            (1, None, "error", Fault::Length(u64::MAX / 2)),
            (5, Some("keyring-threshold"), "keyring.json", Fault::Length(1)),
            (1, None, "302", Fault::Redirect("file:///srv/holdfast".to_owned())),
            (1, None, "refused", Fault::Redirect(nowhere)),
            (5, Some("keyring-threshold"), "2 have to", Fault::Spoiled("keyring.json")),
            (5, Some("bad-signature"), "SHA256SUMS", Fault::Spoiled("SHA256SUMS")),
            (5, Some("wrong-digest"), "release.json", Fault::Spoiled("release.json")),
            (5, Some("wrong-digest"), "holdfast-shim", Fault::Spoiled("holdfast-shim")),
        ] {
            let mirror = Mirror::start(host, fault.clone())?;
            follow(&publisher, &[&mirror])?;
            let said = update(host, "--yes --json")?.refuses(code, &[words]).with_context(|| format!("{fault:?}"))?;
            let json: Value = said.json()?;
            ensure!(json["refusal"].as_str() == refusal, "{fault:?}: {json}");
            ensure!(releases()? == only, "{fault:?}: {}", releases()?);
        }
        let late = slow.wait_within(UPDATE_MAX)?.refuses(1, &["too-slow"])?;
        ensure!(late.json::<Value>()?["refusal"] == "too-slow", "{late}");
        println!("a byte a second: given up after {:.0} s", late.took.as_secs_f32());
        let after = tree_hash(host, PLACES)?;
        let changed: Vec<_> = after.iter().filter(|line| !before.contains(line)).collect();
        // What this test itself wrote.
        ensure!(changed.iter().all(|line| line.contains("/etc/holdfast/update.toml")), "changed: {changed:#?}");
        runs(host, "0.1.0")?;

        // One good mirror and two bad ones, in each order.
        let bad = [Mirror::start(host, Fault::Html)?, Mirror::start(host, Fault::Endless)?];
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [2, 0, 1], [1, 2, 0], [2, 1, 0]] {
            let all = [&good, &bad[0], &bad[1]];
            follow(&publisher, &order.map(|number| all[number]))?;
            let said = host.alice().run("holdfast update --check")?.exits(10)?.text();
            ensure!(said.contains("0.1.1 is there"), "{order:?}: {said}");
        }
        Ok(())
    })
}
