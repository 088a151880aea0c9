//! Finding workers again: labels, filters, formats, external ids; and forgetting those that ended.

use crate::on_installed;
use anyhow::ensure;
use holdfast_smoke::{Census, DAEMON, Result};

#[test]
fn workers_are_found_by_label_name_phase_and_network_and_shown_as_asked() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        let web = alice.run_worker("--name web -l app=shop -l tier=front --net none -- sleep infinity")?;
        alice.run_worker("--name db --label app=shop --label 'note=a b é' -- sleep infinity")?;
        alice.holdfast("run --name job --net none -- sh -c 'exit 3'")?.exits(3)?;
        for (arguments, names) in [
            ("--filter label=app", "web\ndb"),
            ("--filter label=app=shop --filter label=tier=front", "web"),
            ("--filter network=bridge", "db"),
            ("--filter name=w*", "web"),
            ("--filter phase=failed", "job"),
            ("--filter phase=failed --filter phase=running", "web\ndb\njob"),
            ("-a --filter label=nosuch", ""),
        ] {
            let shown = alice.holdfast(&format!("ps {arguments} --format '{{{{.Name}}}}'"))?.ok()?;
            ensure!(shown.text() == names, "{names:?} was promised\n{shown}");
        }
        ensure!(alice.holdfast("ps -q --filter name=web")?.ok()?.text() == web);
        let table = alice.holdfast(r#"ps -a --format 'table {{.Name}}\t{{.ExitCode}}\t{{.Label "note"}}'"#)?.ok()?;
        let lines: Vec<_> =
            table.text().lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        ensure!(lines == ["NAME EXIT CODE note", "web", "db a b é", "job 3"], "{table}");
        ensure!(alice.worker("db")?.labels["note"] == "a b é");

        // Labels are on record, not in memory.
        host.kill_mains(&[DAEMON])?;
        ensure!(alice.holdfast("ps -q --filter label=tier=front")?.ok()?.text() == web);
        Ok(())
    })
}

#[test]
fn what_is_no_filter_format_or_label_is_refused_by_name() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        alice.run_worker("--name lives -- sleep infinity")?;
        let census = Census::take(host)?;
        let huge = "x".repeat(4096);
        for (filter, word) in [
            ("color=red", "external-id, network, phase"),
            ("phase=Running", "created, starting, running"),
            ("label", "label=app=web"),
            ("name=../../etc", "../../etc"),
            ("name=%2e%2e", "%2e"),
            ("", "filter"),
            (&format!("label={huge}"), "label=xxx"),
        ] {
            alice.holdfast(&format!("ps --filter '{filter}'"))?.refuses(2, &[word])?;
            alice.holdfast(&format!("prune --yes --filter '{filter}'"))?.refuses(2, &[word])?;
        }
        for (format, word) in [("{{.Nosuch}}", ".Name .Phase"), ("{{.Name", "closing"), ("{{range .}}", "range")] {
            alice.holdfast(&format!("ps --format '{format}'"))?.refuses(2, &[word])?;
        }
        for (option, word) in [
            ("--label =x", "label"),
            ("--label '../x=1'", "../x"),
            (&format!("--label a={huge}"), "256"),
            (&format!("--label {huge}=1"), "63"),
            ("--label \"a=$(printf 'x\\033[31m')\"", "control"),
            ("$(seq -f '--label k%g=v' 65)", "64"),
            ("--external-id ../x", "../x"),
            (&format!("--external-id {huge}"), "128"),
            ("--external-id \"a b\"", "a b"),
        ] {
            let refused = alice.holdfast(&format!("run -d {option} -- true"))?;
            let code = refused.code;
            ensure!([2, 125].contains(&code), "{refused}");
            refused.refuses(code, &[word])?;
        }
        census.must_hold(host, "refused words")?;
        Ok(())
    })
}

#[test]
fn an_external_id_makes_a_run_repeatable() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        let run = "run -d --external-id job:17 -- sleep infinity";
        let id = alice.holdfast(run)?.ok()?.text();
        ensure!(alice.holdfast(run)?.ok()?.text() == id, "the same run again made another worker");
        host.kill_mains(&[DAEMON])?;
        ensure!(alice.holdfast(run)?.ok()?.text() == id, "a restarted daemon does not know the external id");
        alice
            .holdfast("run -d --external-id job:17 -- sleep 1")?
            .refuses(125, &["job:17", "another spec", "inspect"])?;
        ensure!(alice.ps_all()?.len() == 1);
        let shown: serde_json::Value = alice.holdfast(&format!("inspect {id} --json"))?.ok()?.json()?;
        ensure!(shown["spec"]["external_id"] == "job:17", "{shown}");
        ensure!(alice.holdfast("ps -q --filter external-id=job:17")?.ok()?.text() == id);
        // In the foreground as well: the output and the end of the one that is there.
        let attached = "run --external-id once -- sh -c 'echo from $$; exit 4'";
        let first = alice.holdfast(attached)?.exits(4)?;
        let second = alice.holdfast(attached)?.exits(4)?;
        ensure!(first.text() == second.text() && !first.text().is_empty(), "{first}\n{second}");
        alice.holdfast(&format!("rm -f {id}"))?.ok()?;
        ensure!(alice.holdfast(run)?.ok()?.text() != id);
        Ok(())
    })
}

#[test]
fn prune_forgets_what_ended_and_nothing_else() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        alice.run_worker("--name lives -- sleep infinity")?;
        let census = Census::take(host)?;
        alice.holdfast("run --name one --net none -l keep=yes -- sh -c 'seq 10000'")?.ok()?;
        alice.holdfast("run --name two --net none -- sh -c 'seq 10000; exit 1'")?.exits(1)?;
        alice.holdfast("prune")?.refuses(2, &["--yes", "terminal"])?;
        ensure!(alice.ps_all()?.len() == 3, "prune without --yes removed something");
        let pruned = alice.holdfast("prune --yes --filter phase=failed")?.ok()?;
        ensure!(pruned.text() == "two" && pruned.stderr.contains("1 workers forgotten, "), "{pruned}");
        ensure!(pruned.stderr.contains("KiB"), "bytes are not said\n{pruned}");
        let pruned: serde_json::Value = alice.holdfast("prune --yes --json")?.ok()?.json()?;
        ensure!(pruned["removed"][0]["name"] == "one" && pruned["bytes"].as_u64() > Some(40_000), "{pruned}");
        ensure!(alice.holdfast("ps -a --format '{{.Name}}'")?.ok()?.text() == "lives");
        let left = host.root().run("ls /var/lib/holdfast/owners/alice/workers | wc -l")?.ok()?.text();
        ensure!(left == "1", "{left} directories are left of one worker");
        // At a terminal it asks, and takes no for an answer.
        alice.holdfast("run --name three --net none -- true")?.ok()?;
        let ask = |answer: &str| alice.run(&format!("echo {answer} | script -qec 'holdfast prune' /dev/null"));
        ensure!(ask("n")?.text().contains("Forget these 1 workers"));
        ensure!(alice.ps_all()?.len() == 2);
        ask("y")?;
        ensure!(alice.ps_all()?.len() == 1);
        census.must_hold(host, "prune")?;
        Ok(())
    })
}
