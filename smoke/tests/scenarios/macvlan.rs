//! Workers on a wire of the host's: there by the rules alone, hosts of their own there, and gone with their workers.

use crate::modes::grant;
use crate::on_installed;
use anyhow::ensure;
use holdfast_smoke::{DAEMON, HELPER, Host, LAUNCHER, Output, Result, until};
use serde_json::Value;
use std::time::Duration;

/// `lan0` is one end of a wire; at the other end, in a namespace, is 192.0.2.1. The host itself is 192.0.2.2 there.
fn lan(host: &Host) -> Result {
    let script = "set -e
        ip netns add lan
        ip link add lan0 type veth peer name wire netns lan
        ip address add 192.0.2.2/24 dev lan0
        ip link set lan0 up
        ip -n lan address add 192.0.2.1/24 dev wire
        ip -n lan link set wire up
        ip -n lan link set lo up";
    host.root().run(script)?.ok().map(drop)
}

fn grant_lan(host: &Host) -> Result {
    grant(host, r#"macvlan_max = 2"#)?;
    grant(host, r#"macvlan_parents = ["lan0"]"#)
}

/// From the far end of the wire.
fn outside(host: &Host, line: &str) -> Result<Output> {
    host.root().run(&format!("ip netns exec lan {line}"))
}

fn answers(host: &Host, address: &str) -> Result<bool> {
    Ok(outside(host, &format!("curl -fsS --max-time 2 -o /dev/null http://{address}:8000/"))?.code == 0)
}

/// A web server with this name and address on the wire.
fn serve(host: &Host, name: &str, address: &str) -> Result {
    let line = format!(
        "--name {name} --net macvlan:lan0 --ip {address}/24 --gateway 192.0.2.1 --workdir /usr/share -- python3 -m http.server 8000"
    );
    host.alice().run_worker(&line)?;
    until("it serves on the wire", Duration::from_secs(20), || answers(host, address)).map(drop)
}

#[test]
fn a_worker_on_a_wire_is_a_host_of_its_own_there() -> Result {
    on_installed(|host| {
        lan(host)?;
        grant_lan(host)?;
        let alice = host.alice();
        serve(host, "cam", "192.0.2.10")?;
        serve(host, "door", "192.0.2.11")?;
        let shown = &alice.holdfast("ps --json --filter name=cam")?.ok()?.json::<Value>()?[0];
        ensure!(shown["network"] == "macvlan:lan0" && shown["addresses"][0] == "192.0.2.10/24", "{shown}");
        let spec: Value = alice.holdfast("inspect --json cam")?.ok()?.json()?;
        ensure!(spec["spec"]["address"] == "192.0.2.10/24" && spec["spec"]["gateway"] == "192.0.2.1", "{spec}");
        let inside = |line: &str| alice.holdfast(&format!("exec cam -- {line}"));
        ensure!(inside("getent hosts cam")?.ok()?.text().starts_with("192.0.2.10"));
        ensure!(inside("ip -4 route show default")?.ok()?.text().contains("via 192.0.2.1"));
        // Its neighbour on the same parent is not in reach, from the wire both are.
        ensure!(
            inside("curl -fsS --max-time 2 http://192.0.2.11:8000/")?.code != 0,
            "workers on one parent reach each other"
        );
        let _listener = host.root().start("exec ip netns exec lan python3 -m http.server 8000")?;
        until("it reaches the wire", Duration::from_secs(20), || {
            Ok(inside("curl -fsS --max-time 2 -o /dev/null http://192.0.2.1:8000/")?.code == 0)
        })?;
        let used = &alice.holdfast("stats --no-stream --json cam")?.ok()?.json::<Value>()?[0];
        ensure!(used["received_bytes"].as_u64() > Some(0), "{used}");
        // Whatever is started anew, both serve on, and the rules still know of both.
        host.kill_mains(&[HELPER, DAEMON, LAUNCHER])?;
        until("it lists again", Duration::from_secs(20), || Ok(alice.holdfast("ps -q")?.text().lines().count() == 2))?;
        ensure!(answers(host, "192.0.2.10")? && answers(host, "192.0.2.11")?);
        let third = |name: &str| {
            alice.holdfast(&format!("run -d --name {name} --net macvlan:lan0 --ip 192.0.2.12/24 -- sleep infinity"))
        };
        third("third")?.refuses(125, &["rule macvlan_max", "alice", "2"])?;
        // Killed with its shim, it gives its place back.
        let shim = &alice.holdfast("inspect --json door")?.ok()?.json::<Value>()?["shim"]["pid"].clone();
        host.root().run(&format!("kill -9 {shim}"))?.ok()?;
        until("its place is free", Duration::from_secs(20), || Ok(third("third")?.code == 0))?;
        ensure!(!answers(host, "192.0.2.11")?, "a killed worker's address answers");
        alice.holdfast("rm -f cam door third")?.ok()?;
        until("nothing of ours is left", Duration::from_secs(20), || {
            Ok(host.root().run("ip -o link | grep -c ': hf'")?.text() == "0")
        })?;
        Ok(())
    })
}

#[test]
fn t20_no_link_is_shared_that_root_did_not_list() -> Result {
    on_installed(|host| {
        lan(host)?;
        let (alice, root) = (host.alice(), host.root());
        let try_on =
            |parent: &str, more: &str| alice.holdfast(&format!("run --rm --net macvlan:{parent} {more} -- ip -o link"));
        try_on("lan0", "--ip 192.0.2.10/24")?.refuses(125, &["rule macvlan_parents", "alice", "lan0", "rules.toml"])?;
        grant_lan(host)?;
        try_on("lan0", "--ip 192.0.2.10/24")?.ok()?;
        root.run("ip link add mgmt0 type veth peer name mgmt1 && ip link add ovpn type veth peer name other")?.ok()?;
        root.run("ip link add docker0 type bridge; ip tuntap add dev tun7 mode tun")?;
        alice.run_worker("--name plain -- sleep infinity")?;
        let ours = root.run("ip -o link | grep -o 'hf[0-9a-f]\\{10\\}' | head -1")?.text();
        let links = || Ok::<_, anyhow::Error>(root.run("ip -o link | cut -d: -f2 | sort")?.text());
        let before = links()?;
        for parent in ["lo", "mgmt0", "docker0", "ovpn", "tun7", "eth0", "lan0.1", "lan", "LAN0", "wg0", &ours] {
            let said = try_on(parent, "--ip 192.0.2.10/24")?;
            ensure!(said.code == 125 && said.stderr.contains("rule macvlan_parents"), "{parent} was shared\n{said}");
        }
        for parent in ["", "-x", "..", "a/b", "'x;y'", "'$(id)'", "'lan0 '", "lan0:1", "é", "0123456789abcdef"] {
            ensure!([2, 125].contains(&try_on(parent, "--ip 192.0.2.10/24")?.code), "{parent} was shared");
        }
        // Addresses that are nobody's to take, or are somebody's.
        try_on("lan0", "")?.refuses(125, &["--ip"])?;
        try_on("lan0", "--ip 192.0.2.2/24")?.refuses(125, &["192.0.2.2", "this host"])?;
        for address in [
            "127.0.0.5/8",
            "169.254.169.254/16",
            "224.0.0.5/24",
            "0.0.0.0/24",
            "192.0.2.0/24",
            "192.0.2.255/24",
            "192.0.2.10/32",
            "192.0.2.10/0",
            "192.0.2.10",
            "::1/64",
            "x/24",
        ] {
            ensure!(try_on("lan0", &format!("--ip {address}"))?.code == 125, "{address} was given");
        }
        for gateway in ["192.0.3.1", "192.0.2.10", "192.0.2.255", "0.0.0.0"] {
            ensure!(
                try_on("lan0", &format!("--ip 192.0.2.10/24 --gateway {gateway}"))?.code == 125,
                "{gateway} is a gateway"
            );
        }
        alice.holdfast("run --rm --ip 10.88.0.5/22 -- true")?.refuses(125, &["--ip", "macvlan"])?;
        try_on("lan0", "--ip 192.0.2.10/24 -p 8080:80")?.refuses(125, &["--publish"])?;
        // Another owner's address stays theirs, and whose it is stays unsaid.
        host.install("--owner bob")?;
        root.run(
            "sed -i '/^\\[owners.bob\\]/a macvlan_parents = [\"lan0\", \"tun7\", \"gone0\"]' /etc/holdfast/rules.toml",
        )?
        .ok()?;
        alice.run_worker("--name hers --net macvlan:lan0 --ip 192.0.2.20/24 -- sleep infinity")?;
        let bob = |parent: &str, address: &str| {
            host.as_user("bob").holdfast(&format!("run --rm --net macvlan:{parent} --ip {address}/24 -- true"))
        };
        let said = bob("lan0", "192.0.2.20")?.refuses(125, &["192.0.2.20", "another owner"])?;
        ensure!(!said.stderr.contains("alice") && !said.stderr.contains("hers"), "{said}");
        bob("gone0", "192.0.2.21")?.refuses(125, &["gone0", "none of this name"])?;
        if before.contains("tun7") {
            bob("tun7", "192.0.2.21")?.refuses(125, &["tun7", "Ethernet"])?;
        }
        bob("lan0", "192.0.2.21")?.ok()?;
        alice.holdfast("rm -f hers")?.ok()?;
        until("the host's links are as before", Duration::from_secs(20), || Ok(links()? == before))?;
        Ok(())
    })
}

#[test]
fn t40_a_worker_on_a_wire_has_no_ipv6() -> Result {
    on_installed(|host| {
        lan(host)?;
        grant_lan(host)?;
        serve(host, "cam", "192.0.2.10")?;
        let alice = host.alice();
        let inside = |line: &str| Ok::<_, anyhow::Error>(alice.holdfast(&format!("exec cam -- {line}"))?.text());
        // The far end speaks IPv6.
        host.root().run("ip -n lan -6 address add 2001:db8:5::1/64 dev wire nodad")?.ok()?;
        let (addresses, off) =
            (inside("cat /proc/net/if_inet6")?, inside("cat /proc/sys/net/ipv6/conf/eth0/disable_ipv6")?);
        ensure!(off == "1" && !addresses.contains("eth0"), "a link on a wire has IPv6: {off} {addresses}");
        // As the far end would find it: by the address that its hardware address makes, and by all nodes of the link.
        let found = outside(host, "ip -4 neigh show 192.0.2.10")?.text();
        let bytes: Vec<u8> = found
            .split("lladdr ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next())
            .unwrap_or_default()
            .split(':')
            .filter_map(|byte| u8::from_str_radix(byte, 16).ok())
            .collect();
        ensure!(bytes.len() == 6, "no hardware address: {found}");
        let local = format!(
            "fe80::{:02x}{:02x}:{:02x}ff:fe{:02x}:{:02x}{:02x}",
            bytes[0] ^ 2,
            bytes[1],
            bytes[2],
            bytes[3],
            bytes[4],
            bytes[5]
        );
        let reach = "python3 -c 'import socket, sys; s = socket.create_connection((sys.argv[1], 8000), 2)'";
        ensure!(outside(host, &format!("{reach} {local}%wire"))?.code != 0, "it answers on {local}");
        ensure!(!outside(host, "ip -6 neigh show dev wire")?.text().contains("REACHABLE"), "somebody answered by IPv6");
        let write = alice.holdfast("exec cam -- sh -c 'echo 0 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6'")?;
        ensure!(write.code != 0, "a worker switched IPv6 on\n{write}");
        Ok(())
    })
}
