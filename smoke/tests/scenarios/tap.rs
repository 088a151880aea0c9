//! A virtual machine in a worker: the tap device that is made for it, its way out, and who else gets hold of either.

use crate::modes::grant;
use crate::on_installed;
use anyhow::{Context, ensure};
use holdfast_smoke::{DAEMON, HELPER, Host, LAUNCHER, Outside, Result, Running, until};
use std::time::Duration;

/// The device that every ordinary host has, with the mode that udev gives it.
fn with_device(host: &Host) -> Result {
    host.root().run("mkdir -p /dev/net && rm -f /dev/net/tun && mknod -m 666 /dev/net/tun c 10 200")?.ok()?;
    grant(host, r#"networks = ["none", "bridge", "tap"]"#)?;
    host.alice().feed("cat > guest.py", include_bytes!("probes/guest.py"))?.ok().map(drop)
}

/// Echoes UDP on this port of every address.
fn echo(port: u16) -> String {
    format!(
        "exec python3 -c 'import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind((\"\", {port}))\nwhile 1: s.sendto(*s.recvfrom(99))'"
    )
}

fn run_guest(host: &Host, options: &str, places: &str) -> Result {
    host.alice().run_worker(&format!(
        "--name vm --net tap {options} --volume ~/guest.py:/mnt/guest.py:ro -- python3 /mnt/guest.py {places}"
    ))?;
    until("the guest has a gateway", Duration::from_secs(20), || {
        Ok(host.alice().holdfast("logs vm")?.text().contains("gateway"))
    })
    .map(drop)
}

#[test]
fn a_virtual_machine_has_its_workers_address_and_ports() -> Result {
    on_installed(|host| {
        let outside = Outside::attach(host)?;
        let alice = host.alice();
        alice.holdfast("run --net tap -- true")?.refuses(125, &["rule networks", "tap", "rules.toml"])?;
        grant(host, r#"networks = ["none", "bridge", "tap"]"#)?;
        let cannot = || alice.holdfast("run --net tap -- true")?.refuses(125, &["/dev/net/tun", "modprobe tun"]);
        cannot().context("with a device for root alone")?;
        host.root().run("rm -f /dev/net/tun")?.ok()?;
        cannot().context("without the device")?;
        host.root().run("sed -i '/^networks = /d' /etc/holdfast/rules.toml")?.ok()?;
        with_device(host)?;
        let (_far, _near): (Running, Running) = (outside.start(&echo(9999))?, host.root().start(&echo(9998))?);
        let (far, near) = (format!("{}:9999", Outside::CLIENT), format!("{}:9998", Outside::HOST));
        run_guest(host, "--publish 9000:53/udp", &format!("{far} {near}"))?;
        let logs = || Ok::<_, anyhow::Error>(alice.holdfast("logs vm")?.text());
        until("the guest hears the outside", Duration::from_secs(20), || {
            Ok(logs()?.contains(&format!("answer {} 9999", Outside::CLIENT)))
        })?;
        let ask = "python3 -c 'import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5); s.sendto(b\"ping\", (sys.argv[1], 9000)); print(s.recv(99).decode())'";
        let asked = |output: Result<holdfast_smoke::Output>| Ok::<_, anyhow::Error>(output?.ok()?.text());
        let check = || -> Result {
            ensure!(asked(alice.run(&format!("{ask} 127.0.0.1")))? == "guest:ping", "by localhost");
            ensure!(asked(outside.run(&format!("{ask} {}", Outside::HOST)))? == "guest:ping", "from outside");
            Ok(())
        };
        check()?;
        let shown = alice.worker("vm")?;
        ensure!(logs()?.contains(&format!("guest {}", shown.address()?)), "{shown:?}\n{}", logs()?);
        ensure!(!logs()?.contains("9998"), "a guest reached a service of the host: {}", logs()?);
        host.kill_mains(&[HELPER, DAEMON, LAUNCHER])?;
        until("it serves again", Duration::from_secs(20), || Ok(alice.holdfast("ps")?.code == 0))?;
        check()?;
        alice.holdfast("rm -f vm")?.ok()?;
        until("nothing is left", Duration::from_secs(20), || {
            Ok(host.root().run("ip -o link | grep -c -E ': (hf|tap)'")?.text() == "0")
        })?;
        Ok(())
    })
}

/// Opens a tap device by name and says what came of it.
const OPEN: &str = "python3 -c 'import errno, fcntl, os, struct, sys
try:
    fd = os.open(\"/dev/net/tun\", os.O_RDWR); fcntl.ioctl(fd, 0x400454CA, struct.pack(\"16sH22x\", sys.argv[1].encode(), 0x1002)); print(\"opened\")
except OSError as e: print(errno.errorcode[e.errno])'";

#[test]
fn t28_nobody_else_opens_a_workers_tap() -> Result {
    on_installed(|host| {
        with_device(host)?;
        run_guest(host, "", "")?;
        let alice = host.alice();
        // Outside there is no such device, and nobody without the right makes one.
        for user in ["alice", "bob", "nobody"] {
            let said = host.as_user(user).run(&format!("{OPEN} tap0"))?.ok()?.text();
            ensure!(said == "EPERM", "{user} opened a worker's tap: {said}");
        }
        // Inside, it has one user at a time, and no second device can be had.
        alice.feed("cat > open.sh", OPEN.replace("sys.argv[1]", "os.environ[\"NAME\"]").as_bytes())?.ok()?;
        for (name, answer) in [("tap0", "EBUSY"), ("tap1", "EPERM"), ("eth0", "EINVAL")] {
            let script = OPEN.replace("sys.argv[1]", &format!("\"{name}\"")).replace("python3 -c ", "");
            let said = alice.holdfast(&format!("exec vm -- python3 -c {script}"))?.ok()?.text();
            ensure!(said == answer || name == "eth0" && said == "EPERM", "{name} inside: {said}");
        }
        // Nor has another worker any part in it.
        let said = alice.holdfast("run --rm -- ls -d /dev/net /dev/kvm")?;
        ensure!(said.code != 0 && said.text().is_empty(), "a worker of another network has the device\n{said}");
        // The next program of the worker finds it as the first one did.
        let pid = alice.holdfast("exec vm -- pgrep -f guest.py")?.text();
        ensure!(!pid.is_empty());
        alice.holdfast("stop -t 0 vm")?.ok()?;
        alice.holdfast("start vm")?.ok()?;
        until("it opens it again", Duration::from_secs(20), || {
            Ok(alice.holdfast("logs vm")?.text().matches("gateway").count() == 2)
        })?;
        Ok(())
    })
}
