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
    assert_eq!(reply.addresses, ["10.88.0.2/22"]);
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
    eventually("links gone", || stage.our_links().is_empty() || stage.our_links() == ["hf0000985ab1"]);
}
