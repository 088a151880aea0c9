#![allow(clippy::unwrap_used)] // A test says what went wrong by panicking.
//! The same promises as `bridge.rs` keeps, by IPv6. Needs root; says SKIP otherwise.

mod stage;

use holdfast_proto::helper as wire;
use stage::*;

const PREFIX: &str = "pool6 = \"fd12:3456:789a::/48\"\n";
/// Where nothing is said where others hear it.
const ADDRESSES: &str = "addr add 2001:db8::1/64 dev up0 nodad";

/// A host that forwards IPv6, with addresses of both ends.
fn stage() -> Stage {
    let stage = Stage::new();
    stage.write_rules(PREFIX);
    run(&format!(
        "ip -n {h} {ADDRESSES} && ip -n {o} addr add 2001:db8::2/64 dev eth0 nodad && ip -n {h} -6 route add default via 2001:db8::2 \
         && ip -n {o} -6 route add fd12:3456:789a::/48 via 2001:db8::1",
        h = stage.host,
        o = stage.outside
    ));
    stage.in_host("echo 1 > /proc/sys/net/ipv6/conf/all/forwarding");
    stage
}

fn launched(stage: &Stage, request: wire::LaunchRequest) -> Vec<String> {
    let reply = stage.owner(|mut c| async move { c.launch(request).await.unwrap().into_inner() });
    reply.addresses.iter().map(|address| address.split('/').next().unwrap().to_owned()).collect()
}

fn named(worker: u64, network: &str) -> wire::LaunchRequest {
    wire::LaunchRequest { network: network.into(), ..launch_request(worker, &[]) }
}

#[test]
fn a_published_port_answers_by_ipv6_with_the_true_client_and_is_gone_with_its_worker() {
    if skip() {
        return;
    }
    let mut stage = stage();
    stage.start_helper();
    stage.start_launcher();
    assert_eq!(launched(&stage, launch_request(1, &[("tcp", 8080, 80)])), ["10.88.0.2", "fd12:3456:789a:5800::2"]);
    let (host, outside) = (format!("ip netns exec {}", stage.host), format!("ip netns exec {}", stage.outside));
    {
        let workers = stage.workers.lock().unwrap();
        let worker = inside(&workers["0000000000000001"]);
        serve_peer_names6_in(&worker, 80);
        assert_eq!(ask(&outside, "2001:db8::1", 8080), "2001:db8::2", "the true client");
        assert_eq!(ask(&host, "2001:db8::1", 8080), "2001:db8::1");
        assert_eq!(ask(&host, "::1", 8080), "refused", "::1: at once, so that callers try 127.0.0.1");
        assert_eq!(ask(&host, "localhost", 8080), "::ffff:10.88.0.1", "which they find");
        serve_peer_names6_in(&outside, 9000);
        assert_eq!(ask(&worker, "2001:db8::2", 9000), "2001:db8::1", "masqueraded outwards");
        assert_eq!(ask(&worker, "2001:db8::1", 8080), "2001:db8::1", "its own port by the host's address");
        serve_peer_names6_in(&host, 22);
        assert_eq!(ask(&worker, "2001:db8::1", 22), "timeout", "host services are closed");
        assert_eq!(ask(&worker, "fe80::a58:2%eth0", 22), "timeout", "host services are closed");
        assert_eq!(ask(&outside, "fd12:3456:789a:5800::2", 80), "timeout", "what is not published");
    }
    // On one address alone; and on none where nothing can answer.
    stage.in_host("ip -6 address add 2001:db8::11/64 dev up0 nodad");
    let at = |worker, address: &str| {
        let mut request = launch_request(worker, &[("tcp", 8081, 80)]);
        request.ports[0].address = address.to_owned();
        request
    };
    launched(&stage, at(2, "2001:db8::11"));
    {
        let workers = stage.workers.lock().unwrap();
        serve_peer_names6_in(&inside(&workers["0000000000000002"]), 80);
        assert_eq!(ask(&outside, "2001:db8::11", 8081), "2001:db8::2");
        assert_eq!(ask(&outside, "2001:db8::1", 8081), "refused");
    }
    for (address, why) in [("::1", "127.0.0.1"), ("::", "leave the address out"), ("fe80::1", "link-local")] {
        let request = at(3, address);
        let said = stage.owner(|mut c| async move { c.launch(request).await.unwrap_err() });
        assert!(said.message().contains(why), "{address}: {said:?}");
    }
    serve_peer_names6_in(&host, 8082);
    let request = launch_request(3, &[("tcp", 8082, 80)]);
    let said = stage.owner(|mut c| async move { c.launch(request).await.unwrap_err() });
    assert!(said.message().contains("in use"), "a program of the host: {said:?}");
    stage.kill_helper();
    assert_eq!(ask(&outside, "2001:db8::1", 8080), "2001:db8::2");
    stage.start_helper();
    stage.wait_for_launcher();
    assert_eq!(ask(&outside, "2001:db8::1", 8080), "2001:db8::2");
    let attached = stage
        .owner(|mut c| async move { c.attached(wire::AttachedRequest {}).await.unwrap().into_inner().attachments });
    assert_eq!(attached[0].addresses, ["10.88.0.2/32", "fd12:3456:789a:5800::2/128"]);
    assert_eq!((attached[0].ports.len(), attached[1].ports[0].address.as_str()), (1, "2001:db8::11"));
    end_servers();
    stage.workers.lock().unwrap().clear();
    eventually("rules gone", || !stage.ruleset().contains("fd12:"));
    eventually("links gone", || stage.our_links().is_empty());
    assert!(!stage.in_host("ip -6 route show table all").contains("fd12:"));
}

#[test]
fn workers_see_by_ipv6_whom_they_see_by_ipv4_also_after_the_helper_was_killed() {
    if skip() {
        return;
    }
    let mut stage = stage();
    stage.start_helper();
    stage.start_launcher();
    let internal = |worker| wire::LaunchRequest { internal: true, ..named(worker, "inner") };
    let requests = [named(1, "lan"), named(2, "lan"), named(3, "other"), launch_request(4, &[]), internal(5)];
    let addresses: Vec<String> = requests.into_iter().map(|request| launched(&stage, request)[1].clone()).collect();
    let check = |stage: &Stage| {
        let workers = stage.workers.lock().unwrap();
        let at = |n: usize| inside(&workers[&format!("{n:016x}")]);
        let sees = |from: usize, to: usize| ask(&at(from), &addresses[to - 1], 80);
        assert_eq!(sees(2, 1), addresses[1], "the same network, by its own address");
        assert_eq!(sees(1, 2), addresses[0]);
        for (from, to) in [(3, 1), (4, 1), (1, 4), (5, 1), (1, 5)] {
            assert_eq!(sees(from, to), "timeout", "{from} to {to}");
        }
        assert_eq!(ask(&at(1), "2001:db8::2", 9000), "2001:db8::1");
        assert_eq!(ask(&at(5), "2001:db8::2", 9000), "timeout", "internal: no way out");
    };
    for worker in stage.workers.lock().unwrap().values() {
        serve_peer_names6_in(&inside(worker), 80);
    }
    serve_peer_names6_in(&format!("ip netns exec {}", stage.outside), 9000);
    check(&stage);
    stage.kill_helper();
    stage.start_helper();
    stage.wait_for_launcher();
    check(&stage);
    let lan = wire::CheckNetworkRequest { network: "lan".into(), subnet: String::new() };
    let lan = stage.owner(|mut c| async move { c.check_network(lan).await.unwrap().into_inner().subnets });
    assert!(lan.len() == 2 && lan[1].starts_with("fd12:3456:789a:") && lan[1].ends_with("::/64"), "{lan:?}");
    end_servers();
}

#[test]
fn where_the_host_has_no_ipv6_workers_have_ipv4_alone() {
    if skip() {
        return;
    }
    let mut stage = stage();
    stage.in_host("echo 0 > /proc/sys/net/ipv6/conf/all/forwarding");
    stage.start_helper();
    stage.start_launcher();
    assert_eq!(launched(&stage, launch_request(1, &[])), ["10.88.0.2"], "not forwarded");
    stage.in_host("echo 1 > /proc/sys/net/ipv6/conf/all/forwarding");
    let mut worker = 1;
    eventually("it is seen that the host forwards", || {
        worker += 1;
        launched(&stage, launch_request(worker, &[])).len() == 2
    });
    stage.in_host("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6");
    assert_eq!(launched(&stage, launch_request(1000, &[])).len(), 1, "switched off for new links");
    assert_eq!(launched(&stage, launch_request(1001, &[])).len(), 1);
}

#[test]
fn the_host_becomes_no_router_of_ipv6_unless_somebody_else_makes_it_one() {
    if skip() {
        return;
    }
    let mut stage = stage();
    let lan = format!("{}l", stage.host);
    run(&format!(
        "ip netns add {lan} && ip link add name lan0 netns {h} type veth peer name eth0 netns {lan} \
         && ip -n {h} addr add 2001:db8:9::1/64 dev lan0 nodad && ip -n {h} link set lan0 up \
         && ip -n {lan} addr add 2001:db8:9::2/64 dev eth0 nodad && ip -n {lan} link set eth0 up && ip -n {lan} link set lo up \
         && ip -n {lan} -6 route add default via 2001:db8:9::1 && ip -n {o} -6 route add 2001:db8:9::/64 via 2001:db8::1",
        h = stage.host,
        o = stage.outside
    ));
    let for_workers = "cd /proc/sys/net/ipv6/conf; echo 1 > all/forwarding; for l in default lan0 up0; do echo 0 > $l/forwarding; done";
    stage.in_host(for_workers);
    stage.start_helper();
    stage.start_launcher();
    assert_eq!(launched(&stage, launch_request(1, &[])).len(), 2);
    let (inner, outside) = (format!("ip netns exec {lan}"), format!("ip netns exec {}", stage.outside));
    serve_peer_names6_in(&inner, 9000);
    let worker = inside(&stage.workers.lock().unwrap()["0000000000000001"]);
    assert_eq!(ask(&worker, "2001:db8:9::2", 9000), "2001:db8:9::1", "the worker may");
    assert_eq!(ask(&outside, "2001:db8:9::2", 9000), "timeout", "others may not");
    stage.in_host("echo 1 > /proc/sys/net/ipv6/conf/all/forwarding");
    eventually("the host routes", || ask(&outside, "2001:db8:9::2", 9000) == "2001:db8::2");
    stage.in_host(for_workers);
    eventually("not any more", || ask(&outside, "2001:db8:9::2", 9000) == "timeout");
    end_servers();
    run(&format!("ip netns del {lan}"));
}
