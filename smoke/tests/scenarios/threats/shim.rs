//! What a worker tries on its own shim, on the shim's files, and with files that are not what they seem.

use crate::on_installed;
use anyhow::ensure;
use holdfast_smoke::{ExitShown, Result, User, scaled, until};
use std::time::Duration;

/// Runs a Python program in a worker with these options; what it printed.
fn inside(alice: User<'_>, options: &str, program: &str) -> Result<String> {
    alice.feed("cat > probe.py", program.as_bytes())?.ok()?;
    let line = format!("run --rm --net none --volume ~/probe.py:/mnt/probe.py:ro {options} -- python3 /mnt/probe.py");
    Ok(alice.holdfast(&line)?.ok()?.text())
}

#[test]
fn t29_no_worker_writes_to_the_programs_that_run_it() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        let sums = || host.root().run("sha256sum /usr/local/lib/holdfast/current/*").map(|output| output.text());
        let before = sums()?;
        let rounds = scaled(200);
        let program = format!(
            "import os
paths = ['/proc/1/exe', '/proc/1/map_files', '/proc/1/task/1/exe'] + ['/usr/local/lib/holdfast/current/' + n for n in ('holdfast-shim', 'holdfast-launcher', 'holdfast')]
opened = set()
for _ in range({rounds}):
    for path in paths:
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC) + ((os.O_RDONLY,) if path.startswith('/proc') else ()):
            try: os.close(os.open(path, flags)); opened.add(path + ' %d' % flags)
            except OSError: pass
        for name, act in dict(unlink=lambda: os.unlink(path), rename=lambda: os.rename(path, path + 'x'), chmod=lambda: os.chmod(path, 0o777)).items():
            try: act(); opened.add(path + ' ' + name)
            except OSError: pass
print('opened', sorted(opened))"
        );
        let said = inside(alice, "", &program)?;
        ensure!(said == "opened []", "a worker got hold of a program that runs it: {said}");
        // A script whose interpreter is whoever executes it: the shim, which starts nothing then.
        alice.run("printf '#!/proc/self/exe\\n' > self && chmod +x self && ln -s /proc/self/exe link")?.ok()?;
        for program in ["/mnt/self", "/mnt/link", "/proc/self/exe", "/proc/1/exe"] {
            let line = format!(
                "run --rm --net none --volume ~/self:/mnt/self --volume ~/link:/mnt/link -- {program} --version"
            );
            let said = alice.holdfast(&line)?;
            ensure!(!said.text().contains("worker"), "{said}");
        }
        ensure!(sums()? == before, "before {before}\nafter {}", sums()?);
        Ok(())
    })
}

#[test]
fn t44_no_worker_forges_its_record_or_its_output() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        // The same directory under another name, as an administrator may have it.
        host.root().run("mkdir -p /srv/alias /srv/deep && mount --bind /var/lib/holdfast /srv/alias && mount --bind /var/lib/holdfast/owners/alice /srv/deep")?.ok()?;
        let program = "import glob, os
tops = ['/var/lib/holdfast', '/srv/alias', '/srv/deep', '/run/holdfast', '/proc/1/root', '/proc/1/cwd', '/proc/self/root/var/lib/holdfast']
tops += ['/proc/1/fd/%d' % n for n in range(40)] + ['/proc/1/task/1/root', '/proc/1/root/var/lib/holdfast', '/proc/1/ns/mnt']
found = []
for top in tops:
    for name in ('exit.1', '.exit.1', 'log', 'log/1', 'x'):
        path = top + '/' + name
        for act in (lambda: os.open(path, os.O_CREAT | os.O_WRONLY), lambda: os.mkdir(path), lambda: os.symlink('/tmp/x', path), lambda: os.unlink(path)):
            try: act(); found.append(path)
            except OSError: pass
for top in tops[:4]:
    for where, folders, files in os.walk(top): found += [where + '/' + f for f in files]
print('reached', found)
raise SystemExit(7)";
        alice.feed("cat > forge.py", program.as_bytes())?.ok()?;
        let forge = "--volume ~/forge.py:/mnt/forge.py:ro -- python3 /mnt/forge.py";
        alice.run_worker(&format!("--name forger --net none {forge}"))?;
        ensure!(alice.holdfast("wait forger")?.ok()?.text() == "7");
        let said = alice.holdfast("logs forger")?.ok()?.text();
        ensure!(said == "reached []", "a worker reached its record or its log: {said}");
        ensure!(alice.worker("forger")?.exit == Some(ExitShown::code(7)), "{:?}", alice.worker("forger")?);
        for source in
            ["/srv/alias", "/srv/deep", "/srv/deep/workers", "/var/lib/holdfast/owners/alice", "/run/holdfast/owners"]
        {
            let said = alice.holdfast(&format!("run --rm --net none --volume {source}:/mnt -- true"))?;
            said.refuses(126, &["is not for workers"])?;
        }
        // One that holds them is shown without them.
        let said = alice.holdfast("run --rm --net none --volume /:/mnt:ro -- find /mnt/var/lib/holdfast /mnt/srv/alias /mnt/srv/deep /mnt/run/holdfast -mindepth 1")?.ok()?;
        ensure!(said.text().is_empty(), "a volume shows our directories\n{said}");
        Ok(())
    })
}

#[test]
fn t45_a_worker_cannot_hurt_its_own_shim() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        alice.feed("cat > same_uid.py", include_bytes!("../probes/same_uid.py"))?.ok()?;
        let script = "python3 /mnt/same_uid.py 1; head -c 200000 /dev/zero | tr \"\\0\" x; exit 7";
        let line = format!("--name hostile --net none --volume ~/same_uid.py:/mnt/same_uid.py:ro -- sh -c '{script}'");
        alice.run_worker(&line)?;
        until("its end is recorded", Duration::from_secs(40), || Ok(alice.worker("hostile")?.exit.is_some()))?;
        let said = alice.holdfast("logs hostile")?.ok()?.text();
        let kept = said.bytes().filter(|byte| *byte == b'x').count();
        ensure!(kept >= 200_000, "{kept} of 200000 bytes were kept");
        let tried: Vec<_> = said.lines().filter_map(|line| line.split_once(' ')).collect();
        ensure!(tried.len() >= 30, "{tried:?}");
        for (probe, answer) in tried {
            // PID 1 of a namespace gets no signal from inside that it has no handler for (pid_namespaces(7)).
            let harmless = probe.starts_with("sig");
            ensure!(harmless || ["EPERM", "EACCES"].contains(&answer), "{probe} of the shim: {answer}");
        }
        ensure!(alice.worker("hostile")?.exit == Some(ExitShown::code(7)));
        Ok(())
    })
}

#[test]
fn t51_a_setuid_program_or_a_device_file_in_a_bind_gains_nothing() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        // Setuid root and setgid shadow, and what /dev/zero and /dev/kmsg are: in the host's tree and in volumes.
        let plant = |directory: &str| {
            format!(
                "mkdir -p {directory} && cp /usr/bin/python3 {directory}/python && chmod 6755 {directory}/python \
                 && mknod -m 666 {directory}/zero c 1 5 && mknod -m 666 {directory}/kmsg c 1 11 && mknod -m 666 {directory}/disk b 7 0"
            )
        };
        for directory in ["/opt/planted", "/home/alice/planted"] {
            host.root().run(&plant(directory))?.ok()?;
        }
        // The control: outside, both work.
        let outside = alice.run("/opt/planted/python -c 'import os; print(os.geteuid(), len(open(\"/opt/planted/zero\", \"rb\").read(3)))'")?.ok()?;
        ensure!(outside.text() == "0 3", "the control failed: {outside}");
        let program = "import os, subprocess
for top in ('/opt/planted', '/mnt/rw', '/mnt/ro'):
    ids = subprocess.run([top + '/python', '-c', 'import os; print(*os.getresuid(), *os.getresgid())'], capture_output=True, text=True)
    print(top, 'ids', ids.stdout.strip())
    for name in ('zero', 'kmsg', 'disk'):
        try: open(top + '/' + name, 'rb'); print(top, name, 'opened')
        except OSError as e: print(top, name, e.strerror)
for name in ('/tmp/made', '/dev/made', '/mnt/rw/made', '/dev/shm/made'):
    try: os.mknod(name, 0o20666, os.makedev(1, 5)); print(name, 'made')
    except OSError as e: print(name, 'not made')
flags = [line.split()[4:6] for line in open('/proc/self/mountinfo')]
print('loose', [point for point, flags in flags if 'nosuid' not in flags or ('nodev' not in flags and not point.startswith('/dev/'))])";
        let said = inside(alice, "--volume ~/planted:/mnt/rw --volume ~/planted:/mnt/ro:ro", program)?;
        for line in said.lines() {
            let (place, answer) = line.rsplit_once(' ').unwrap_or((line, ""));
            if place.contains(" ids ") {
                ensure!(line.ends_with("ids 1000 1000 1000 1000 1000 1000"), "a setuid program gained by {line}");
            } else if line.starts_with("loose") {
                ensure!(line == "loose []", "mounts without nosuid or nodev: {line}");
            } else {
                ensure!(answer == "denied" || answer == "made" && place.ends_with("not"), "{line}");
            }
        }
        ensure!(said.lines().count() == 17, "{said}");
        Ok(())
    })
}
