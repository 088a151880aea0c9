//! Who may take part: the helper's own process, the sockets, the environment of the programs.

use super::{attempts, grpc};
use crate::on_installed;
use anyhow::{Context, ensure};
use holdfast_smoke::{DAEMON, HELPER, LAUNCHER, Result, until};
use std::time::Duration;

#[test]
fn t01_the_owner_can_take_nothing_from_the_helper() -> Result {
    on_installed(|host| {
        let pid = host.main_pid(HELPER)?;
        let found = attempts(host.alice(), include_str!("../probes/same_uid.py"), &pid.to_string())?;
        ensure!(found.len() >= 20, "the probes did not run: {found:?}");
        for (probe, errno) in &found {
            ensure!(["EPERM", "EACCES"].contains(&errno.as_str()), "{probe} of the helper: {errno}");
        }
        // The control: on a process of her own, the same probes work.
        let own = host.alice().start("exec sleep 300")?;
        until("her process runs", Duration::from_secs(10), || {
            Ok(host.root().run("pgrep -u alice -x sleep")?.code == 0)
        })?;
        let target = host.root().run("pgrep -u alice -x sleep")?.ok()?.text();
        let allowed = attempts(host.alice(), include_str!("../probes/same_uid.py"), &target)?;
        let done = allowed.iter().filter(|(_, outcome)| outcome == "done").count();
        ensure!(done >= 20, "the probes prove nothing: {allowed:?}");
        drop(own);
        println!("{} probes refused by the helper, {done} of them taken by a process of her own", found.len());
        // The owner's own two are of her uid: signals are hers, their memory and descriptors are not.
        for unit in [DAEMON, LAUNCHER] {
            let found = attempts(
                host.alice(),
                include_str!("../probes/same_uid.py"),
                &format!("{} read", host.main_pid(unit)?),
            )?;
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
            for (socket, errno) in attempts(host.as_user(user), include_str!("../probes/connect.py"), sockets)? {
                ensure!(errno == "EACCES", "{user} on {socket}: {errno}");
            }
        }
        // Root of a user namespace is nobody outside it.
        let feigned = host.as_user("bob").feed(
            &format!("unshare --user --map-root-user python3 - {sockets}"),
            include_bytes!("../probes/connect.py"),
        )?;
        ensure!(
            feigned.text().lines().count() == 3 && feigned.text().lines().all(|line| line.ends_with("EACCES")),
            "{feigned}"
        );
        // The helper's sockets are for the owner's programs, not for the owner.
        let own = attempts(
            host.alice(),
            include_str!("../probes/connect.py"),
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

#[test]
fn t09_the_owner_cannot_squat_on_a_socket() -> Result {
    on_installed(|host| {
        let places = "/run/holdfast /run/holdfast/owners /run/holdfast/owners/alice";
        for (attempt, errno) in attempts(host.alice(), include_str!("../probes/squat.py"), places)? {
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
