//! T19, T21, T23, T38, T42: what a worker or its owner can do to the network.

use crate::on_installed;
use anyhow::{Context, ensure};
use holdfast_smoke::{HELPER, Host, Outside, Result, Running, scaled, until};
use std::time::Duration;

/// Prints what arrives at UDP port 9999 of the host.
fn sink(host: &Host) -> Result<Running> {
    let program = "import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind((\"\", 9999)); print(\"up\", flush=True)
while True: print(\"got\", s.recvfrom(99), flush=True)";
    host.alice().feed("cat > sink.py", program.as_bytes())?.ok()?;
    let sink = host.alice().start("exec python3 -u sink.py")?;
    until("the sink listens", Duration::from_secs(5), || {
        Ok(host.root().run("ss -Hlun sport = :9999")?.text().contains("9999"))
    })?;
    Ok(sink)
}

#[test]
fn t19_a_flushed_ruleset_lets_nothing_pass() -> Result {
    on_installed(|host| {
        let (alice, root) = (host.alice(), host.root());
        alice.run_echo("web", 8080)?;
        let sink = sink(host)?;
        let send = "while :; do echo forbidden > /dev/udp/10.88.0.1/9999; sleep 0.002; done";
        alice.run_worker(&format!("--name sender -- bash -c '{send}'"))?;
        let answers = || Ok(alice.run("echo hi | nc -N -w 1 127.0.0.1 8080")?.text() == "hi");
        // What nftables.service and firewalld do when they are told to reload.
        for _ in 0..scaled(30) {
            let said = root.run("nft flush ruleset; nft list chain inet holdfast input")?;
            ensure!(said.code == 0, "the table was flushed\n{said}");
        }
        ensure!(root.run("nft delete table inet holdfast")?.code != 0, "the table was deleted");
        until("the published port answers", Duration::from_secs(2), answers)?;
        // Who starts anew takes over what the last one left.
        host.kill_mains(&[HELPER])?;
        until("a launch works", Duration::from_secs(5), || {
            Ok(alice.holdfast("run --rm -p 8081:80 -- true")?.code == 0)
        })?;
        root.run("nft flush ruleset; nft list chain inet holdfast input")?.ok()?;
        until("the published port answers", Duration::from_secs(2), answers)?;
        root.run("bash -c 'echo control > /dev/udp/127.0.0.1/9999'")?.ok()?;
        std::thread::sleep(Duration::from_millis(300));
        let said = sink.kill()?;
        ensure!(
            said.text().contains("control") && !said.text().contains("forbidden"),
            "forbidden packets passed\n{said}"
        );
        // And who leaves takes it away.
        root.holdfast("system uninstall --stop-workers --purge")?.ok()?;
        ensure!(!root.run("nft list tables")?.text().contains("holdfast"), "uninstall left the table");
        Ok(())
    })
}

#[test]
fn t21_quotas_hold_and_come_back() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        let rules = "sed -i 's/^uid = 1000$/uid = 1000\\nworkers_max = 5\\nports_max = 6\\nnetworks_max = 2/' /etc/holdfast/rules.toml";
        host.root().run(rules)?.ok()?;
        let links =
            || Ok::<_, anyhow::Error>(host.root().run("ip -o link show type veth | grep -c ': hf' || :")?.text());
        for round in 0..2 {
            let tries = scaled(20);
            let script = format!(
                "for i in $(seq 1 {tries}); do holdfast run -d --name w$i -- sleep infinity 2>&1 | tail -n 1; done"
            );
            let said = alice.run_within(Duration::from_secs(60), &script)?;
            let refused = said.text().lines().filter(|line| line.contains("workers_max")).count();
            ensure!(refused == tries as usize - 5, "round {round}: more were let in than the quota\n{said}");
            ensure!(alice.ps()?.len() == 5 && links()? == "5", "round {round}: {} links", links()?);
            host.kill_mains(&[HELPER])?;
            until("still refused", Duration::from_secs(5), || {
                Ok(alice.holdfast("run --rm -- true")?.stderr.contains("workers_max"))
            })?;
            alice.holdfast("rm -f w1 w2 w3 w4 w5")?.ok()?;
            until("the links are gone", Duration::from_secs(5), || Ok(links()? == "0"))?;
        }
        let ports = "-p 8001:1 -p 8002:1 -p 8003:1 -p 8004:1 -p 8005:1 -p 8006:1 -p 8007:1";
        alice.holdfast(&format!("run -d {ports} -- true"))?.refuses(125, &["ports_max"])?;
        for name in ["a", "b", "c"] {
            let said = alice.holdfast(&format!("network create {name}"))?;
            if name == "c" {
                said.refuses(5, &["networks_max"])?;
            } else {
                said.ok()?;
                alice.run_worker(&format!("--name in-{name} --network {name} -- sleep infinity"))?;
            }
        }
        Ok(())
    })
}

#[test]
fn t23_ports_outside_the_grant_are_refused() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        let switches = || {
            host.root()
                .run("cd /proc/sys/net/ipv4/conf; grep . all/route_localnet default/route_localnet lo/route_localnet all/forwarding")
                .map(|output| output.text())
        };
        let before = switches()?;
        let listener = host.root().start("exec python3 -m http.server 9001")?;
        until("it listens", Duration::from_secs(5), || {
            Ok(alice.run("curl -fsS -o /dev/null localhost:9001")?.code == 0)
        })?;
        for (port, words) in [
            ("22:22", "1024-65535"),
            ("127.0.0.1:22:22", "1024-65535"),
            ("53:53/udp", "1024-65535"),
            ("1023:80", "1024-65535"),
            ("9001:80", "in use"),
            ("127.0.0.1:9001:80", "in use"),
            ("65536:80", "65536"),
            ("8080:0", "0"),
            ("-1:80", "-1"),
        ] {
            let said = alice.holdfast(&format!("run -d --publish={port} -- sleep infinity"))?;
            ensure!(
                [2, 125].contains(&said.code) && said.stderr.contains(words),
                "{port} was not refused by {words}\n{said}"
            );
        }
        ensure!(alice.ps_all()?.is_empty());
        alice.run_worker("--name ok -p 127.0.0.1:8080:80 -- sleep infinity")?;
        ensure!(switches()? == before, "before {before}\nnow {}", switches()?);
        drop(listener);
        Ok(())
    })
}

/// What the host and a worker know of links, neighbours and ways.
pub(super) fn tables(host: &Host, worker: u32) -> Result<String> {
    let list = "ip neigh; ip -6 neigh; ip route show table all; ip -6 route show table all; ip -o address; bridge fdb 2>/dev/null";
    let clean =
        "sed 's/ expires [0-9]*sec//; s/ref [0-9]* //; s/used [0-9/]* //' | grep -v 'proto kernel.*fe80\\|^multicast'";
    Ok(host.root().run(&format!("({list}; nsenter -t {worker} -n sh -c '{list}') | {clean} | sort"))?.ok()?.text())
}

#[test]
fn t38_forged_frames_change_no_table() -> Result {
    on_installed(|host| {
        let (alice, root) = (host.alice(), host.root());
        alice.holdfast("network create lan")?.ok()?;
        for name in ["forger", "victim"] {
            alice.run_worker(&format!("--name {name} --network lan -- sleep infinity"))?;
        }
        let (forger, victim) = (alice.worker("forger")?, alice.worker("victim")?);
        let reaches = "nc -z -w 1 10.88.0.1 9 ; ping -c 1 -W 1 10.88.0.1 >/dev/null 2>&1; :";
        root.run(&format!("nsenter -t {} -n sh -c '{reaches}'", victim.live_pid()?))?;
        let before = tables(host, victim.live_pid()?)?;
        let link = root.run(&format!("nsenter -t {} -n cat /sys/class/net/eth0/address || nsenter -t {} -n ip -o link show eth0 | grep -o 'ether [0-9a-f:]*' | cut -d' ' -f2", forger.live_pid()?, forger.live_pid()?))?.text();
        let mac = link.lines().last().context("a link-layer address")?.to_owned();
        root.feed("cat > /tmp/forge.py", include_bytes!("../probes/frames.py"))?.ok()?;
        let gateway =
            root.run(&format!("nsenter -t {} -n ip route show default | cut -d' ' -f3", forger.live_pid()?))?.text();
        let forge = format!(
            "nsenter -t {} -n python3 /tmp/forge.py {} {} {gateway} {mac}",
            forger.live_pid()?,
            forger.address()?,
            victim.address()?
        );
        let kinds =
            root.run(&forge)?.ok()?.text().lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
        ensure!(kinds.len() >= 12, "{kinds:?}");
        std::thread::sleep(Duration::from_millis(500));
        let after = tables(host, victim.live_pid()?)?;
        ensure!(after == before, "a table changed\nbefore {before}\nafter {after}");
        println!("{} kinds of forged frames changed nothing", kinds.len());
        Ok(())
    })
}

#[test]
fn t42_flows_of_a_dead_worker_reach_nobody() -> Result {
    on_installed(|host| {
        let (alice, root) = (host.alice(), host.root());
        let outside = Outside::attach(host)?;
        let serve = "import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind((\"\", 5000)); print(\"up\", flush=True)
while True:
    data, peer = s.recvfrom(99); print(\"got\", peer[0], flush=True); s.sendto(data, peer)";
        alice.feed("cat > serve.py", serve.as_bytes())?.ok()?;
        let run = |name: &str, options: &str| {
            alice.run_worker(&format!(
                "--name {name} {options} -v ~/serve.py:/tmp/serve.py:ro -- python3 -u /tmp/serve.py"
            ))
        };
        run("first", "-p 5000:5000/udp")?;
        let first = alice.worker("first")?;
        let talk = "while :; do echo flow; sleep 0.01; done | nc -u -p 4444 203.0.113.1 5000 >/dev/null";
        let flow = outside.start(talk)?;
        let outward = "while :; do echo out; sleep 0.01; done | nc -u -p 4445 203.0.113.2 5001";
        let outgoing = root.start(&format!("exec nsenter -t {} -n sh -c '{outward}'", first.live_pid()?))?;
        let known = || {
            Ok::<_, anyhow::Error>(
                root.run(&format!("conntrack -L 2>/dev/null | grep -c {} || :", first.address()?))?.text(),
            )
        };
        until("flows are known", Duration::from_secs(10), || Ok(known()?.parse().is_ok_and(|flows: u32| flows >= 2)))?;
        drop(outgoing);
        root.run(&format!("kill -9 {}", first.live_pid()?))?.ok()?;
        run("second", "")?;
        until("flows of a dead worker are forgotten", Duration::from_secs(5), || Ok(known()? == "0"))?;
        let second = alice.worker("second")?;
        ensure!(second.address()? != first.address()?, "the address did not rest");
        std::thread::sleep(Duration::from_secs(1));
        let got = alice.holdfast("logs second")?.ok()?;
        ensure!(!got.text().contains("got"), "packets of the dead worker's flows arrived\n{got}");
        ensure!(known()? == "0", "flows of a dead worker came back");
        drop(flow);
        Ok(())
    })
}
