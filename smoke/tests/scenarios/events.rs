//! What happened, by cursor: nothing lost, nothing twice, whatever happens to the daemon.

use crate::on_installed;
use anyhow::{Context, ensure};
use holdfast_smoke::{DAEMON, Host, Result, until};
use std::collections::BTreeMap;
use std::time::Duration;

/// One line of `events --json`.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
struct Told {
    cursor: u64,
    kind: String,
    name: String,
    exit: Option<BTreeMap<String, u32>>,
}

fn read(text: &str) -> Result<Vec<Told>> {
    text.lines().map(|line| serde_json::from_str(line).with_context(|| format!("no event: {line}"))).collect()
}

fn events(host: &Host, arguments: &str) -> Result<Vec<Told>> {
    read(&host.alice().holdfast(&format!("events --json {arguments}"))?.ok()?.text())
}

fn of(events: &[Told], name: &str) -> String {
    let kinds = events.iter().filter(|event| event.name == name).map(|event| event.kind.as_str());
    kinds.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_life_is_told_in_its_order_and_found_by_filter_and_time() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        alice.run_worker("--name web -l app=shop --net none -- sleep infinity")?;
        alice.holdfast("run --rm --name job --net none -- sh -c 'exit 3'")?.exits(3)?;
        alice.holdfast("run --name no --net none -- /no/such/program")?.exits(127)?;
        alice.holdfast("restart web")?.ok()?;
        alice.holdfast("kill web")?.ok()?;
        alice.holdfast("wait web")?.ok()?;
        alice.holdfast("start web")?.ok()?;
        alice.holdfast("stop web")?.ok()?;
        alice.holdfast("rm web")?.ok()?;
        until("everything is told", Duration::from_secs(10), || Ok(events(host, "--filter kind=removed")?.len() == 3))?;
        let all = events(host, "")?;
        let web = "created started exited restarting started exited failed started exited stopped removed";
        ensure!(of(&all, "web") == web, "{}", of(&all, "web"));
        ensure!(of(&all, "job") == "created started exited failed removed", "{}", of(&all, "job"));
        ensure!(of(&all, "no") == "created failed removed", "{}", of(&all, "no"));
        let killed = events(host, "--filter name=web --filter kind=exited")?;
        let ends: Vec<_> = killed.iter().filter_map(|event| event.exit.clone()).flatten().collect();
        ensure!(ends[0] == ("signal".into(), 15) && ends[1] == ("signal".into(), 9), "{ends:?}");
        ensure!(of(&events(host, "--filter label=app=shop --filter kind=removed")?, "web") == "removed");
        ensure!(events(host, "--until 1h")?.is_empty() && events(host, "--since 1h")? == all);
        let cursor = all[4].cursor;
        ensure!(events(host, &format!("--cursor {cursor}"))? == all[5..]);
        let prose = alice.holdfast("events --filter name=job")?.ok()?.text();
        ensure!(prose.contains("exited") && prose.contains("code 3"), "{prose}");
        Ok(())
    })
}

#[test]
fn a_follower_misses_nothing_and_sees_nothing_twice_over_killed_daemons() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        // Sits out every crash by itself.
        alice
            .run("touch stays.json cut.json; (holdfast events -f --json --since 1h > stays.json 2>stays.err &)")?
            .ok()?;
        let workers = 8;
        for round in 0..workers {
            // This one is cut off each time, and goes on by the last cursor that it wrote down.
            let cut = "exec holdfast events -f --json --cursor \
                $(tail -n 1 cut.json | sed 's/.*\"cursor\":\\([0-9]*\\).*/\\1/; s/^$/0/' | grep . || echo 0) >> cut.json";
            let cut = alice.start(cut)?;
            alice.run_worker(&format!("--name w{round} --net none -- sh -c 'sleep 0.3; exit {round}'"))?;
            if round % 2 == 0 {
                cut.kill()?;
                host.kill_mains(&[DAEMON])?;
            } else {
                host.kill_mains(&[DAEMON])?;
                cut.kill()?;
            }
        }
        let cut = alice.start("exec holdfast events -f --json --cursor $(tail -n 1 cut.json | sed 's/.*\"cursor\":\\([0-9]*\\).*/\\1/') >> cut.json")?;
        for round in 0..workers {
            alice.holdfast(&format!("wait w{round}"))?.ok()?;
        }
        let lines = |file: &str| -> Result<Vec<Told>> { read(&alice.run(&format!("cat {file}"))?.ok()?.text()) };
        let all = events(host, "")?;
        until("both followers have everything", Duration::from_secs(30), || {
            Ok(lines("stays.json")?.len() >= all.len() && lines("cut.json")?.len() >= all.len())
        })?;
        ensure!(lines("stays.json")? == all, "the follower that stayed\n{:?}\n{all:?}", lines("stays.json")?);
        ensure!(lines("cut.json")? == all, "the follower that was cut off\n{:?}\n{all:?}", lines("cut.json")?);
        for round in 0..workers {
            let name = format!("w{round}");
            let end = if round == 0 { "stopped" } else { "failed" };
            ensure!(of(&all, &name) == format!("created started exited {end}"), "{name}: {}", of(&all, &name));
        }
        let cursors: Vec<u64> = all.iter().map(|event| event.cursor).collect();
        ensure!(cursors == (1..=cursors.len() as u64).collect::<Vec<_>>(), "{cursors:?}");
        drop(cut);
        Ok(())
    })
}

#[test]
fn a_cursor_time_or_filter_that_is_none_is_refused_by_name() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        for round in 0..3 {
            alice.holdfast(&format!("run --name w{round} --net none -- true"))?.ok()?;
        }
        let huge = "9".repeat(4096);
        for (arguments, code, words) in [
            ("--cursor 4711", 4, &["4711", "newest is 12"][..]),
            ("-f --cursor 18446744073709551615", 4, &["newest"]),
            ("--cursor=-1", 2, &["cursor"]),
            (&format!("--cursor {huge}"), 2, &["cursor"]),
            ("--since yesterday", 2, &["yesterday", "1h30m"]),
            (&format!("--since {huge}"), 2, &["1h30m"]),
            ("--filter kind=exploded", 2, &["exploded", "restarting"]),
            ("--filter phase=running", 2, &["kind"]),
            ("--filter name=../x", 2, &["../x"]),
            (&format!("--filter name={huge}"), 2, &["name="]),
        ] {
            alice.holdfast(&format!("events {arguments}"))?.refuses(code, words)?;
        }
        // What a long life does to the table: the oldest are gone.
        host.keep_down(&[DAEMON])?;
        let sql = "import sqlite3; c = sqlite3.connect(\"/var/lib/holdfast/owners/alice/holdfast.db\"); \
            c.execute(\"delete from events where cursor < 7\"); c.commit()";
        alice.run(&format!("python3 -c '{sql}'"))?.ok()?;
        host.bring_up(&[DAEMON])?;
        alice.holdfast("events --cursor 3")?.refuses(4, &["3", "oldest that is there is 7", "ask with 6"])?;
        ensure!(events(host, "--cursor 6")?.first().map(|event| event.cursor) == Some(7));
        ensure!(events(host, "")? == events(host, "--cursor 6")?);
        Ok(())
    })
}
