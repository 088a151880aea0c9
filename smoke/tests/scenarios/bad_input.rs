//! Every refusal changes nothing, and says which rule or limit, what was given, and what would work.

use crate::{on_fresh, on_installed};
use anyhow::ensure;
use holdfast_smoke::{Census, DAEMON, HELPER, Host, Output, Outside, Result, until};
use std::time::Duration;

/// `run` refuses: wrong usage is 2, everything else 125. The text holds each word, and no worker is on record.
fn run_refuses(host: &Host, arguments: &str, words: &[&str]) -> Result<Output> {
    let output = host.alice().holdfast(&format!("run -d {arguments}"))?;
    ensure!([2, 125, 127].contains(&output.code), "a refusal was promised\n{output}");
    let code = output.code;
    let output = output.refuses(code, words)?;
    ensure!(host.alice().ps_all()?.is_empty(), "a refused worker is on record\n{output}");
    Ok(output)
}

#[test]
fn bad_words_are_refused_with_the_rule_and_what_was_given() -> Result {
    on_installed(|host| {
        let too_long = "a".repeat(33);
        for name in ["-a", "A", "a_b", "a.b", "a/b", "../x", "é", "a b", "$(id)", "x\";y", &too_long] {
            let given = name.replace('\'', "");
            run_refuses(host, &format!("--name='{given}' -- true"), &["name"])?;
        }
        run_refuses(host, "--name '' -- true", &["name"])?;
        run_refuses(host, "--net nosuch -- true", &["nosuch", "bridge", "none"])?;
        run_refuses(host, "--net 'x\";y' -- true", &["bridge"])?;
        run_refuses(host, "--publish 99999:80 -- true", &["99999"])?;
        run_refuses(host, "--publish 8080:0 -- true", &["0"])?;
        run_refuses(host, "--publish x:80 -- true", &["x:80"])?;
        run_refuses(host, "--env-file /no/such/file -- true", &["/no/such/file"])?;
        run_refuses(host, "--stop-signal NOSUCH -- true", &["NOSUCH"])?;
        run_refuses(host, "--log-size 12parsecs -- true", &["12parsecs"])?;
        run_refuses(host, "--log-files 0 -- true", &["0"])?;
        run_refuses(host, "--volume nowhere -- true", &["nowhere"])?;
        run_refuses(host, "", &[])?;
        for verb in ["stop", "start", "restart", "kill", "rm", "wait", "logs", "inspect", "port"] {
            host.alice().holdfast(&format!("{verb} nosuch"))?.refuses(4, &["nosuch"])?;
        }
        host.alice().holdfast("nosuchverb")?.refuses(2, &["nosuchverb"])?;
        Ok(())
    })
}

#[test]
fn programs_and_directories_that_are_not_there_are_named() -> Result {
    on_installed(|host| {
        for arguments in ["-- /no/such/program", "-- no-such-program"] {
            run_refuses(host, arguments, &["no"])?.exits(127)?;
        }
        run_refuses(host, "--workdir /no/such/dir -- true", &["/no/such/dir"])?;
        run_refuses(host, "--volume /no/such/source:/mnt -- true", &["/no/such/source"])?;
        host.alice().holdfast("run -d -- /etc/passwd")?.refuses(126, &["/etc/passwd"])?;
        ensure!(host.alice().ps_all()?.is_empty());
        Ok(())
    })
}

#[test]
fn a_name_that_is_taken_is_refused() -> Result {
    on_installed(|host| {
        host.alice().run_worker("--name web -- sleep infinity")?;
        let census = Census::take(host)?;
        host.alice().holdfast("run -d --name web -- sleep infinity")?.refuses(125, &["web"])?;
        census.must_hold(host, "a refused name")?;
        Ok(())
    })
}

#[test]
fn ports_outside_the_grant_or_in_use_are_refused() -> Result {
    on_installed(|host| {
        run_refuses(host, "--publish 80:80 -- true", &["80", "1024", "--ports"])?;
        host.alice().run_worker("--name first --publish 8080:80 -- sleep infinity")?;
        host.alice().holdfast("run -d --publish 8080:80 -- true")?.refuses(125, &["8080"])?;
        host.alice().run_worker("--name udp --publish 8080:80/udp -- sleep infinity")?;
        host.alice().remove_all()?;
        // A program that is not ours, on any address.
        for bind in ["0.0.0.0", "127.0.0.1"] {
            let foreign = host.root().start(&format!("exec python3 -m http.server --bind {bind} 8090"))?;
            until("the foreign program listens", Duration::from_secs(5), || {
                Ok(host.root().run("curl -fsS -o /dev/null http://127.0.0.1:8090/")?.code == 0)
            })?;
            run_refuses(host, "--publish 8090:80 -- true", &["8090", "in use"])?;
            drop(foreign);
        }
        until("the port is free again", Duration::from_secs(5), || {
            Ok(host.alice().holdfast("run --rm --publish 8090:80 -- true")?.code == 0)
        })?;
        host.install("--owner alice --ports 80,443,1024-65535")?;
        host.alice().run_web("low", 80, "/usr/share")?;
        Ok(())
    })
}

#[test]
fn a_rules_file_that_others_can_write_is_not_served() -> Result {
    on_installed(|host| {
        host.alice().run_worker("--name lives -- sleep infinity")?;
        let census = Census::take(host)?;
        for (spoil, mend) in [
            ("chmod o+w /etc/holdfast/rules.toml", "chmod 644 /etc/holdfast/rules.toml"),
            ("chown alice /etc/holdfast/rules.toml", "chown root /etc/holdfast/rules.toml"),
            ("chmod 777 /etc/holdfast", "chmod 755 /etc/holdfast"),
            (
                "cp -a /etc/holdfast/rules.toml /root/ && echo garbage >> /etc/holdfast/rules.toml",
                "cp -a /root/rules.toml /etc/holdfast/",
            ),
            (
                "mv /etc/holdfast/rules.toml /root/rules.toml && ln -s /root/rules.toml /etc/holdfast/",
                "mv /root/rules.toml /etc/holdfast/rules.toml",
            ),
        ] {
            host.root().run(spoil)?.ok()?;
            let since = host.root().run("date +%s.%N")?.text();
            let _ =
                host.root().run_within(Duration::from_secs(20), &format!("timeout 10 systemctl restart {HELPER}"))?;
            let said = host.root().run(&format!("journalctl --no-pager --since @{since} -o cat -u {HELPER}"))?;
            ensure!(
                said.text().contains("rules.toml") || said.text().contains("/etc/holdfast"),
                "{spoil}: the helper names no file\n{said}"
            );
            let refused = host.alice().run_within(Duration::from_secs(30), "holdfast run -d --name no -- true")?;
            ensure!(refused.code == 125, "{spoil}: a launch without rules\n{refused}");
            census.must_hold(host, spoil)?;
            host.root().run(mend)?.ok()?;
            let _ = host.systemctl(&format!("reset-failed {HELPER}"));
            host.systemctl(&format!("restart {HELPER}"))?;
            until("launches work again", Duration::from_secs(5), || {
                Ok(host.alice().holdfast("run --rm -- true")?.code == 0)
            })?;
        }
        Ok(())
    })
}

#[test]
fn a_database_of_a_newer_version_is_refused_and_untouched() -> Result {
    on_installed(|host| {
        host.alice().run_worker("--name lives -- sleep infinity")?;
        let census = Census::take(host)?;
        let database = "/var/lib/holdfast/owners/alice/holdfast.db";
        let set_version = |version: &str| {
            host.alice().run(&format!(
                "python3 -c 'import sqlite3; c = sqlite3.connect(\"{database}\"); \
                 print(c.execute(\"pragma user_version\").fetchone()[0]); c.execute(\"pragma user_version={version}\"); \
                 c.execute(\"update form set oldest={version}\"); c.commit()'"
            ))
        };
        host.keep_down(&[DAEMON])?;
        let version = set_version("9999")?.ok()?.text();
        host.root().run("rm /run/smoke-down")?.ok()?;
        let since = host.root().run("date +%s.%N")?.text();
        let _ = host.root().run(&format!("timeout 10 systemctl start {DAEMON}"))?;
        let said = host.root().run(&format!("journalctl --no-pager --since @{since} -o cat -u {DAEMON}"))?;
        ensure!(said.text().contains("9999") && said.text().contains("newer"), "{said}");
        host.root().run(&format!("touch /run/smoke-down; systemctl stop {DAEMON}"))?;
        ensure!(set_version(&version)?.ok()?.text() == "9999", "the refused database was changed");
        host.bring_up(&[DAEMON])?;
        census.must_hold(host, "a refused database")?;
        Ok(())
    })
}

#[test]
fn a_message_over_the_cap_is_refused() -> Result {
    on_installed(|host| {
        host.alice().run("seq -f 'V%g=0123456789012345678901234567890123456789' 1 60000 > big")?.ok()?;
        run_refuses(host, "--env-file big -- true", &[])?;
        host.alice().run("seq -f 'V%g=0123456789012345678901234567890123456789' 1 200000 > big")?.ok()?;
        run_refuses(host, "--env-file big -- true", &[])?;
        host.alice().holdfast("run --rm -- true")?.ok()?;
        Ok(())
    })
}

#[test]
fn a_full_disk_refuses_new_workers_and_keeps_the_old() -> Result {
    on_fresh(|host| {
        host.root()
            .run("mkdir -p /var/lib/holdfast && mount -t tmpfs -o size=3m,mode=0755 tmpfs /var/lib/holdfast")?
            .ok()?;
        host.install("--owner alice")?;
        host.alice().run_worker("--name lives -- sleep infinity")?;
        let census = Census::take(host)?;
        host.alice().run("cat /dev/zero > /var/lib/holdfast/owners/alice/fill 2>/dev/null; true")?.ok()?;
        let refused = host.alice().holdfast("run -d --name no -- sleep infinity")?;
        ensure!(refused.code == 125, "{refused}");
        let said = refused.stderr.to_lowercase();
        ensure!(said.contains("full") || said.contains("space"), "the full disk is not named\n{refused}");
        census.must_hold(host, "a full disk")?;
        host.kill_mains(&[DAEMON])?;
        // F35: it starts and serves what there is, or says why it cannot, as often as it tries.
        until("the daemon serves, or says why not", Duration::from_secs(20), || {
            let serves = host.alice().holdfast("ps")?.code == 0;
            let said = host.root().run(&format!("journalctl --no-pager -o cat -u {DAEMON}"))?.text();
            Ok(serves || said.contains("the disk with the owner's state is full"))
        })?;
        host.alice().run("rm /var/lib/holdfast/owners/alice/fill")?.ok()?;
        until("there is room again", Duration::from_secs(5), || {
            Ok(host.alice().holdfast("run --rm -- true")?.code == 0)
        })?;
        census.must_hold(host, "a crash with a full disk")?;
        Ok(())
    })
}

#[test]
fn a_firewall_that_drops_forwarded_packets_is_named_with_the_rule_to_add() -> Result {
    on_installed(|host| {
        Outside::attach(host)?;
        let firewall = "nft add table inet corporate && nft 'add chain inet corporate perimeter { type filter hook forward priority 0; policy drop; }'";
        host.root().run(firewall)?.ok()?;
        // The helper reads the host's firewall at most every two seconds.
        until("doctor names the chain", Duration::from_secs(4), || {
            let doctor = host.alice().holdfast("doctor")?;
            let all = format!("{}{}", doctor.text(), doctor.stderr);
            ensure!(all.contains("corporate") && all.contains("perimeter"), "doctor does not name the chain\n{doctor}");
            Ok(true)
        })?;
        let said = host.alice().holdfast("run -d --name warned --publish 8080:80 -- sleep infinity")?;
        let all = format!("{}{}", said.text(), said.stderr);
        ensure!(all.contains("corporate") && all.contains("perimeter"), "run does not name the chain\n{said}");
        ensure!(all.contains("nft") || all.contains("accept"), "no rule to add is said\n{said}");
        Ok(())
    })
}

#[test]
fn without_an_installation_every_verb_says_what_to_do() -> Result {
    on_fresh(|host| {
        for verb in ["ps", "run -- true", "logs x", "stop x", "status"] {
            let said = host.alice().run(&format!("/mnt/holdfast-release/holdfast {verb}"))?;
            let code = if verb.starts_with("run") { 125 } else { 3 };
            ensure!(said.code == code || said.code == 3, "{said}");
            let code = said.code;
            said.refuses(code, &["system install", "session start"])?;
        }
        host.root().run("/mnt/holdfast-release/holdfast ps")?.refuses(2, &["--owner"])?;
        Ok(())
    })
}

#[test]
fn root_names_an_owner_and_nobody_acts_for_another() -> Result {
    on_installed(|host| {
        host.alice().run_worker("--name hers -- sleep infinity")?;
        host.root().holdfast("ps")?.refuses(2, &["--owner"])?;
        ensure!(host.root().holdfast("--owner alice ps")?.ok()?.text().contains("hers"));
        let output = host.root().holdfast("--owner root ps")?;
        ensure!([2, 5].contains(&output.code), "{output}");
        let output = host.root().holdfast("--owner nobody-here ps")?;
        ensure!([2, 4].contains(&output.code) && output.stderr.contains("nobody-here"), "{output}");
        let output = host.as_user("bob").holdfast("--owner alice ps")?;
        ensure!(output.code == 5 && !output.text().contains("hers"), "{output}");
        Ok(())
    })
}

/// The limit is the whole machine's, so this scenario runs alone (`.config/nextest.toml`), and puts it back.
#[test]
fn alone_a_host_without_user_namespaces_is_named() -> Result {
    const LIMIT: &str = "/proc/sys/user/max_user_namespaces";
    struct PutBack(String);
    impl Drop for PutBack {
        fn drop(&mut self) {
            let _ = std::fs::write(LIMIT, &self.0);
        }
    }
    on_installed(|host| {
        host.alice().run_worker("--name lives -- sleep infinity")?;
        let census = Census::take(host)?;
        let put_back = PutBack(std::fs::read_to_string(LIMIT)?);
        if let Err(error) = std::fs::write(LIMIT, "0") {
            println!("skipped: root of this machine may not write {LIMIT}: {error}");
            return Ok(());
        }
        let refused = host.alice().holdfast("run -d --name no --publish 8080:80 -- sleep infinity")?;
        let refused = refused.refuses(125, &["user namespace", "max_user_namespaces"])?;
        let doctor = host.alice().holdfast("doctor")?;
        drop(put_back);
        ensure!(format!("{}{}", doctor.text(), doctor.stderr).contains("max_user_namespaces"), "{doctor}");
        census.must_hold(host, "a refused launch")?;
        let links = host.root().run("ip -o link | grep -c ': hf.*@'")?.text();
        ensure!(host.shims()? == 1 && links == "1", "a process or a link is left: {links} links\n{refused}");
        Ok(())
    })
}
