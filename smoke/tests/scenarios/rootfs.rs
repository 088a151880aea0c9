//! Other cages than the default one: a tree of the owner's as the root, root inside, namespaces of the worker's own.

use crate::on_installed;
use anyhow::ensure;
use holdfast_smoke::{Host, Result};

/// A tree with one static program and its names, as little as a worker can have.
pub fn busybox_tree(host: &Host, path: &str) -> Result {
    let make = format!(
        "mkdir -p {path}/bin {path}/data {path}/usr && cp /bin/busybox {path}/bin/busybox && ln -s bin {path}/sbin \
         && for n in sh ls cat id touch mkdir env sleep true find head echo tr; do ln -sf busybox {path}/bin/$n; done; \
         echo '#!/bin/sh' > {path}/start.sh; echo 'echo started in $(ls / | tr \"\\n\" \" \")' >> {path}/start.sh; chmod +x {path}/start.sh"
    );
    host.alice().run(&make)?.ok()?;
    Ok(())
}

#[test]
fn a_tree_of_the_owners_is_the_workers_root() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        busybox_tree(host, "trees/box")?;
        let before = alice.run("cd trees/box && find . | sort | md5sum")?.text();
        let run = |options: &str, command: &str| {
            alice.holdfast(&format!("run --rm --net none --rootfs ~/trees/box {options} -- {command}"))
        };
        let said = run("", "/start.sh")?.ok()?;
        ensure!(said.text() == "started in bin data dev etc proc run sbin start.sh sys tmp usr", "{said}");
        // Its own names, devices and directories, though the tree has no place for any; nothing of the host's.
        let named = alice.holdfast("run --rm --name boxed --rootfs ~/trees/box -- sh -c 'cat /etc/hosts; cat /etc/resolv.conf; ls /home /usr /var; echo x > /tmp/x && cat /tmp/x /proc/1/comm; ls /dev'")?;
        for word in ["boxed", "localhost", "nameserver", "holdfast-shim", "urandom", "pts"] {
            ensure!(named.text().contains(word), "no {word}\n{named}");
        }
        ensure!(named.stderr.contains("/home: No such file") && named.stderr.contains("/var: No such file"), "{named}");
        let read_only = run("", "sh -c 'touch /data/x; touch /x; touch /bin/x; id -u'")?;
        ensure!(
            read_only.text() == "1000" && read_only.stderr.matches("Read-only file system").count() == 3,
            "{read_only}"
        );
        // Volumes stand where there is room, and where there is none that is said.
        alice.run("mkdir -p given && echo here > given/file")?.ok()?;
        ensure!(
            run("--volume ~/given:/data --volume ~/given:/new/place --workdir /data", "cat file /new/place/file")?
                .ok()?
                .text()
                == "here\nhere"
        );
        run("--volume ~/given:/usr/nope", "true")?.refuses(126, &["/usr/nope", "Read-only"])?;
        ensure!(alice.run("cd trees/box && find . | sort | md5sum")?.text() == before, "the tree was changed");
        // Writable where its owner says so: what is written stays.
        let write = alice.holdfast("run --rm --net none --rootfs ~/trees/box:rw -- sh -c 'echo kept > /data/kept'")?;
        ensure!(write.code == 0 && alice.run("cat trees/box/data/kept")?.text() == "kept", "{write}");
        // Also in /etc, of which the tree had none: the worker's own two files lie over empty ones.
        let etc = "sh -c 'echo mine > /etc/mine; grep -c localhost /etc/hosts; cat /etc/mine'";
        let said = alice.holdfast(&format!("run --rm --net none --rootfs ~/trees/box:rw -- {etc}"))?.ok()?;
        ensure!(said.text() == "1\nmine" || said.text() == "2\nmine", "{said}");
        ensure!(alice.run("cat trees/box/etc/mine && cat trees/box/etc/hosts")?.text() == "mine");
        let shown: serde_json::Value = {
            alice.holdfast("run -d --name look --net none --rootfs ~/trees/box:rw --user root -- sleep 60")?.ok()?;
            alice.holdfast("inspect --json look")?.ok()?.json()?
        };
        let cage = &shown["spec"]["cage"];
        ensure!(cage["rootfs"]["path"] == "/home/alice/trees/box" && cage["rootfs"]["writable"] == true, "{shown}");
        ensure!(cage["user"] == "root" && cage["allow_userns"] == false, "{shown}");
        // Bad ones change nothing.
        alice.holdfast("run --rm --rootfs ~/nope -- true")?.refuses(127, &["/home/alice/nope"])?;
        alice.holdfast("run --rm --rootfs /etc/passwd -- true")?.refuses(127, &["/etc/passwd"])?;
        alice.holdfast("run --rm --rootfs /root -- true")?.refuses(126, &["/root"])?;
        for hidden in ["/var/lib/holdfast/owners/alice", "/run/holdfast"] {
            alice.holdfast(&format!("run --rm --rootfs {hidden} -- true"))?.refuses(126, &["is not for workers"])?;
        }
        Ok(())
    })
}

#[test]
fn a_whole_debian_is_a_root_too() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        // As debootstrap leaves it: root's files, and the names of a machine that is not there.
        host.root().run("mkdir /srv/debian && mount --bind -o ro / /srv/debian")?.ok()?;
        let run = |options: &str, command: &str| {
            alice.holdfast(&format!("run --rm --rootfs /srv/debian {options} -- {command}"))
        };
        let said = run(
            "",
            "sh -c 'cat /etc/debian_version; python3 -c \"import ssl, sqlite3; print(ssl.OPENSSL_VERSION)\"; ls /home /root /var/lib/holdfast /run'",
        )?;
        ensure!(said.text().starts_with("12.") && said.text().contains("OpenSSL"), "{said}");
        ensure!(!said.text().contains("owners"), "our state shows in a tree\n{said}");
        let web = "run -d --name web --publish 8080:80 --rootfs /srv/debian --workdir /usr/share -- python3 -m http.server 80";
        alice.holdfast(web)?.ok()?;
        holdfast_smoke::until("the page is there", std::time::Duration::from_secs(20), || {
            Ok(alice.run("curl -fsS -o /dev/null http://localhost:8080/")?.code == 0)
        })?;
        let named = run("--name me", "getent hosts me")?.ok()?;
        ensure!(named.text().ends_with("me"), "names do not work in a tree\n{named}");
        let inside = alice.holdfast("exec web cat /proc/self/status")?.ok()?.text();
        ensure!(inside.contains("Seccomp:\t2") && inside.contains("CapBnd:\t0000000000000000"), "{inside}");
        Ok(())
    })
}

#[test]
fn root_inside_is_the_owner_outside() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        alice.run("mkdir -p mine && echo hers > mine/file")?.ok()?;
        let program = "import os, errno
def tried(name, act):
    try: act(); print(name, 'done')
    except OSError as e: print(name, errno.errorcode[e.errno])
print(os.getuid(), os.getgid(), os.stat('/mnt/file').st_uid, os.environ['USER'])
open('/mnt/made', 'w').write('x')
tried('chown', lambda: os.chown('/mnt/made', 33, 33))
tried('setuid', lambda: os.setuid(33))
tried('forward', lambda: open('/proc/sys/net/ipv4/ip_forward', 'w').write('1'))
tried('hostname', lambda: open('/proc/sys/kernel/hostname', 'w').write('x'))
tried('root-file', lambda: open('/etc/shadow').read())
tried('shim', lambda: os.listdir('/proc/1/fd'))
print(*[line.split()[1] for line in open('/proc/self/status') if line.startswith('Cap')], open('/proc/self/uid_map').read().split())";
        alice.feed("cat > root.py", program.as_bytes())?.ok()?;
        let line = "--user root --volume ~/mine:/mnt --volume ~/root.py:/tmp/root.py:ro";
        let said = alice.holdfast(&format!("run --rm {line} -- python3 /tmp/root.py"))?.ok()?;
        let none = "0000000000000000";
        let expected = format!(
            "0 0 0 root\nchown EINVAL\nsetuid EINVAL\nforward EROFS\nhostname EROFS\nroot-file EACCES\nshim EACCES\n{none} {none} {none} {none} {none} ['0', '1000', '1']"
        );
        ensure!(said.text() == expected, "{said}");
        ensure!(alice.run("stat -c %U mine/made")?.text() == "alice");
        // As 0 is the same with docker's number, and a program beside it is held as it is.
        alice.holdfast(&format!("run -d --name r {} -- sleep 60", line.replace("--user root", "--user 0")))?.ok()?;
        let beside = alice.holdfast("exec r python3 /tmp/root.py")?.ok()?;
        ensure!(beside.text() == expected, "{beside}");
        let nested = alice.holdfast("exec r unshare --user true")?;
        ensure!(nested.code != 0, "{nested}");
        // As whom a program runs beside it can be said, and only as it is.
        alice.holdfast("run -d --name mine --net none -- sleep 60")?.ok()?;
        for (worker, user, uid) in
            [("r", "root", "0"), ("r", "0:0", "0"), ("mine", "alice", "1000"), ("mine", "1000:1000", "1000")]
        {
            ensure!(
                alice.holdfast(&format!("exec --user {user} {worker} id -u"))?.ok()?.text() == uid,
                "{user} in {worker}"
            );
        }
        for (worker, user, has) in [
            ("r", "alice", "root (0)"),
            ("mine", "root", "alice (1000)"),
            ("mine", "0", "--user root"),
            ("mine", "1000:33", "alice"),
            ("mine", "bob", "alice"),
        ] {
            alice.holdfast(&format!("exec -u {user} {worker} true"))?.refuses(125, &[has, user])?;
        }
        for user in ["bob", "1000", "33:33"] {
            alice.holdfast(&format!("run --rm --user {user} -- true"))?.refuses(2, &["owner", "root"])?;
        }
        Ok(())
    })
}

#[test]
fn namespaces_of_its_own_are_for_those_who_ask() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        let sandbox = "bwrap --unshare-all --ro-bind / / --proc /proc --dev /dev --tmpfs /tmp --uid 0 sh -c 'id -u; ls /proc | grep -c ^[0-9]'";
        let said = alice.holdfast(&format!("run --rm --allow-userns -- {sandbox}"))?.ok()?;
        ensure!(said.text().lines().next() == Some("0"), "{said}");
        let refused = alice.holdfast(&format!("run --rm -- {sandbox}"))?;
        ensure!(refused.code != 0, "{refused}");
        // The rest of the table stays, in it and below it.
        for inside in ["", "unshare --user --map-root-user "] {
            let probe = "python3 -c 'import ctypes, socket; l = ctypes.CDLL(None, use_errno=True); print(l.syscall(250, 0, 0), ctypes.get_errno(), l.syscall(41, 16, 3, 12), ctypes.get_errno())'";
            let said = alice.holdfast(&format!("run --rm --allow-userns -- {inside}{probe}"))?.ok()?;
            ensure!(said.text() == "-1 1 -1 1", "{said}");
        }
        // Without the filter's help the kernel would still refuse: the limit of the worker's own user namespace is 0.
        let limit = alice.holdfast("run --rm -- cat /proc/sys/user/max_user_namespaces")?.ok()?.text();
        ensure!(limit == "0", "max_user_namespaces is {limit}");
        Ok(())
    })
}
