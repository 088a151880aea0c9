//! What a worker starts with, sees and can claim to be.

use super::grpc;
use crate::on_installed;
use anyhow::ensure;
use holdfast_smoke::{Census, DAEMON, LAUNCHER, Result, scaled, until};
use std::time::Duration;

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
