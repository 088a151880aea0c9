//! IPv6 as a person has it: between workers of a network, outwards, for what is published; and where the host has none.

use crate::on_fresh;
use anyhow::{Context, ensure};
use holdfast_smoke::{DAEMON, HELPER, Host, Outside, Result, until};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);

/// Answers each caller on port 80 with the caller's address.
const SERVE: &str = r#"
import socket
s = socket.create_server(("::", 80), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    c, peer = s.accept(); c.sendall(peer[0].encode()); c.close()
"#;

/// A host whose links have IPv6, with an owner for each name.
fn on_host6(owners: &[&str], scenario: impl FnOnce(&Host, &Outside) -> Result) -> Result {
    on_fresh(|host| {
        let outside = Outside::attach(host)?;
        outside.speak_ipv6()?;
        for owner in owners {
            host.install(&format!("--owner {owner}"))?;
            host.as_user(owner).feed("cat > serve.py", SERVE.as_bytes())?.ok()?;
        }
        // The install had it forwarded for workers: the links are a host's as before, and nobody else's packets pass.
        let switches =
            "cd /proc/sys/net/ipv6/conf; cat all/forwarding default/forwarding uplink/forwarding uplink/accept_ra";
        ensure!(host.root().run(switches)?.ok()?.text() == "1\n0\n0\n1");
        scenario(host, &outside)
    })
}

/// A worker that answers by IPv6; its address.
fn run_six(host: &Host, owner: &str, name: &str, options: &str) -> Result<String> {
    let user = host.as_user(owner);
    user.run_worker(&format!("--name {name} {options} -v ~/serve.py:/tmp/serve.py:ro -- python3 -u /tmp/serve.py"))?;
    six(host, owner, name)
}

/// The IPv6 address of a worker.
fn six(host: &Host, owner: &str, name: &str) -> Result<String> {
    let worker = host.as_user(owner).worker(name)?;
    let address = worker.addresses.get(1).with_context(|| format!("{name} has {:?}", worker.addresses))?;
    Ok(address.split('/').next().unwrap_or(address).to_owned())
}

/// What a short worker hears from `target`; empty where it does not reach it.
fn ask(host: &Host, owner: &str, network: &str, target: &str, port: u16) -> Result<String> {
    let line = format!("run --rm --network {network} -- nc -6 -w 2 {target} {port}");
    Ok(host.as_user(owner).holdfast(&line)?.text())
}

#[test]
fn workers_have_ipv6_among_themselves_outwards_and_for_what_they_publish() -> Result {
    on_host6(&["alice"], |host, outside| {
        let alice = host.alice();
        alice.holdfast("network create shop")?.ok()?;
        let db = run_six(host, "alice", "db", "--network shop -p 8080:80")?;
        let lone = run_six(host, "alice", "lone", &format!("-p [{}]:8081:80", Outside::HOST6))?;
        ensure!(db.starts_with("fd") && lone.starts_with("fd"), "{db} {lone}");
        let server = format!("exec python3 -u -c '{}'", SERVE.replace("\"::\"", "\"2001:db8:7::7\""));
        let _server = outside.start(&server)?;
        let check = || -> Result {
            // By name, which has both addresses; the asker is its own.
            let said = || Ok(ask(host, "alice", "shop", "db", 80)?.starts_with("fd"));
            until("db answers by name", PATIENCE, said)?;
            until("the outside answers", PATIENCE, || {
                Ok(ask(host, "alice", "bridge", Outside::SERVER6, 80)? == Outside::HOST6)
            })?;
            until("the published port answers a client outside, and knows it", PATIENCE, || {
                Ok(outside.run(&format!("nc -6 -w 2 {} 8080", Outside::HOST6))?.text() == Outside::CLIENT6)
            })?;
            for (network, target) in [("bridge", &db), ("shop", &lone), ("bridge", &lone)] {
                let said = ask(host, "alice", network, target, 80)?;
                ensure!(said.is_empty(), "a worker of {network} reached {target}: {said}");
            }
            let said =
                outside.run(&format!("ip -6 route replace {db}/128 via {}; nc -6 -w 2 {db} 80", Outside::HOST6))?;
            ensure!(said.text().is_empty(), "not published, and reached from outside\n{said}");
            let said = outside.run(&format!("nc -6 -w 2 {} 8081", Outside::HOST6))?.text();
            ensure!(said == Outside::CLIENT6, "published on that address alone, and heard {said:?}");
            // On the host itself: its own address, and localhost, whose ::1 refuses at once.
            ensure!(!alice.run(&format!("nc -6 -w 2 {} 8080", Outside::HOST6))?.text().is_empty());
            ensure!(alice.run("nc -6 -w 5 ::1 8080")?.code == 1);
            ensure!(!alice.run("nc -w 2 localhost 8080")?.text().is_empty(), "localhost");
            Ok(())
        };
        check()?;
        host.kill_mains(&[HELPER, DAEMON])?;
        until("it serves again", PATIENCE, || Ok(alice.holdfast("ps")?.code == 0))?;
        ensure!(six(host, "alice", "db")? == db);
        check()?;
        alice.holdfast("run -d -p [::1]:8082:80 -- true")?.refuses(125, &["127.0.0.1"])?;
        alice.holdfast("run -d -p 2001:db8::9:8082:80 -- true")?.refuses(2, &["brackets"])?;
        let hosts = alice.holdfast("exec db -- cat /etc/hosts")?.ok()?.text();
        ensure!(hosts.contains(&format!("{db} db")) && hosts.contains("10.88."), "{hosts}");
        let shown = alice.holdfast("network inspect shop --json")?.ok()?.json::<serde_json::Value>()?;
        ensure!(shown["subnets"][1].as_str().is_some_and(|s| s.ends_with("::/64") && s.starts_with("fd")), "{shown}");
        let listed = alice.holdfast("ps")?.ok()?.text() + &alice.holdfast("inspect db")?.ok()?.text();
        ensure!(listed.matches(&db).count() >= 2, "{listed}");
        alice.holdfast("rm -f db lone")?.ok()?;
        until("nothing is left in routes and rules", PATIENCE, || {
            let left = host.root().run("ip -6 route show table all; nft list ruleset; ip -6 neigh")?.text();
            Ok(!left.contains(&db))
        })?;
        Ok(())
    })
}

#[test]
fn two_owners_do_not_reach_each_other_by_ipv6() -> Result {
    on_host6(&["alice", "bob"], |host, _| {
        for owner in ["alice", "bob"] {
            host.as_user(owner).holdfast("network create lan")?.ok()?;
        }
        let hers = run_six(host, "alice", "hers", "--network lan")?;
        let his = run_six(host, "bob", "his", "--network lan")?;
        ensure!(hers[..14] != his[..14], "both owners have {hers} and {his}");
        until("each reaches the own", PATIENCE, || {
            Ok(!ask(host, "alice", "lan", &hers, 80)?.is_empty() && !ask(host, "bob", "lan", &his, 80)?.is_empty())
        })?;
        for (owner, target) in [("alice", &his), ("bob", &hers)] {
            for network in ["lan", "bridge"] {
                let said = ask(host, owner, network, target, 80)?;
                ensure!(said.is_empty(), "{owner} reached {target} from {network}: {said}");
            }
        }
        // Nor can one take the other's addresses: root alone writes the rules, and the same prefix twice is refused.
        let twice = "p=$(grep -m1 ^pool6 /etc/holdfast/rules.toml); sed -i \"s|^pool6.*|$p|\" /etc/holdfast/rules.toml";
        host.root().run(twice)?.ok()?;
        host.alice().holdfast("run --rm -- true")?.refuses(125, &["pool6"]).map(drop)
    })
}

#[test]
fn a_host_that_does_not_forward_ipv6_runs_workers_with_ipv4_alone() -> Result {
    on_host6(&["alice"], |host, _| {
        let (alice, root) = (host.alice(), host.root());
        let addresses = |name: &str| -> Result<usize> {
            alice.run_worker(&format!("--name {name} -- sleep infinity"))?;
            Ok(alice.worker(name)?.addresses.len())
        };
        ensure!(addresses("both")? == 2);
        root.run("sysctl -q -w net.ipv6.conf.all.forwarding=0")?.ok()?;
        let mut number = 0;
        until("it is noticed", PATIENCE, || {
            number += 1;
            Ok(addresses(&format!("four{number}"))? == 1)
        })?;
        alice.holdfast("doctor")?;
        root.run("sysctl -q -w net.ipv6.conf.all.forwarding=1 net.ipv6.conf.all.disable_ipv6=1")?.ok()?;
        ensure!(addresses("off")? == 1);
        alice.holdfast(&format!("exec off -- nc -z -w 2 {} 9", Outside::SERVER))?;
        Ok(())
    })
}
