//! Two owners on one host, both at work: neither sees, reaches, disturbs, exhausts or impersonates the other.

use crate::on_fresh;
use anyhow::{Context, ensure};
use holdfast_smoke::{Census, Host, Output, Result, User, scaled, until};
use std::collections::BTreeSet;
use std::time::Duration;

/// Verbs and options that name a worker.
const VERBS: &[&str] =
    &["stop", "start", "restart", "kill", "rm", "rm -f", "wait", "logs", "inspect", "inspect --json", "port"];

#[test]
fn two_owners_under_load_have_nothing_of_each_other() -> Result {
    on_fresh(|host| {
        host.install("--owner alice")?;
        host.install("--owner bob")?;
        let (alice, bob) = (host.alice(), host.as_user("bob"));
        alice.run_web("secret", 8080, "/usr/share")?;
        alice.run_worker("--name hidden --env TOKEN=of-alice --publish 8081:81/udp -- sleep infinity")?;
        bob.run_web("his", 9080, "/usr/share")?;
        let census = Census::take(host)?;
        // Load, from here to the end, by both.
        let load = "while [ ! -e stop ]; do holdfast run --rm -- true 2>>failed || echo $? >>failed; done; cat failed 2>/dev/null; true";
        let loads = [alice.start(load)?, bob.start(load)?];
        sees_nothing(host, bob, &alice.worker("secret")?.id)?;
        sees_nothing(host, alice, &bob.worker("his")?.id)?;
        reaches_nothing(host, bob)?;
        disturbs_nothing(host, bob)?;
        exhausts_nothing(host, bob)?;
        impersonates_nobody(host, bob)?;
        for user in [alice, bob] {
            user.run("touch stop")?.ok()?;
        }
        // His own were refused at his quota; hers never.
        let [hers, his] = loads.map(|load| load.wait_within(Duration::from_secs(60)));
        let (hers, _) = (hers?.ok()?, his?.ok()?);
        ensure!(hers.text().is_empty(), "a launch of alice's failed beside bob's\n{hers}");
        until("alice's workers are as before", Duration::from_secs(20), || Ok(Census::take(host)? == census))?;
        alice.run("curl -fsS -o /dev/null http://127.0.0.1:8080/")?.ok()?;
        Ok(())
    })
}

/// Every verb about the other's worker says, word for word, what it says about one that never was.
fn sees_nothing(host: &Host, who: User<'_>, theirs: &str) -> Result {
    let listed = who.holdfast("ps -a --json")?.ok()?.text();
    ensure!(!listed.contains(theirs), "{} lists the other's worker", who.name);
    let never = "0123456789abcdef";
    for word in [theirs, if who.name == "bob" { "secret" } else { "his" }] {
        for verb in VERBS {
            let ask = |word: &str| -> Result<(i32, String)> {
                let Output { code, stderr, stdout, .. } = who.holdfast(&format!("{verb} {word}"))?;
                Ok((code, (stderr + &String::from_utf8_lossy(&stdout)).replace(word, "W")))
            };
            let (about_theirs, about_none) = (ask(word)?, ask(if word.len() == 16 { never } else { "nosuch" })?);
            ensure!(about_theirs.0 == 4, "{} {verb} {word}: {about_theirs:?}", who.name);
            ensure!(about_theirs == about_none, "{verb}: {about_theirs:?} is not {about_none:?}");
        }
    }
    // Nor by hand: directories, sockets, and what /proc says beyond names that every user sees.
    let other = if who.name == "bob" { "alice" } else { "bob" };
    for path in [
        format!("/var/lib/holdfast/owners/{other}/"),
        format!("/run/holdfast/owners/{other}/workers/"),
        format!("/var/lib/holdfast/owners/{other}/holdfast.db"),
    ] {
        let said = who.run(&format!("ls {path}; cat {path}"))?;
        ensure!(said.text().is_empty() && said.stderr.contains("denied"), "{}\n{said}", who.name);
    }
    let socket = format!("/run/holdfast/owners/{other}/daemon.sock");
    let said =
        who.feed(&format!("python3 - {socket} /run/holdfast/helper.sock"), include_bytes!("probes/connect.py"))?;
    ensure!(said.text().lines().all(|line| line.ends_with("EACCES")), "{}\n{said}", who.name);
    ensure!(host.root().run("ss -xl | grep -c '@.*holdfast'")?.text() == "0", "an abstract socket of ours");
    Ok(())
}

/// From a worker of his to a worker of hers; and to her processes by the kernel's calls.
fn reaches_nothing(host: &Host, bob: User<'_>) -> Result {
    let secret = host.alice().worker("secret")?;
    let address = secret.address()?.to_owned();
    let connect = format!("import socket; s = socket.create_connection((\"{address}\", 80), 2); print(\"reached\")");
    bob.feed("cat > reach.py", connect.as_bytes())?.ok()?;
    let said = bob.holdfast("run --rm --volume ~/reach.py:/tmp/reach.py:ro -- python3 /tmp/reach.py")?;
    ensure!(!said.text().contains("reached") && said.code != 0, "bob's worker reached alice's\n{said}");
    let inspected: serde_json::Value = host.alice().holdfast("inspect --json secret")?.ok()?.json()?;
    let shim = inspected["shim"]["pid"].as_u64().context("shim.pid")?;
    for pid in [u64::from(secret.live_pid()?), shim] {
        let tried = bob.feed(&format!("python3 - {pid}"), include_bytes!("probes/same_uid.py"))?.ok()?;
        let allowed: Vec<_> = tried.text().lines().filter(|line| line.ends_with(" done")).map(str::to_owned).collect();
        ensure!(allowed.is_empty() && tried.text().lines().count() >= 20, "bob on alice's process {pid}: {allowed:?}");
    }
    Ok(())
}

/// Ports, addresses, links and names are nobody's twice.
fn disturbs_nothing(host: &Host, bob: User<'_>) -> Result {
    let taken = bob.holdfast("run -d --publish 8080:80 -- sleep infinity")?.refuses(125, &["8080"])?;
    ensure!(
        !taken.stderr.contains("alice") && !taken.stderr.contains("secret"),
        "a refusal betrays who has it\n{taken}"
    );
    bob.run_worker("--name secret -- sleep infinity")?;
    ensure!(bob.worker("secret")?.id != host.alice().worker("secret")?.id);
    bob.holdfast("rm -f secret")?.ok()?;
    let networks = |user: User<'_>| -> Result<BTreeSet<String>> {
        let addresses = user.ps()?.into_iter().flat_map(|worker| worker.addresses);
        // A network is a /22: four of the third number.
        let of = |address: String| {
            let mut parts = address.split(['.', '/']).map(str::parse::<u16>);
            match (parts.next(), parts.next(), parts.next()) {
                (Some(Ok(a)), Some(Ok(b)), Some(Ok(c))) => Some(format!("{a}.{b}.{}", c / 4 * 4)),
                _ => None,
            }
        };
        Ok(addresses.filter_map(of).collect())
    };
    let (hers, his) = (networks(host.alice())?, networks(bob)?);
    ensure!(!hers.is_empty() && !his.is_empty() && hers.is_disjoint(&his), "networks overlap: {hers:?} {his:?}");
    println!("alice's networks {hers:?}, bob's {his:?}");
    Ok(())
}

/// His quota is the rules file's; at it, he is told so, and she notices nothing.
fn exhausts_nothing(host: &Host, bob: User<'_>) -> Result {
    host.root().run("sed -i '/^\\[owners.bob\\]/a workers_max = 4\\nports_max = 3' /etc/holdfast/rules.toml && systemctl kill -s HUP holdfast-helper.service")?.ok()?;
    let mut refused = None;
    until("the quota is read", Duration::from_secs(20), || {
        for i in 0..scaled(8) {
            let said = bob.holdfast(&format!("run -d --name q{i} -- sleep infinity"))?;
            refused = refused.take().or((said.code == 125 && said.stderr.contains("workers_max")).then_some(said));
        }
        Ok(refused.is_some())
    })?;
    let said = bob
        .holdfast("run -d --name ports --publish 9091:1 --publish 9092:2 --publish 9093:3 --publish 9094:4 -- true")?;
    ensure!(said.code == 125, "four ports of three\n{said}");
    host.alice().holdfast("run --rm --publish 8090:80 -- true")?.ok()?;
    // Connections that his daemon's identity may open at the helper are counted as his.
    host.root().feed("cat > /srv/hold.py", include_bytes!("probes/hold.py"))?.ok()?;
    let hold = "exec setpriv --reuid bob --regid holdfast --clear-groups python3 -u /srv/hold.py /run/holdfast/helper.sock 200";
    let holding = host.root().start(hold)?;
    std::thread::sleep(Duration::from_millis(500));
    for _ in 0..5 {
        host.alice().holdfast("run --rm -- true")?.ok()?;
    }
    drop(holding);
    let names: Vec<String> = (0..scaled(8)).map(|i| format!("q{i}")).collect();
    let _ = bob.holdfast(&format!("rm -f {}", names.join(" ")))?;
    host.root().run("sed -i '/^workers_max = 4$/d; /^ports_max = 3$/d' /etc/holdfast/rules.toml && systemctl kill -s HUP holdfast-helper.service")?.ok()?;
    println!("bob at his quota: {}", refused.map(|said| said.stderr.trim().to_owned()).unwrap_or_default());
    Ok(())
}

/// As his own taken-over launcher and daemon could try: the uid behind the connection decides.
fn impersonates_nobody(host: &Host, bob: User<'_>) -> Result {
    host.root().feed("cat > /srv/hostile.py", include_bytes!("probes/hostile_launcher.py"))?.ok()?;
    let uid = bob.run("id -u")?.ok()?.text();
    let hostile = host.root().start(&format!("exec timeout 20 python3 /srv/hostile.py {uid} holdfast garbage self"))?;
    for _ in 0..5 {
        let ran = host.alice().holdfast("run --rm -- id -un")?.ok()?;
        ensure!(ran.text() == "alice", "{ran}");
    }
    drop(hostile);
    until("bob's own launcher is back", Duration::from_secs(30), || Ok(bob.holdfast("run --rm -- true")?.code == 0))?;
    for arguments in ["--owner alice ps", "--owner alice run -d -- true"] {
        let said = bob.holdfast(arguments)?;
        ensure!([5, 125].contains(&said.code) && !said.text().contains("secret"), "{said}");
    }
    let said = bob.run("HOLDFAST_SOCKET=/run/holdfast/owners/alice/daemon.sock holdfast ps")?;
    ensure!(said.code != 0 && !said.text().contains("secret"), "{said}");
    Ok(())
}
