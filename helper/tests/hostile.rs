//! What the helper refuses, and that nothing is left of it. Needs root; says SKIP otherwise.
#![allow(clippy::unwrap_used)] // A test says what went wrong by panicking.

mod stage;

use holdfast_proto::helper as wire;
use holdfast_proto::problem::{Problem, Reason};
use stage::*;

fn problem(stage: &Stage, request: wire::LaunchRequest) -> Problem {
    let refused = stage.owner(|mut c| async move { c.launch(request).await.map(drop) });
    Problem::from_status(&refused.unwrap_err())
}

#[test]
fn whatever_a_launcher_does_wrong_nothing_is_left() {
    if skip() {
        return;
    }
    let mut stage = Stage::new();
    stage.start_helper();
    stage.start_launcher();
    let manners = [
        (Manner::HostNetns, Reason::Host),
        (Manner::ForeignNetns, Reason::Host),
        (Manner::NoNetns, Reason::Host),
        (Manner::FailsToPrepare, Reason::Host),
        (Manner::FailsToRelease, Reason::Host),
    ];
    let host_links = stage.in_host("ip -o link | grep -c .");
    for (number, (manner, reason)) in manners.into_iter().enumerate() {
        *stage.manner.lock().unwrap() = manner;
        let refused = problem(&stage, launch_request(number as u64, &[("tcp", 8080, 80)]));
        assert_eq!(refused.reason(), reason, "{manner:?}: {refused}");
        assert!(!stage.ruleset().contains("8080"), "{manner:?} left rules");
        assert!(stage.workers.lock().unwrap().is_empty(), "{manner:?} left a shim");
        let attached =
            stage.owner(|mut c| async move { c.attached(wire::AttachedRequest {}).await.unwrap().into_inner() });
        assert!(attached.attachments.is_empty(), "{manner:?} left an attachment");
        eventually("no link", || stage.our_links().is_empty());
    }
    let count = |text: String| text.trim().parse::<usize>().unwrap();
    assert!(count(stage.in_host("ip -o link | grep -c .")) <= count(host_links));
    // And it goes on serving.
    *stage.manner.lock().unwrap() = Manner::Proper;
    stage.owner(|mut c| async move { c.launch(launch_request(99, &[("tcp", 8080, 80)])).await.unwrap() });
    eventually("rules go", || {
        stage.workers.lock().unwrap().clear();
        std::thread::sleep(std::time::Duration::from_millis(500));
        !stage.ruleset().contains("8080")
    });
}

#[test]
fn strangers_hear_one_thing_and_root_health_alone() {
    if skip() {
        return;
    }
    let mut stage = Stage::new();
    stage.start_helper();
    let refusals: Vec<(i32, Vec<u8>)> = [STRANGER_UID, 65534, HELPER_UID]
        .into_iter()
        .flat_map(|uid| {
            stage.caller(uid, |mut c| async move {
                let refusals = [
                    c.health(wire::HealthRequest {}).await.map(drop),
                    c.fence(wire::FenceRequest { epoch: 9 }).await.map(drop),
                    c.launch(launch_request(1, &[])).await.map(drop),
                    c.launch(wire::LaunchRequest::default()).await.map(drop),
                    c.detach(wire::DetachRequest::default()).await.map(drop),
                    c.attached(wire::AttachedRequest {}).await.map(drop),
                    c.check_network(wire::CheckNetworkRequest::default()).await.map(drop),
                    c.counters(wire::CountersRequest {}).await.map(drop),
                ];
                refusals
                    .into_iter()
                    .map(|r| r.unwrap_err())
                    .map(|s| (s.code() as i32, s.details().to_vec()))
                    .collect::<Vec<_>>()
            })
        })
        .collect();
    assert_eq!(refusals.len(), 24);
    assert!(refusals.windows(2).all(|pair| pair[0] == pair[1]), "not byte for byte the same");
    stage.caller(0, |mut c| async move {
        assert!(c.health(wire::HealthRequest {}).await.is_ok());
        assert!(c.attached(wire::AttachedRequest {}).await.is_err());
    });
    // A launcher of a stranger is turned away without a word.
    let socket = dial(&stage.root.join("run/holdfast/launch.sock"), STRANGER_UID).unwrap();
    use rustix::fd::AsFd;
    send(socket.as_fd(), &holdfast_launcher::launch::FromLauncher::Dial { version: "x".into() }, &[]);
    assert_eq!(receive(socket.as_fd()), None);
}

#[test]
fn requests_that_the_rules_forbid_are_refused_before_anything_happens() {
    if skip() {
        return;
    }
    let mut stage = Stage::new();
    stage.write_rules("ports = [\"8000-8100\"]\nworkers_max = 1\n");
    stage.start_helper();
    let refuse = |request: wire::LaunchRequest, reason: Reason, word: &str| {
        let refused = problem(&stage, request);
        assert_eq!(refused.reason(), reason, "{refused}");
        assert!(refused.to_string().contains(word), "{refused}");
    };
    refuse(launch_request(1, &[("tcp", 22, 22)]), Reason::Rules, "8000-8100");
    refuse(launch_request(1, &[("tcp", 65536, 22)]), Reason::Invalid, "1 to 65535");
    refuse(launch_request(1, &[("tcp", 8000, 0)]), Reason::Invalid, "1 to 65535");
    refuse(launch_request(1, &[("sctp", 8000, 80)]), Reason::Invalid, "tcp");
    refuse(wire::LaunchRequest { network: "HOST".into(), ..launch_request(1, &[]) }, Reason::Invalid, "bridge");
    refuse(wire::LaunchRequest { worker: "../x".into(), ..launch_request(1, &[]) }, Reason::Invalid, "hex");
    refuse(
        wire::LaunchRequest { orders: vec![0; 1024 * 1024 + 1], ..launch_request(1, &[]) },
        Reason::Invalid,
        "1048576",
    );
    refuse(launch_request(1, &[("tcp", 8001, 80)]), Reason::Unavailable, "launcher");
    stage.start_launcher();
    // A program of the host listens there already.
    serve_peer_names_in(&format!("ip netns exec {}", stage.host), 8002);
    refuse(launch_request(1, &[("tcp", 8002, 80)]), Reason::PortInUse, "8002");
    stage.owner(|mut c| async move { c.launch(launch_request(1, &[("tcp", 0, 80)])).await.unwrap() });
    refuse(launch_request(1, &[]), Reason::WrongPhase, "attached already");
    refuse(launch_request(2, &[]), Reason::Quota, "workers_max");
    // Epochs.
    stage.owner(|mut c| async move { c.fence(wire::FenceRequest { epoch: 7 }).await.unwrap() });
    refuse(launch_request(3, &[]), Reason::StaleEpoch, "7");
    // A file that became bad: launches stop, health does not.
    std::fs::write(stage.root.join("etc/holdfast/rules.toml"), "version = 1\n[owners.alice]\nuid = 0\n").unwrap();
    let refused = stage.owner(|mut c| async move {
        assert!(c.health(wire::HealthRequest {}).await.is_ok());
        c.launch(wire::LaunchRequest { epoch: 7, ..launch_request(3, &[]) }).await.map(drop)
    });
    assert!(refused.is_err());
    end_servers();
}

#[test]
fn a_firewall_that_drops_forwarded_packets_is_named_with_the_rule_that_helps() {
    if skip() {
        return;
    }
    let mut stage = Stage::new();
    stage.in_host("nft add table ip filter; nft add chain ip filter FORWARD \"{ type filter hook forward priority 0; policy drop; }\"");
    stage.start_helper();
    stage.start_launcher();
    let refused = problem(&stage, launch_request(1, &[]));
    assert_eq!(refused.reason(), Reason::Host);
    assert!(refused.message.contains("table ip filter, chain FORWARD"), "{refused}");
    assert!(refused.hint.contains("iptables -I FORWARD -i hf+ -j ACCEPT"), "{refused}");
    stage.in_host("nft insert rule ip filter FORWARD iifname \"hf*\" counter accept; nft insert rule ip filter FORWARD oifname \"hf*\" accept");
    std::thread::sleep(std::time::Duration::from_secs(2));
    stage.owner(|mut c| async move { c.launch(launch_request(1, &[("tcp", 8080, 80)])).await.unwrap() });
    // As firewalld ends its chain.
    stage.in_host("nft add table inet firewalld; nft add chain inet firewalld filter_FORWARD \"{ type filter hook forward priority 10; }\"; nft add rule inet firewalld filter_FORWARD ct state established accept; nft add rule inet firewalld filter_FORWARD reject");
    std::thread::sleep(std::time::Duration::from_secs(2));
    let health = stage.owner(|mut c| async move { c.health(wire::HealthRequest {}).await.unwrap().into_inner() });
    assert_eq!(health.forward_blockers.len(), 1, "{:?}", health.forward_blockers);
    assert!(health.forward_blockers[0].contains("nft insert rule inet firewalld filter_FORWARD"));
}

#[test]
fn other_identities_and_capabilities_do_not_serve() {
    if skip() {
        return;
    }
    let mut stage = Stage::new();
    let two = "-all,+net_admin,+net_raw";
    let cases = [
        (
            format!("--inh-caps={two},+sys_admin --ambient-caps={two},+sys_admin --bounding-set={two},+sys_admin"),
            "must be exactly",
        ),
        (format!("--inh-caps={two} --ambient-caps={two}"), "bounding capabilities"),
        (
            "--inh-caps=-all,+net_admin --ambient-caps=-all,+net_admin --bounding-set=-all,+net_admin".into(),
            "must be exactly",
        ),
    ];
    for (caps, said) in cases {
        stage.start_helper_with(&caps);
        let text = stage.helper_refusal();
        assert!(text.contains(said), "{caps}: {text}");
    }
    std::fs::set_permissions(
        stage.root.join("etc/holdfast/rules.toml"),
        std::os::unix::fs::PermissionsExt::from_mode(0o666),
    )
    .unwrap();
    stage.start_helper_with(&format!("--inh-caps={two} --ambient-caps={two} --bounding-set={two}"));
    assert!(stage.helper_refusal().contains("could be changed by others"));
}

#[test]
fn a_helper_without_capabilities_serves_network_none_and_says_what_bridge_needs() {
    if skip() {
        return;
    }
    let mut stage = Stage::new();
    stage.start_helper_with("--inh-caps=-all --ambient-caps=-all --bounding-set=-all");
    stage.start_launcher();
    let refused = problem(&stage, launch_request(1, &[]));
    assert_eq!(refused.reason(), Reason::Host);
    assert!(refused.hint.contains("sudo holdfast session start"), "{refused}");
    let reply = stage.owner(|mut c| async move {
        assert!(!c.health(wire::HealthRequest {}).await.unwrap().into_inner().network_capable);
        c.launch(wire::LaunchRequest { network: "none".into(), ..launch_request(1, &[]) }).await.unwrap().into_inner()
    });
    assert!(reply.addresses.is_empty() && reply.shim_pid > 0);
}

#[test]
fn a_second_helper_ends_the_first_and_takes_over() {
    if skip() {
        return;
    }
    let mut stage = Stage::new();
    stage.start_helper();
    let first = stage.helper_pid();
    run(&format!("kill -STOP {first}"));
    let mut older = stage.replace_helper();
    assert!(!older.wait().unwrap().success());
    let health = stage.owner(|mut c| async move { c.health(wire::HealthRequest {}).await.unwrap().into_inner() });
    assert_ne!(health.pid, first);
}

#[test]
fn a_helper_in_trouble_holds_nothing_that_it_should_not() {
    if skip() {
        return;
    }
    let mut stage = Stage::new();
    stage.start_helper();
    let status = std::fs::read_to_string(format!("/proc/{}/status", stage.helper_pid())).unwrap();
    let line = |name: &str| {
        status.lines().find(|l| l.starts_with(name)).unwrap().split_whitespace().nth(1).unwrap().to_owned()
    };
    assert_eq!((line("NoNewPrivs:").as_str(), line("Seccomp:").as_str()), ("1", "2"));
    for (set, held) in [
        ("CapPrm:", "0000000000003000"),
        ("CapEff:", "0000000000003000"),
        ("CapBnd:", "0000000000003000"),
        ("CapAmb:", "0000000000000000"),
        ("CapInh:", "0000000000000000"),
    ] {
        assert_eq!(line(set), held, "{set}");
    }
    // Another process of the same uid cannot look in.
    let look = format!(
        "setpriv --reuid {HELPER_UID} --regid {HELPER_UID} --clear-groups cat /proc/{}/environ",
        stage.helper_pid()
    );
    assert!(
        !std::process::Command::new("sh")
            .args(["-c", &look])
            .stderr(std::process::Stdio::null())
            .status()
            .unwrap()
            .success()
    );
}
