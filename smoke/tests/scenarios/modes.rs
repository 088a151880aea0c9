//! The host's own network for a worker: who may have it, what it is there, and what stays closed all the same.

use crate::on_installed;
use anyhow::ensure;
use holdfast_smoke::{DAEMON, HELPER, Host, LAUNCHER, Result, until};
use serde_json::Value;
use std::time::Duration;

/// Root adds a line to alice's section of the rules.
pub fn grant(host: &Host, line: &str) -> Result {
    let edit = format!("sed -i '/^\\[owners.alice\\]/a {line}' /etc/holdfast/rules.toml");
    host.root().run(&edit)?.ok().map(drop)
}

fn grant_host(host: &Host) -> Result {
    grant(host, r#"networks = ["none", "bridge", "host"]"#)
}

#[test]
fn a_worker_of_the_hosts_network_is_there_as_a_program_of_its_owner() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        alice.holdfast("run --net host -- true")?.refuses(125, &["rule networks", "alice", "host", "rules.toml"])?;
        ensure!(alice.holdfast("ps -a --json")?.text() == "[]", "a refused launch left a worker");
        grant_host(host)?;
        for ports in ["-p 8080:80", "-p 127.0.0.1:0:80/udp"] {
            alice.holdfast(&format!("run --net host {ports} -- true"))?.refuses(125, &["network host", "--publish"])?;
        }
        let serve = "--name web --net host --workdir /usr/share -- python3 -m http.server --bind 127.0.0.1 8088";
        alice.run_worker(serve)?;
        until("it serves on the host's loopback", Duration::from_secs(20), || {
            Ok(alice.run("curl -fsS -o /dev/null http://127.0.0.1:8088/")?.code == 0)
        })?;
        // It has what the host has, and can change none of it.
        let inside =
            |command: &str| -> Result<String> { Ok(alice.holdfast(&format!("exec web -- {command}"))?.text()) };
        for command in
            ["hostname", "cat /etc/hosts", "cat /etc/resolv.conf", "readlink /proc/self/ns/net", "ip -o link"]
        {
            let (here, there) = (inside(command)?, host.root().run(command)?.text());
            ensure!(here == there, "{command}: inside {here:?}, on the host {there:?}");
        }
        ensure!(inside("printenv HOSTNAME")? == host.root().run("hostname")?.text());
        for command in [
            "ip link set lo down",
            "ip addr add 192.0.2.1/32 dev lo",
            "python3 -c 'import socket; socket.socket().bind((\"\", 80))'",
        ] {
            let said = alice.holdfast(&format!("exec web -- {command}"))?;
            ensure!(
                said.code != 0 && (said.stderr.contains("not permitted") || said.stderr.contains("denied")),
                "{said}"
            );
        }
        let write = alice.holdfast("exec web -- sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'")?;
        ensure!(write.code != 0, "a worker changed the host's settings\n{write}");
        // Shown as what it is: no address of its own, nothing published, no traffic of its own to count.
        let shown = &alice.holdfast("ps --json")?.ok()?.json::<Value>()?[0];
        ensure!(
            shown["network"] == "host"
                && shown["addresses"] == Value::Array(vec![])
                && shown["ports"] == Value::Array(vec![]),
            "{shown}"
        );
        let spec: Value = alice.holdfast("inspect --json web")?.ok()?.json()?;
        ensure!(spec["spec"]["network"] == "host", "{spec}");
        let used = &alice.holdfast("stats --no-stream --json web")?.ok()?.json::<Value>()?[0];
        ensure!(used["received_bytes"].is_null() && used["tasks"].as_u64() >= Some(1), "{used}");
        let network: Value = alice.holdfast("network inspect --json host")?.ok()?.json()?;
        ensure!(network["built_in"] == true && network["workers"][0]["name"] == "web", "{network}");
        alice.holdfast("network rm host")?.refuses(2, &["always there"])?;
        alice.holdfast("port web")?.ok()?;
        // Nobody needs the programs for it to serve; they find it again, and it suspends and ends as any other.
        host.kill_mains(&[HELPER, DAEMON, LAUNCHER])?;
        alice.run("curl -fsS -o /dev/null http://127.0.0.1:8088/")?.ok()?;
        until("it is listed again", Duration::from_secs(20), || Ok(alice.holdfast("ps")?.text().contains("web")))?;
        alice.holdfast("suspend web")?.ok()?;
        ensure!(alice.run("curl -fsS --max-time 1 -o /dev/null http://127.0.0.1:8088/")?.code != 0, "it was suspended");
        alice.holdfast("resume web")?.ok()?;
        alice.run("curl -fsS --max-time 10 -o /dev/null http://127.0.0.1:8088/")?.ok()?;
        alice.holdfast("rm -f web")?.ok()?;
        // A rule that goes again stops no worker; it stops the next one.
        host.root().run("sed -i '/^networks = /d' /etc/holdfast/rules.toml")?.ok()?;
        alice.holdfast("run --net host -- true")?.refuses(125, &["rule networks"])?;
        Ok(())
    })
}

/// Tries to reach every abstract socket that the network namespace lists, by each type. Prints `reached NAME` or errno.
const REACH: &str = r#"
import errno, socket, sys
names = {line.split()[7] for line in open("/proc/net/unix").readlines()[1:] if len(line.split()) > 7 and line.split()[7].startswith("@")}
tried = 0
for name in sorted(names):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
        s = socket.socket(socket.AF_UNIX, kind)
        tried += 1
        try: s.connect("\0" + name[1:]); print("reached", name)
        except OSError as e:
            if e.errno not in (errno.EPERM, errno.ECONNREFUSED, errno.EPROTOTYPE): print("odd", name, e)
            elif e.errno == errno.EPERM: print("refused", name)
print("tried", tried)
"#;

#[test]
fn t33_a_worker_of_the_hosts_network_reaches_no_abstract_socket_of_the_host() -> Result {
    on_installed(|host| {
        grant_host(host)?;
        let listen = |name: &str| {
            format!(
                "exec python3 -c 'import socket, time; s = socket.socket(socket.AF_UNIX); s.bind(\"\\0{name}\"); s.listen(); time.sleep(300)'"
            )
        };
        let (alice, root) = (host.alice(), host.root());
        let _hers = alice.start(&listen("hers"))?;
        let _roots = root.start(&listen("roots"))?;
        let _bobs = host.as_user("bob").start(&listen("bobs"))?;
        alice.feed("cat > reach.py", REACH.as_bytes())?.ok()?;
        let listed =
            || Ok::<_, anyhow::Error>(root.run("grep -c -E '@(hers|roots|bobs)$' /proc/net/unix")?.text() == "3");
        until("all listen", Duration::from_secs(20), listed)?;
        // The control: outside, they are open to everybody.
        let outside = alice.run("python3 reach.py")?.ok()?.text();
        ensure!(outside.matches("reached @").count() >= 3, "the control failed: {outside}");
        let probe = "--volume ~/reach.py:/mnt/reach.py:ro";
        for options in ["", "--user root", "--allow-userns"] {
            let said = alice
                .holdfast(&format!("run --rm --net host {probe} {options} -- python3 /mnt/reach.py"))?
                .ok()?
                .text();
            ensure!(
                !said.contains("reached") && !said.contains("odd"),
                "{options}: an abstract socket was reached: {said}"
            );
            ensure!(said.matches("refused @").count() >= 3, "{options}: {said}");
            println!("{options}: {}", said.lines().last().unwrap_or_default());
        }
        let nested = "unshare --user --map-root-user --mount -- python3 /mnt/reach.py";
        let said = alice.holdfast(&format!("run --rm --net host {probe} --allow-userns -- {nested}"))?.ok()?.text();
        ensure!(!said.contains("reached"), "by a user namespace: {said}");
        // Within one worker they are as ever, also for what is started beside its first program.
        alice.run_worker(&format!("--name w --net host {probe} -- {}", listen("inner").trim_start_matches("exec ")))?;
        until("the worker listens", Duration::from_secs(20), || {
            Ok(root.run("grep -q @inner /proc/net/unix")?.code == 0)
        })?;
        let said = alice.holdfast("exec w -- python3 /mnt/reach.py")?.ok()?.text();
        ensure!(said.matches("reached @").count() == 1 && said.contains("reached @inner"), "{said}");
        // Nor does another worker reach that one.
        let other = alice.holdfast(&format!("run --rm --net host {probe} -- python3 /mnt/reach.py"))?.ok()?.text();
        ensure!(!other.contains("reached"), "{other}");
        // A kernel without the means: no worker of this kind at all, and every other kind as before.
        root.run("d=/etc/systemd/system/holdfast-launcher@.service.d && mkdir -p $d && printf '[Service]\\nSystemCallFilter=~landlock_create_ruleset\\n' > $d/no-landlock.conf && systemctl daemon-reload && systemctl restart holdfast-launcher@alice")?.ok()?;
        until("it launches again", Duration::from_secs(20), || Ok(alice.holdfast("run --rm -- true")?.code == 0))?;
        alice.holdfast("run --rm --net host -- true")?.refuses(125, &["landlock", "6.12", "bridge"])?;
        Ok(())
    })
}
