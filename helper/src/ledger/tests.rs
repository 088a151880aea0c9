use super::*;
use crate::rules::Rules;
use crate::words::Proto;

fn attachment(worker: u64, address: &str, ports: &[u16]) -> Attachment {
    let owner = Uid(1000);
    Attachment {
        start: Start { owner, worker: WorkerId::from_random(worker), generation: Generation(1) },
        link: LinkName::from_random(worker),
        bridge: LinkName::of_bridge(owner, Network::Bridge),
        subnet: "10.88.4.0/22".parse().unwrap(),
        address: address.parse().unwrap(),
        ports: ports
            .iter()
            .map(|host| Port { proto: Proto::Tcp, address: Ipv4Addr::UNSPECIFIED, host: *host, worker: 80 })
            .collect(),
    }
}

#[test]
fn what_is_given_is_not_given_again() {
    let mut ledger = Ledger::default();
    assert!(ledger.enter(Network::Bridge, attachment(1, "10.88.4.2", &[80])));
    assert!(!ledger.enter(Network::Bridge, attachment(1, "10.88.4.3", &[])), "the start");
    assert!(!ledger.enter(Network::Bridge, attachment(2, "10.88.4.2", &[])), "the address");
    assert!(!ledger.enter(Network::Bridge, attachment(2, "10.88.4.3", &[80])), "the port");
    assert_eq!(ledger.of_owner(Uid(1000)).count(), 1, "a refused entry leaves nothing");
    assert!(ledger.strike(attachment(1, "10.88.4.2", &[]).start).is_some());
    assert!(ledger.strike(attachment(1, "10.88.4.2", &[]).start).is_none());
    assert!(ledger.enter(Network::Bridge, attachment(2, "10.88.4.2", &[80])));
}

#[test]
fn an_address_given_back_rests_for_as_long_as_there_are_others() {
    let mut ledger = Ledger::default();
    let subnet = "10.88.4.0/22".parse().unwrap();
    let mut last = None;
    for n in 0..1021 {
        let address = ledger.free_address(Uid(1000), Network::Bridge, subnet).unwrap();
        assert_ne!(Some(address), last);
        let given = Attachment { address, ..attachment(n, "10.88.4.2", &[]) };
        let start = given.start;
        assert!(ledger.enter(Network::Bridge, given));
        ledger.strike(start);
        last = Some(address);
    }
    assert_eq!(ledger.free_address(Uid(1000), Network::Bridge, subnet), Some(Ipv4Addr::new(10, 88, 4, 2)));
}

#[test]
fn a_network_avoids_what_the_host_routes_and_what_others_have() {
    let rules: Rules = "version = 1\n[owners.a]\nuid = 1000\n[owners.b]\nuid = 1001".parse().unwrap();
    let (a, b) = (rules.owner(Uid(1000)).unwrap(), rules.owner(Uid(1001)).unwrap());
    let mut ledger = Ledger::default();
    ledger.learn_foreign(vec!["10.88.3.7/32".parse().unwrap(), "10.88.8.0/21".parse().unwrap()]);
    let first = ledger.subnet_for(a, Network::Bridge).unwrap();
    assert_eq!(first.to_string(), "10.88.4.0/22");
    ledger.keep_network(a.uid, Network::Bridge, first);
    assert_eq!(ledger.subnet_for(a, Network::Bridge), Some(first), "a network stays where it is");
    assert_eq!(ledger.subnet_for(b, Network::Bridge).unwrap().to_string(), "10.88.16.0/22");
    ledger.learn_foreign(vec!["10.0.0.0/8".parse().unwrap()]);
    assert_eq!(ledger.subnet_for(b, Network::Bridge), None);
}

#[test]
fn only_an_idle_network_is_forgotten() {
    let mut ledger = Ledger::default();
    let given = attachment(1, "10.88.4.2", &[]);
    assert!(ledger.enter(Network::Bridge, given.clone()));
    assert!(ledger.idle_networks().is_empty());
    ledger.strike_network(Uid(1000), Network::Bridge);
    assert!(ledger.subnet(Uid(1000), Network::Bridge).is_some());
    ledger.strike(given.start);
    assert_eq!(ledger.idle_networks().len(), 1);
    ledger.strike_network(Uid(1000), Network::Bridge);
    assert_eq!(ledger.subnet(Uid(1000), Network::Bridge), None);
}

#[test]
fn only_links_that_exist_are_looked_for() {
    let mut ledger = Ledger::default();
    let given = attachment(1, "10.88.4.2", &[]);
    assert!(!ledger.link(given.start));
    ledger.enter(Network::Bridge, given.clone());
    assert_eq!(ledger.links().count(), 0);
    assert!(ledger.link(given.start));
    assert_eq!(ledger.by_link(given.link).map(|a| a.start), Some(given.start));
    ledger.strike(given.start);
    assert_eq!(ledger.links().count(), 0);
}
