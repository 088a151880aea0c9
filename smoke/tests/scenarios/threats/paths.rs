//! Paths that change under the shim's feet, and files of a tree that it must not touch.

use crate::on_installed;
use crate::rootfs::busybox_tree;
use anyhow::ensure;
use holdfast_smoke::{LAUNCHER, Output, Result, User, scaled, until};
use std::time::Duration;

/// Runs `line` often while two names are exchanged without pause; what each run said.
fn while_swapping(alice: User<'_>, a: &str, b: &str, line: &str) -> Result<Vec<Output>> {
    alice.feed("cat > swap.py", include_bytes!("../probes/swap.py"))?.ok()?;
    let mut swapper = alice.start(&format!("exec python3 -u swap.py {a} {b}"))?;
    let said: Result<Vec<Output>> = (0..scaled(40)).map(|_| alice.holdfast(line)).collect();
    ensure!(swapper.runs()?, "the swapper gave up: {}", swapper.kill()?);
    said
}

#[test]
fn t31_no_swapped_path_leads_out_of_the_workers_root() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        alice.run("mkdir -p a/real b canary && echo seen > b/marker && ln -s /tmp a/link && mkdir /tmp/new && ln -s /home/alice/canary a/out")?.ok()?;
        let listed = || alice.run("find a canary /tmp/new | sort").map(|output| output.text());
        let before = listed()?;
        let line = |target: &str| {
            format!(
                "run --rm --net none --volume ~/a:/data --volume ~/b:{target} -- sh -c 'find /data /tmp -name marker 2>/dev/null | head -n 1'"
            )
        };
        // Standing still: a symlink in a volume leads within the worker's root, and nothing is made in the volume.
        let followed = alice.holdfast(&line("/data/link/new"))?.ok()?;
        ensure!(followed.text() == "/tmp/new/marker", "a volume was mounted out of the worker's root\n{followed}");
        for target in ["/data/real/new", "/data/out/new"] {
            alice.holdfast(&line(target))?.refuses(126, &["Read-only"])?;
        }
        ensure!(listed()? == before, "the host's tree was changed\n{}", listed()?);
        // Each destination, exchanged while it is looked up.
        let (mut mounted, mut refused) = (0, 0);
        for link in ["a/link", "a/out"] {
            for said in while_swapping(alice, "a/real", link, &line("/data/real/new"))? {
                match said.code {
                    0 => {
                        ensure!(
                            said.text().ends_with("marker"),
                            "a volume was mounted out of the worker's root\n{said}"
                        );
                        mounted += 1;
                    }
                    // 127 where the link, followed inside, led to a directory that the worker does not have.
                    126 | 127 => refused += 1,
                    _ => ensure!(false, "{said}"),
                }
            }
            alice.run(&format!("test -d a/real || mv --exchange a/real {link} 2>/dev/null || python3 -c 'import ctypes; ctypes.CDLL(None).syscall(316, -100, b\"a/real\", -100, b\"{link}\", 2)'"))?.ok()?;
        }
        ensure!(listed()? == before, "the host's tree was changed\n{}", listed()?);
        // A source that is at times ours.
        alice.run("mkdir -p s && echo x > s/plain && ln -s /var/lib/holdfast/owners/alice t")?.ok()?;
        let (mut plain, mut kept) = (0, 0);
        for said in while_swapping(alice, "s", "t", "run --rm --net none --volume ~/s:/mnt -- ls /mnt")? {
            match said.code {
                0 => {
                    ensure!(said.text() == "plain", "something else than what was looked at was mounted\n{said}");
                    plain += 1;
                }
                126 | 127 => kept += 1,
                _ => ensure!(false, "{said}"),
            }
        }
        println!(
            "destinations: {mounted} mounted inside, {refused} refused; sources: {plain} as looked at, {kept} refused"
        );
        Ok(())
    })
}

#[test]
fn t31_no_swapped_directory_of_a_tree_shows_the_host() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        busybox_tree(host, "tree")?;
        alice.run("mkdir -p secret && echo hers > secret/word && ln -s /home/alice/secret tree/elsewhere")?.ok()?;
        let line = "run --rm --net none --rootfs ~/tree:rw -- sh -c 'cat /data/word /elsewhere/word; true'";
        let mut counts = [0; 2];
        for said in while_swapping(alice, "tree/data", "tree/elsewhere", line)? {
            ensure!(!said.text().contains("hers"), "a worker was shown a directory that it was not given\n{said}");
            // One that changed between two looks stops the launch.
            ensure!(said.code == 0 || said.stderr.contains("bind /"), "{said}");
            counts[usize::from(said.code != 0)] += 1;
        }
        println!("{} started, {} stopped at a name that had become a symlink", counts[0], counts[1]);
        Ok(())
    })
}

#[test]
fn t32_the_shim_loads_nothing_from_a_tree() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        busybox_tree(host, "tree")?;
        let plant = "mkdir -p tree/etc tree/lib/x86_64-linux-gnu && for d in passwd group hosts; do echo \"$d: evil files\"; done > tree/etc/nsswitch.conf \
            && for n in nss_evil.so.2 c.so.6 gcc_s.so.1; do cp /bin/true tree/lib/x86_64-linux-gnu/lib$n; done && cp /bin/true tree/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 && ln -s lib tree/lib64";
        alice.run(plant)?.ok()?;
        let launcher = host.main_pid(LAUNCHER)?;
        let tracer = host.root().start(&format!(
            "exec strace -f -qq -e trace=open,openat,openat2,execve,execveat -o /tmp/trace -p {launcher}"
        ))?;
        until("the launcher is traced", Duration::from_secs(10), || {
            Ok(host.status_line(launcher, "TracerPid")? != "0")
        })?;
        let said = alice.holdfast("run --rm --rootfs ~/tree -- true")?;
        tracer.kill()?;
        let trace = host.root().run("cat /tmp/trace")?.ok()?.text();
        let _ = said.ok()?;
        ensure!(trace.contains("execveat") && trace.contains("self/mountinfo"), "the shim was not traced\n{trace}");
        let touched: Vec<_> = trace
            .lines()
            .filter(|line| ["nss", ".so", "locale", "gconv"].iter().any(|word| line.contains(word)))
            .collect();
        ensure!(touched.is_empty(), "the shim looked for a library in the worker's tree: {touched:#?}");
        Ok(())
    })
}

#[test]
fn t33_no_socket_of_ours_is_abstract() -> Result {
    on_installed(|host| {
        host.alice().run_worker("--name w -- sleep infinity")?;
        let listed = host.root().run("cat /proc/net/unix")?.ok()?.text();
        let shim: serde_json::Value = host.alice().holdfast("inspect --json w")?.ok()?.json()?;
        let inside = host.root().run(&format!("cat /proc/{}/net/unix", shim["shim"]["pid"]))?.ok()?.text();
        ensure!(listed.contains("/run/holdfast/helper.sock"), "{listed}");
        for line in listed.lines().chain(inside.lines()) {
            let name = line.split_whitespace().nth(7).unwrap_or_default();
            ensure!(!(name.starts_with('@') && name.contains("holdfast")), "an abstract socket of ours: {line}");
        }
        // Nor is one of others' in reach: a worker has a network namespace of its own, and that is where they live.
        let _listener = host.alice().start("exec python3 -c 'import socket, time; s = socket.socket(socket.AF_UNIX); s.bind(\"\\0holdfast-host\"); s.listen(); time.sleep(60)'")?;
        until("it listens", Duration::from_secs(10), || {
            Ok(host.root().run("grep -q @holdfast-host /proc/net/unix")?.code == 0)
        })?;
        let said = host.alice().holdfast(
            "run --rm -- python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect(\"\\0holdfast-host\")'",
        )?;
        ensure!(
            said.code != 0 && said.stderr.contains("refused"),
            "a worker reached an abstract socket of the host\n{said}"
        );
        Ok(())
    })
}
