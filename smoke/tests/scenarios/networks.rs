//! Networks that an owner makes: who sees whom, by which name, and what is refused.

use crate::on_installed;
use anyhow::ensure;
use holdfast_smoke::{DAEMON, HELPER, Host, Result, until};
use std::time::Duration;

/// A worker that answers every caller on port 80 with its own name.
fn run_named(host: &Host, name: &str, options: &str) -> Result {
    let serve = "while :; do hostname | nc -l -N -p 80; done";
    host.alice().run_worker(&format!("--name {name} {options} -- sh -c '{serve}'")).map(drop)
}

/// What a short worker gets that asks `target` on port 80; empty where it does not reach it.
fn ask(host: &Host, network: &str, target: &str) -> Result<String> {
    let asked = host.alice().holdfast(&format!("run --rm --network {network} -- nc -w 2 {target} 80"))?;
    Ok(asked.text())
}

#[test]
fn workers_of_a_network_see_each_other_by_name_and_nobody_else_sees_them() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        ensure!(alice.holdfast("network create shop")?.ok()?.text() == "shop");
        alice.holdfast("network create vault --internal")?.ok()?;
        run_named(host, "db", "--network shop")?;
        run_named(host, "safe", "--net vault")?;
        run_named(host, "lone", "")?;
        let address = |name: &str| Ok::<_, anyhow::Error>(alice.worker(name)?.address()?.to_owned());
        let (db, safe, lone) = (address("db")?, address("safe")?, address("lone")?);
        let check = || -> Result {
            until("db answers by name", Duration::from_secs(10), || Ok(ask(host, "shop", "db")? == "db"))?;
            until("safe answers by name", Duration::from_secs(10), || Ok(ask(host, "vault", "safe")? == "safe"))?;
            for (network, target) in [
                ("bridge", &db),
                ("vault", &db),
                ("bridge", &safe),
                ("shop", &safe),
                ("shop", &lone),
                ("bridge", &lone),
            ] {
                let said = ask(host, network, target)?;
                ensure!(said.is_empty(), "a worker of {network} reached {target}: {said}");
            }
            Ok(())
        };
        check()?;
        // Whatever is started anew, the networks are as before, and so are their workers.
        host.kill_mains(&[HELPER, DAEMON])?;
        until("it serves again", Duration::from_secs(10), || Ok(alice.holdfast("ps")?.code == 0))?;
        ensure!((address("db")?, address("safe")?) == (db.clone(), safe.clone()));
        check()?;
        let listed = alice.holdfast("network ls")?.ok()?.text();
        ensure!(listed.lines().count() == 7 && listed.contains("none (internal)"), "{listed}");
        let json: serde_json::Value =
            serde_json::from_str(&alice.holdfast("network inspect shop --json")?.ok()?.text())?;
        ensure!(json["workers"][0]["name"] == "db" && json["internal"] == false, "{json}");
        ensure!(json["subnets"][0].as_str().is_some_and(|subnet| subnet.starts_with("10.88.")), "{json}");
        // In use: not removed, and it says by whom. Then it is.
        alice.holdfast("network rm shop")?.refuses(5, &["db"])?;
        alice.holdfast("stop -t 0 db")?.ok()?;
        alice.holdfast("network rm shop")?.refuses(5, &["db"])?;
        alice.holdfast("rm db")?.ok()?;
        ensure!(alice.holdfast("network rm shop")?.ok()?.text() == "shop");
        alice.holdfast("network rm shop")?.refuses(4, &["shop", "network ls"])?;
        alice.holdfast("network inspect shop")?.refuses(4, &["shop"])?;
        alice.holdfast("run --rm --network shop -- true")?.refuses(125, &["shop", "network create"])?;
        Ok(())
    })
}

/// T22: whatever is not a /22 of the pool, another network's, or a route of the host's.
const NO_RANGES: &[&str] = &[
    "0.0.0.0/0",
    "0.0.0.0/22",
    "127.0.0.0/8",
    "127.0.0.0/22",
    "169.254.0.0/16",
    "169.254.168.0/22",
    "224.0.0.0/22",
    "240.0.0.0/22",
    "255.255.252.0/22",
    "10.0.0.0/8",
    "10.87.252.0/22",
    "10.89.0.0/22",
    "10.88.0.0/16",
    "10.88.0.0/21",
    "10.88.0.0/23",
    "10.88.0.0/24",
    "10.88.0.0/32",
    "10.88.1.0/22",
    "10.88.0.1/22",
    "192.168.0.0/22",
    "172.16.0.0/22",
    "172.17.0.0/22",
    "100.64.0.0/22",
    "198.51.100.0/22",
    "203.0.112.0/22",
    "8.8.8.0/22",
    "1.1.0.0/22",
    "::/0",
    "::1/128",
    "fe80::/64",
    "ff00::/8",
    "fd00::/8",
    "2001:db8::/64",
    "::ffff:10.88.0.0/118",
    "::ffff:0:0/96",
    "10.88.0.0",
    "10.88/22",
    "10.88.0.0/",
    "10.88.0.0/022",
    "10.88.0.0/+22",
    "10.88.0.0/-1",
    "10.88.0.0/33",
    "0x0a580000/22",
    "010.088.0.0/22",
    "10.88.0.0/22/22",
    "10.88.0.0\\\\22",
    "10.88.0.0/22,10.88.4.0/22",
    "10.88.0.256/22",
    "10.88..0/22",
    "a.b.c.d/22",
    "/22",
    "22",
    "default",
    "all",
    "'10.88.0.0/22 '",
    "' 10.88.0.0/22'",
    "10.88.0.0/2\\;2",
    "'$(id)/22'",
    "10.88.40.0/22",
    "10.88.44.0/22",
];

#[test]
fn t22_networks_that_cannot_be_are_refused_and_change_nothing() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        let list = alice.holdfast("network ls --json")?.ok()?.text();
        let long = "n".repeat(33);
        for name in
            ["bridge", "none", "host", "default", "A", "-x", "a/b", "../x", "x\\;y", "'$(id)'", "é", "''", &long]
        {
            let said = alice.holdfast(&format!("network create -- {name}"))?;
            ensure!(said.code == 2, "{name}: {said}");
        }
        host.root().run("ip address add 10.88.40.1/24 dev lo")?.ok()?;
        alice.holdfast("network create first --subnet 10.88.44.0/22")?.ok()?;
        run_named(host, "holder", "--network first")?;
        ensure!(alice.worker("holder")?.address()?.starts_with("10.88.44."));
        for subnet in NO_RANGES {
            let said = alice.holdfast(&format!("network create second --subnet {subnet}"))?;
            ensure!([2, 5].contains(&said.code), "{subnet} was taken\n{said}");
        }
        alice.holdfast("network create first")?.refuses(5, &["first", "already"])?;
        alice.holdfast("network rm bridge")?.refuses(2, &["always there"])?;
        alice.holdfast("network create second --internal")?.ok()?;
        alice.holdfast("run -d --network second -p 8080:80 -- true")?.refuses(125, &["second", "internal"])?;
        alice.holdfast("rm -f holder")?.ok()?;
        alice.holdfast("network rm first second")?.ok()?;
        ensure!(alice.holdfast("network ls --json")?.ok()?.text() == list);
        println!("{} subnets refused", NO_RANGES.len());
        Ok(())
    })
}
