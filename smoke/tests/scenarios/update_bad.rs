//! Releases that are bad in one way each: signed, whole, passed by every check that can be made before the flip. Each is
//! taken back by itself, with both probes shown, and no worker notices.

use crate::on_installed;
use crate::update::{UPDATE_MAX, runs, with_workers};
use anyhow::{Context, ensure};
use holdfast_smoke::{Census, Host, Publisher, Result, scaled, until};
use serde_json::Value;

/// A program that says the right version and lets every state pass. What it is then, `MAIN` says.
const PROGRAM: &str = r#"
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
static void ready(void) {
    struct sockaddr_un to = { AF_UNIX };
    strncpy(to.sun_path, getenv("NOTIFY_SOCKET"), sizeof to.sun_path - 1);
    sendto(socket(AF_UNIX, SOCK_DGRAM, 0), "READY=1", 7, 0, (struct sockaddr *)&to, sizeof to);
}
int main(int count, char **words) {
    if (count > 1 && !strcmp(words[1], "--version")) { puts("NAME 0.1.1"); return 0; }
    if (count > 1 && !strcmp(words[1], "--check-state")) { CHECK }
    (void)ready;
    MAIN
}
"#;

/// What a program of a bad release does.
const ENDS: &str = "return 1;";
const HANGS: &str = "signal(SIGTERM, SIG_IGN); for (;;) pause();";
const IS_MUTE: &str = "ready(); for (;;) pause();";
const IS_THE_OLD_ONE: &str = r#"execv("/usr/local/lib/holdfast/current.previous/NAME", words); return 1;"#;
const SAYS_NONSENSE: &str = r#"
    signal(SIGPIPE, SIG_IGN); ready();
    for (;;) { int to = accept(3, 0, 0); if (to >= 0) { write(to, "HTTP/1.1 200 OK\r\n\r\nyes\n", 23); close(to); } }"#;
const FAILS_TO_MIGRATE: &str = r#"fputs("form 6: no such column\n", stderr); return 1;"#;

fn program(name: &str, main: &str, check: &str) -> String {
    PROGRAM.replace("MAIN", main).replace("CHECK", check).replace("NAME", name)
}

/// How a release is bad.
#[derive(Debug, Clone, Copy)]
enum Bad {
    /// These programs do this.
    Programs(&'static [&'static str], &'static str),
    /// They do this, and their unit waits for readiness for 5 s alone.
    Impatient(&'static str, &'static str),
    /// A line of a unit is another one.
    Unit(&'static str, &'static str, &'static str),
}

const DAEMON: &str = "holdfastd";
const HELPER: &str = "holdfast-helper";
const LAUNCHER: &str = "holdfast-launcher";

fn unit_of(program: &str) -> String {
    let template = if program == HELPER { "" } else { ".template" };
    format!("{program}{template}.service")
}

fn spoil(publisher: &Publisher, name: &str, bad: Bad) -> Result {
    publisher.take_next(name)?;
    match bad {
        Bad::Programs(programs, main) => {
            programs.iter().try_for_each(|file| publisher.replace(name, file, &program(file, main, "return 0;")))
        }
        Bad::Impatient(file, main) => {
            publisher.replace(name, file, &program(file, main, "return 0;"))?;
            let line = format!("sed -i 's/^TimeoutStartSec=.*/TimeoutStartSec=5s/' {name}/{}", unit_of(file));
            publisher.run(&line).map(drop)
        }
        Bad::Unit(file, from, to) => {
            publisher.run(&format!("sed -i 's|^{from}.*|{to}|' {name}/{}", unit_of(file))).map(drop)
        }
    }
}

/// Each is tried; `seq` is the first order that is free.
fn all_go_back(host: &Host, publisher: &Publisher, census: &Census, cases: &[(&str, Bad, &str)]) -> Result {
    for ((name, bad, says), seq) in cases.iter().zip(1..) {
        spoil(publisher, name, *bad)?;
        publisher.publish(name, "0.1.1", seq, "")?;
        let said = host.root().run_within(UPDATE_MAX, "holdfast update --yes --soak 8 --json")?.exits(20)?;
        let json: Value = said.json()?;
        let forward = json["probes"]["forward"].as_str().unwrap_or_default().to_owned();
        println!("{name}: after {:.1} s: {}", said.took.as_secs_f32(), forward.lines().next().unwrap_or_default());
        ensure!(json["result"] == "rolled-back" && json["probes"]["rollback"] == "ok", "{name}: {said}");
        ensure!(forward.contains(says), "{name} does not say {says:?}: {said}");
        census.must_hold(host, name)?;
        runs(host, "0.1.0")?;
        let left = host.root().run("ls -l /proc/[0-9]*/exe 2>/dev/null | grep -c '/releases/0[.]1[.]1-'")?.text();
        ensure!(left == "0", "{name}: {left} processes of it are left");
    }
    Ok(())
}

/// CI tries those that are unlike each other, the long tier all.
fn chosen<T: Copy>(few: &[T], more: &[T]) -> Vec<T> {
    let more = if scaled(1) > 1 { more } else { &[] };
    few.iter().chain(more).copied().collect()
}

#[test]
fn update_to_a_bad_daemon_or_unit_goes_back_by_itself() -> Result {
    on_installed(|host| {
        let publisher = Publisher::new(host)?;
        publisher.trust()?;
        with_workers(host, |census| {
            // What fails in the copy of the state is refused before anything changes.
            publisher.take_next("migration")?;
            publisher.replace("migration", DAEMON, &program(DAEMON, ENDS, FAILS_TO_MIGRATE))?;
            publisher.publish("migration", "0.1.1", 1, "")?;
            let said = host.root().run_within(UPDATE_MAX, "holdfast update --yes")?;
            said.refuses(5, &["preflight-failed", "no such column"])?;
            runs(host, "0.1.0")?;
            let cases = chosen(
                &[
                    ("hangs", Bad::Impatient(DAEMON, HANGS), "holdfastd@alice.service"),
                    ("crashes", Bad::Unit(DAEMON, "WatchdogSec=", "RuntimeMaxSec=3s"), "ended while it was watched"),
                    ("invalid", Bad::Unit(DAEMON, "ExecStart=", "ExecStart=no/such/path"), "bad unit file setting"),
                ],
                &[
                    ("old", Bad::Programs(&[DAEMON], IS_THE_OLD_ONE), "version \"0.1.0\", 0.1.1 was installed"),
                    ("nonsense", Bad::Programs(&[DAEMON], SAYS_NONSENSE), "not ready after"),
                    ("ends", Bad::Programs(&[DAEMON], ENDS), "holdfastd@alice.service"),
                    ("launcher", Bad::Programs(&[LAUNCHER], ENDS), "holdfast-launcher@alice.service"),
                ],
            );
            all_go_back(host, &publisher, census, &cases)
        })
    })
}

#[test]
fn update_to_a_bad_helper_goes_back_by_itself() -> Result {
    on_installed(|host| {
        let publisher = Publisher::new(host)?;
        publisher.trust()?;
        with_workers(host, |census| {
            let cases = chosen(
                &[
                    ("ends", Bad::Programs(&[HELPER], ENDS), "holdfast-helper.service"),
                    ("crashes", Bad::Unit(HELPER, "WatchdogSec=", "RuntimeMaxSec=3s"), "ended while it was watched"),
                ],
                &[
                    ("hangs", Bad::Impatient(HELPER, HANGS), "holdfast-helper.service"),
                    ("old", Bad::Programs(&[HELPER], IS_THE_OLD_ONE), "helper is of version \"0.1.0\""),
                    ("mute", Bad::Programs(&[HELPER], IS_MUTE), "not ready after"),
                    ("nonsense", Bad::Programs(&[HELPER], SAYS_NONSENSE), "not ready after"),
                    ("invalid", Bad::Unit(HELPER, "ExecStart=", "ExecStart=no/such/path"), "bad unit file setting"),
                    ("both", Bad::Programs(&[HELPER, DAEMON], ENDS), "holdfast-helper.service"),
                ],
            );
            all_go_back(host, &publisher, census, &cases)
        })
    })
}

#[test]
fn update_whose_way_back_fails_says_so_and_comes_back_once_it_can() -> Result {
    on_installed(|host| {
        let publisher = Publisher::new(host)?;
        publisher.trust()?;
        with_workers(host, |census| {
            spoil(&publisher, "bad", Bad::Programs(&[DAEMON], ENDS))?;
            publisher.publish("bad", "0.1.1", 1, "")?;
            // The old release's daemon is spoilt as well, by the time it is needed again.
            let old = host.root().run("readlink -f /usr/local/lib/holdfast/current")?.ok()?.text();
            let mut watched = host.root().start("holdfast update --yes --soak 2 --json")?;
            until("the record is there", UPDATE_MAX, || {
                ensure!(watched.runs()?, "the update ended");
                Ok(host.root().run("test -e /var/lib/holdfast/txn")?.code == 0)
            })?;
            host.root().run(&format!("mv {old}/holdfastd /root/whole && cp /bin/false {old}/holdfastd"))?.ok()?;
            let said = watched.wait_within(UPDATE_MAX)?.exits(21)?;
            let json: Value = said.json()?;
            let rollback = json["probes"]["rollback"].as_str().context("no rollback probe")?;
            ensure!(json["result"] == "rollback-incomplete" && rollback != "ok", "{said}");
            println!("forward: {}\nrollback: {rollback}", json["probes"]["forward"]);
            let mut pids = census.0.values().map(|worker| worker.pid);
            ensure!(pids.all(|pid| host.path(&format!("/proc/{pid}")).exists()), "a worker was lost");
            let said = host.alice().holdfast("doctor")?.exits(1)?.text();
            ensure!(said.contains("current: ") && said.contains("holdfastd"), "doctor: {said}");
            host.root().run(&format!("mv /root/whole {old}/holdfastd"))?.ok()?;
            until("the old release runs again", UPDATE_MAX, || Ok(runs(host, "0.1.0").is_ok()))?;
            census.must_hold(host, "a way back that failed first").map(drop)
        })
    })
}
