use super::*;
use crate::rules::Rules;
use crate::words::Proto;

const OWNER: Uid = Uid(1000);

fn attachment(worker: u64, address: &str, ports: &[u16]) -> Attachment {
    Attachment {
        start: Start { owner: OWNER, worker: WorkerId::from_random(worker), generation: Generation(1) },
        network: Network::Bridge,
        mark: 0,
        internal: false,
        link: LinkName::from_random(worker),
        address: address.parse().unwrap(),
        address6: None,
        ports: ports
            .iter()
            .map(|host| Port { proto: Proto::Tcp, address: Ipv4Addr::UNSPECIFIED.into(), host: *host, worker: 80 })
            .collect(),
    }
}

fn rules() -> Rules {
    "version = 1\n[owners.a]\nuid = 1000\n[owners.b]\nuid = 1001".parse().unwrap()
}

#[test]
fn what_is_given_is_not_given_again() {
    let mut ledger = Ledger::default();
    assert!(ledger.enter(attachment(1, "10.88.4.2", &[80])));
    assert!(!ledger.enter(attachment(1, "10.88.4.3", &[])), "the start");
    assert!(!ledger.enter(attachment(2, "10.88.4.2", &[])), "the address");
    assert!(!ledger.enter(attachment(2, "10.88.4.3", &[80])), "the port");
    assert_eq!(ledger.of_owner(OWNER).count(), 1, "a refused entry leaves nothing");
    assert!(ledger.strike(attachment(1, "10.88.4.2", &[]).start).is_some());
    assert!(ledger.strike(attachment(1, "10.88.4.2", &[]).start).is_none());
    assert!(ledger.enter(attachment(2, "10.88.4.3", &[80])), "a port is given again at once");
}

#[test]
fn an_ipv6_address_goes_with_a_prefix_and_a_host_that_forwards_it_and_is_given_once() {
    let rules: Rules =
        "version = 1\n[owners.a]\nuid = 1000\npool6 = \"fd12:3456:789a::/48\"\n[owners.b]\nuid = 1001".parse().unwrap();
    let (a, b) = (rules.owner(OWNER).unwrap(), rules.owner(Uid(1001)).unwrap());
    let mut ledger = Ledger::default();
    let address = Ipv4Addr::new(10, 88, 0, 2);
    assert_eq!(ledger.address6(a, address), None, "the host has none");
    ledger.learn_host6(true);
    assert_eq!(ledger.address6(b, address), None, "no prefix");
    let address6 = ledger.address6(a, address);
    assert_eq!(address6.unwrap().to_string(), "fd12:3456:789a:5800::2");
    let one = Attachment { address6, ..attachment(1, "10.88.0.2", &[]) };
    assert!(ledger.enter(one.clone()));
    assert_eq!(ledger.address6(a, address), None);
    assert!(!ledger.enter(Attachment { address6, ..attachment(2, "10.88.0.3", &[]) }));
    ledger.strike(one.start);
    assert_eq!(ledger.address6(a, address), address6);
}

#[test]
fn t42_an_address_rests_before_another_worker_gets_it() {
    let rules = rules();
    let (owner, mut ledger) = (rules.owner(OWNER).unwrap(), Ledger::default());
    let mut given = Vec::new();
    for worker in 0..1021 {
        let (address, _) = ledger.place(owner, Network::Bridge, None).unwrap();
        let one = Attachment { address, ..attachment(worker, "10.88.0.2", &[]) };
        given.push(one.clone());
        assert!(ledger.enter(one));
    }
    let last = given.last().unwrap().clone();
    ledger.strike(last.start);
    assert!(!ledger.enter(attachment(5000, &last.address.to_string(), &[])));
    let (next, _) = ledger.place(owner, Network::Bridge, None).unwrap();
    assert!(!given.iter().any(|one| one.address == next), "given while it rests: {next}");
    ledger.rested(last.address);
    assert_eq!(ledger.place(owner, Network::Bridge, None).unwrap().0, last.address);
}

#[test]
fn an_address_given_back_rests_for_as_long_as_there_are_others() {
    let rules = rules();
    let (owner, mut ledger) = (rules.owner(OWNER).unwrap(), Ledger::default());
    ledger.enter(attachment(9999, "10.88.0.2", &[]));
    let mut last = None;
    for worker in 0..1020 {
        let (address, _) = ledger.place(owner, Network::Bridge, None).unwrap();
        assert_ne!(Some(address), last);
        let one = Attachment { address, ..attachment(worker, "10.88.0.2", &[]) };
        assert!(ledger.enter(one.clone()));
        ledger.strike(one.start);
        ledger.rested(address);
        last = Some(address);
    }
    assert_eq!(ledger.place(owner, Network::Bridge, None).unwrap().0, Ipv4Addr::new(10, 88, 0, 3));
}

#[test]
fn a_network_avoids_what_the_host_routes_and_what_others_have() {
    let rules = rules();
    let (a, b) = (rules.owner(OWNER).unwrap(), rules.owner(Uid(1001)).unwrap());
    let mut ledger = Ledger::default();
    ledger.learn_foreign(vec!["10.88.3.7/32".parse().unwrap(), "10.88.8.0/21".parse().unwrap()]);
    assert_eq!(ledger.range_for(a, Network::Bridge, None).unwrap().to_string(), "10.88.4.0/22");
    ledger.enter(attachment(1, "10.88.4.2", &[]));
    assert_eq!(
        ledger.subnets(a.uid, Network::Bridge),
        ["10.88.4.0/22".parse().unwrap()],
        "a network stays where it is"
    );
    assert_eq!(ledger.range_for(b, Network::Bridge, None).unwrap().to_string(), "10.88.16.0/22");
    ledger.learn_foreign(vec!["10.0.0.0/8".parse().unwrap()]);
    assert_eq!(ledger.range_for(b, Network::Bridge, None), Err(PlaceError::PoolFull));
}

#[test]
fn a_named_network_begins_where_it_began_last_time() {
    let rules = rules();
    let owner = rules.owner(OWNER).unwrap();
    let lan = Network::Named("lan".parse().unwrap());
    let first = Ledger::default().range_for(owner, lan, None).unwrap();
    let mut ledger = Ledger::default();
    ledger.enter(attachment(1, "10.88.0.2", &[]));
    assert_eq!(ledger.range_for(owner, lan, None).unwrap(), first);
    let wish = "10.88.200.0/22".parse().unwrap();
    assert_eq!(ledger.range_for(owner, lan, Some(wish)), Ok(wish));
    assert_eq!(ledger.range_for(owner, lan, Some("10.88.0.0/22".parse().unwrap())).ok(), None);
}

#[test]
fn only_a_network_without_addresses_is_forgotten() {
    let mut ledger = Ledger::default();
    let given = attachment(1, "10.88.4.2", &[]);
    assert!(ledger.is_idle() && ledger.enter(given.clone()) && !ledger.is_idle());
    ledger.strike(given.start);
    assert!(ledger.is_idle());
    assert_eq!(ledger.subnets(OWNER, Network::Bridge).len(), 1, "its address rests");
    ledger.rested(given.address);
    assert_eq!(ledger.subnets(OWNER, Network::Bridge).len(), 0);
}

/// Two owners of one pool ask for networks of their own side by side, and give them back again.
#[test]
fn t22_allocators_that_race_never_overlap() {
    const ROUNDS: u64 = 5_000;
    let (rules, ledger) = (rules(), std::sync::Mutex::new(Ledger::default()));
    let held = std::sync::Mutex::new(BTreeMap::<Start, Subnet>::new());
    std::thread::scope(|scope| {
        for uid in [1000, 1001] {
            let (rules, ledger, held) = (&rules, &ledger, &held);
            scope.spawn(move || {
                let owner = rules.owner(Uid(uid)).unwrap();
                for round in 0..ROUNDS {
                    let network = Network::Named(format!("n{}", round % 7).parse().unwrap());
                    let mut ledger = ledger.lock().unwrap();
                    let (address, mark) = ledger.place(owner, network, None).unwrap();
                    let start =
                        Start { owner: owner.uid, worker: WorkerId::from_random(round), generation: Generation(1) };
                    let one = Attachment { start, network, mark, address, ..attachment(round, "10.88.0.2", &[]) };
                    assert!(ledger.enter(one));
                    let range = place::range_of(address);
                    let mut held = held.lock().unwrap();
                    let others = held.iter().filter(|(other, _)| other.owner != owner.uid);
                    assert!(others.into_iter().all(|(_, other)| !other.overlaps(range)), "{range} is another owner's");
                    held.insert(start, range);
                    if round % 3 == 2 {
                        let (start, _) = held.iter().find(|(held, _)| held.owner == owner.uid).unwrap();
                        let start = *start;
                        held.remove(&start);
                        let struck = ledger.strike(start).unwrap();
                        ledger.rested(struck.address);
                    }
                }
            });
        }
    });
    assert!(held.lock().unwrap().len() > 1000);
}

#[test]
fn only_links_that_exist_are_looked_for() {
    let mut ledger = Ledger::default();
    let given = attachment(1, "10.88.4.2", &[]);
    assert!(!ledger.link(given.start));
    ledger.enter(given.clone());
    assert_eq!(ledger.links().count(), 0);
    assert!(ledger.link(given.start));
    assert_eq!(ledger.by_link(given.link).map(|a| a.start), Some(given.start));
    ledger.strike(given.start);
    assert_eq!(ledger.links().count(), 0);
}
