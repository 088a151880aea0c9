//! Which controllers limit workers on this host, and why one does not. Reading apart from deciding.

use super::Check;
use holdfast_proto::cgroups::{MOUNTS, slices, workers_unit};
use holdfast_proto::words::OwnerName;
use std::path::{Path, PathBuf};

/// What limits workers; without `pids` something else does.
const CONTROLLERS: [&str; 3] = ["memory", "cpu", "pids"];
const NAME: &str = "limits";

/// cgroup v2 as it is on this host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cgroups {
    /// What is in `cgroup.controllers` of its root.
    pub there: Vec<String>,
    /// `/proc/cgroups`, which says where the others are.
    pub all: String,
    /// What an installed owner's workers are given; none where they have no cgroup of their own to be asked about.
    pub workers: Option<Vec<String>>,
}

/// Why a controller is not in cgroup v2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lack {
    Kernel,
    SwitchedOff,
    V1,
    NotGiven,
}

/// Reads it; none where v2 is not mounted.
pub fn gather(owner: Option<&OwnerName>) -> Option<Cgroups> {
    let words = |path: PathBuf| {
        let text = std::fs::read_to_string(path).ok()?;
        Some(text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    };
    let mount = MOUNTS.iter().map(Path::new).find(|mount| mount.join("cgroup.controllers").exists())?;
    let place = owner.map(|owner| slices(owner).iter().collect::<PathBuf>().join(workers_unit(owner)));
    Some(Cgroups {
        there: words(mount.join("cgroup.controllers"))?,
        all: std::fs::read_to_string("/proc/cgroups").unwrap_or_default(),
        workers: place.and_then(|place| words(mount.join(place).join("cgroup.subtree_control"))),
    })
}

/// Whether `--memory`, `--cpus` and `--pids` are enforced by cgroups here, and what is in the way.
pub fn examine(cgroups: Option<&Cgroups>) -> Check {
    let Some(cgroups) = cgroups else {
        return Check::warn(
            NAME,
            "cgroup v2 is not mounted below /sys/fs/cgroup",
            "workers have no cgroups: no suspend, --memory and --cpus are refused; boot with systemd.unified_cgroup_hierarchy=1",
        );
    };
    let has = |list: &[String], name: &str| list.iter().any(|word| word == name);
    let lacks: Vec<(&str, Lack)> = CONTROLLERS
        .into_iter()
        .filter(|name| !has(&cgroups.there, name))
        .map(|name| (name, lack(&cgroups.all, name)))
        .collect();
    if let Some((_, worst)) = lacks.first() {
        let named: Vec<String> = lacks.iter().map(|(name, lack)| format!("{name} ({})", lack.text())).collect();
        return Check::warn(NAME, format!("not in cgroup v2: {}", named.join(", ")), advice(&lacks, *worst));
    }
    match &cgroups.workers {
        Some(given) if CONTROLLERS.iter().any(|name| !has(given, name)) => Check::warn(
            NAME,
            format!("workers are given only {:?}", given.join(" ")),
            "restart the launcher's unit and see what it says: journalctl -u 'holdfast-launcher@*'",
        ),
        _ => Check::ok(NAME, "memory, cpu and pids by cgroup v2"),
    }
}

fn advice(lacks: &[(&str, Lack)], lack: Lack) -> String {
    let options = lacks.iter().filter_map(|(name, _)| match *name {
        "memory" => Some("--memory"),
        "cpu" => Some("--cpus"),
        _ => None,
    });
    let options: Vec<_> = options.collect();
    let what = match options.as_slice() {
        [] => "--pids is kept by RLIMIT_NPROC instead".to_owned(),
        some => format!("{} refused without --best-effort", some.join(" and ")),
    };
    let cure = match lack {
        Lack::Kernel => "a kernel with CONFIG_MEMCG, CONFIG_CFS_BANDWIDTH and CONFIG_CGROUP_PIDS has them",
        Lack::SwitchedOff => {
            "take cgroup_disable= off the kernel's command line (Raspberry Pi: add cgroup_enable=memory)"
        }
        Lack::V1 => "boot with systemd.unified_cgroup_hierarchy=1 cgroup_no_v1=all",
        Lack::NotGiven => "whatever runs this container has to hand them on (docker: --cgroupns=private; LXC: nesting)",
    };
    format!("{what}; {cure}")
}

/// By the line `name hierarchy number enabled` of /proc/cgroups (cgroups(7)).
fn lack(all: &str, name: &str) -> Lack {
    let line =
        all.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).find(|words| words.first() == Some(&name));
    match line.as_deref() {
        None => Lack::Kernel,
        Some([_, _, _, "0"]) => Lack::SwitchedOff,
        Some([_, "0", ..]) => Lack::NotGiven,
        Some(_) => Lack::V1,
    }
}

impl Lack {
    fn text(self) -> &'static str {
        match self {
            Self::Kernel => "not in this kernel",
            Self::SwitchedOff => "switched off at boot",
            Self::V1 => "held by cgroup v1",
            Self::NotGiven => "not handed to this container",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    fn cgroups(there: &str, all: &str, workers: Option<&str>) -> Cgroups {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        Cgroups { there: words(there), all: all.to_owned(), workers: workers.map(words) }
    }

    #[test]
    fn a_host_with_all_three_has_nothing_to_hear() {
        for workers in [None, Some("cpu memory pids")] {
            let check = examine(Some(&cgroups("cpuset cpu io memory pids", "", workers)));
            assert_eq!(check.level, Level::Ok, "{check:?}");
        }
    }

    #[test]
    fn what_lacks_is_named_with_its_reason_and_its_cure() {
        let all = "#subsys_name hierarchy num_cgroups enabled\ncpu 1 1 1\nmemory 4 34 1\npids 8 1 1\n";
        for (there, all, found, advice) in [
            ("hugetlb", all, "memory (held by cgroup v1), cpu (held", "--memory and --cpus refused"),
            ("cpu pids", "memory\t0\t5\t0\n", "memory (switched off at boot)", "cgroup_enable=memory"),
            ("cpu memory", "", "pids (not in this kernel)", "RLIMIT_NPROC"),
            ("memory pids", "cpu 0 5 1\n", "cpu (not handed to this container)", "hand them on"),
        ] {
            let check = examine(Some(&cgroups(there, all, None)));
            assert!(check.found.contains(found), "{check:?}");
            assert!(check.level == Level::Warn && check.advice.as_ref().unwrap().contains(advice), "{check:?}");
        }
        assert!(examine(None).advice.unwrap().contains("unified"));
    }

    #[test]
    fn workers_that_are_given_less_than_the_host_has_are_told() {
        let check = examine(Some(&cgroups("cpu memory pids", "", Some("memory"))));
        assert!(check.level == Level::Warn && check.advice.unwrap().contains("journalctl"));
    }
}
