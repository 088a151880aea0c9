//! The programs that Holdfast is compared with, made ready in the same container.

use anyhow::Result;
use holdfast_smoke::Host;
use std::time::Duration;

/// Debian's own builds.
pub const PACKAGES: &[&str] = &["crun", "podman", "netavark", "iptables", "slirp4netns", "fuse-overlayfs", "uidmap"];

/// A bundle for `crun` with a network namespace of its own (no veth: crun leaves that to others), and a busybox tree
/// that `podman` takes as a root without an image.
const PREPARE: &str = r#"set -e
    mkdir -p /opt/peer/rootfs/bin /opt/peer/rootfs/proc /opt/peer/rootfs/dev /opt/peer/rootfs/sys /opt/peer/rootfs/tmp /opt/peer/rootfs/etc /opt/peer/rootfs/run
    cp /bin/busybox /opt/peer/rootfs/bin/busybox
    cp /usr/local/bin/wire /opt/peer/rootfs/bin/wire
    for name in true sleep sh; do ln -s busybox /opt/peer/rootfs/bin/$name; done
    mkdir -p /etc/containers
    printf '[storage]\ndriver = "vfs"\nrunroot = "/run/containers/storage"\ngraphroot = "/var/lib/containers/storage"\n' > /etc/containers/storage.conf
    cd /opt/peer && crun spec
    python3 - <<'EOF'
import json
spec = json.load(open('/opt/peer/config.json'))
spec['process'].update(terminal=False, args=['/bin/true'])
json.dump(spec, open('/opt/peer/config.json', 'w'))
EOF
    chmod -R a+rX /opt/peer"#;

/// `podman` as root with options that work inside the container; what follows is podman's.
pub const PODMAN: &str = "podman --cgroup-manager=cgroupfs";

/// One launch of `/bin/true`; `{}` becomes its number where several run at once.
pub const CRUN: &str = "crun --cgroup-manager=disabled run -b /opt/peer bench-{}";

/// One launch of `/bin/true` without a network.
pub const BWRAP: &str = "bwrap --unshare-all --ro-bind / / --dev /dev --proc /proc /bin/true";

/// Makes the peers ready.
pub fn prepare(host: &Host) -> Result<()> {
    host.root().run_within(Duration::from_secs(120), PREPARE)?.ok()?;
    Ok(())
}

/// One launch of `/bin/true` by podman on this network.
pub fn podman(network: &str) -> String {
    format!("{PODMAN} run --rm --network {network} --rootfs /opt/peer/rootfs /bin/true")
}

/// Whether root can run this line here: a peer that cannot is left out, and said to be.
pub fn works(host: &Host, line: &str) -> Result<bool> {
    let output = host.root().run_within(Duration::from_secs(60), &line.replace("{}", "probe"))?;
    if output.code != 0 {
        let said = output.stderr.lines().last().unwrap_or("no word").to_owned();
        println!("\nLeft out: `{line}` cannot run in this container ({said}).\n");
    }
    Ok(output.code == 0)
}
