use super::*;
use proptest::prelude::*;

const ALICE: Uid = Uid(1000);
const BOB: Uid = Uid(1001);

fn rules(alice: &str) -> Rules {
    format!("version = 1\n[owners.alice]\nuid = 1000\n{alice}\n[owners.bob]\nuid = 1001\n").parse().unwrap()
}

fn start(owner: Uid, worker: u64, generation: u64) -> Start {
    Start { owner, worker: WorkerId::from_random(worker), generation: Generation(generation) }
}

fn request(owner: Uid, worker: u64, ports: &[(u16, &str)]) -> LaunchRequest {
    let ports = ports.iter().map(|(host, address)| AskedPort {
        proto: Proto::Tcp,
        address: address.parse().unwrap(),
        host: Some(*host).filter(|host| *host != 0),
        worker: 80,
    });
    LaunchRequest {
        start: start(owner, worker, 1),
        network: Network::Bridge,
        subnet: None,
        internal: false,
        lan: None,
        ports: ports.collect(),
        nonce: worker,
        avoid: BTreeSet::new(),
    }
}

fn enter(ledger: &mut Ledger, permit: &Permit) {
    assert!(ledger.enter(permit.attachment().unwrap().clone()));
}

/// Judges and enters, as a launch does.
fn launched(ledger: &mut Ledger, rules: &Rules, request: &LaunchRequest) -> Result<Permit, Refusal> {
    let permit = judge(request, rules, ledger)?;
    enter(ledger, &permit);
    Ok(permit)
}

#[test]
fn a_stranger_hears_nothing_but_not_yours() {
    let error = judge(&request(Uid(4242), 1, &[]), &rules(""), &Ledger::default()).unwrap_err();
    assert_eq!(error, Refusal::NotYours);
    assert_eq!(error.to_string(), "not yours");
    assert_eq!(judge(&request(Uid(0), 1, &[]), &rules(""), &Ledger::default()), Err(Refusal::NotYours));
}

#[test]
fn a_start_is_permitted_once_and_none_after_a_later_one() {
    let (rules, mut ledger) = (rules(""), Ledger::default());
    let mut second = request(ALICE, 1, &[]);
    second.start.generation = Generation(2);
    launched(&mut ledger, &rules, &second).unwrap();
    for generation in [1, 2] {
        let mut again = request(ALICE, 1, &[]);
        again.start.generation = Generation(generation);
        assert!(matches!(judge(&again, &rules, &ledger), Err(Refusal::AlreadyAttached { .. })), "{generation}");
    }
    let mut third = request(ALICE, 1, &[]);
    third.start.generation = Generation(3);
    assert!(judge(&third, &rules, &ledger).is_ok());
    assert!(judge(&request(BOB, 1, &[]), &rules, &ledger).is_ok(), "the same id of another owner is another worker");
}

#[test]
fn the_hosts_network_is_the_rules_to_give_and_takes_nothing_from_the_ledger() {
    let ledger = Ledger::default();
    let host = |ports| LaunchRequest { network: Network::Host, ..request(ALICE, 1, ports) };
    let error = judge(&host(&[]), &rules(""), &ledger).unwrap_err();
    assert_eq!(error.to_string(), "rule networks of owner alice: \"host\" is not in [\"none\", \"bridge\"]");
    let granted = rules("networks = [\"host\"]");
    let permit = judge(&host(&[]), &granted, &ledger).unwrap();
    assert_eq!((permit.network(), permit.attachment()), (Network::Host, None));
    let refused = Err(Refusal::PortsWithoutNetwork { network: Network::Host, asked: 1 });
    assert_eq!(judge(&host(&[(8080, "0.0.0.0")]), &granted, &ledger), refused);
}

#[test]
fn a_wire_is_shared_by_the_rules_alone_and_an_address_once() {
    let on = |parent: &str| Network::Macvlan(holdfast_proto::words::Macvlan::on(parent).unwrap());
    let ask = |owner, worker, parent: &str, address: &str| {
        let lan = Some(AskedLan { address: address.parse().unwrap(), gateway: None });
        LaunchRequest { network: on(parent), lan, ..request(owner, worker, &[]) }
    };
    let granted = rules("macvlan_parents = [\"eth1\"]\nmacvlan_max = 2");
    let mut ledger = Ledger::default();
    let error = judge(&ask(ALICE, 1, "eth1", "192.0.2.10/24"), &rules(""), &ledger).unwrap_err();
    assert_eq!(error.to_string(), "rule macvlan_parents of owner alice: \"eth1\" is not in []");
    for parent in ["eth0", "lo", "wg0", "docker0", "eth1.5", "eth"] {
        let refused = judge(&ask(ALICE, 1, parent, "192.0.2.10/24"), &granted, &ledger);
        assert!(matches!(refused, Err(Refusal::Lan(LanRefusal::Parent { .. }))), "{parent}");
    }
    let none = LaunchRequest { lan: None, ..ask(ALICE, 1, "eth1", "192.0.2.10/24") };
    assert!(matches!(judge(&none, &granted, &ledger), Err(Refusal::Lan(LanRefusal::NoAddress(_)))));
    let ports = LaunchRequest { ports: request(ALICE, 1, &[(8080, "0.0.0.0")]).ports, ..none };
    assert!(matches!(judge(&ports, &granted, &ledger), Err(Refusal::PortsWithoutNetwork { asked: 1, .. })));
    for (worker, address) in [(1, "192.0.2.10/24"), (2, "192.0.2.11/24")] {
        let permit = judge(&ask(ALICE, worker, "eth1", address), &granted, &ledger).unwrap();
        assert!(permit.attachment().is_none() && ledger.enter_lan(permit.lan().unwrap().clone()));
    }
    let again = judge(&ask(ALICE, 1, "eth1", "192.0.2.12/24"), &granted, &ledger);
    assert!(matches!(again, Err(Refusal::AlreadyAttached { .. })));
    let third = judge(&ask(ALICE, 3, "eth1", "192.0.2.12/24"), &granted, &ledger).unwrap_err();
    assert_eq!(third.to_string(), "rule macvlan_max of owner alice: 2 are attached and 1 asked for, at most 2 may be");
    let struck = ledger.lan_of_owner(Uid(1000)).next().unwrap().start;
    assert!(ledger.strike_lan(struck).is_some() && ledger.strike_lan(struck).is_none());
    let taken = judge(&ask(ALICE, 3, "eth1", "192.0.2.11/24"), &granted, &ledger).unwrap_err();
    assert!(taken.to_string().starts_with("address 192.0.2.11 is in use by your worker"), "{taken}");
    assert!(judge(&ask(ALICE, 3, "eth1", "192.0.2.10/24"), &granted, &ledger).is_ok());
}

#[test]
fn networks_are_those_of_the_rule() {
    let (rules, ledger) = (rules("networks = [\"none\"]"), Ledger::default());
    let error = judge(&request(ALICE, 1, &[]), &rules, &ledger).unwrap_err();
    assert_eq!(error.to_string(), "rule networks of owner alice: \"bridge\" is not in [\"none\"]");
    let none = LaunchRequest { network: Network::None, ..request(ALICE, 1, &[]) };
    assert_eq!(judge(&none, &rules, &ledger).unwrap().attachment(), None);
    let ports = LaunchRequest { network: Network::None, ..request(ALICE, 1, &[(8080, "0.0.0.0")]) };
    assert_eq!(judge(&ports, &rules, &ledger), Err(Refusal::PortsWithoutNetwork { network: Network::None, asked: 1 }));
}

#[test]
fn ports_outside_the_grant_are_refused_with_the_grant() {
    let (rules, ledger) = (rules("ports = [\"80\", \"8000-8100\"]\nbind = [\"127.0.0.1\"]"), Ledger::default());
    for host in [22, 79, 81, 7999, 8101, 65535] {
        let error = judge(&request(ALICE, 1, &[(host, "127.0.0.1")]), &rules, &ledger).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("rule ports of owner alice: port {host} is not in [\"80\", \"8000-8100\"]")
        );
    }
    for host in [80, 8000, 8100] {
        assert!(judge(&request(ALICE, 1, &[(host, "127.0.0.1")]), &rules, &ledger).is_ok());
        let elsewhere = judge(&request(ALICE, 1, &[(host, "0.0.0.0")]), &rules, &ledger);
        assert!(matches!(elsewhere, Err(Refusal::Bind { .. })), "all addresses are more than one of them");
    }
}

#[test]
fn a_port_is_given_once_whoever_asks_and_another_owner_is_not_named() {
    let (rules, mut ledger) = (rules(""), Ledger::default());
    launched(&mut ledger, &rules, &request(ALICE, 1, &[(8080, "0.0.0.0")])).unwrap();
    for (owner, address) in [(ALICE, "0.0.0.0"), (BOB, "0.0.0.0"), (BOB, "127.0.0.1")] {
        let error = judge(&request(owner, 2, &[(8080, address)]), &rules, &ledger).unwrap_err();
        let holder = if owner == ALICE { "your worker 0000000000000001" } else { "another owner's worker" };
        assert_eq!(error.to_string(), format!("port 8080/tcp is in use by {holder}"));
    }
    let twice = judge(&request(ALICE, 2, &[(9000, "0.0.0.0"), (9000, "127.0.0.1")]), &rules, &ledger);
    assert!(matches!(twice, Err(Refusal::PortTwice(_))));
    ledger.strike(start(ALICE, 1, 1));
    assert!(judge(&request(BOB, 2, &[(8080, "0.0.0.0")]), &rules, &ledger).is_ok());
}

#[test]
fn a_chosen_port_is_free_granted_and_not_one_that_was_named() {
    let (rules, mut ledger) = (rules("ports = [\"40000-40003\"]"), Ledger::default());
    launched(&mut ledger, &rules, &request(BOB, 9, &[(40000, "0.0.0.0")])).unwrap();
    let mut asked = request(ALICE, 1, &[(0, "0.0.0.0"), (40001, "0.0.0.0")]);
    asked.avoid.insert((Proto::Tcp, 40002));
    let permit = judge(&asked, &rules, &ledger).unwrap();
    let hosts: Vec<u16> = permit.attachment().unwrap().ports.iter().map(|port| port.host).collect();
    assert_eq!(hosts, [40003, 40001]);
    assert!(
        permit.chose(&permit.attachment().unwrap().ports[0]) && !permit.chose(&permit.attachment().unwrap().ports[1])
    );
    asked.avoid.insert((Proto::Tcp, 40003));
    let error = judge(&asked, &rules, &ledger).unwrap_err();
    assert_eq!(error.to_string(), "rule ports of owner alice: no tcp port of [\"40000-40003\"] is free");
}

#[test]
fn quotas_hold_per_owner_and_come_back() {
    let (rules, mut ledger) = (rules("workers_max = 2\nports_max = 3"), Ledger::default());
    launched(&mut ledger, &rules, &request(ALICE, 1, &[(8001, "0.0.0.0"), (8002, "0.0.0.0")])).unwrap();
    let ports = judge(&request(ALICE, 2, &[(8003, "0.0.0.0"), (8004, "0.0.0.0")]), &rules, &ledger).unwrap_err();
    assert_eq!(ports.to_string(), "rule ports_max of owner alice: 2 are attached and 2 asked for, at most 3 may be");
    launched(&mut ledger, &rules, &request(ALICE, 2, &[(8003, "0.0.0.0")])).unwrap();
    let workers = judge(&request(ALICE, 3, &[]), &rules, &ledger).unwrap_err();
    assert!(matches!(workers, Refusal::Quota { rule: "workers_max", used: 2, asked: 1, max: 2, .. }));
    assert!(judge(&request(BOB, 3, &[]), &rules, &ledger).is_ok());
    ledger.strike(start(ALICE, 1, 1));
    assert!(judge(&request(ALICE, 3, &[]), &rules, &ledger).is_ok());
    let many: Vec<_> = (0..=PORTS_PER_WORKER_MAX as u16).map(|n| (2000 + n, "0.0.0.0")).collect();
    assert!(matches!(judge(&request(BOB, 4, &many), &rules, &ledger), Err(Refusal::ManyPorts(_))));
}

#[test]
fn a_full_pool_and_a_full_network_are_named() {
    let rules = rules("pool = \"10.99.0.0/22\"\nworkers_max = 5000");
    let mut ledger = Ledger::default();
    ledger.learn_foreign(vec!["10.99.1.0/24".parse().unwrap()]);
    let error = judge(&request(ALICE, 1, &[]), &rules, &ledger).unwrap_err();
    assert!(matches!(error, Refusal::PoolFull { .. }), "{error}");
    ledger.learn_foreign(Vec::new());
    for worker in 0..1021 {
        launched(&mut ledger, &rules, &request(ALICE, worker, &[])).unwrap();
    }
    let error = judge(&request(ALICE, 5000, &[]), &rules, &ledger).unwrap_err();
    assert!(matches!(error, Refusal::PoolFull { .. }), "{error}");
}

fn named(owner: Uid, worker: u64, name: &str) -> LaunchRequest {
    LaunchRequest { network: Network::Named(name.parse().unwrap()), ..request(owner, worker, &[]) }
}

#[test]
fn a_network_that_is_full_goes_on_in_another_range_and_keeps_its_mark() {
    let (rules, mut ledger) = (rules("workers_max = 5000"), Ledger::default());
    let first = launched(&mut ledger, &rules, &named(ALICE, 0, "lan")).unwrap();
    for worker in 1..2500 {
        let permit = launched(&mut ledger, &rules, &named(ALICE, worker, "lan")).unwrap();
        assert_eq!(permit.attachment().unwrap().mark, first.attachment().unwrap().mark);
    }
    let subnets = ledger.subnets(ALICE, named(ALICE, 0, "lan").network);
    assert_eq!(subnets.len(), 3);
    assert!(!subnets[0].overlaps(subnets[1]) && !subnets[1].overlaps(subnets[2]));
    let other = launched(&mut ledger, &rules, &named(ALICE, 9999, "lan2")).unwrap();
    let bobs = launched(&mut ledger, &rules, &named(BOB, 1, "lan")).unwrap();
    let marks = [&first, &other, &bobs].map(|permit| permit.attachment().unwrap().mark);
    assert!(marks[0] != marks[1] && marks[1] != marks[2] && marks[0] != marks[2] && !marks.contains(&0), "{marks:?}");
}

#[test]
fn named_networks_are_judged_by_right_number_and_range() {
    let alice = rules("networks_max = 2\npool = \"10.99.0.0/16\"");
    let mut ledger = Ledger::default();
    let with = |subnet: &str, worker| LaunchRequest { subnet: subnet.parse().ok(), ..named(ALICE, worker, "lan") };
    for outside in ["10.98.0.0/22", "10.99.4.0/23", "10.99.0.0/16", "192.168.0.0/22", "0.0.0.0/0", "127.0.0.0/22"] {
        let refused = judge(&with(outside, 1), &alice, &ledger);
        assert!(matches!(refused, Err(Refusal::NotInPool { .. })), "{outside}: {refused:?}");
    }
    ledger.learn_foreign(vec!["10.99.8.7/32".parse().unwrap()]);
    assert!(matches!(judge(&with("10.99.8.0/22", 1), &alice, &ledger), Err(Refusal::SubnetTaken { .. })));
    let permit = launched(&mut ledger, &alice, &with("10.99.12.0/22", 1)).unwrap();
    assert_eq!(permit.attachment().unwrap().address, Ipv4Addr::new(10, 99, 12, 2));
    let taken = LaunchRequest { network: Network::Named("b".parse().unwrap()), ..with("10.99.12.0/22", 2) };
    assert!(matches!(judge(&taken, &alice, &ledger), Err(Refusal::SubnetTaken { .. })));
    launched(&mut ledger, &alice, &named(ALICE, 3, "b")).unwrap();
    let error = judge(&named(ALICE, 4, "c"), &alice, &ledger).unwrap_err();
    assert!(matches!(error, Refusal::Quota { rule: "networks_max", used: 2, .. }), "{error}");
    assert!(judge(&named(ALICE, 4, "b"), &alice, &ledger).is_ok(), "one that is there already");
    assert!(judge_network(ALICE, named(ALICE, 1, "c").network, None, (&alice, &ledger)).is_err());
    let none = rules("networks = [\"none\"]");
    let error = judge(&named(ALICE, 1, "lan"), &none, &Ledger::default()).unwrap_err();
    assert_eq!(error.to_string(), "rule networks of owner alice: \"bridge\" is not in [\"none\"]");
}

#[test]
fn an_internal_network_publishes_nothing() {
    let mut asked = LaunchRequest { internal: true, ..named(ALICE, 1, "lan") };
    let permit = judge(&asked, &rules(""), &Ledger::default()).unwrap();
    assert!(permit.attachment().unwrap().internal);
    asked.ports = request(ALICE, 1, &[(8080, "0.0.0.0")]).ports;
    assert!(matches!(judge(&asked, &rules(""), &Ledger::default()), Err(Refusal::PortsOnInternal(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever two owners of one pool do, no address and no port is given twice, networks never overlap,
    /// and quotas hold.
    #[test]
    fn nothing_is_ever_given_twice(steps in proptest::collection::vec((any::<bool>(), 0u64..12, 0u16..6, any::<bool>()), 1..200)) {
        let rules = rules("workers_max = 6\nports_max = 8\nports = [\"8000-8003\"]");
        let mut ledger = Ledger::default();
        ledger.learn_foreign(vec!["10.88.0.0/22".parse().unwrap()]);
        for (is_alice, worker, port, gives_back) in steps {
            let owner = if is_alice { ALICE } else { BOB };
            if gives_back {
                if let Some(struck) = ledger.strike(start(owner, worker, 1)) && port % 2 == 0 {
                    ledger.rested(struck.address);
                }
                continue;
            }
            let ports: Vec<_> = if port == 0 { vec![] } else { vec![(7998 + port, "0.0.0.0"), (0, "0.0.0.0")] };
            let mut asked = request(owner, worker, &ports);
            if worker % 3 == 0 {
                asked.network = Network::Named("lan".parse().unwrap());
            }
            let _ = launched(&mut ledger, &rules, &asked);
            let all: Vec<Attachment> = [ALICE, BOB].iter().flat_map(|o| ledger.of_owner(*o)).cloned().collect();
            for (n, one) in all.iter().enumerate() {
                let foreign: Subnet = "10.88.0.0/22".parse().unwrap();
                prop_assert!(!foreign.contains(one.address));
                for other in &all[n + 1..] {
                    prop_assert_ne!(one.address, other.address);
                    let apart = Subnet::around(one.address, 22) != Subnet::around(other.address, 22);
                    prop_assert!(apart || (one.start.owner, one.network) == (other.start.owner, other.network));
                    prop_assert!(!one.ports.iter().any(|p| other.ports.iter().any(|q| p.clashes(q))));
                }
            }
            prop_assert!(ledger.of_owner(ALICE).count() <= 6);
            prop_assert!(ledger.of_owner(ALICE).map(|a| a.ports.len()).sum::<usize>() <= 8);
        }
    }
}
