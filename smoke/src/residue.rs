//! What a host holds besides workers: taken before and after, it must be the same.

use crate::{Host, Result, UNITS};
use anyhow::{Context, bail};
use std::collections::BTreeMap;

/// Everything that a launch makes and an end must take away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Residue(BTreeMap<&'static str, Vec<String>>);

/// Each names itself and prints sorted lines. The outside's own namespace and wire are there before and after.
const PROBES: &[(&str, &str)] = &[
    ("links", "ip -o link show | sed 's/^[0-9]*: //; s/@.*//; s/:.*//' | sort"),
    ("addresses", "ip -o address show | awk '{print $2, $4}' | sort"),
    ("routes", "ip route show table all | grep -v '^ff00\\|^fe80' | sed 's/ linkdown//' | sort"),
    ("rules", "nft -s list ruleset"),
    ("namespaces", "lsns -n -o TYPE | sort | uniq -c"),
    ("cgroups", "find /sys/fs/cgroup -type d -path '*holdfast*' | sort"),
    (
        "files",
        "find /run/holdfast /var/lib/holdfast /tmp /var/tmp ! -path '*systemd-private*' ! -path '/tmp/namespace-dev-*' ! -name '*-wal' ! -name '*-shm' 2>/dev/null | sort",
    ),
    ("processes", "readlink /proc/[0-9]*/exe | grep holdfast | sort"),
    ("mounts", "cut -d' ' -f2 /proc/mounts | sort"),
];

impl Residue {
    /// Looks at the host as it is.
    pub fn take(host: &Host) -> Result<Self> {
        let mut found = BTreeMap::new();
        for (name, probe) in PROBES {
            let output = host.root().run(probe)?;
            found.insert(*name, output.text().lines().map(str::to_owned).collect());
        }
        found.insert("descriptors", descriptors(host)?);
        Ok(Self(found))
    }

    /// Must be what it was; the difference is the failure.
    pub fn must_equal(&self, before: &Self) -> Result {
        let mut lines = Vec::new();
        for (name, now) in &self.0 {
            let then = before.0.get(name).context("both were taken alike")?;
            lines.extend(
                now.iter().filter(|line| !then.contains(line)).map(|line| format!("{name}: left over: {line}")),
            );
            lines.extend(then.iter().filter(|line| !now.contains(line)).map(|line| format!("{name}: missing: {line}")));
            if now.len() != then.len() {
                lines.push(format!("{name}: {} lines, {} before", now.len(), then.len()));
            }
        }
        if lines.is_empty() { Ok(()) } else { bail!("the host is not as before:\n{}", lines.join("\n")) }
    }

    /// Looks until it is what it was, for at most two seconds: an end may be announced before the last link is gone.
    pub fn must_become(host: &Host, before: &Self) -> Result {
        let settled = crate::until("the host is as before", std::time::Duration::from_secs(2), || {
            Ok(Self::take(host)?.must_equal(before).is_ok())
        });
        if settled.is_err() { Self::take(host)?.must_equal(before) } else { Ok(()) }
    }
}

/// How many descriptors each main holds.
fn descriptors(host: &Host) -> Result<Vec<String>> {
    UNITS
        .iter()
        .map(|unit| {
            let listing = host.path(&format!("/proc/{}/fd", host.main_pid(unit)?));
            let count = std::fs::read_dir(&listing).with_context(|| format!("list {}", listing.display()))?.count();
            Ok(format!("{unit} {count}"))
        })
        .collect()
}

/// One hash over names, modes, owners, link targets and contents below `paths`: equal trees have equal hashes.
/// The lines are kept, so that a difference can be shown.
pub fn tree_hash(host: &Host, paths: &str) -> Result<Vec<String>> {
    let script = format!(
        "find {paths} -xdev \\( -type f -printf '%p %m %u:%g ' -exec sha256sum {{}} \\; \
         -o -type l -printf '%p -> %l\\n' -o -printf '%p %m %u:%g\\n' \\) 2>/dev/null | sed 's,  /.*,,' | sort"
    );
    Ok(host.root().run(&script)?.text().lines().map(str::to_owned).collect())
}
