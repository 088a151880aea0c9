//! Whom a caller, or a process that is to be signalled, can be taken for.

use crate::on_installed;
use anyhow::{Context, ensure};
use holdfast_smoke::{Census, DAEMON, Host, LAUNCHER, Result, User, WORKERS, scaled, until};
use std::time::Duration;

const SOCKET: &str = "/run/holdfast/owners/alice/daemon.sock";

/// Runs the probe as this user; it prints `what outcome` lines.
fn probe(host: &Host, user: User<'_>, arguments: &str) -> Result<Vec<(String, String)>> {
    host.root().run("mkdir -p /srv/probes && chmod 755 /srv/probes")?.ok()?;
    host.root().feed("cat > /srv/probes/h2.py", include_bytes!("../probes/h2.py"))?.ok()?;
    host.root().feed("cat > /srv/probes/identity.py", include_bytes!("../probes/identity.py"))?.ok()?;
    let said =
        user.run_within(Duration::from_secs(300), &format!("python3 /srv/probes/identity.py {arguments}"))?.ok()?;
    let text = said.text();
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    Ok(pairs.map(|(what, outcome)| (what.to_owned(), outcome.to_owned())).collect())
}

fn outcome<'a>(found: &'a [(String, String)], what: &str) -> Result<&'a str> {
    let found_one =
        found.iter().find(|(name, _)| name == what).with_context(|| format!("{what} was not tried: {found:?}"))?;
    Ok(&found_one.1)
}

#[test]
fn t05_no_text_makes_a_caller_somebody_else() -> Result {
    on_installed(|host| {
        host.alice().run_worker("--name hers -- sleep infinity")?;
        // Past the mode, so that only the look at the caller is left.
        host.root().run(&format!("chmod 777 {SOCKET}"))?.ok()?;
        let found = probe(host, host.as_user("bob"), &format!("text {SOCKET}"))?;
        ensure!(found.len() >= 8, "{found:?}");
        for (what, outcome) in &found {
            ensure!(outcome == "refused", "bob by {what}: {outcome}");
        }
        // The control: the same words by alice are answered.
        let own = probe(host, host.alice(), &format!("text {SOCKET}"))?;
        ensure!(
            own.iter().filter(|(_, outcome)| outcome == "answered").count() >= 6,
            "the probe shows nothing: {own:?}"
        );
        println!("{} ways to say who one is, none believed", found.len());
        Ok(())
    })
}

#[test]
fn t06_a_connection_is_its_makers_and_dies_with_it() -> Result {
    on_installed(|host| {
        host.alice().holdfast("run --rm -- true")?.ok()?;
        host.root().run(&format!("chmod 777 {SOCKET}"))?.ok()?;
        let found = probe(host, host.root(), &format!("passed {SOCKET} 1000 $(id -u bob)"))?;
        ensure!(outcome(&found, "the-owners-own")? == "answered", "the probe shows nothing: {found:?}");
        let by_another = outcome(&found, "made-by-another-used-by-the-owner")?;
        ensure!(by_another == "refused", "bob's connection in alice's hands: {by_another}");
        let of_the_dead = outcome(&found, "passed-on-by-the-dead")?;
        ensure!(of_the_dead != "answered", "a connection whose maker has died is still the owner's");
        Ok(())
    })
}

#[test]
fn t07_a_number_used_again_is_not_who_had_it() -> Result {
    on_installed(|host| {
        host.alice().holdfast("run --rm -- true")?.ok()?;
        let rounds = scaled(30);
        let arguments = format!("reused {SOCKET} 1000 {rounds} {}", host.main_pid(DAEMON)?);
        let found = probe(host, host.root(), &arguments)?;
        let (matches, refused) = (outcome(&found, "matches")?, outcome(&found, "refused")?);
        ensure!(
            refused.parse::<u32>()? + matches.parse::<u32>()? > rounds / 2,
            "hardly a number came again: {found:?}"
        );
        ensure!(matches == "0", "taken for who had the number before: {matches} times of {rounds}");
        println!(
            "{rounds} rounds, {refused} times a process of the owner's had the number of a caller who was gone: never taken for it"
        );
        Ok(())
    })
}

#[test]
fn t08_who_vanishes_has_asked_for_nothing() -> Result {
    on_installed(|host| {
        host.alice().run_worker("--name stays --publish 8080:80 -- sleep infinity")?;
        let census = Census::take(host)?;
        let pid = host.main_pid(DAEMON)?;
        let found = probe(host, host.root(), &format!("vanish {SOCKET} 1000 {pid} stays"))?;
        ensure!(outcome(&found, "cut-short")?.parse::<u32>()? > 150, "{found:?}");
        host.alice().holdfast("run --rm -- true")?.ok()?;
        let now = Census::take(host)?;
        ensure!(now == census, "a caller who was gone was obeyed: {now:?}");
        ensure!(host.main_pid(DAEMON)? == pid);
        println!(
            "{} requests cut short, 10 whole ones whose callers were gone: nothing changed",
            outcome(&found, "cut-short")?
        );
        Ok(())
    })
}

#[test]
fn t13_nobody_but_a_main_speaks_to_systemd() -> Result {
    on_installed(|host| {
        host.alice().run_worker("--name w -- sleep infinity")?;
        let inspected: serde_json::Value = host.alice().holdfast("inspect --json w")?.ok()?.json()?;
        let shim = inspected["shim"]["pid"].as_u64().context("shim.pid")?;
        let state = || -> Result<String> {
            let properties =
                "MainPID,ActiveState,SubState,StatusText,NFileDescriptorStore,StatusErrno,Result,NRestarts";
            let units = format!("{LAUNCHER} {WORKERS} {DAEMON} holdfast-helper.service");
            host.systemctl(&format!("show --property {properties} {units}"))
        };
        let before = state()?;
        let spoof = include_bytes!("../probes/notify.py");
        // From inside a worker: nothing is there to speak to, nor is it named.
        let inside = host
            .alice()
            .holdfast("run --rm -- sh -c 'echo $NOTIFY_SOCKET; ls /run/systemd/notify 2>/dev/null; true'")?
            .ok()?;
        ensure!(inside.text().is_empty(), "a worker is told where systemd listens\n{inside}");
        // Bound in by its owner on purpose, and beside the shim, as its child would be: in the cgroup of its worker's shim.
        host.alice().feed("cat > notify.py", spoof)?.ok()?;
        let bound = "run --rm --volume /run/systemd:/mnt:ro --volume ~/notify.py:/tmp/notify.py:ro -- python3 /tmp/notify.py /mnt/notify";
        let _ = host.alice().holdfast(bound)?;
        host.root().feed("cat > /srv/notify.py", spoof)?.ok()?;
        let beside = format!(
            "cat /proc/{shim}/cgroup; g=$(sed -n 's/^0:://p' /proc/{shim}/cgroup); echo $$ > /sys/fs/cgroup$g/cgroup.procs && \
             exec setpriv --reuid alice --regid alice --clear-groups python3 /srv/notify.py /run/systemd/notify"
        );
        let said = host.root().run(&format!("sh -c '{}'", beside.replace('\'', "'\\''")))?;
        // systemd reads its queue in order; once it has answered this, it has read them.
        host.systemctl("daemon-reload")?;
        until("nothing has changed", Duration::from_secs(5), || Ok(state()? == before))
            .with_context(|| format!("before {before}\nafter {}", state().unwrap_or_default()))?;
        ensure!(said.text().contains("sent 8"), "the spoof was not sent\n{said}");
        Ok(())
    })
}

#[test]
fn t43_nobody_is_signalled_for_having_a_workers_number() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        probe(host, host.root(), "none /nowhere")?;
        let rounds = scaled(4);
        let mut decoys = 0;
        for round in 0..rounds {
            alice.run_worker("--name w --net none -- sleep infinity")?;
            let inspected: serde_json::Value = alice.holdfast("inspect --json w")?.ok()?.json()?;
            let shim = inspected["shim"]["pid"].as_u64().context("shim.pid")?;
            let pid = alice.worker("w")?.live_pid()?;
            host.keep_down(&[DAEMON])?;
            host.root().run(&format!("kill -9 {shim}"))?.ok()?;
            // What has the numbers now is alice's, but nobody's worker.
            let both = host.root().start(&format!("exec python3 /srv/probes/identity.py decoys {pid} {shim} 1000"))?;
            until("the numbers are used again", Duration::from_secs(20), || {
                Ok(host.root().run(&format!("cat /tmp/decoys.{pid} 2>/dev/null"))?.text().contains("made"))
            })?;
            let made = host.root().run(&format!("cat /tmp/decoys.{pid}"))?.text();
            host.bring_up(&[DAEMON])?;
            for verb in ["kill w", "stop --timeout 1 w", "kill --signal KILL w", "rm -f w"] {
                let said = alice.run_within(Duration::from_secs(40), &format!("holdfast {verb}"))?;
                ensure!([0, 1, 4, 5].contains(&said.code), "round {round}\n{said}");
            }
            for decoy in made.split_whitespace().skip(1) {
                let state = host.root().run(&format!("grep -E '^(State|SigPnd|ShdPnd)' /proc/{decoy}/status"))?;
                ensure!(
                    state.code == 0 && state.text().contains("S (sleeping)"),
                    "a bystander was signalled for its number\n{state}"
                );
                decoys += 1;
            }
            drop(both);
            host.root().run(&format!("kill -9 {}; rm -f /tmp/decoys.*", made.trim_start_matches("made")))?;
            alice.remove_all()?;
        }
        ensure!(decoys > 0, "no number could be used again");
        println!("{rounds} rounds, {decoys} bystanders with the numbers of a worker and its shim: none was touched");
        Ok(())
    })
}
