//! An update whose program is killed at each of its steps: with nobody there, one whole release runs again, and no worker
//! is lost. What is killed at each system call, the tests of `cli/src/update/swap_tests.rs` do.

use crate::on_installed;
use crate::update::{UPDATE_MAX, runs, with_workers};
use anyhow::ensure;
use holdfast_smoke::{Census, Down, Host, Publisher, Result, Running, scaled, until};
use std::time::Duration;

/// The timer's wait, a restart of everything on a loaded machine, and the probes. The promise is 60 s.
const BACK_WITHIN: Duration = Duration::from_secs(120);

const LIBRARY: &str = "/usr/local/lib/holdfast";
const STATE: &str = "/var/lib/holdfast";
const OLD: &str = "0.1.0";
const NEW: &str = "0.1.1";

/// Where the program is killed: as soon as it has said a line, or as it begins a system call on a path (strace sees the
/// first one of a rename, the new content).
#[derive(Debug, Clone, Copy)]
enum At {
    Said(&'static str),
    Call(&'static str, &'static str, u32),
}

const RENAME: &str = "rename,renameat,renameat2";
const UNLINK: &str = "unlink,unlinkat";
const SYMLINK: &str = "symlink,symlinkat";

/// Step, place, and what has to run afterwards. Steps are those of threats.md section 3.
type Cut = (&'static str, At, &'static str);

const UNTIL_THE_FLIP: &[Cut] = &[
    ("S0 lock taken", At::Call("/run/holdfast-system.lock", "ftruncate", 1), OLD),
    ("S1 metadata", At::Call("/etc/holdfast/update.toml", "read", 1), OLD),
    ("S2 verified", At::Said(", signed by "), OLD),
    ("S3 files", At::Said("fetch holdfastd "), OLD),
    ("S5 last file", At::Said("fetch rules.toml "), OLD),
    ("S6 preflight", At::Said("try it as the owners"), OLD),
    ("S7 record", At::Call("/var/lib/holdfast/.txn.new", RENAME, 1), OLD),
    ("S8 previous", At::Call("/usr/local/lib/holdfast/.current.previous.new", SYMLINK, 1), OLD),
    ("S8 flip", At::Call("/usr/local/lib/holdfast/.current.new", RENAME, 1), OLD),
    ("S9 flipped", At::Said("/holdfast/current to releases/"), OLD),
];

const FROM_THE_FLIP: &[Cut] = &[
    ("S9 units read", At::Said("unit files and have systemd"), OLD),
    ("S10 helper", At::Said("restart holdfast-helper.service"), OLD),
    ("S11 launcher", At::Said("restart holdfast-launcher@alice.service"), OLD),
    ("S11 daemon", At::Said("restart holdfastd@alice.service"), OLD),
    ("S12 answers, soak", At::Said("wait until the daemon of alice"), OLD),
    ("S13 commit", At::Call("/var/lib/holdfast/txn", UNLINK, 1), OLD),
    ("S13 committed", At::Call("/usr/local/lib/holdfast/.committed.new", RENAME, 2), NEW),
    // The first is that of the keys that were seen, long before.
    ("S13 floor", At::Call("/var/lib/holdfast/.floor.new", RENAME, 2), NEW),
    ("S14 collected", At::Call("/var/lib/holdfast/receipts", "mkdir,mkdirat", 1), NEW),
];

const UPDATE: &str = "holdfast update --yes --soak 2";

/// A line of shell that runs an update up to there, and says `cut` where it was killed.
fn line(at: At) -> String {
    match at {
        At::Said(words) => format!(
            "rm -f /run/smoke-said; mkfifo -m 600 /run/smoke-said; {UPDATE} 2>/run/smoke-said & p=$!; \
             while IFS= read -r said; do echo \"$said\"; case \"$said\" in *'{words}'*) kill -9 $p; break;; esac; \
             done </run/smoke-said; wait $p; [ $? != 137 ] || echo cut"
        ),
        At::Call(path, calls, number) => format!(
            "strace -f -o /dev/null -P {path} -e trace={calls} -e inject={calls}:signal=KILL:when={number} \
             {UPDATE}; [ $? != 137 ] || echo cut"
        ),
    }
}

fn cut_at(host: &Host, census: &Census, (step, at, then): Cut) -> Result {
    let said = host.root().run_within(UPDATE_MAX, &line(at))?;
    ensure!(said.text().lines().last() == Some("cut"), "{step}: it was not killed there\n{said}");
    let took = until("one whole release runs", BACK_WITHIN, || Ok(runs(host, then).is_ok()))?;
    println!("{step}: {then} runs after {:.1} s", took.as_secs_f32());
    census.must_hold(host, step)?;
    let doctor = host.alice().holdfast("doctor")?.text();
    ensure!(doctor.contains("whole, and no update under way"), "{step}: {doctor}");
    if then == NEW {
        let back = "holdfast update --rollback --yes --soak 0";
        host.root().run_within(UPDATE_MAX, back)?.ok()?;
        // The floor stands above it by now, and what `committed` lagged behind is put right by the next update.
        host.root().run(&format!("rm -f {STATE}/floor {STATE}/floor.previous; rm -rf {STATE}/receipts"))?.ok()?;
        runs(host, OLD)?;
    }
    Ok(())
}

fn cut_at_each(cuts: &[Cut]) -> Result {
    on_installed(|host| {
        let publisher = Publisher::new(host)?;
        publisher.trust()?;
        publisher.take_next("next")?;
        // So that systemd has something to read anew.
        publisher.run("sed -i '1i # of the release that follows' next/*.service next/*.timer")?;
        publisher.publish("next", NEW, 1, "")?;
        with_workers(host, |census| {
            for round in 1..=scaled(1) {
                println!("round {round}");
                cuts.iter().try_for_each(|cut| cut_at(host, census, *cut))?;
            }
            let timer = host.root().run("systemctl is-active holdfast-recover.timer")?.text();
            ensure!(timer == "inactive", "the timer is {timer}");
            host.root().run_within(UPDATE_MAX, UPDATE)?.ok()?;
            census.must_hold(host, "the update that was not cut off")?;
            runs(host, NEW)?;
            let committed = host.root().run(&format!("readlink {LIBRARY}/committed"))?.ok()?.text();
            ensure!(committed.contains(NEW), "what recovers is {committed}");
            let left = host.root().run("ls -A /usr/local/lib/holdfast/releases")?.ok()?.text();
            ensure!(left.lines().count() == 2, "left over: {left}");
            Ok(())
        })
    })
}

#[test]
fn update_killed_at_any_step_until_the_flip_is_undone_with_nobody_there() -> Result {
    cut_at_each(UNTIL_THE_FLIP)
}

#[test]
fn update_killed_at_any_step_from_the_flip_is_undone_or_stays_with_nobody_there() -> Result {
    cut_at_each(FROM_THE_FLIP)
}

/// An update that is in its soak, and does not come to its end.
fn watched(host: &Host) -> Result<Running> {
    let mut updates = host.root().start("echo $$ > /run/smoke-update.pid; exec holdfast update --yes --soak 600")?;
    until("the new daemon answers", UPDATE_MAX, || {
        ensure!(updates.runs()?, "the update ended");
        let said = host.alice().holdfast("status --json")?;
        Ok(said.code == 0 && said.json::<serde_json::Value>()?["version"] == NEW)
    })?;
    Ok(updates)
}

/// Whoever watches may stop it. The machine goes down in the soak: at boot the release that was committed last starts, before anybody can rerun anything.
#[test]
fn update_cut_off_by_a_reboot_is_undone_at_boot() -> Result {
    let mut host = Host::installed()?;
    let scenario = |host: &mut Host| -> Result {
        let publisher = Publisher::new(host)?;
        publisher.trust()?;
        publisher.take_next("next")?;
        publisher.publish("next", NEW, 1, "")?;
        host.alice().run_worker("--name web --restart always -- sleep infinity")?;
        let asked = watched(host)?;
        host.root().run("kill -TERM $(cat /run/smoke-update.pid)")?.ok()?;
        let said = asked.wait_within(UPDATE_MAX)?.exits(20)?;
        ensure!(said.text().contains("asked to end (SIGTERM)") && said.text().contains("rollback probe: ok"), "{said}");
        runs(host, OLD)?;
        // An orderly way down in the middle of an update hangs today (docs/reliability.md): not in here until it does not.
        let updates = watched(host)?;
        host.reboot(Down::Cut, Duration::from_secs(60))?;
        drop(updates);
        let took = until("the old release runs", BACK_WITHIN, || Ok(runs(host, OLD).is_ok()))?;
        println!("cut off: {OLD} runs {:.1} s after the boot", took.as_secs_f32());
        until("the worker runs again", Duration::from_secs(20), || Ok(host.alice().worker("web")?.phase == "running"))?;
        Ok(())
    };
    let outcome = scenario(&mut host);
    host.explain(outcome)
}
