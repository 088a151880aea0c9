//! What the helper's capabilities could be bent to: links, rules, names, answers about others.

use crate::on_installed;
use anyhow::{Context, ensure};
use holdfast_smoke::{HELPER, Host, LAUNCHER, Result, scaled, until};
use std::time::Duration;

#[test]
fn t15_no_link_is_pushed_into_a_namespace_that_is_not_the_owners() -> Result {
    on_installed(|host| {
        host.alice().holdfast("run --rm -- true")?.ok()?;
        let bobs = host.as_user("bob").start("exec unshare --user --map-root-user --net sleep 300")?;
        let find = "pgrep -u bob -x sleep";
        until("bob has a namespace", Duration::from_secs(5), || Ok(host.root().run(find)?.code == 0))?;
        let bob = host.root().run(find)?.text();
        let links = || {
            host.root()
                .run(&format!("(ip -o link; nsenter -t {bob} -n ip -o link) | cut -d: -f2; nft -s list ruleset"))
                .map(|output| output.text())
        };
        host.keep_down(&[LAUNCHER])?;
        let before = links()?;
        for answer in [
            "host-netns",
            "foreign-netns",
            "user-namespace",
            "mount-namespace",
            "plain-file",
            "socket",
            "one-descriptor",
            "many-descriptors",
            "no-descriptors",
            "other-seq",
            "garbage",
            "too-long",
            "silence",
        ] {
            let other = if answer == "foreign-netns" { bob.as_str() } else { "self" };
            let program = include_str!("../probes/hostile_launcher.py");
            host.root().feed("cat > /root/hostile.py", program.as_bytes())?.ok()?;
            let hostile =
                host.root().start(&format!("exec python3 /root/hostile.py 1000 holdfast {answer} {other}"))?;
            until("it has dialled", Duration::from_secs(5), || {
                Ok(host.root().run("ss -Hxp | grep -c 'python3.*'")?.text() != "0")
            })?;
            std::thread::sleep(Duration::from_millis(100));
            let said = host
                .alice()
                .run_within(Duration::from_secs(40), "holdfast run -d --name no --publish 8080:80 -- sleep infinity")?;
            ensure!(said.code == 125, "{answer}: the launch was to fail with 125\n{said}");
            let heard = hostile.wait_within(Duration::from_secs(20))?;
            ensure!(heard.text().starts_with("dialled") && !heard.text().contains("released"), "{answer}\n{heard}");
            println!("{answer}: {}; {}", heard.text().replace('\n', ", "), said.stderr.trim());
            until("nothing is left", Duration::from_secs(5), || Ok(links()? == before))
                .with_context(|| format!("{answer}: {}", links().unwrap_or_default()))?;
        }
        drop(bobs);
        host.bring_up(&[LAUNCHER])?;
        until("launches work again", Duration::from_secs(5), || {
            Ok(host.alice().holdfast("run --rm -- true")?.code == 0)
        })?;
        Ok(())
    })
}

/// What the helper's calls cannot name, they cannot betray: held by `guard` over helper.proto; here, by what its callers hear.
#[test]
fn t16_the_helper_is_no_oracle() -> Result {
    on_installed(|host| {
        host.install("--owner bob")?;
        host.alice().run_worker("--name secret --publish 8080:80 -- sleep infinity")?;
        let hers = host.alice().worker("secret")?.id;
        // Another owner's worker and one that never was: the same answer, byte for byte.
        let ask = |id: &str| -> Result<String> {
            let said = detach_as_bob(host, id)?;
            Ok(said.replace(id, "ID"))
        };
        let (existing, missing) = (ask(&hers)?, ask("0123456789abcdef")?);
        ensure!(existing == missing, "existing: {existing}\nmissing: {missing}");
        ensure!(host.alice().run("holdfast port secret")?.text().contains("8080"), "it was detached");
        Ok(())
    })
}

/// As bob's own daemon would: his uid, the group of the sockets, a current epoch. The message is protobuf by hand
/// (epoch = 1: 2^40, worker = 2, generation = 3: 1).
fn detach_as_bob(host: &Host, id: &str) -> Result<String> {
    let mut message = vec![0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20, 0x12, 16];
    message.extend(id.as_bytes());
    message.extend([0x18, 1]);
    let mut framed = vec![0];
    framed.extend((message.len() as u32).to_be_bytes());
    framed.extend(message);
    let call = "setpriv --reuid bob --regid holdfast --clear-groups curl -s --max-time 3 --http2-prior-knowledge --unix-socket /run/holdfast/helper.sock \
        -i -H 'content-type: application/grpc' -H 'te: trailers' --data-binary @- http://holdfast/holdfast.helper.v1.Helper/Detach | tr -d '\\r\\0' | grep -av ^date";
    Ok(host.root().feed(call, &framed)?.ok()?.text())
}

#[test]
fn t17_links_that_are_not_ours_stay() -> Result {
    on_installed(|host| {
        let make = "ip link add hf0123456789 type veth peer name eth0 && ip link add docker0 type bridge && ip link add hfbr9 type bridge";
        host.root().run(make)?.ok()?;
        let links = || {
            host.root()
                .run("ip -o link | grep -E 'hf0123456789|eth0|docker0|hfbr9|: lo:' | awk '{print $1, $2}'")
                .map(|output| output.text())
        };
        let before = links()?;
        ensure!(before.lines().count() == 5, "{before}");
        for _ in 0..3 {
            host.alice().holdfast("run --rm --publish 8080:80 -- true")?.ok()?;
            host.kill_mains(&[HELPER])?;
            until("it serves again", Duration::from_secs(5), || {
                Ok(host.alice().holdfast("run --rm -- true")?.code == 0)
            })?;
        }
        ensure!(links()? == before, "before {before}\nafter {}", links()?);
        // A namesake of the link of a worker that has just ended.
        let list = "ip -o link show type veth | awk '{print $2}' | grep -oE 'hf[0-9a-f]{10}' | grep -vx hf0123456789 | tail -n 1";
        host.alice().run_worker("--name w -- sleep infinity")?;
        let link = host.root().run(list)?.text();
        host.alice().holdfast("rm -f w")?.ok()?;
        until("the name is free", Duration::from_secs(2), || {
            Ok(host.root().run(&format!("ip link add {link} type bridge"))?.code == 0)
        })?;
        std::thread::sleep(Duration::from_secs(3));
        let taken = host.root().run(&format!("ip link del {link}"))?;
        ensure!(taken.code == 0, "a namesake of a worker's link was removed\n{taken}");
        Ok(())
    })
}

#[test]
fn t18_no_name_becomes_a_rule_or_an_argument() -> Result {
    on_installed(|host| {
        host.root()
            .run("nft add table inet mine && nft 'add chain inet mine c { type filter hook input priority 0; }'")?
            .ok()?;
        let foreign = || {
            host.root()
                .run("nft -s list tables | grep -v ' holdfast'; nft -s list table inet mine; ip -o link | grep -vc hf")
                .map(|output| output.text())
        };
        let before = foreign()?;
        let names = [
            "x\"y",
            "x;y",
            "x}y",
            "$(id)",
            "`id`",
            "-x",
            "--help",
            "hf%d",
            "é",
            "a b",
            "a|b",
            "a&b",
            "a>b",
            "../../etc",
            "%s%n",
            "a,b",
            "a=b",
            "{}",
            "[]",
            "*",
            "?",
            "~",
            "\\x01",
            "all",
            "lo",
            "eth0",
            "table",
            "flush ruleset",
            "0x0",
            "a:b",
            "#",
            "!",
            "@",
            "^",
            "a/b",
            ".",
            "..",
            "a\\",
            "a'b",
            "NUL",
        ];
        for name in names {
            let quoted = format!("'{}'", name.replace('\'', r"'\''"));
            for option in ["--name=", "--net=", "--publish="] {
                let _ = host.alice().holdfast(&format!("run --rm {option}{quoted} -- true"))?;
            }
        }
        host.alice().run_worker("--name table --env 'X=\"; flush ruleset' -- sleep infinity")?;
        ensure!(foreign()? == before, "before {before}\nafter {}", foreign()?);
        let links = host
            .root()
            .run("ip -o link | awk '{print $2}' | grep ^hf | sed 's/[:@].*//' | grep -vE '^hf[0-9a-z]{1,13}$'")?;
        ensure!(links.text().is_empty(), "a link that the helper did not name\n{links}");
        Ok(())
    })
}

#[test]
fn t41_rules_stand_before_a_worker_can_send() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        let gateway = alice.holdfast("run --rm -- ip route show default")?.ok()?.text();
        let gateway = gateway.split_whitespace().nth(2).context("a default route")?.to_owned();
        host.root().run("ip address add 169.254.169.254/32 dev lo")?.ok()?;
        let sink = "import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind((\"\", 9999)); print(\"up\", flush=True)
while True: print(\"got\", s.recvfrom(99), flush=True)";
        alice.feed("cat > sink.py", sink.as_bytes())?.ok()?;
        let sink = alice.start("exec python3 -u sink.py")?;
        until("the sink listens", Duration::from_secs(5), || {
            Ok(host.root().run("ss -Hlun sport = :9999")?.text().contains("9999"))
        })?;
        let launches = scaled(50);
        let first = format!("for a in {gateway} 169.254.169.254; do echo early > /dev/udp/$a/9999; done");
        let script = format!("for i in $(seq 1 {launches}); do holdfast run --rm -- bash -c '{first}' || exit 1; done");
        alice.run_within(Duration::from_secs(120), &script)?.ok()?;
        host.root().run("bash -c 'echo control > /dev/udp/169.254.169.254/9999'")?.ok()?;
        std::thread::sleep(Duration::from_millis(300));
        let said = sink.kill()?;
        ensure!(said.text().contains("control") && !said.text().contains("early"), "{said}");
        println!("{launches} first-instruction senders: no packet passed");
        Ok(())
    })
}
