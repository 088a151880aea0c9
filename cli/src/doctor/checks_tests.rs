use super::super::facts::{Namespaces, Silence};
use super::super::limits::Cgroups;
use super::*;
use holdfast_proto::daemon::{ProgramStatus, Publish, StatusReply};

/// A host on which all is well.
fn healthy() -> Facts {
    let program = |name: &str| ProgramStatus { name: name.into(), pid: 5, healthy: true, ..Default::default() };
    let status =
        StatusReply { programs: vec![program("holdfast-helper"), program("holdfast-launcher")], ..Default::default() };
    Facts {
        kernel: "6.1.0-18-amd64".into(),
        probe: Some(Ok(())),
        cgroups: Some(Cgroups { there: ["cpu", "memory", "pids"].map(str::to_owned).into(), ..Default::default() }),
        nftables: Some(true),
        forwards6: Some(Forwards6::Workers),
        systemd: Some(252),
        installed: true,
        owner: Some("alice".into()),
        uid: 1000,
        rules: Some(RulesFile {
            path: "/etc/holdfast/rules.toml".into(),
            mode: 0o644,
            text: Some("version = 1\n[owners.alice]\nuid = 1000\npool6 = \"fd12:3456:789a::/48\"\n".into()),
            ..Default::default()
        }),
        listening: [("tcp".to_owned(), 22)].into(),
        daemon: Some(Ok(Answers { status, published: Vec::new() })),
        ..Facts::default()
    }
}

fn found(facts: &Facts, name: &str) -> Check {
    examine(facts).into_iter().find(|check| check.name == name).unwrap()
}

/// What is not well, as level, name and advice.
fn complaints(facts: &Facts) -> Vec<(Level, &'static str, String)> {
    let bad = examine(facts).into_iter().filter(|check| check.level != Level::Ok);
    bad.map(|check| (check.level, check.name, check.advice.unwrap())).collect()
}

#[test]
fn a_healthy_host_has_nothing_to_complain_of() {
    assert_eq!(complaints(&healthy()), []);
    assert_eq!(worst(&examine(&healthy())), Level::Ok);
}

#[test]
fn why_workers_have_no_ipv6_is_said() {
    let mut facts = healthy();
    for (forwards6, word) in [(Forwards6::Absent, "ipv6.disable"), (Forwards6::Off, "sysctl")] {
        facts.forwards6 = Some(forwards6);
        let check = found(&facts, "IPv6");
        assert!(check.level == Level::Warn && check.found.contains("IPv4 alone"), "{check:?}");
        assert!(check.advice.unwrap().contains(word));
    }
    facts.forwards6 = Some(Forwards6::Router);
    assert_eq!(found(&facts, "IPv6").level, Level::Ok);
    facts.rules.as_mut().unwrap().text = Some("version = 1\n[owners.alice]\nuid = 1000\n".into());
    assert!(found(&facts, "IPv6").advice.unwrap().contains("pool6"));
}

#[test]
fn each_switch_against_user_namespaces_is_named() {
    let switches = [
        (Namespaces { max: Some(0), ..Default::default() }, "user.max_user_namespaces"),
        (Namespaces { unprivileged_clone: Some(0), ..Default::default() }, "kernel.unprivileged_userns_clone"),
        (Namespaces { apparmor_restrict: Some(1), ..Default::default() }, "apparmor_restrict_unprivileged_userns"),
        (Namespaces { max: Some(15_000), unprivileged_clone: Some(1), apparmor_restrict: Some(0) }, "seccomp"),
    ];
    for (namespaces, named) in switches {
        let probe = Some(Err("unshare(CLONE_NEWUSER): EPERM".to_owned()));
        let check = found(&Facts { namespaces, probe, ..healthy() }, "user namespaces");
        assert_eq!(check.level, Level::Fail);
        assert!(check.advice.clone().unwrap().contains(named) && check.found.contains("EPERM"), "{check:?}");
    }
}

#[test]
fn a_switch_that_does_not_stop_the_owner_is_no_complaint() {
    let namespaces = Namespaces { apparmor_restrict: Some(1), ..Default::default() };
    assert_eq!(complaints(&Facts { namespaces, ..healthy() }), []);
}

#[test]
fn hosts_that_lack_something_hear_what() {
    let cases: [(Facts, Level, &str, &str); 7] = [
        (Facts { kernel: "5.10.0".into(), ..healthy() }, Level::Fail, "kernel", "6.1"),
        (Facts { kernel: "?".into(), ..healthy() }, Level::Fail, "kernel", "6.1"),
        (Facts { cgroups: None, ..healthy() }, Level::Warn, "limits", "unified"),
        (Facts { nftables: Some(false), ..healthy() }, Level::Fail, "nftables", "CONFIG_NF_TABLES"),
        (Facts { nftables: None, ..healthy() }, Level::Warn, "nftables", "modprobe"),
        (Facts { systemd: Some(249), ..healthy() }, Level::Warn, "systemd", "252"),
        (Facts { systemd: None, ..healthy() }, Level::Warn, "systemd", "session"),
    ];
    for (facts, level, name, advice) in cases {
        let complaints = complaints(&facts);
        assert_eq!(complaints.len(), 1, "{complaints:?}");
        assert!(
            complaints[0].0 == level && complaints[0].1 == name && complaints[0].2.contains(advice),
            "{complaints:?}"
        );
    }
}

#[test]
fn rules_that_others_can_write_or_that_miss_the_owner_fail() {
    let with = |change: fn(&mut RulesFile)| {
        let mut facts = healthy();
        change(facts.rules.as_mut().unwrap());
        found(&facts, "rules")
    };
    assert!(with(|file| file.mode = 0o666).advice.unwrap().contains("chmod go-w"));
    assert!(with(|file| file.uid = 1000).advice.unwrap().contains("chown root"));
    assert_eq!(with(|file| (file.uid, file.own_session) = (1000, true)).level, Level::Ok);
    assert!(with(|file| file.text = Some("version = 1".into())).found.contains("does not list alice"));
    assert!(with(|file| file.text = Some("version =".into())).found.contains("not understood"));
    assert_eq!(found(&Facts { rules: None, ..healthy() }, "rules").level, Level::Fail);
    assert_eq!(found(&Facts { rules: None, installed: false, ..healthy() }, "rules").level, Level::Ok);
}

#[test]
fn a_daemon_that_should_answer_fails_and_one_that_cannot_be_there_warns() {
    for (nothing_there, level) in [(true, Level::Warn), (false, Level::Fail)] {
        let daemon = Some(Err(Silence { text: "no daemon answers".into(), nothing_there }));
        let facts = Facts { daemon, ..healthy() };
        assert_eq!(found(&facts, "holdfastd").level, level);
        assert_eq!(found(&facts, "forwarding").level, Level::Warn);
    }
    assert_eq!(found(&Facts { daemon: None, ..healthy() }, "holdfastd").level, Level::Warn);
}

#[test]
fn what_the_helper_says_of_firewalls_and_of_itself_is_shown() {
    let with = |healthy_too: bool, why: &str| {
        let mut facts = healthy();
        let Some(Ok(answers)) = &mut facts.daemon else { panic!() };
        let helper = &mut answers.status.programs[0];
        (helper.healthy, helper.why) = (healthy_too, why.to_owned());
        facts
    };
    let facts = with(true, "chain FORWARD of docker drops");
    assert_eq!(found(&facts, "forwarding").level, Level::Warn);
    assert!(found(&facts, "forwarding").found.contains("docker"));
    assert_eq!(found(&facts, "holdfast-helper").level, Level::Ok);
    assert_eq!(found(&with(false, "it does not answer"), "holdfast-helper").level, Level::Fail);
}

#[test]
fn a_port_that_a_worker_and_a_program_of_the_host_share_is_named() {
    let mut facts = healthy();
    facts.listening = [("tcp".to_owned(), 8080), ("udp".to_owned(), 5353)].into();
    let Some(Ok(answers)) = &mut facts.daemon else { panic!() };
    answers.published = vec![
        Publish { proto: "tcp".into(), host: 8080, worker: 80, ..Default::default() },
        Publish { proto: "tcp".into(), host: 5353, worker: 53, ..Default::default() },
    ];
    let check = found(&facts, "ports");
    assert!(check.level == Level::Warn && check.found.starts_with("8080/tcp published"), "{check:?}");
}
