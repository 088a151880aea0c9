//! What helps a person at the keyboard: output by time, TAB, pages.

use crate::on_installed;
use anyhow::ensure;
use holdfast_smoke::{DAEMON, Host, Result, until};
use std::time::Duration;

#[test]
fn logs_are_cut_by_time_over_rotated_files_and_show_when_each_line_was_written() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        // Three moments with 40 KiB each, in files of 8 KiB (or of one write, where that is larger).
        let script = "for part in a b c; do seq -f \"$part%04g xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\" 1000; \
            until [ -e /work/go-$part ]; do sleep 0.05; done; done; echo last";
        alice.run("mkdir go")?.ok()?;
        alice.run_worker(&format!(
            "--name w --net none --log-size 1M --log-files 128 -v ~/go:/work -- sh -c '{}'",
            script.replace('\'', r"'\''")
        ))?;
        let lines = |arguments: &str| -> Result<Vec<String>> {
            Ok(alice.holdfast(&format!("logs {arguments} w"))?.ok()?.text().lines().map(str::to_owned).collect())
        };
        let mut cuts = Vec::new();
        for part in ["a", "b", "c"] {
            until("the part is written", Duration::from_secs(20), || {
                Ok(lines("--tail 1")?.first().is_some_and(|line| line.starts_with(&format!("{part}1000"))))
            })?;
            cuts.push(host.root().run("date -u +%Y-%m-%dT%H:%M:%S.%NZ")?.text());
            alice.run(&format!("touch go/go-{part}"))?.ok()?;
        }
        alice.holdfast("wait w")?.ok()?;
        let files = host.root().run("ls /var/lib/holdfast/owners/alice/workers/*/log | wc -l")?.text();
        ensure!(files.parse::<u32>()? > 3, "the log was not rotated: {files} files");
        let all = lines("")?;
        ensure!(all.len() == 3001 && all[3000] == "last", "{} lines", all.len());
        let since = lines(&format!("--since {}", cuts[0]))?;
        ensure!(since == all[1000..], "since: {} lines from {:?}", since.len(), since.first());
        let between = lines(&format!("--since {} --until {}", cuts[0], cuts[1]))?;
        ensure!(between == all[1000..2000], "between: {} lines from {:?}", between.len(), between.first());
        ensure!(lines(&format!("--until {}", cuts[0]))? == all[..1000]);
        ensure!(lines("--since 1h")? == all && lines("--until 1h")?.is_empty());
        ensure!(lines(&format!("--tail 3 --since {}", cuts[0]))? == all[2998..]);
        let stamped = lines("--timestamps --tail 2")?;
        for (line, whole) in stamped.iter().zip(&all[2999..]) {
            let (time, text) = line.split_once(' ').unwrap_or_default();
            ensure!(text == whole && time.len() == 30 && time > cuts[1].as_str() && time.ends_with('Z'), "{line}");
        }
        for (arguments, word) in
            [("--since yesterday", "1h30m"), ("--until ''", "1h30m"), ("--since 2026-13-01", "time")]
        {
            alice.holdfast(&format!("logs {arguments} w"))?.refuses(2, &[word])?;
        }
        Ok(())
    })
}

#[test]
fn a_tail_that_follows_goes_on_over_rotation_and_a_killed_daemon() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        alice.run("mkdir go")?.ok()?;
        alice.run_worker(
            "--name w --net none --log-size 1M --log-files 128 -v ~/go:/work -- sh -c \
             'seq 20000; until [ -e /work/go ]; do sleep 0.05; done; seq 20001 40000; echo end'",
        )?;
        until("the first half is written", Duration::from_secs(20), || {
            Ok(alice.holdfast("logs --tail 1 w")?.ok()?.text() == "20000")
        })?;
        let mut follower = alice.start("exec holdfast logs -f --tail 5 w")?;
        host.kill_mains(&[DAEMON])?;
        alice.run("touch go/go")?.ok()?;
        alice.holdfast("wait w")?.ok()?;
        let mut followed = String::new();
        until("the follower ends with its worker", Duration::from_secs(30), || Ok(!follower.runs()?))?;
        followed.push_str(&follower.kill()?.text());
        let expected: Vec<String> = (19_996..=40_000).map(|number| number.to_string()).chain(["end".into()]).collect();
        let lines: Vec<&str> = followed.lines().collect();
        // Where the daemon died before the follower had its first line, it begins with the last five as they then are.
        ensure!(lines.last() == Some(&"end"), "{} lines, last {:?}", lines.len(), lines.last());
        let from = expected.iter().position(|line| Some(&line.as_str()) == lines.first());
        ensure!(from.is_some_and(|from| expected[from..] == lines), "{} lines from {:?}", lines.len(), lines.first());
        Ok(())
    })
}

fn tab(host: &Host, line: &str, expected: &str) -> Result {
    host.root().feed("cat > /opt/tab.py", include_bytes!("probes/tab.py"))?.ok()?;
    host.alice().run(&format!("python3 /opt/tab.py '{line}' '{expected}'"))?.ok()?;
    Ok(())
}

#[test]
fn tab_knows_the_workers_that_are_there() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        alice.run_worker("--name webserver -l app=shop --net none -- sleep infinity")?;
        alice.holdfast("run --name finished --net none -- true")?.ok()?;
        tab(host, "holdfast stop webs", "webserver")?;
        tab(host, "holdfast logs fin", "finished")?;
        tab(host, "holdfast start ", "finished")?;
        for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
            let script = alice.holdfast(&format!("completion {shell}"))?.ok()?.text();
            ensure!(script.contains("COMPLETE") && script.contains("holdfast"), "{shell}: {script}");
        }
        Ok(())
    })
}

#[test]
fn help_has_pages_and_says_what_it_knows() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        for (topic, words) in [
            ("networks", &["bridge", "169.254.169.254", "8080:80"][..]),
            ("rules", &["/etc/holdfast/rules.toml", "--ports", "uid"]),
            ("limits", &["--log-size", "10,000 workers"]),
            ("rootfs", &["pulls no images", "debootstrap", "docker export", "tar"]),
        ] {
            let page = alice.holdfast(&format!("help {topic}"))?.ok()?.text();
            for word in words {
                ensure!(page.contains(word), "help {topic} does not say {word:?}\n{page}");
            }
        }
        ensure!(alice.holdfast("help run")?.ok()?.text().contains("--external-id"));
        ensure!(alice.holdfast("help system install")?.ok()?.text().contains("--ports"));
        ensure!(alice.holdfast("help")?.ok()?.text().contains("rootfs"));
        alice.holdfast("help nosuch")?.refuses(2, &["nosuch", "networks", "rootfs"])?;
        alice.holdfast("help session-exec")?.refuses(2, &["session-exec"])?;
        alice.holdfast(&format!("help {}", "x".repeat(4096)))?.refuses(2, &["xxx"])?;
        Ok(())
    })
}
