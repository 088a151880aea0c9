//! Directives of the units that are fixed: what keeps workers alive, and what each program may do.

#![allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Directives of one unit file: every value that a name has, in order.
type Directives = BTreeMap<String, Vec<String>>;

/// Holds the workers' cgroups and does nothing.
const WORKERS: &str = "holdfast-workers@.service";

const LONG_LIVED: [&str; 3] = ["holdfast-helper.service", "holdfastd@.service", "holdfast-launcher@.service"];

fn read(unit: &str) -> Directives {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(unit);
    let text = fs::read_to_string(&path).unwrap();
    let mut found = Directives::new();
    for line in text.lines().filter(|line| !line.starts_with(['#', '['])) {
        if let Some((name, value)) = line.split_once('=') {
            found.entry(name.to_owned()).or_default().push(value.to_owned());
        }
    }
    found
}

fn only<'a>(unit: &'a Directives, name: &str) -> Option<&'a str> {
    match unit.get(name).map(Vec::as_slice) {
        Some([value]) => Some(value),
        None => None,
        Some(several) => panic!("{name} has several values: {several:?}"),
    }
}

#[test]
fn workers_outlive_every_unit() {
    for name in LONG_LIVED {
        let unit = read(name);
        for (directive, value) in [
            ("KillMode", "process"),
            ("SendSIGKILL", "no"),
            ("RuntimeDirectoryPreserve", "yes"),
            ("StartLimitIntervalSec", "0"),
            ("OOMPolicy", "continue"),
            ("NotifyAccess", "main"),
            ("Type", "notify"),
            ("Restart", "always"),
            ("WatchdogSec", "30s"),
            ("WatchdogSignal", "SIGKILL"),
            ("UMask", "0077"),
            ("NoNewPrivileges", "yes"),
        ] {
            assert_eq!(only(&unit, directive), Some(value), "{name}: {directive}");
        }
        for never in ["Requires", "BindsTo", "PartOf", "Requisite"] {
            assert_eq!(unit.get(never), None, "{name}: a stop of another unit would stop this one");
        }
        assert!(only(&unit, "ExecStart").unwrap().starts_with("/usr/local/lib/holdfast/current/"), "{name}");
    }
}

/// T48: neither a kill for lack of memory nor a stop, a crash or a restart of a unit reaches a worker.
#[test]
fn workers_have_a_unit_of_their_own_that_nothing_stops() {
    let unit = read(WORKERS);
    for (directive, value) in [
        ("KillMode", "process"),
        ("SendSIGKILL", "no"),
        ("OOMPolicy", "continue"),
        ("StartLimitIntervalSec", "0"),
        ("Delegate", "yes"),
        ("TasksMax", "infinity"),
        // Beside live workers it could not be started again once a controller is enabled below it.
        ("RefuseManualStop", "yes"),
        ("ExitType", "cgroup"),
        ("Restart", "always"),
        ("Type", "notify"),
        ("NotifyAccess", "main"),
        ("User", "%i"),
        ("CapabilityBoundingSet", ""),
        ("AmbientCapabilities", ""),
        ("NoNewPrivileges", "yes"),
    ] {
        assert_eq!(only(&unit, directive), Some(value), "{directive}");
    }
    for never in ["Requires", "BindsTo", "PartOf", "Requisite", "WatchdogSec", "ProtectControlGroups"] {
        assert_eq!(unit.get(never), None, "{never}");
    }
    let launcher = read("holdfast-launcher@.service");
    // The character after the name keeps one owner's slice from lying in another's (proto/src/cgroups.rs).
    for unit in [&unit, &launcher] {
        assert_eq!(only(unit, "Slice"), Some("holdfast-%i:.slice"));
    }
    for order in ["Wants", "After"] {
        assert!(only(&launcher, order).unwrap().ends_with(" holdfast-workers@%i.service"), "{order}");
    }
    // As root, and none of its failures keeps the launcher from starting.
    let opens = "-+/usr/local/lib/holdfast/current/holdfast system open-slice --owner %i";
    assert_eq!(only(&launcher, "ExecStartPre"), Some(opens));
    for name in LONG_LIVED {
        assert_eq!(only(&read(name), "OOMPolicy"), Some("continue"), "{name}");
    }
}

#[test]
fn the_helper_has_two_capabilities_and_the_others_none() {
    let helper = read("holdfast-helper.service");
    for set in ["AmbientCapabilities", "CapabilityBoundingSet"] {
        assert_eq!(only(&helper, set), Some("CAP_NET_ADMIN CAP_NET_RAW"));
        for unit in ["holdfastd@.service", "holdfast-launcher@.service"] {
            assert_eq!(only(&read(unit), set), Some(""), "{unit}");
        }
    }
    assert_eq!(only(&helper, "User"), Some("holdfast"));
    assert_eq!(only(&helper, "RuntimeDirectory"), Some("holdfast/helper"));
    for never in ["PrivateNetwork", "PrivateUsers"] {
        assert_eq!(helper.get(never), None, "{never} breaks the helper's work");
    }
}

#[test]
fn the_launchers_cage_is_every_workers_cage() {
    let unit = read("holdfast-launcher@.service");
    for never in [
        "PrivateTmp",
        "PrivateDevices",
        "PrivateNetwork",
        "PrivateUsers",
        "ProtectHome",
        "ProtectSystem",
        "ProtectKernelTunables",
        "ProtectKernelLogs",
        "ProtectControlGroups",
        "ProcSubset",
        "MemoryDenyWriteExecute",
        "RestrictNamespaces",
        "RestrictAddressFamilies",
        "RestrictSUIDSGID",
        "IPAddressDeny",
        "DevicePolicy",
    ] {
        assert_eq!(unit.get(never), None, "{never} would break workers");
    }
    // Only what nobody without capabilities in the host can do anyway.
    assert_eq!(only(&unit, "SystemCallFilter"), Some("~@module @raw-io @reboot @swap"));
    assert_eq!(only(&unit, "SystemCallErrorNumber"), Some("EPERM"));
    assert_eq!((only(&unit, "Delegate"), only(&unit, "TasksMax")), (Some("yes"), Some("infinity")));
}

#[test]
fn owners_units_belong_to_the_owner_and_reach_the_helper() {
    for name in ["holdfastd@.service", "holdfast-launcher@.service"] {
        let unit = read(name);
        assert_eq!((only(&unit, "User"), only(&unit, "SupplementaryGroups")), (Some("%i"), Some("holdfast")), "{name}");
        assert_eq!(only(&unit, "StateDirectory"), Some("holdfast/owners/%i"), "{name}");
        assert_eq!(only(&unit, "RuntimeDirectory"), Some("holdfast/owners/%i/workers"), "{name}");
        assert_eq!(only(&unit, "StateDirectoryMode"), Some("0700"), "{name}");
        assert_eq!(only(&unit, "RuntimeDirectoryMode"), Some("0700"), "{name}");
    }
}

#[test]
fn each_listener_is_open_to_one_caller() {
    let helper = read("holdfast-helper.socket");
    assert_eq!(only(&helper, "ListenStream"), Some("/run/holdfast/helper.sock"));
    assert_eq!(only(&helper, "ListenSequentialPacket"), Some("/run/holdfast/launch.sock"));
    let access = ["SocketUser", "SocketGroup", "SocketMode"].map(|name| only(&helper, name).unwrap());
    assert_eq!(access, ["root", "holdfast", "0660"]);
    let daemon = read("holdfastd@.socket");
    assert_eq!(only(&daemon, "ListenStream"), Some("/run/holdfast/owners/%i/daemon.sock"));
    assert_eq!((only(&daemon, "SocketUser"), only(&daemon, "SocketMode")), (Some("%i"), Some("0600")));
    for (name, unit) in [("helper", helper), ("daemon", daemon)] {
        assert_eq!(only(&unit, "DirectoryMode"), Some("0755"), "{name}");
        assert_eq!(
            only(&unit, "TriggerLimitIntervalSec"),
            Some("0"),
            "{name}: a failing program would cost the listener"
        );
    }
}

#[test]
fn workers_are_stopped_before_what_they_need_goes() {
    let shutdown = read("holdfast-shutdown.service");
    assert_eq!(only(&shutdown, "RemainAfterExit"), Some("yes"));
    assert!(only(&shutdown, "ExecStop").unwrap().ends_with("/holdfast system stop-workers --grace 10"));
    assert_eq!(only(&shutdown, "After"), Some("network.target"));
    for name in LONG_LIVED {
        assert_eq!(only(&read(name), "Before"), Some("holdfast-shutdown.service"), "{name}");
    }
    assert!(only(&read(WORKERS), "Before").unwrap().ends_with(" holdfast-shutdown.service"));
}
