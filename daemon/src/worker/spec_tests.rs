use super::*;

fn spec() -> wire::WorkerSpec {
    wire::WorkerSpec {
        name: "web".into(),
        command: vec![b"sleep".to_vec(), b"1".to_vec()],
        network: "bridge".into(),
        ..Default::default()
    }
}

fn parse(change: impl FnOnce(&mut wire::WorkerSpec)) -> Result<Spec, SpecError> {
    let mut spec = spec();
    change(&mut spec);
    Spec::try_from(&spec)
}

fn port(proto: &str, host: u32, worker: u32, address: &str) -> wire::Publish {
    wire::Publish { proto: proto.into(), host, worker, address: address.into() }
}

#[test]
fn what_is_left_out_has_the_defaults_of_the_contract() {
    let spec = parse(|_| {}).unwrap();
    assert_eq!((spec.stop_signal, spec.grace), (15, Duration::from_secs(10)));
    assert_eq!((spec.log_bytes_max, spec.log_files_max), (100 << 20, 10));
    assert_eq!((spec.workdir.as_path(), spec.network), (Path::new("/"), Network::Bridge));
    let zero = parse(|spec| spec.stop_timeout_secs = Some(0)).unwrap();
    assert_eq!(zero.grace, Duration::ZERO);
}

#[test]
fn commands_and_variables_are_what_linux_can_pass() {
    assert_eq!(parse(|spec| spec.command.clear()), Err(SpecError::NoCommand));
    assert_eq!(parse(|spec| spec.command = vec![vec![]]), Err(SpecError::NoCommand));
    assert!(matches!(parse(|spec| spec.command.push(b"a\0b".to_vec())), Err(SpecError::Nul(_))));
    assert!(parse(|spec| spec.command.push(vec![0xff, 0xfe])).is_ok());
    assert!(parse(|spec| spec.command.push(vec![])).is_ok());
    assert!(matches!(parse(|spec| spec.command.push(vec![b'a'; 1 << 20])), Err(SpecError::TooLarge(_))));
    for bad in [&b"KEY"[..], b"=value", b"", b"A\0=b"] {
        assert!(parse(|spec| spec.env = vec![bad.to_vec()]).is_err(), "{bad:?} was taken");
    }
    assert!(parse(|spec| spec.env = vec![b"A=".to_vec(), b"B=c=d".to_vec()]).is_ok());
}

#[test]
fn paths_are_absolute_and_lead_nowhere_else() {
    for bad in [&b"tmp"[..], b"../x", b"/a/../b", b"/a\0b", &[b'/'; 5000]] {
        assert!(parse(|spec| spec.workdir = bad.to_vec()).is_err(), "{bad:?} was taken");
    }
    assert_eq!(parse(|spec| spec.workdir = b"/a//b/./".to_vec()).unwrap().workdir, Path::new("/a/b"));
    let volume = |source: &[u8], target: &[u8]| wire::Volume {
        source: source.to_vec(),
        target: target.to_vec(),
        read_only: true,
    };
    assert_eq!(parse(|spec| spec.volumes = vec![volume(b"/srv", b"//")]), Err(SpecError::VolumeOverRoot));
    assert!(parse(|spec| spec.volumes = vec![volume(b"srv", b"/srv")]).is_err());
    assert!(parse(|spec| spec.volumes = vec![volume(b"/srv", b"/srv"); 257]).is_err());
    assert!(parse(|spec| spec.volumes = vec![volume(b"/srv", b"/srv")]).unwrap().volumes[0].read_only);
}

#[test]
fn ports_are_checked_before_the_helper_is_asked() {
    let publish = |ports: Vec<wire::Publish>| parse(|spec| spec.publish = ports);
    let good = publish(vec![port("tcp", 0, 80, ""), port("udp", 8080, 80, "::1"), port("tcp", 0, 81, "")]).unwrap();
    assert_eq!(good.publish[1].address, Some("::1".parse().unwrap()));
    assert!(matches!(publish(vec![port("sctp", 1, 1, "")]), Err(SpecError::Protocol(_))));
    for (host, worker) in [(65536, 80), (80, 0), (80, 70000)] {
        assert!(matches!(publish(vec![port("tcp", host, worker, "")]), Err(SpecError::Port { .. })));
    }
    assert!(matches!(publish(vec![port("tcp", 80, 80, "localhost")]), Err(SpecError::Address(_))));
    let twice = vec![port("tcp", 80, 80, "127.0.0.1"), port("tcp", 80, 81, "")];
    assert_eq!(publish(twice), Err(SpecError::PortTwice(80)));
    assert!(publish(vec![port("tcp", 80, 80, "127.0.0.1"), port("tcp", 80, 81, "192.0.2.1")]).is_ok());
    assert!(publish(vec![port("tcp", 80, 80, ""), port("udp", 80, 81, "")]).is_ok());
    let none = parse(|spec| {
        spec.network = "none".into();
        spec.publish = vec![port("tcp", 80, 80, "")];
    });
    assert_eq!(none, Err(SpecError::PublishOnNone));
    let host = parse(|spec| {
        spec.network = "host".into();
        spec.publish = vec![port("tcp", 80, 80, "")];
    });
    assert_eq!(host, Err(SpecError::PublishOnHost));
    assert!(matches!(publish(vec![port("tcp", 0, 80, ""); 257]), Err(SpecError::TooMany { .. })));
}

#[test]
fn limits_are_limits() {
    assert!(matches!(parse(|spec| spec.network = "default".into()), Err(SpecError::Network(_))));
    assert_eq!(parse(|spec| spec.network = "host".into()).unwrap().network, Network::Host);
    assert_eq!(parse(|spec| spec.stop_signal = 32), Err(SpecError::Signal(32)));
    assert_eq!(parse(|spec| spec.stop_signal = 1).unwrap().stop_signal, 1);
    assert!(matches!(parse(|spec| spec.stop_timeout_secs = Some(90_000)), Err(SpecError::Grace(_))));
    for (bytes, files) in [(4096, 2), (0, 1001), (1 << 41, 10)] {
        let log = parse(|spec| (spec.log_bytes_max, spec.log_files_max) = (bytes, files));
        assert!(matches!(log, Err(SpecError::Log { .. })), "{bytes} in {files} was taken");
    }
    assert!(parse(|spec| (spec.log_bytes_max, spec.log_files_max) = (8192, 2)).is_ok());
}

#[test]
fn an_address_of_its_own_is_for_a_wire_of_the_hosts() {
    let of = |network: &str, address: &str, gateway: &str| {
        parse(|spec| (spec.network, spec.address, spec.gateway) = (network.into(), address.into(), gateway.into()))
    };
    let good = of("macvlan:eth1", "192.0.2.10/24", "").unwrap();
    assert_eq!((good.network.name(), good.lan.address.as_str()), ("macvlan:eth1", "192.0.2.10/24"));
    assert_eq!(of("macvlan:eth1", "", "192.0.2.1"), Err(SpecError::NoLanAddress));
    for network in ["bridge", "none", "host", "shop"] {
        assert_eq!(of(network, "192.0.2.10/24", ""), Err(SpecError::LanAddress(network.into())));
        assert_eq!(of(network, "", "192.0.2.1"), Err(SpecError::LanAddress(network.into())));
    }
    for network in ["macvlan", "macvlan:", "macvlan:a/b", "macvlan:eth0 ", "macvlan:0123456789abcdef"] {
        assert!(of(network, "192.0.2.10/24", "").is_err(), "{network}");
    }
}

#[test]
fn a_refusal_shows_no_more_than_a_line_of_what_was_given() {
    let error = parse(|spec| spec.network = "x".repeat(100_000)).unwrap_err();
    assert!(error.to_string().len() < 300);
}
