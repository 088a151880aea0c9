//! One test per row of the threat table (docs/privileges.md), named by its row. Each has a patch in
//! `smoke/negative/` that takes the defence away: then the test must fail.

use crate::on_installed;
use anyhow::{Context, ensure};
use holdfast_smoke::{Census, DAEMON, HELPER, Host, LAUNCHER, Result, User, scaled, until};
use std::time::Duration;

/// Runs a Python program as a user; it prints `name errno` per attempt. Returns those pairs.
fn attempts(user: User<'_>, program: &str, arguments: &str) -> Result<Vec<(String, String)>> {
    let said = user.feed(&format!("python3 - {arguments}"), program.as_bytes())?.ok()?;
    let text = said.text();
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    let pairs: Vec<_> = pairs.map(|(attempt, errno)| (attempt.to_owned(), errno.to_owned())).collect();
    ensure!(!pairs.is_empty(), "the probe tried nothing");
    Ok(pairs)
}

#[test]
fn t01_the_owner_can_take_nothing_from_the_helper() -> Result {
    on_installed(|host| {
        let pid = host.main_pid(HELPER)?;
        let found = attempts(host.alice(), include_str!("probes/same_uid.py"), &pid.to_string())?;
        ensure!(found.len() >= 20, "the probes did not run: {found:?}");
        for (probe, errno) in &found {
            ensure!(["EPERM", "EACCES"].contains(&errno.as_str()), "{probe} of the helper: {errno}");
        }
        // The control: on a process of her own, the same probes work.
        let own = host.alice().start("exec sleep 300")?;
        let target = host.root().run("pgrep -u alice -x sleep")?.ok()?.text();
        let allowed = attempts(host.alice(), include_str!("probes/same_uid.py"), &target)?;
        let done = allowed.iter().filter(|(_, outcome)| outcome == "done").count();
        ensure!(done >= 20, "the probes prove nothing: {allowed:?}");
        drop(own);
        println!("{} probes refused by the helper, {done} of them taken by a process of her own", found.len());
        // The owner's own two are of her uid: signals are hers, their memory and descriptors are not.
        for unit in [DAEMON, LAUNCHER] {
            let found =
                attempts(host.alice(), include_str!("probes/same_uid.py"), &format!("{} read", host.main_pid(unit)?))?;
            for (probe, errno) in &found {
                ensure!(["EPERM", "EACCES"].contains(&errno.as_str()), "{probe} of {unit}: {errno}");
            }
        }
        ensure!(host.main_pid(HELPER)? == pid && host.status_line(pid, "State")?.starts_with('S'));
        Ok(())
    })
}

#[test]
fn t04_no_other_user_reaches_a_socket_and_all_hear_the_same() -> Result {
    on_installed(|host| {
        let sockets = "/run/holdfast/helper.sock /run/holdfast/launch.sock /run/holdfast/owners/alice/daemon.sock";
        for user in ["bob", "nobody"] {
            for (socket, errno) in attempts(host.as_user(user), include_str!("probes/connect.py"), sockets)? {
                ensure!(errno == "EACCES", "{user} on {socket}: {errno}");
            }
        }
        // Root of a user namespace is nobody outside it.
        let feigned = host.as_user("bob").feed(
            &format!("unshare --user --map-root-user python3 - {sockets}"),
            include_bytes!("probes/connect.py"),
        )?;
        ensure!(
            feigned.text().lines().count() == 3 && feigned.text().lines().all(|line| line.ends_with("EACCES")),
            "{feigned}"
        );
        // The helper's sockets are for the owner's programs, not for the owner.
        let own = attempts(
            host.alice(),
            include_str!("probes/connect.py"),
            "/run/holdfast/helper.sock /run/holdfast/launch.sock",
        )?;
        ensure!(own.iter().all(|(_, errno)| errno == "EACCES"), "{own:?}");
        // Past the file's mode the peer's uid is looked at again, and the answer is the same for all.
        host.root().run("chmod 777 /run/holdfast/owners/alice/daemon.sock /run/holdfast/helper.sock")?.ok()?;
        let call = |user: &str, socket: &str, method: &str| -> Result<String> {
            Ok(host.as_user(user).run(&grpc(socket, method))?.text())
        };
        let mut heard = Vec::new();
        for user in ["bob", "nobody", "carol"] {
            heard.push(call(user, "/run/holdfast/owners/alice/daemon.sock", "holdfast.daemon.v1.Daemon/List")?);
        }
        ensure!(heard.iter().all(|text| *text == heard[0] && !text.contains("grpc-status: 0")), "{heard:#?}");
        let own = call("alice", "/run/holdfast/owners/alice/daemon.sock", "holdfast.daemon.v1.Daemon/List")?;
        ensure!(own.contains("grpc-status: 0"), "the control failed: {own}");
        for user in ["bob", "nobody", "root"] {
            let said = call(user, "/run/holdfast/helper.sock", "holdfast.helper.v1.Helper/Attached")?;
            ensure!(!said.contains("grpc-status: 0"), "{user}: {said}");
        }
        Ok(())
    })
}

/// One unary gRPC call with an empty message, by curl: the headers and trailers that matter. Again where nothing came:
/// at times curl shows nothing of an answer that is there before its own message is out.
fn grpc(socket: &str, method: &str) -> String {
    format!(
        "for i in 1 2 3 4 5 6 7 8; do printf '\\0\\0\\0\\0\\0' | curl -s --max-time 3 --http2-prior-knowledge --unix-socket {socket} -D - -o /dev/null \
         -H 'content-type: application/grpc' -H 'te: trailers' --data-binary @- http://holdfast/{method} | tr -d '\\r' | grep -v '^date' && break; done; echo end"
    )
}

#[test]
fn t09_the_owner_cannot_squat_on_a_socket() -> Result {
    on_installed(|host| {
        let places = "/run/holdfast /run/holdfast/owners /run/holdfast/owners/alice";
        for (attempt, errno) in attempts(host.alice(), include_str!("probes/squat.py"), places)? {
            ensure!(["EACCES", "EPERM"].contains(&errno.as_str()), "{attempt}: {errno}");
        }
        // A socket of somebody else is not spoken to.
        let squatter = host.as_user("bob").start("mkdir -p /tmp/b && exec nc -lkU /tmp/b/daemon.sock")?;
        until("the squatter listens", Duration::from_secs(5), || {
            Ok(host.root().run("test -S /tmp/b/daemon.sock && chmod 777 /tmp/b /tmp/b/daemon.sock")?.code == 0)
        })?;
        let said = host.alice().run("HOLDFAST_SOCKET=/tmp/b/daemon.sock timeout 10 holdfast ps")?;
        ensure!([1, 3, 5].contains(&said.code) && said.stderr.contains("/tmp/b"), "{said}");
        ensure!(squatter.kill()?.stdout.is_empty(), "the CLI spoke to a squatter");
        Ok(())
    })
}

#[test]
fn t14_the_environment_brings_no_code_in() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        const HOSTILE: &str = "LD_PRELOAD LD_AUDIT LD_LIBRARY_PATH GCONV_PATH LOCPATH NLSPATH HOSTALIASES RES_OPTIONS LOCALDOMAIN \
            TMPDIR TERMINFO TERMINFO_DIRS MALLOC_TRACE GETCONF_DIR SSL_CERT_FILE SSL_CERT_DIR OPENSSL_CONF http_proxy https_proxy \
            ALL_PROXY XDG_CONFIG_HOME XDG_RUNTIME_DIR RUST_LOG_FILE SYSTEMD_UNIT_PATH NOTIFY_SOCKET DBUS_SYSTEM_BUS_ADDRESS PYTHONPATH BASH_ENV ENV PATH_EXTRA";
        let set: String = HOSTILE.split_whitespace().map(|name| format!("{name}=/home/alice/evil/{name} ")).collect();
        alice.run("mkdir -p evil && cp /bin/true evil/LD_PRELOAD")?.ok()?;
        // By sudo -E: nothing of it is opened.
        let said = alice.run(&format!("env {set} sudo -E strace -f -q -e trace=open,openat,execve,connect -o /tmp/trace holdfast system status; sudo grep -c evil /tmp/trace"))?;
        let opened = alice.run("sudo grep evil /tmp/trace | grep -v execve")?;
        ensure!(opened.text().is_empty(), "a path of the attacker was opened\n{opened}\n{said}");
        // By a worker's environment: it is the worker's alone.
        let with_env: String = HOSTILE
            .split_whitespace()
            .filter(|name| *name != "LD_AUDIT")
            .map(|name| format!("--env {name}=/home/alice/evil/{name} "))
            .collect();
        alice.run_worker(&format!("--name w {with_env} -- sleep infinity"))?;
        let inspected: serde_json::Value = alice.holdfast("inspect --json w")?.ok()?.json()?;
        let shim = inspected["shim"]["pid"].as_u64().context("shim.pid")?;
        let mut pids = vec![shim];
        for unit in [HELPER, DAEMON, LAUNCHER] {
            pids.push(host.main_pid(unit)?.into());
        }
        for pid in pids {
            let seen = host.root().run(&format!("cat /proc/{pid}/maps /proc/{pid}/environ | grep -c evil"))?.text();
            ensure!(seen == "0", "process {pid} has it in its memory map or environment");
        }
        // Static programs have no loader to bend.
        for program in ["holdfast-launcher", "holdfast-shim"] {
            let probe = "import struct, sys
d = open(sys.argv[1], \"rb\").read()
o, n, s = struct.unpack_from(\"<Q\", d, 32)[0], struct.unpack_from(\"<H\", d, 56)[0], struct.unpack_from(\"<H\", d, 54)[0]
print(\"interp\" if any(struct.unpack_from(\"<I\", d, o + i * s)[0] == 3 for i in range(n)) else \"static\")";
            let said = host
                .root()
                .feed(&format!("python3 - /usr/local/lib/holdfast/current/{program}"), probe.as_bytes())?
                .ok()?;
            ensure!(said.text() == "static", "{program} needs a loader");
        }
        Ok(())
    })
}

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
            let program = include_str!("probes/hostile_launcher.py");
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
        // Namesakes of its own: of the link of a worker that has just ended, and of the owner's bridge.
        let named = |kind: &str| {
            let list = format!("ip -o link show type {kind} | awk '{{print $2}}' | grep -oE 'hf[0-9a-f]{{10}}'");
            let list = format!("{list} | grep -vx hf0123456789 | tail -n 1");
            host.root().run(&list).map(|output| output.text())
        };
        host.alice().run_worker("--name w -- sleep infinity")?;
        let (link, bridge) = (named("veth")?, named("bridge")?);
        host.alice().holdfast("rm -f w")?.ok()?;
        until("the name is free", Duration::from_secs(2), || {
            Ok(host.root().run(&format!("ip link add {link} type bridge"))?.code == 0)
        })?;
        std::thread::sleep(Duration::from_secs(3));
        let taken = host.root().run(&format!("ip link del {link}"))?;
        ensure!(taken.code == 0, "a namesake of a worker's link was removed\n{taken}");
        host.root().run(&format!("ip link del {bridge} && ip link add {bridge} type bridge"))?.ok()?;
        host.kill_mains(&[HELPER])?;
        until("a namesake of the bridge is refused", Duration::from_secs(5), || {
            Ok(host.alice().holdfast("run --rm -- true")?.stderr.contains("not tagged as ours"))
        })?;
        host.root().run(&format!("ip link show {bridge}"))?.ok()?;
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
fn t30_a_worker_starts_with_three_descriptors_and_a_directory_of_its_own() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        let listed = alice.holdfast("run --rm -- python3 -c 'import os; print(sorted(int(f) for f in os.listdir(\"/proc/self/fd\"))[:-1], os.getcwd())'")?.ok()?;
        ensure!(listed.text() == "[0, 1, 2] /", "{listed}");
        let last = scaled(100).min(1024);
        let script = format!(
            "for n in $(seq 3 {last}); do for d in /proc/self/fd/$n /proc/self/fd/$n/../..; do
               holdfast run --rm --workdir $d -- cat /etc/shadow >/dev/null 2>&1 && echo entered $d; done; done; true"
        );
        let said = alice.run_within(Duration::from_secs(120), &script)?.ok()?;
        ensure!(said.text().is_empty(), "{said}");
        ensure!(alice.ps_all()?.is_empty());
        Ok(())
    })
}

#[test]
fn t34_a_worker_is_not_its_owner() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        let seen = alice
            .holdfast("run --rm -- sh -c 'find /run/holdfast /var/lib/holdfast -mindepth 1 2>/dev/null | wc -l'")?
            .ok()?;
        ensure!(seen.text() == "0", "a worker sees our directories\n{seen}");
        let call = grpc("/run/holdfast/owners/alice/daemon.sock", "holdfast.daemon.v1.Daemon/List");
        ensure!(alice.run(&call)?.text().contains("grpc-status: 0"), "the control failed");
        // Nor is anybody with her uid who is in another user namespace, whatever he can see.
        alice.feed("cat > there.sh", call.as_bytes())?.ok()?;
        let said = alice.run("unshare --user --map-current-user sh there.sh")?;
        ensure!(
            said.text().contains("end") && !said.text().contains("grpc-status: 0"),
            "a peer of another user namespace was taken for the owner\n{said}"
        );
        // Bound in by its owner on purpose, the socket still does not answer.
        alice.feed("cat > call.sh", grpc("/mnt/daemon.sock", "holdfast.daemon.v1.Daemon/List").as_bytes())?.ok()?;
        let said = alice.holdfast(
            "run --rm --volume /run/holdfast/owners/alice:/mnt --volume ~/call.sh:/tmp/call.sh:ro -- sh /tmp/call.sh",
        )?;
        ensure!(!said.text().contains("grpc-status: 0"), "a worker was taken for its owner\n{said}");
        // Nor do the sockets of the shims.
        alice.run_worker("--name other -- sleep infinity")?;
        let census = Census::take(host)?;
        let probe = "import socket, glob
for path in glob.glob(\"/mnt/*.sock\"):
    for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
        s = socket.socket(socket.AF_UNIX, kind); s.settimeout(1)
        try: s.connect(path); s.send(b\"\\1\" * 64); print(\"answered\", len(s.recv(4096)))
        except OSError as e: print(\"refused\")";
        alice.feed("cat > probe.py", probe.as_bytes())?.ok()?;
        let said = alice.holdfast("run --rm --volume /run/holdfast/owners/alice/workers:/mnt --volume ~/probe.py:/tmp/probe.py:ro -- python3 /tmp/probe.py")?;
        ensure!(!said.text().lines().any(|line| line.starts_with("answered") && line != "answered 0"), "{said}");
        census.must_hold(host, "a worker at another's control socket")?;
        Ok(())
    })
}

#[test]
fn t35_nothing_that_a_group_guards_is_in_reach() -> Result {
    on_installed(|host| {
        let prepare = "groupadd docker && usermod -aG docker,disk alice && python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"/run/docker.sock\")' \
            && chgrp docker /run/docker.sock && chmod 660 /run/docker.sock && mkdir -p /srv/guarded && chgrp docker /srv/guarded && chmod 770 /srv/guarded";
        host.root().run(prepare)?.ok()?;
        host.systemctl(&format!("restart {DAEMON} {LAUNCHER}"))?;
        let inside = "find / -path /proc -prune -o \\( -type s -o -type b \\) -print 2>/dev/null; ls /run/docker.sock 2>&1 | grep -v cannot; find /dev -type c | sort | tr \"\\n\" \" \"";
        let said = host.alice().holdfast(&format!("run --rm -- sh -c '{inside}'"))?.ok()?;
        for word in said.text().split_whitespace() {
            let harmless = [
                "/dev/null",
                "/dev/zero",
                "/dev/full",
                "/dev/random",
                "/dev/urandom",
                "/dev/tty",
                "/dev/ptmx",
                "/dev/pts/ptmx",
            ];
            ensure!(harmless.contains(&word), "a worker can reach {word}\n{said}");
        }
        Ok(())
    })
}

#[test]
fn t36_a_cage_that_cannot_be_built_runs_nothing() -> Result {
    on_installed(|host| {
        host.alice().holdfast("run --rm -- true")?.ok()?;
        // Its link goes with its namespace, a moment after its end was told.
        std::thread::sleep(Duration::from_secs(1));
        let count = |what: &str| host.root().run(what).map(|output| output.text());
        until("its link is gone", Duration::from_secs(5), || Ok(count("ip -o link show type veth | wc -l")? == "0"))?;
        let before = (count("ip -o link | wc -l")?, count("lsns -n -t net | wc -l")?, count("nft -s list ruleset")?);
        host.drop_in(LAUNCHER, "RestrictNamespaces=~user\nNoNewPrivileges=yes")?;
        let said = host.alice().holdfast("run -d --name no --publish 8080:80 -- sleep 12345")?;
        said.refuses(125, &["user namespace"])?;
        ensure!(count("pgrep -f 'sleep 1234[5]' | wc -l")? == "0" && host.shims()? == 0);
        let after = (count("ip -o link | wc -l")?, count("lsns -n -t net | wc -l")?, count("nft -s list ruleset")?);
        ensure!(before == after, "left over: {before:?} {after:?}");
        host.no_drop_in(LAUNCHER)?;
        let caps = host.alice().holdfast("run --rm -- grep -E ^Cap /proc/self/status")?.ok()?.text();
        ensure!(caps.lines().count() == 5 && caps.lines().all(|line| line.ends_with("0000000000000000")), "{caps}");
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
