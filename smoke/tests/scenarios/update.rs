//! `holdfast update`: to a newer release and back, and no worker notices.

use crate::on_installed;
use anyhow::ensure;
use holdfast_smoke::{Census, Flow, Host, MIRROR, Output, Publisher, Result, until};
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;

/// An update restarts three programs and watches them; on a loaded machine that takes its time.
pub const UPDATE_MAX: Duration = Duration::from_secs(240);

pub fn update(host: &Host, arguments: &str) -> Result<Output> {
    host.root().run_within(UPDATE_MAX, &format!("holdfast update {arguments}"))
}

pub fn runs(host: &Host, version: &str) -> Result {
    let status: Value = host.alice().holdfast("status --json")?.ok()?.json()?;
    let release = status["release"].as_str().unwrap_or_default();
    ensure!(status["version"] == version && release.starts_with(&format!("{version}-")), "{status}");
    let programs = status["programs"].as_array().cloned().unwrap_or_default();
    ensure!(programs.iter().all(|program| program["healthy"] == true && program["version"] == version), "{status}");
    host.root().run("test ! -e /var/lib/holdfast/txn")?.ok()?;
    Ok(())
}

/// Workers that must not notice: an echo server with a flow through its published port, and two that sleep.
pub fn with_workers(host: &Host, scenario: impl FnOnce(&Census) -> Result) -> Result {
    host.alice().run_echo("echo", 7000)?;
    for name in ["one", "two"] {
        host.alice().run_worker(&format!("--name {name} -- sleep infinity"))?;
    }
    let census = Census::take(host)?;
    let flow = Flow::open(&host.netns(), SocketAddr::from(([127, 0, 0, 1], 7000)))?;
    scenario(&census)?;
    let echoes = flow.close()?;
    ensure!(echoes > 10, "the flow made {echoes} echoes");
    println!("flow: {echoes} echoes, not reset");
    Ok(())
}

#[test]
fn update_there_and_back_and_no_worker_notices() -> Result {
    on_installed(|host| {
        let publisher = Publisher::new(host)?;
        publisher.take_next("next")?;
        publisher.publish("next", "0.1.1", 1, "--notes 'what is new'")?;
        host.alice().run("holdfast update --check")?.refuses(5, &["no-trust", "/etc/holdfast/trust"])?;
        publisher.trust()?;
        with_workers(host, |census| {
            let said = host.alice().run("holdfast update --check")?.exits(10)?.text();
            ensure!(said.contains("0.1.1 is there") && said.contains("what is new"), "{said}");
            let json: Value = host.alice().run("holdfast update --check --json")?.exits(10)?.json()?;
            ensure!(json["result"] == "available" && json["refusal"].is_null(), "{json}");

            let dry = update(host, "--dry-run --json")?.ok()?;
            ensure!(
                dry.json::<Value>()?["result"] == "dry-run" && dry.stderr.contains("restart holdfastd@alice"),
                "{dry}"
            );
            runs(host, "0.1.0")?;

            let json: Value = update(host, "--yes --soak 2 --json")?.ok()?.json()?;
            ensure!(json["result"] == "updated" && json["probes"]["forward"] == "ok", "{json}");
            ensure!(json["workers"]["before"] == 3 && json["workers"]["after"] == 3, "{json}");
            println!("the API was away for at most {} ms", json["api_gap_ms"]);
            census.must_hold(host, "an update")?;
            runs(host, "0.1.1")?;
            host.alice().run("holdfast update --check")?.exits(0)?;
            ensure!(update(host, "--yes")?.ok()?.text().contains("current: "), "it was updated twice");

            update(host, "--rollback --yes --soak 1")?.ok()?;
            census.must_hold(host, "a rollback")?;
            runs(host, "0.1.0")?;
            host.alice().run("holdfast update --check")?.exits(10)?;
            let said = update(host, "--rollback --yes --soak 1")?.ok()?.text();
            ensure!(said.contains("alice/echo") && said.contains("same process"), "{said}");
            census.must_hold(host, "a rollback of a rollback")?;
            runs(host, "0.1.1")?;

            let history: Value = host.alice().run("holdfast update --history --json")?.ok()?.json()?;
            let results: Vec<&str> =
                history.as_array().into_iter().flatten().filter_map(|r| r["result"].as_str()).collect();
            ensure!(results == ["updated", "updated", "updated"], "{history}");
            ensure!(host.alice().run("holdfast update --history")?.ok()?.text().lines().count() == 4);
            let left = host.root().run("ls /usr/local/lib/holdfast/releases")?.ok()?.text();
            ensure!(left.lines().count() == 2, "releases left: {left}");
            Ok(())
        })
    })
}

/// A daemon that passes the preflight and then ends at once.
const ENDS_AT_ONCE: &str = r#"
#include <stdio.h>
#include <string.h>
int main(int count, char **words) {
    if (count > 1 && !strcmp(words[1], "--version")) { puts("holdfastd 0.1.1"); return 0; }
    return count > 1 && !strcmp(words[1], "--check-state") ? 0 : 1;
}
"#;

/// A daemon that says it is ready and never answers.
const NEVER_ANSWERS: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
int main(int count, char **words) {
    if (count > 1 && !strcmp(words[1], "--version")) { puts("holdfastd 0.1.1"); return 0; }
    if (count > 1 && !strcmp(words[1], "--check-state")) return 0;
    struct sockaddr_un to = { AF_UNIX };
    strncpy(to.sun_path, getenv("NOTIFY_SOCKET"), sizeof to.sun_path - 1);
    sendto(socket(AF_UNIX, SOCK_DGRAM, 0), "READY=1", 7, 0, (struct sockaddr *)&to, sizeof to);
    for (;;) pause();
}
"#;

#[test]
fn update_to_a_bad_release_puts_the_old_one_back() -> Result {
    on_installed(|host| {
        let publisher = Publisher::new(host)?;
        publisher.trust()?;
        with_workers(host, |census| {
            for (seq, name, source) in [(1, "ends", ENDS_AT_ONCE), (2, "mute", NEVER_ANSWERS)] {
                publisher.take_next(name)?;
                publisher.replace(name, "holdfastd", source)?;
                publisher.publish(name, "0.1.1", seq, "")?;
                let said = update(host, "--yes --soak 2")?.exits(20)?;
                let text = said.text();
                ensure!(text.contains("forward probe: ") && text.contains("rollback probe: ok"), "{name}: {said}");
                println!("{name}: {}", text.lines().find(|line| line.starts_with("forward")).unwrap_or_default());
                census.must_hold(host, name)?;
                runs(host, "0.1.0")?;
            }
            // It was no word against the version: a good one with the next number is taken.
            publisher.take_next("good")?;
            publisher.publish("good", "0.1.1", 3, "")?;
            // A crash while it is watched counts as well.
            let mut watched = host.root().start("holdfast update --yes --soak 60")?;
            until("the new daemon answers", UPDATE_MAX, || {
                ensure!(watched.runs()?, "the update ended");
                let status: Value = host.alice().holdfast("status --json")?.ok()?.json()?;
                Ok(status["version"] == "0.1.1")
            })?;
            until("the soak has begun, and a crash in it is seen", UPDATE_MAX, || {
                host.kill_mains(&[holdfast_smoke::DAEMON])?;
                std::thread::sleep(Duration::from_millis(1500));
                Ok(!watched.runs()?
                    || host.root().run("readlink /usr/local/lib/holdfast/current")?.text().contains("0.1.0"))
            })?;
            watched.wait_within(UPDATE_MAX)?.exits(20)?;
            census.must_hold(host, "a crash in the soak")?;
            runs(host, "0.1.0")?;
            update(host, "--yes --soak 1")?.ok()?;
            census.must_hold(host, "the good one")?;
            runs(host, "0.1.1")
        })
    })
}

#[test]
fn update_refuses_before_anything_changes() -> Result {
    on_installed(|host| {
        let publisher = Publisher::new(host)?;
        publisher.trust()?;
        publisher.take_next("next")?;
        publisher.publish("next", "0.1.1", 5, "")?;
        let before =
            host.root().run("readlink /usr/local/lib/holdfast/current; cat /etc/holdfast/install.toml")?.ok()?.text();
        let unchanged = || -> Result {
            let now = host
                .root()
                .run("readlink /usr/local/lib/holdfast/current; cat /etc/holdfast/install.toml")?
                .ok()?
                .text();
            ensure!(now == before, "{now}");
            let left = host.root().run("ls -A /usr/local/lib/holdfast/releases")?.ok()?.text();
            ensure!(left.lines().count() == 1, "left over: {left}");
            Ok(())
        };
        let refused = |code: i32, name: &str| -> Result {
            let said = update(host, "--yes --json")?.refuses(code, &[name])?;
            ensure!(said.json::<Value>()?["refusal"] == name, "{said}");
            unchanged()
        };
        host.alice().run("holdfast update --yes")?.refuses(5, &["no-root", "sudo"])?;
        update(host, "--to 9.9.9 --yes")?.refuses(4, &["9.9.9"])?;
        unchanged()?;

        let set = format!("{MIRROR}/stable/v0.1.1");
        let spoil = |line: &str| host.root().run(&format!("cp -r {set} /root/whole && {line}"))?.ok().map(drop);
        let mend = || host.root().run(&format!("rm -rf {set} && mv /root/whole {set}"))?.ok().map(drop);
        for (code, name, line) in [
            (5, "no-signature", format!("rm {set}/SHA256SUMS.sig")),
            (5, "bad-encoding", format!("echo '<html>' > {set}/SHA256SUMS.sig")),
            (5, "bad-signature", format!("sed -i 's/^0/1/; s/^[2-9a-f]/0/' {set}/SHA256SUMS")),
            (5, "wrong-digest", format!("printf x | dd of={set}/holdfastd bs=1 seek=5000 conv=notrunc status=none")),
            (5, "too-large", format!("printf x >> {set}/holdfastd")),
            (5, "wrong-size", format!("truncate -s -1 {set}/holdfastd")),
        ] {
            spoil(&line)?;
            refused(code, name)?;
            mend()?;
        }
        publisher
            .run("rm -f /srv/holdfast/keyring.json.*.sig && cp $(ls keyring.json.*.sig | head -1) /srv/holdfast/")?;
        refused(5, "keyring-threshold")?;
        publisher.sign_keyring(&["root-2", "root-3"])?;

        host.root().run("chmod 666 /etc/holdfast/update.toml")?.ok()?;
        refused(5, "unsafe-config")?;
        host.root().run("chmod 644 /etc/holdfast/update.toml")?.ok()?;
        // One that says another version than its programs, and one for another channel.
        publisher.publish("next", "0.1.2", 6, "")?;
        refused(5, "version-mismatch")?;
        publisher.publish("next", "0.1.1", 7, "--channel beta")?;
        refused(5, "wrong-channel")?;
        publisher.publish("next", "0.1.1", 8, "")?;

        let nobody_asks = update(host, "--soak 1")?;
        nobody_asks.refuses(2, &["--yes"])?;
        host.root().run("flock /run/holdfast-system.lock holdfast update --yes")?.refuses(5, &["locked"])?;
        // Two sources, one of them away, in either order: the other is enough.
        for sources in
            ["\"file:///nowhere\", \"file:///srv/holdfast\"", "\"file:///srv/holdfast\", \"http://127.0.0.1:9\""]
        {
            publisher.configure(&format!("sources = [{sources}]\n"))?;
            host.alice().run("holdfast update --check")?.exits(10)?;
        }
        Ok(())
    })
}
