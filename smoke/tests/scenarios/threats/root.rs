//! What root's own part of the command line could be made to do by an owner: write where they say, delete what they
//! point at, put their words into unit files.

use super::attempts;
use crate::{on_fresh, on_installed};
use anyhow::ensure;
use holdfast_smoke::{DAEMON, Host, Result};
use std::time::Duration;

/// What must be as it was, whatever root was lured into: content, mode, owner.
const CANARY: &str = "/etc/canary";

fn set_canary(host: &Host) -> Result<String> {
    host.root()
        .run(&format!("echo sings > {CANARY}; chmod 600 {CANARY}; mkdir -p {CANARY}.d; echo sings > {CANARY}.d/in"))?
        .ok()?;
    canary(host)
}

fn canary(host: &Host) -> Result<String> {
    let look = format!("cat {CANARY} {CANARY}.d/in; stat -c '%n %a %U %s %h' {CANARY} {CANARY}.d {CANARY}.d/in");
    Ok(host.root().run(&look)?.text())
}

#[test]
fn t53_root_opens_nothing_below_what_an_owner_writes() -> Result {
    on_installed(|host| {
        let before = set_canary(host)?;
        host.alice().run_worker("--name w -- sleep infinity")?;
        // Alice plants what would hurt root at every name of hers that there is, and at some that there could be.
        let plant = format!(
            "cd /var/lib/holdfast/owners/alice && for n in holdfast.db.bak lock.new install.toml .tmp exit.1 rules.toml x.new; do
               ln -sf {CANARY} $n; done; mkfifo fifo; ln -s {CANARY}.d dir; ln -s /etc link; mkdir -p deep/er && ln -s {CANARY}.d deep/er/out
             cd /run/holdfast/owners/alice/workers && ln -s {CANARY} boot.new; ln -s {CANARY}.d dir; mkfifo pipe; ls -a | wc -l"
        );
        host.alice().run(&plant)?.ok()?;
        let traced = |what: &str, command: &str| -> Result {
            let strace = "strace -f -q -o /root/trace -e trace=%file,%process,%creds -e signal=none";
            let said = host.root().run_within(Duration::from_secs(120), &format!("{strace} {command}"))?;
            ensure!(said.code == 0, "{what}\n{said}");
            let script = include_str!("../probes/root_opens.py");
            let opened = host.root().feed("python3 - /root/trace", script.as_bytes())?.ok()?;
            let text = opened.text();
            ensure!(text.lines().last().is_some_and(|line| line.starts_with("calls ")), "{what}: no trace\n{opened}");
            ensure!(text.lines().count() == 1, "{what}: root reached into what alice writes\n{opened}");
            ensure!(canary(host)? == before, "{what}: the canary changed: {}", canary(host)?);
            println!("{what}: {text} looked at, none of root's below an owner's directory");
            Ok(())
        };
        traced("an install again", "/mnt/holdfast-release/holdfast system install --owner alice")?;
        traced("a second owner", "/mnt/holdfast-release/holdfast system install --owner bob")?;
        traced("status", "holdfast system status")?;
        traced("an uninstall", "holdfast system uninstall --owner alice --purge --stop-workers")?;
        let left = host.root().run("ls -A /var/lib/holdfast/owners")?.text();
        ensure!(!left.contains("alice"), "not purged: {left}");
        Ok(())
    })
}

#[test]
fn t54_no_name_that_can_be_guessed_is_written_through() -> Result {
    on_fresh(|host| {
        let before = set_canary(host)?;
        // Where root writes, nobody else can put a name.
        host.install("--owner alice")?;
        let places = "/usr/local/lib/holdfast /usr/local/lib/holdfast/releases /usr/local/bin /etc/holdfast /etc/systemd/system \
             /etc/tmpfiles.d /var/lib/holdfast /var/lib/holdfast/owners /run/holdfast /run/holdfast/owners /run";
        let tried = attempts(host.alice(), include_str!("../probes/plant.py"), places)?;
        ensure!(tried.len() >= 40, "{tried:?}");
        for (attempt, errno) in tried {
            ensure!(["EACCES", "EPERM", "EXDEV"].contains(&errno.as_str()), "{attempt}: {errno}");
        }
        // And were a name there (of a crash, of an older release), root would not write through it.
        host.root().run_within(Duration::from_secs(60), "holdfast system uninstall --purge --stop-workers")?.ok()?;
        let plant = format!(
            "mkdir -p /usr/local/lib/holdfast/releases /etc/holdfast /etc/tmpfiles.d /etc/sysusers.d
             for f in /etc/systemd/system/holdfast-helper.service /etc/systemd/system/holdfastd@.service /etc/systemd/system/holdfast-launcher@.service \
                 /etc/holdfast/install.toml /etc/holdfast/rules.toml /etc/tmpfiles.d/holdfast.conf /etc/sysusers.d/holdfast.conf \
                 /usr/local/lib/holdfast/current /usr/local/bin/holdfast; do
               d=$(dirname $f); n=$(basename $f)
               ln -s {CANARY} $d/.$n.new; ln -s {CANARY} $d/$n.tmp; ln {CANARY} $d/$n~ 2>/dev/null; ln -s {CANARY} $d/.$n.tmp
             done; rm -f /etc/*/*~ /etc/systemd/system/*~ /usr/local/*/*~ /usr/local/lib/holdfast/*~"
        );
        host.root().run(&plant)?;
        let installed = host.install("--owner alice");
        ensure!(
            canary(host)? == before,
            "it was written through a planted name:\nbefore {before}\nafter {}",
            canary(host)?
        );
        installed?;
        host.alice().holdfast("run --rm -- true")?.ok()?;
        println!("36 planted names: replaced or left, none followed");
        Ok(())
    })
}

#[test]
fn t59_no_owners_name_or_home_gets_into_a_unit() -> Result {
    on_fresh(|host| {
        host.install("--owner alice")?;
        let units = "cd /etc/systemd/system && sha256sum holdfast* && ls /etc/systemd/system/*.wants; cat /etc/tmpfiles.d/holdfast.conf";
        let files = "cd /etc/systemd/system && sha256sum holdfast*";
        let (before, written) = (host.root().run(units)?.text(), host.root().run(files)?.text());
        let names = [
            "",
            ".",
            "..",
            "a b",
            "a\tb",
            "a\nb",
            "alice\n",
            "\nalice",
            "alice\r",
            "a%i",
            "%n",
            "%%",
            "a\"b",
            "a'b",
            "a\\b",
            "a\\x20b",
            "a/b",
            "../alice",
            "/etc",
            "a;b",
            "a&b",
            "a|b",
            "a>b",
            "$(id)",
            "`id`",
            "$HOME",
            "${IFS}",
            "-alice",
            "--help",
            "a=b",
            "[Service]",
            "ExecStart=/bin/sh",
            "alice\n[Service]\nExecStartPre=+/bin/touch /etc/pwned",
            "é",
            "аlice",
            "alice\u{200b}",
            "alice@",
            "a,b",
            "#a",
            "*",
            "?",
            "~",
            "a\u{7f}b",
            "\u{1b}[2J",
            "DOM\\user",
            "root",
            "nobody-here",
            &"a".repeat(33),
        ];
        // Each of them is an account here, so that only the charset stands in the way.
        for name in names {
            let quoted = format!("'{}'", name.replace('\'', r"'\''"));
            if !name.contains(['\n', ':', '\0']) && !["root", "nobody-here", ""].contains(&name) {
                let line = format!("{name}:x:4242:4242:%n \"x\":/home/%i \"q\" $HOME:/bin/sh\n");
                host.root().feed("cat >> /etc/passwd", line.as_bytes())?.ok()?;
            }
            let said = host
                .root()
                .run(&format!("SUDO_USER= {}/holdfast system install --owner={quoted}", "/mnt/holdfast-release"))?;
            let by_charset = !["", "root", "nobody-here"].contains(&name);
            ensure!(
                [2, 5].contains(&said.code) && (!by_charset || said.stderr.contains("bad owner name")),
                "{name:?} was not refused for what it is\n{said}"
            );
            ensure!(!said.stderr.contains("panicked") && !said.stderr.contains('\u{1b}'), "{said}");
        }
        let after = host.root().run(units)?.text();
        ensure!(before == after, "before {before}\nafter {after}");
        // A good name with a home like that, and blanks around it, as a form or a file may give them.
        host.root()
            .feed("cat >> /etc/passwd", b"eve:x:4243:4243:,,,:/home/%i \"q\" $HOME [Service]:/bin/sh\n")?
            .ok()?;
        host.root().feed("cat >> /etc/group", b"eve:x:4243:\n")?.ok()?;
        host.install("--owner ' eve '")?;
        let same = host.root().run(files)?.text();
        ensure!(same == written, "a unit file changed: {written}\n{same}");
        let verify = "systemd-analyze verify --man=no holdfastd@eve.service holdfast-launcher@eve.service holdfast-helper.service holdfastd@eve.socket 2>&1 | grep -i holdfast";
        ensure!(host.root().run(verify)?.text().is_empty(), "{}", host.root().run(verify)?);
        for property in ["ExecStart", "ExecStartPre", "User", "FragmentPath", "DropInPaths"] {
            let [alices, eves] = [DAEMON, "holdfastd@eve.service"].map(|unit| {
                let shown = host.property(unit, property);
                shown.map(|value| {
                    value
                        .split(" start_time=")
                        .next()
                        .unwrap_or_default()
                        .replace(["alice", "eve"].as_slice()[usize::from(unit != DAEMON)], "U")
                })
            });
            ensure!(alices? == eves?, "{property} differs between owners");
        }
        println!("{} names refused, one with a hostile home taken: no unit says anything of them", names.len());
        Ok(())
    })
}
