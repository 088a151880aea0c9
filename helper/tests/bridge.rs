#![allow(clippy::unwrap_used)] // A test says what went wrong by panicking.
//! Promises of network `bridge`, kept with the real kernel. Needs root; says SKIP otherwise.

mod stage;

use holdfast_proto::helper as wire;
use stage::*;

#[test]
fn a_published_port_answers_locally_and_from_outside_with_the_true_client_and_is_gone_with_its_worker() {
    if skip() {
        return;
    }
    let mut stage = Stage::new();
    stage.start_helper();
    stage.start_launcher();
    let reply = stage
        .owner(|mut c| async move { c.launch(launch_request(1, &[("tcp", 8080, 80)])).await.unwrap().into_inner() });
    assert_eq!(reply.addresses, ["10.88.0.2/32"]);
    {
        let workers = stage.workers.lock().unwrap();
        let worker = &workers["0000000000000001"];
        serve_peer_names(worker, 80);
        let (host, outside) = (format!("ip netns exec {}", stage.host), format!("ip netns exec {}", stage.outside));
        assert_eq!(ask(&host, "127.0.0.1", 8080), "10.88.0.1", "loopback callers are masqueraded");
        assert_eq!(ask(&host, "192.0.2.1", 8080), "192.0.2.1");
        assert_eq!(ask(&outside, "192.0.2.1", 8080), "192.0.2.2", "the true client");
        serve_peer_names_in(&outside, 9000);
        assert_eq!(ask(&inside(worker), "192.0.2.2", 9000), "192.0.2.1", "masqueraded outwards");
        assert_eq!(ask(&inside(worker), "192.0.2.1", 8080), "10.88.0.1", "its own port by the host's address");
        serve_peer_names_in(&host, 22);
        assert_eq!(ask(&inside(worker), "10.88.0.1", 22), "timeout", "host services are closed");
        assert_eq!(ask(&inside(worker), "192.0.2.1", 22), "timeout", "host services are closed");
    }
    // Killed and started again: nothing changes, and the ledger knows.
    stage.kill_helper();
    assert_eq!(ask(&format!("ip netns exec {}", stage.outside), "192.0.2.1", 8080), "192.0.2.2");
    stage.start_helper();
    let attached = stage
        .owner(|mut c| async move { c.attached(wire::AttachedRequest {}).await.unwrap().into_inner().attachments });
    assert_eq!(attached.len(), 1);
    assert_eq!((attached[0].worker.as_str(), attached[0].ports[0].host), ("0000000000000001", 8080));
    end_servers();
    stage.workers.lock().unwrap().clear();
    eventually("rules gone", || !stage.ruleset().contains("10.88."));
    eventually("links gone", || stage.our_links().is_empty());
}

#[test]
fn workers_of_the_default_network_see_nobody_but_published_ports_and_speak_by_their_own_address() {
    if skip() {
        return;
    }
    let mut stage = Stage::new();
    stage.start_helper();
    stage.start_launcher();
    for (worker, ports) in [(1, &[("tcp", 8080, 80)][..]), (2, &[])] {
        let request = launch_request(worker, ports);
        stage.owner(|mut c| async move { c.launch(request).await.unwrap() });
    }
    let workers = stage.workers.lock().unwrap();
    let (one, two) = (&workers["0000000000000001"], &workers["0000000000000002"]);
    serve_peer_names(one, 80);
    assert_eq!(ask(&inside(two), "10.88.0.2", 80), "timeout", "directly");
    assert_ne!(ask(&inside(two), "192.0.2.1", 8080), "timeout", "by the published port");
    let outside = format!("ip netns exec {}", stage.outside);
    serve_peer_names_in(&outside, 9000);
    assert_eq!(ask(&inside(two), "192.0.2.2", 9000), "192.0.2.1");
    // An address that it was not given, a loopback address, and the loopback of the host by route_localnet.
    run(&format!("{} ip addr add 10.88.0.99/32 dev eth0", inside(two)));
    let spoof = |source: &str, to: &str, port: u16| {
        let program = format!(
            "import socket\ns=socket.socket();s.settimeout(1)\ntry:\n s.bind((\"{source}\",0));s.connect((\"{to}\",{port}));print(\"reached\")\nexcept OSError as e: print(\"not\")"
        );
        run(&format!("{} python3 -c '{program}'", inside(two))).trim().to_owned()
    };
    assert_eq!(spoof("10.88.0.3", "192.0.2.2", 9000), "reached");
    assert_eq!(spoof("10.88.0.99", "192.0.2.2", 9000), "not");
    serve_peer_names_in(&format!("ip netns exec {}", stage.host), 7000);
    run(&format!(
        "{n} sh -c 'echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet; ip addr del 127.0.0.1/8 dev lo; ip route add 127.0.0.0/8 via 10.88.0.1 dev eth0 onlink'",
        n = inside(two)
    ));
    assert_eq!(ask(&inside(two), "127.0.0.1", 7000), "timeout", "the host's loopback");
    assert_eq!(ask(&inside(two), "127.0.0.1", 8080), "timeout", "the host's loopback, published");
    // 169.254.0.0/16 is closed, though the host routes it.
    run(&format!(
        "ip -n {} addr add 169.254.169.254/32 dev lo; ip -n {} route add 169.254.169.254 via 192.0.2.2",
        stage.outside, stage.host
    ));
    assert_eq!(ask(&format!("ip netns exec {}", stage.host), "169.254.169.254", 9000), "192.0.2.1");
    assert_eq!(ask(&inside(two), "169.254.169.254", 9000), "timeout", "metadata services");
    drop(workers);
    end_servers();
}

#[test]
fn the_host_becomes_no_router() {
    if skip() {
        return;
    }
    let mut stage = Stage::new();
    // Another network behind the host, reachable from it.
    let lan = format!("{}l", stage.host);
    run(&format!(
        "ip netns add {lan} && ip link add name lan0 netns {h} type veth peer name eth0 netns {lan} \
         && ip -n {h} addr add 198.51.100.1/24 dev lan0 && ip -n {h} link set lan0 up \
         && ip -n {lan} addr add 198.51.100.2/24 dev eth0 && ip -n {lan} link set eth0 up && ip -n {lan} link set lo up \
         && ip -n {lan} route add default via 198.51.100.1 && ip -n {o} route add 198.51.100.0/24 via 192.0.2.1",
        h = stage.host,
        o = stage.outside
    ));
    stage.start_helper();
    stage.start_launcher();
    let request = launch_request(1, &[]);
    stage.owner(|mut c| async move { c.launch(request).await.unwrap() });
    let (inner, outside) = (format!("ip netns exec {lan}"), format!("ip netns exec {}", stage.outside));
    serve_peer_names_in(&inner, 9000);
    let worker = inside(&stage.workers.lock().unwrap()["0000000000000001"]);
    assert_eq!(ask(&worker, "198.51.100.2", 9000), "198.51.100.1", "the worker may");
    assert_eq!(ask(&outside, "198.51.100.2", 9000), "timeout", "others may not");
    // An administrator who switches forwarding on for everybody gets it.
    stage.in_host("echo 1 > /proc/sys/net/ipv4/ip_forward");
    eventually("the host routes", || ask(&outside, "198.51.100.2", 9000) == "192.0.2.2");
    end_servers();
    run(&format!("ip netns del {lan}"));
}

fn named(worker: u64, network: &str) -> wire::LaunchRequest {
    wire::LaunchRequest { network: network.into(), ..launch_request(worker, &[]) }
}

#[test]
fn workers_of_a_named_network_see_each_other_and_no_others_also_after_the_helper_was_killed() {
    if skip() {
        return;
    }
    let mut stage = Stage::new();
    stage.start_helper();
    stage.start_launcher();
    let internal = |worker| wire::LaunchRequest { internal: true, ..named(worker, "inner") };
    let requests =
        [named(1, "lan"), named(2, "lan"), named(3, "other"), launch_request(4, &[]), internal(5), internal(6)];
    let mut addresses = Vec::new();
    for request in requests {
        let reply = stage.owner(|mut c| async move { c.launch(request).await.unwrap().into_inner() });
        addresses.push(reply.addresses[0].strip_suffix("/32").unwrap().to_owned());
    }
    let check = |stage: &Stage| {
        let workers = stage.workers.lock().unwrap();
        let sees = |from: usize, to: usize| ask(&inside(&workers[&format!("{from:016x}")]), &addresses[to - 1], 80);
        assert_eq!(sees(2, 1), addresses[1], "the same network, by its own address");
        assert_eq!(sees(1, 2), addresses[0]);
        assert_eq!(sees(6, 5), addresses[5], "an internal one too");
        for (from, to) in [(3, 1), (4, 1), (1, 4), (5, 1), (1, 5)] {
            assert_eq!(sees(from, to), "timeout", "{from} to {to}");
        }
        let out = |from: usize| ask(&inside(&workers[&format!("{from:016x}")]), "192.0.2.2", 9000);
        assert_eq!((out(1).as_str(), out(5).as_str()), ("192.0.2.1", "timeout"), "internal: no way out");
    };
    for worker in stage.workers.lock().unwrap().values() {
        serve_peer_names(worker, 80);
    }
    serve_peer_names_in(&format!("ip netns exec {}", stage.outside), 9000);
    check(&stage);
    stage.kill_helper();
    stage.start_helper();
    stage.wait_for_launcher();
    check(&stage);
    // What it gives now fits what it gave before.
    let seventh = stage.owner(|mut c| async move { c.launch(named(7, "lan")).await.unwrap().into_inner() });
    let workers = stage.workers.lock().unwrap();
    assert_eq!(ask(&inside(&workers["0000000000000007"]), &addresses[0], 80), seventh.addresses[0].replace("/32", ""));
    drop(workers);
    let counters = stage.owner(|mut c| async move { c.counters(wire::CountersRequest {}).await.unwrap().into_inner() });
    assert_eq!(counters.counters.len(), 7);
    assert!(counters.counters[0].rx_packets > 5 && counters.counters[0].tx_bytes > 300, "{counters:?}");
    let check = wire::CheckNetworkRequest { network: "lan".into(), subnet: String::new() };
    let lan = stage.owner(|mut c| async move { c.check_network(check).await.unwrap().into_inner().subnets });
    assert_eq!(lan.len(), 1);
    end_servers();
}
