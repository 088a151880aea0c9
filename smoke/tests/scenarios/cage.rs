//! Who holds which right: the lines of `/proc/PID/status`, the units' directives, the exposure scores.

use crate::on_installed;
use anyhow::{Context, ensure};
use holdfast_smoke::{DAEMON, HELPER, Host, LAUNCHER, Result, UNITS};

const NONE: &str = "0000000000000000";
/// CAP_NET_ADMIN (12) and CAP_NET_RAW (13).
const NET: &str = "0000000000003000";

fn holds(host: &Host, what: &str, pid: u32, lines: &[(&str, &str)]) -> Result {
    for (name, expected) in lines {
        let found = host.status_line(pid, name)?;
        ensure!(found == *expected, "{what}: {name} is {found} where {expected} was promised");
    }
    Ok(())
}

#[test]
fn helper_has_exactly_two_capabilities_and_the_others_none() -> Result {
    on_installed(|host| {
        let helper = host.main_pid(HELPER)?;
        holds(
            host,
            "helper",
            helper,
            &[
                ("CapBnd", NET),
                ("CapPrm", NET),
                ("CapEff", NET),
                ("CapInh", NONE),
                ("CapAmb", NONE),
                ("NoNewPrivs", "1"),
                ("Seccomp", "2"),
            ],
        )?;
        let uid = host.root().run("id -u holdfast")?.ok()?.text();
        ensure!(host.status_line(helper, "Uid")?.split_whitespace().all(|word| word == uid), "helper's uid");
        for unit in [DAEMON, LAUNCHER] {
            let pid = host.main_pid(unit)?;
            holds(
                host,
                unit,
                pid,
                &[
                    ("CapBnd", NONE),
                    ("CapPrm", NONE),
                    ("CapEff", NONE),
                    ("CapInh", NONE),
                    ("CapAmb", NONE),
                    ("NoNewPrivs", "1"),
                    ("Seccomp", "2"),
                ],
            )?;
            ensure!(host.status_line(pid, "Uid")?.split_whitespace().all(|word| word == "1000"), "{unit}'s uid");
        }
        for unit in UNITS {
            let pid = host.main_pid(unit)?;
            let owner = host.root().run(&format!("stat -c %U /proc/{pid}/mem"))?.ok()?.text();
            ensure!(owner == "root", "{unit} is dumpable: /proc/{pid} is {owner}'s");
        }
        Ok(())
    })
}

#[test]
fn a_worker_has_no_capability_and_a_system_call_filter() -> Result {
    on_installed(|host| {
        host.alice().run_worker("--name w -- sleep infinity")?;
        let worker = host.alice().worker("w")?.live_pid()?;
        holds(
            host,
            "worker",
            worker,
            &[
                ("CapPrm", NONE),
                ("CapEff", NONE),
                ("CapInh", NONE),
                ("CapAmb", NONE),
                ("CapBnd", NONE),
                ("NoNewPrivs", "1"),
                ("Seccomp", "2"),
            ],
        )?;
        let shim: serde_json::Value = host.alice().holdfast("inspect --json w")?.ok()?.json()?;
        let shim = shim["shim"]["pid"].as_u64().context("shim.pid")?;
        for namespace in ["user", "mnt", "pid", "net", "ipc", "uts"] {
            let read = |pid: &str| {
                host.root().run(&format!("readlink /proc/{pid}/ns/{namespace}")).map(|output| output.text())
            };
            ensure!(read(&worker.to_string())? != read("1")?, "the worker shares the host's {namespace} namespace");
            ensure!(read(&worker.to_string())? == read(&shim.to_string())?, "worker and shim differ in {namespace}");
        }
        let nested = host.alice().holdfast("run --rm -- unshare --user true")?;
        ensure!(nested.code != 0, "a worker made a nested user namespace\n{nested}");
        Ok(())
    })
}

#[test]
fn helper_never_has_a_child() -> Result {
    on_installed(|host| {
        let pid = host.main_pid(HELPER)?;
        for _ in 0..20 {
            host.alice().holdfast("run -d --rm -- sleep 0.1")?.ok()?;
            let children = host.root().run(&format!("cat /proc/{pid}/task/*/children"))?.text();
            ensure!(children.is_empty(), "the helper has children {children}");
        }
        Ok(())
    })
}

#[test]
fn units_carry_the_fixed_directives() -> Result {
    on_installed(|host| {
        for unit in UNITS {
            let expected: &[(&str, &str)] = &[
                ("KillMode", "process"),
                ("SendSIGKILL", "no"),
                ("RuntimeDirectoryPreserve", "yes"),
                ("StartLimitIntervalUSec", "0"),
                ("OOMPolicy", "continue"),
                ("NotifyAccess", "main"),
                ("Type", "notify"),
            ];
            for (property, value) in expected {
                let found = host.property(unit, property)?;
                ensure!(found == *value, "{unit}: {property}={found} where {value} was promised");
            }
            ensure!(host.property(unit, "WatchdogUSec")? != "0", "{unit} has no watchdog");
            let required = host.property(unit, "Requires")?;
            ensure!(
                !required.split_whitespace().any(|name| name.starts_with("holdfast") && name.ends_with(".service")),
                "{unit}: Requires={required}"
            );
        }
        ensure!(host.property(LAUNCHER, "PrivateTmp")? == "no" && host.property(LAUNCHER, "Delegate")? == "yes");
        ensure!(host.property(LAUNCHER, "TasksMax")? == "infinity");
        for unit in [
            "holdfast-helper.service",
            "holdfastd@alice.service",
            "holdfast-launcher@alice.service",
            "holdfast-helper.socket",
            "holdfastd@alice.socket",
            "holdfast-shutdown.service",
        ] {
            let said = host.root().run(&format!("systemd-analyze verify --man=no {unit} 2>&1 | grep -i holdfast"))?;
            ensure!(said.text().is_empty(), "{unit}\n{said}");
        }
        Ok(())
    })
}

#[test]
fn exposure_scores_are_below_their_ceilings() -> Result {
    on_installed(|host| {
        for (unit, ceiling) in [(HELPER, 1.5), (DAEMON, 0.5), (LAUNCHER, 5.5)] {
            let said = host.root().run(&format!("systemd-analyze security --no-pager {unit}"))?;
            let line = said.text().lines().find(|line| line.contains("Overall exposure level")).map(str::to_owned);
            let line = line.with_context(|| format!("no score\n{said}"))?;
            let score =
                line.rsplit_once(": ").and_then(|(_, rest)| rest.split_whitespace().next()?.parse::<f64>().ok());
            let score = score.with_context(|| line.clone())?;
            println!("{unit}: exposure {score} (ceiling {ceiling})");
            ensure!(score <= ceiling, "{unit}: exposure {score} above {ceiling}\n{said}");
        }
        Ok(())
    })
}

#[test]
fn a_worker_that_needs_much_of_the_kernel_runs() -> Result {
    on_installed(|host| {
        // Executable memory (W^X would break Node and Java), threads, its own directory, sockets of several families.
        let program = "import mmap, threading, socket, os, tempfile
m = mmap.mmap(-1, 4096, prot=7); m.write(b\"x\")
t = [threading.Thread(target=lambda: None) for _ in range(50)]
[x.start() for x in t]; [x.join() for x in t]
socket.socket(socket.AF_INET6, socket.SOCK_STREAM); socket.socketpair()
os.mkdir(tempfile.mkdtemp() + \"/d\"); print(\"all\", os.getcwd())";
        host.alice().feed("cat > much.py", program.as_bytes())?.ok()?;
        let said = host.alice().run("mkdir -p mine; holdfast run --rm --workdir ~/mine --volume ~/much.py:/mnt/much.py:ro -- python3 /mnt/much.py")?;
        ensure!(said.code == 0 && said.text() == "all /home/alice/mine", "{said}");
        Ok(())
    })
}
