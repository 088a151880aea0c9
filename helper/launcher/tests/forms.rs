//! Every wire form and file form: the bytes that older programs have written (`fixtures/`), what is written is read
//! back, and no bytes at all make a reader do more than refuse.
//!
//! A fixture is never edited. A new version of a form gets new ones: `HOLDFAST_WRITE_FIXTURES=1` writes those that
//! are missing.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use holdfast_launcher::WireError;
use holdfast_launcher::control::{Hello, Order, Report};
use holdfast_launcher::counters::{AskCounters, Counters, MemorySource};
use holdfast_launcher::launch::{Failure, FromHelper, FromLauncher, ShimWord, Wiring};
use holdfast_launcher::limits::{Enforced, Enforcer, Limits};
use holdfast_launcher::orders::{CageOrders, Input, Network, Orders, Rootfs, Volume};
use holdfast_launcher::output::{self, RecordHeader, SegmentHeader, Stream, segment_name, segment_number};
use holdfast_launcher::record::{ExitRecord, Outcome};
use holdfast_launcher::session::{Call, DATA_BYTES_MAX, End, FromSession, Program, Refusal, Size, ToSession};
use proptest::collection::vec;
use proptest::prelude::*;
use std::ffi::OsString;
use std::fmt::Debug;
use std::net::IpAddr;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

fn wiring() -> Wiring {
    Wiring {
        link: "eth0".to_owned(),
        addresses: vec![("10.88.0.9".parse().unwrap(), 22), ("fd00:88::9".parse().unwrap(), 64)],
        gateways: vec!["10.88.0.1".parse().unwrap(), "fd00:88::1".parse().unwrap()],
        no_ipv6: false,
    }
}

fn failure() -> Failure {
    Failure { step: "mount /proc".to_owned(), errno: 1 }
}

fn orders() -> Orders {
    Orders {
        worker: "00112233445566ff".to_owned(),
        generation: 3,
        nonce: *b"0123456789abcdef",
        hostname: "web-1".to_owned(),
        argv: vec!["python3".into(), OsString::from_vec(vec![0xff, b'x'])],
        env: vec!["PATH=/bin".into(), "EMPTY=".into()],
        workdir: "/srv".into(),
        volumes: vec![
            Volume { source: "/srv/site".into(), target: "/site".into(), read_only: true },
            Volume { source: "/srv/data".into(), target: "/data".into(), read_only: false },
        ],
        hosts_file: "/run/holdfast/owners/alice/workers/hosts.default".into(),
        resolv_conf: b"nameserver 192.0.2.1\n".to_vec(),
        state_dir: "/var/lib/holdfast/owners/alice/workers/00112233445566ff".into(),
        control_dir: "/run/holdfast/owners/alice/workers".into(),
        hidden: vec!["/var/lib/holdfast".into()],
        log_bytes_max: 100 << 20,
        log_files_max: 10,
        limits: Limits { memory_bytes: Some(512 << 20), cpu_millis: Some(1500), tasks: 100, best_effort: true },
        cage: CageOrders {
            nested: true,
            root_user: false,
            rootfs: Some(Rootfs { path: "/srv/tree".into(), writable: true }),
        },
        input: Input::Terminal(Size { rows: 24, columns: 80 }),
        network: Network::Own,
    }
}

fn record(outcome: Outcome) -> ExitRecord {
    ExitRecord {
        worker: "00112233445566ff".to_owned(),
        generation: 3,
        nonce: *b"0123456789abcdef",
        started_at_ns: 1_790_000_000_000_000_001,
        finished_at_ns: 1_790_000_000_000_000_002,
        outcome,
        user_us: 4,
        system_us: 5,
        max_rss_kib: 6,
        oom: true,
        log_bytes: 7,
        log_dropped_bytes: 8,
    }
}

/// Holds one form to its committed bytes, both ways, and to the refusal of every shorter and longer version of them.
fn pinned<T: PartialEq + Debug>(
    name: &str,
    value: &T,
    encode: impl Fn(&T) -> Vec<u8>,
    decode: impl Fn(&[u8]) -> Result<T, WireError>,
) {
    let bytes = encode(value);
    assert_eq!(hex(&bytes), fixture(name, &bytes), "{name}: the bytes of a form never change");
    assert_eq!(decode(&bytes).as_ref(), Ok(value), "{name}");
    for len in 0..bytes.len() {
        assert!(decode(&bytes[..len]).is_err(), "{name} cut at {len}");
    }
    assert_eq!(decode(&[&bytes[..], &[0]].concat()), Err(WireError::Trailing(1)), "{name}");
    let other_version = [&[bytes[0] + 1], &bytes[1..]].concat();
    assert_eq!(decode(&other_version), Err(WireError::Version(bytes[0] + 1)), "{name}");
}

fn fixture(name: &str, bytes: &[u8]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(format!("{name}.hex"));
    if !path.exists() && std::env::var_os("HOLDFAST_WRITE_FIXTURES").is_some() {
        std::fs::write(&path, hex(bytes)).unwrap();
    }
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"))
}

/// 32 bytes a line.
fn hex(bytes: &[u8]) -> String {
    let line = |line: &[u8]| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n";
    bytes.chunks(32).map(line).collect()
}

#[test]
fn words_between_helper_and_launcher_are_pinned() {
    let launcher = |name: &str, word: FromLauncher| pinned(name, &word, FromLauncher::encode, FromLauncher::decode);
    launcher("dial.v1", FromLauncher::Dial { version: "0.1.0".to_owned() });
    launcher("prepared.v1", FromLauncher::Prepared { seq: 9, shim_pid: 4711 });
    launcher("released.v1", FromLauncher::Released { seq: 9 });
    launcher("failed.v1", FromLauncher::Failed { seq: 9, failure: failure() });
    let helper = |name: &str, word: FromHelper| pinned(name, &word, FromHelper::encode, FromHelper::decode);
    let worker = "00112233445566ff".to_owned();
    helper(
        "prepare.v1",
        FromHelper::Prepare { seq: 9, epoch: 2, worker: worker.clone(), generation: 3, host_network: false },
    );
    helper("prepare-host.v1", FromHelper::Prepare { seq: 9, epoch: 2, worker, generation: 3, host_network: true });
    helper("release.v1", FromHelper::Release { seq: 9, wiring: wiring() });
    helper("release-none.v1", FromHelper::Release { seq: 9, wiring: Wiring::default() });
    helper("abort.v1", FromHelper::Abort { seq: 9 });
}

#[test]
fn words_between_launcher_and_shim_are_pinned() {
    let shim = |name: &str, word: ShimWord| pinned(name, &word, ShimWord::encode, ShimWord::decode);
    shim("shim-ready.v1", ShimWord::Ready);
    shim("shim-failed.v1", ShimWord::Failed(failure()));
    shim("shim-go.v1", ShimWord::Go(wiring()));
}

#[test]
fn words_between_daemon_and_shim_are_pinned() {
    pinned("hello.v1", &Hello { nonce: *b"0123456789abcdef" }, Hello::encode, Hello::decode);
    let order = |name: &str, word: Order| pinned(name, &word, Order::encode, Order::decode);
    order("freeze.v1", Order::Freeze { generation: 3 });
    order("thaw.v1", Order::Thaw { generation: 3 });
    let report = |name: &str, word: Report| pinned(name, &word, Report::encode, Report::decode);
    let version = "0.1.0".to_owned();
    report("preparing.v1", Report::Preparing { generation: 3, version: version.clone() });
    report(
        "running.v1",
        Report::Running { generation: 3, version, started_at_ns: 1_790_000_000_000_000_001, frozen: true },
    );
    report("frozen.v1", Report::Frozen { generation: 3 });
    report("thawed.v1", Report::Thawed { generation: 3 });
    report("not-frozen.v1", Report::NotFrozen { generation: 3, failure: failure() });
    report("not-thawed.v1", Report::NotThawed { generation: 3, failure: failure() });
    report("ended.v1", Report::Ended(record(Outcome::Code(42))));
}

#[test]
fn counters_are_pinned() {
    pinned("ask-counters.v1", &AskCounters { nonce: *b"0123456789abcdef" }, AskCounters::encode, AskCounters::decode);
    let counters = |name: &str, word: Counters| pinned(name, &word, Counters::encode, Counters::decode);
    counters("counters-none.v1", Counters { at_us: 7, ..Counters::default() });
    let all = Counters {
        at_us: 7,
        cpu_us: Some(8),
        memory: Some((9, MemorySource::Cgroup)),
        tasks: Some(10),
        network: Some((11, 12)),
        block: Some((13, 14)),
        enforced: Enforced {
            memory: Some(Enforcer::Nobody),
            cpu: Some(Enforcer::Cgroup),
            tasks: Some(Enforcer::Rlimit),
        },
    };
    counters("counters.v1", all);
}

#[test]
fn words_of_sessions_are_pinned() {
    let nonce = *b"0123456789abcdef";
    let size = Size { rows: 24, columns: 80 };
    let call = |name: &str, word: Call| {
        assert!(Call::is_one(&word.encode()));
        pinned(name, &word, Call::encode, Call::decode);
    };
    assert!(!Call::is_one(&Hello { nonce }.encode()));
    call("session-open.v1", Call::Open { nonce, session: 7, terminal: Some(size), input: true });
    call("session-open-pipes.v1", Call::Open { nonce, session: 7, terminal: None, input: false });
    call("session-resume.v1", Call::Resume { nonce, session: 7, taken: 5 });
    let program = Program { argv: vec!["ls".into()], env: vec!["A=b".into()], workdir: "/srv".into() };
    pinned("session-program.v1", &program, Program::encode, Program::decode);
    let to = |name: &str, word: ToSession| pinned(name, &word, ToSession::encode, ToSession::decode);
    to("session-input.v1", ToSession::Input { offset: 5, bytes: b"hello".to_vec() });
    to("session-input-end.v1", ToSession::InputEnd { offset: 10 });
    to("session-resize.v1", ToSession::Resize(size));
    to("session-signal.v1", ToSession::Signal(15));
    to("session-taken.v1", ToSession::Taken { offset: 5 });
    to("session-hangup.v1", ToSession::Hangup);
    let from = |name: &str, word: FromSession| pinned(name, &word, FromSession::encode, FromSession::decode);
    from("session-opened.v1", FromSession::Opened { input: 5 });
    from("session-refused.v1", FromSession::Refused(Refusal::Full));
    from("session-output.v1", FromSession::Output { is_stderr: true, offset: 5, bytes: b"hello".to_vec() });
    from("session-input-taken.v1", FromSession::InputTaken { offset: 5 });
    from("session-code.v1", FromSession::Ended(End::Code(42)));
    from("session-killed.v1", FromSession::Ended(End::Signal(9)));
    from("session-not-started.v1", FromSession::Ended(End::NotStarted { code: 127, failure: failure() }));
    let long = ToSession::Input { offset: 0, bytes: vec![0; DATA_BYTES_MAX + 1] };
    assert_eq!(ToSession::decode(&long.encode()), Err(WireError::Value("length")));
    assert_eq!(ToSession::decode(&ToSession::Signal(32).encode()), Err(WireError::Value("signal")));
    for bad in [
        Program { argv: vec![], ..program.clone() },
        Program { workdir: "srv".into(), ..program.clone() },
        Program { env: vec!["A=\0".into()], ..program },
    ] {
        assert!(Program::decode(&bad.encode()).is_err());
    }
}

#[test]
fn orders_and_records_are_pinned() {
    pinned("orders.v1", &orders(), Orders::encode, Orders::decode);
    let left = |name: &str, outcome| pinned(name, &record(outcome), ExitRecord::encode, ExitRecord::decode);
    left("exit-code.v1", Outcome::Code(42));
    left("exit-signal.v1", Outcome::Signal(11));
    left("exit-not-started.v1", Outcome::NotStarted { code: 127, failure: failure() });
}

#[test]
fn output_is_pinned() {
    let segment = SegmentHeader { offset: 0x0102, dropped: 0x03 };
    let head = RecordHeader { time_ns: -2, len: 5, stream: Stream::Stderr };
    let bytes = [&segment.encode()[..], &head.encode()[..], b"hello"].concat();
    assert_eq!(hex(&bytes), fixture("segment.v1", &bytes));
    assert_eq!(SegmentHeader::decode(&segment.encode()), Some(segment));
    assert_eq!(RecordHeader::decode(&head.encode()), Some(head));
    let long = RecordHeader { len: output::PAYLOAD_BYTES_MAX as u32 + 1, ..head };
    assert_eq!(RecordHeader::decode(&long.encode()), None);
    let gap = RecordHeader { len: 9, stream: Stream::Gap, ..head };
    assert_eq!(RecordHeader::decode(&gap.encode()), None);
    assert_eq!((segment_name(7), segment_number("0000000007")), ("0000000007".to_owned(), Some(7)));
    assert_eq!((segment_number("7"), segment_number("000000000x")), (None, None));
}

#[test]
fn orders_that_no_shim_could_follow_are_refused() {
    let refused = |change: &dyn Fn(&mut Orders)| {
        let mut orders = orders();
        change(&mut orders);
        Orders::decode(&orders.encode()).unwrap_err()
    };
    assert_eq!(refused(&|o| o.argv.clear()), WireError::Value("command"));
    assert_eq!(refused(&|o| o.log_files_max = 0), WireError::Value("number of log files"));
    assert_eq!(refused(&|o| o.workdir = "srv".into()), WireError::Value("workdir"));
    assert_eq!(refused(&|o| o.volumes[0].source = "site".into()), WireError::Value("volume source"));
    assert_eq!(refused(&|o| o.env[0] = "A=\0".into()), WireError::Value("variable"));
    assert_eq!(refused(&|o| o.argv[0] = "a\0b".into()), WireError::Value("argument"));
}

fn any_word() -> impl Strategy<Value = OsString> {
    vec(1u8.., 0..20).prop_map(OsString::from_vec)
}

fn any_path() -> impl Strategy<Value = PathBuf> {
    any_word().prop_map(|word| {
        let mut path = OsString::from("/");
        path.push(word);
        PathBuf::from(path)
    })
}

fn any_failure() -> impl Strategy<Value = Failure> {
    (".{0,40}", any::<i32>()).prop_map(|(step, errno)| Failure { step, errno })
}

fn any_wiring() -> impl Strategy<Value = Wiring> {
    ("[a-z0-9]{0,15}", vec((any::<IpAddr>(), any::<u8>()), 0..4), vec(any::<IpAddr>(), 0..4))
        .prop_map(|(link, addresses, gateways)| Wiring { link, addresses, no_ipv6: gateways.len() == 1, gateways })
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        any::<u8>().prop_map(Outcome::Code),
        any::<u8>().prop_map(Outcome::Signal),
        (any::<u8>(), any_failure()).prop_map(|(code, failure)| Outcome::NotStarted { code, failure }),
    ]
}

prop_compose! {
    fn any_record()(
        (worker, generation, nonce) in (".{0,20}", any::<u64>(), any::<[u8; 16]>()),
        (started_at_ns, finished_at_ns) in any::<(i64, i64)>(),
        outcome in any_outcome(),
        (user_us, system_us, max_rss_kib, oom) in any::<(u64, u64, u64, bool)>(),
        (log_bytes, log_dropped_bytes) in any::<(u64, u64)>(),
    ) -> ExitRecord {
        ExitRecord {
            worker, generation, nonce, started_at_ns, finished_at_ns, outcome, user_us, system_us, max_rss_kib, oom,
            log_bytes, log_dropped_bytes,
        }
    }
}

prop_compose! {
    fn any_orders()(
        (worker, generation, nonce, hostname) in (".{0,20}", any::<u64>(), any::<[u8; 16]>(), ".{0,20}"),
        (argv, env, workdir) in (vec(any_word(), 1..5), vec(any_word(), 0..5), any_path()),
        volumes in vec((any_path(), any_path(), any::<bool>()), 0..4),
        (hosts_file, resolv_conf) in (any_path(), vec(any::<u8>(), 0..50)),
        (state_dir, control_dir, hidden) in (any_path(), any_path(), vec(any_path(), 0..3)),
        (log_bytes_max, log_files_max) in (any::<u64>(), 1u32..),
        (memory, cpu, tasks, best_effort) in (proptest::option::of(1u64 << 20..), proptest::option::of(10u32..1000), 1u32..1000, any::<bool>()),
        (nested, root_user, rootfs) in (any::<bool>(), any::<bool>(), proptest::option::of((any_path(), any::<bool>()))),
        input in prop_oneof![
            Just(Input::None),
            Just(Input::Pipe),
            any::<(u16, u16)>().prop_map(|(rows, columns)| Input::Terminal(Size { rows, columns })),
        ],
        network in prop_oneof![Just(Network::Own), Just(Network::Host), Just(Network::Tap)],
    ) -> Orders {
        let volumes =
            volumes.into_iter().map(|(source, target, read_only)| Volume { source, target, read_only }).collect();
        Orders {
            worker, generation, nonce, hostname, argv, env, workdir, volumes, hosts_file, resolv_conf, state_dir,
            control_dir, hidden, log_bytes_max, log_files_max, input, network,
            limits: Limits { memory_bytes: memory, cpu_millis: cpu, tasks, best_effort },
            cage: CageOrders {
                nested, root_user, rootfs: rootfs.map(|(path, writable)| Rootfs { path, writable }),
            },
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        orders in any_orders(),
        record in any_record(),
        wiring in any_wiring(),
        failure in any_failure(),
        (seq, epoch, generation, shim_pid) in any::<(u64, u64, u64, u32)>(),
        (worker, version) in (".{0,20}", ".{0,20}"),
        (started_at_ns, nonce) in any::<(i64, [u8; 16])>(),
    ) {
        prop_assert_eq!(Orders::decode(&orders.encode()).unwrap(), orders);
        prop_assert_eq!(&ExitRecord::decode(&record.encode()).unwrap(), &record);
        for word in [
            FromHelper::Prepare { seq, epoch, worker, generation, host_network: generation % 2 == 1 },
            FromHelper::Release { seq, wiring: wiring.clone() },
            FromHelper::Abort { seq },
        ] {
            prop_assert_eq!(FromHelper::decode(&word.encode()).unwrap(), word);
        }
        for word in [
            FromLauncher::Dial { version: version.clone() },
            FromLauncher::Prepared { seq, shim_pid },
            FromLauncher::Released { seq },
            FromLauncher::Failed { seq, failure: failure.clone() },
        ] {
            prop_assert_eq!(FromLauncher::decode(&word.encode()).unwrap(), word);
        }
        for word in [ShimWord::Ready, ShimWord::Failed(failure), ShimWord::Go(wiring)] {
            prop_assert_eq!(ShimWord::decode(&word.encode()).unwrap(), word);
        }
        for word in [
            Report::Preparing { generation, version: version.clone() },
            Report::Running { generation, version: version.clone(), started_at_ns, frozen: started_at_ns % 2 == 0 },
            Report::Frozen { generation },
            Report::Thawed { generation },
            Report::NotFrozen { generation, failure: Failure { step: version.clone(), errno: 5 } },
            Report::NotThawed { generation, failure: Failure { step: version.clone(), errno: 5 } },
            Report::Ended(record),
        ] {
            prop_assert_eq!(Report::decode(&word.encode()).unwrap(), word);
        }
        prop_assert_eq!(Hello::decode(&Hello { nonce }.encode()).unwrap(), Hello { nonce });
    }

    /// Also with a right version and kind, so that more than the first check is met. What is accepted is written
    /// back as the same bytes: no form has two spellings.
    #[test]
    fn no_bytes_do_harm(garbage in vec(any::<u8>(), 0..300), kind in prop_oneof![0u8..19, Just(0x43)]) {
        for bytes in [garbage.clone(), [&[1, kind], &garbage[..]].concat(), [&[1], &garbage[..]].concat()] {
            if let Ok(word) = FromHelper::decode(&bytes) { prop_assert_eq!(word.encode(), bytes.clone()); }
            if let Ok(word) = FromLauncher::decode(&bytes) { prop_assert_eq!(word.encode(), bytes.clone()); }
            if let Ok(word) = ShimWord::decode(&bytes) { prop_assert_eq!(word.encode(), bytes.clone()); }
            if let Ok(word) = Report::decode(&bytes) { prop_assert_eq!(word.encode(), bytes.clone()); }
            if let Ok(word) = AskCounters::decode(&bytes) { prop_assert_eq!(word.encode(), bytes.clone()); }
            if let Ok(word) = Counters::decode(&bytes) { prop_assert_eq!(word.encode(), bytes.clone()); }
            if let Ok(word) = Call::decode(&bytes) { prop_assert_eq!(word.encode(), bytes.clone()); }
            if let Ok(word) = ToSession::decode(&bytes) { prop_assert_eq!(word.encode(), bytes.clone()); }
            if let Ok(word) = FromSession::decode(&bytes) { prop_assert_eq!(word.encode(), bytes.clone()); }
            if let Ok(word) = Program::decode(&bytes) { prop_assert_eq!(word.encode(), bytes.clone()); }
            if let Ok(word) = Hello::decode(&bytes) { prop_assert_eq!(word.encode(), bytes.clone()); }
            if let Ok(word) = Order::decode(&bytes) { prop_assert_eq!(word.encode(), bytes.clone()); }
            if let Ok(word) = Orders::decode(&bytes) { prop_assert_eq!(word.encode(), bytes.clone()); }
            if let Ok(word) = ExitRecord::decode(&bytes) { prop_assert_eq!(word.encode(), bytes.clone()); }
        }
        let segment = garbage.first_chunk().and_then(SegmentHeader::decode);
        prop_assert!(segment.is_none_or(|header| garbage.starts_with(&header.encode())));
        let record = garbage.first_chunk().and_then(RecordHeader::decode);
        prop_assert!(record.is_none_or(|header| garbage.starts_with(&header.encode())));
    }

    /// One byte of a right form turned into any other: read back as it stands, or refused.
    #[test]
    fn no_changed_byte_does_harm(record in any_record(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = record.encode();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(word) = ExitRecord::decode(&bytes) { prop_assert_eq!(word.encode(), bytes); }
    }
}
