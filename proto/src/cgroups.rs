//! What an owner's slice and cgroups are called: the units, the launcher and whoever looks from outside agree on it.
//!
//! An installed owner has a slice with two units in it, `holdfast-launcher@U.service` and `holdfast-workers@U.service`;
//! workers live below the latter. A slice `a-b.slice` lies in `a.slice` (systemd.slice(5)), and owners may be called
//! `john` and `john-doe`: the `:`, which no owner's name has, keeps any owner's slice from being another's parent.

use crate::words::OwnerName;

/// Where cgroup v2 may be mounted: alone, or beside v1.
pub const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// The owner's slice and those it lies in, the outermost first.
pub fn slices(owner: &OwnerName) -> Vec<String> {
    let own = format!("holdfast-{owner}:");
    let above = own.match_indices('-').map(|(dash, _)| format!("{}.slice", &own[..dash]));
    above.chain([format!("{own}.slice")]).collect()
}

/// Whether systemd takes the owner's name in a slice's: it refuses two dashes in a row.
pub fn has_slice(owner: &OwnerName) -> bool {
    !owner.as_str().contains("--")
}

/// The unit whose cgroup the owner's workers live in.
pub fn workers_unit(owner: &OwnerName) -> String {
    format!("holdfast-workers@{owner}.service")
}

/// The unit of the owner's launcher.
pub fn launcher_unit(owner: &OwnerName) -> String {
    format!("holdfast-launcher@{owner}.service")
}

/// The cgroup of workers that stands beside a launcher's, by the name of the launcher's: a unit's or a session's.
pub fn beside(launcher: &str) -> Option<String> {
    match launcher {
        "launcher" => Some("workers".to_owned()),
        _ => Some(format!("holdfast-workers@{}", launcher.strip_prefix("holdfast-launcher@")?)),
    }
}

/// The v2 entry of `/proc/PID/cgroup` (cgroups(7)).
pub fn unified_path(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(owner: &str) -> String {
        slices(&owner.parse().unwrap()).join("/")
    }

    #[test]
    fn slices_lie_where_systemd_puts_them() {
        assert_eq!(path("alice"), "holdfast.slice/holdfast-alice:.slice");
        assert_eq!(path("john-doe"), "holdfast.slice/holdfast-john.slice/holdfast-john-doe:.slice");
    }

    #[test]
    fn no_owners_slice_lies_in_anothers() {
        let owners = ["john", "john-doe", "john-doe-", "john_", "john_-x", "a.b", "a.b-c", "j"];
        for owner in owners {
            let own = slices(&owner.parse().unwrap()).pop().unwrap();
            let inside = owners.iter().filter(|other| path(other).contains(&own)).collect::<Vec<_>>();
            assert_eq!(inside, [&owner], "{own}");
        }
    }

    #[test]
    fn workers_are_beside_their_launcher() {
        let owner: OwnerName = "john-doe".parse().unwrap();
        assert_eq!(beside(&launcher_unit(&owner)), Some(workers_unit(&owner)));
        assert_eq!(beside("launcher").as_deref(), Some("workers"));
        assert_eq!(beside("user@1000.service"), None);
    }

    #[test]
    fn a_name_with_two_dashes_in_a_row_has_no_slice() {
        assert!(has_slice(&"john-doe-".parse().unwrap()) && !has_slice(&"john--doe".parse().unwrap()));
    }

    #[test]
    fn v2_path_is_found_among_v1_lines() {
        assert_eq!(unified_path("4:memory:/x\n0::/system.slice/a.service\n"), Some("/system.slice/a.service"));
        assert_eq!(unified_path("4:memory:/x\n"), None);
    }
}
