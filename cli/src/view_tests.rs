use super::*;

fn worker() -> Worker {
    Worker {
        id: "0123456789abcdef".into(),
        name: "web".into(),
        phase: Phase::Running.into(),
        generation: 1,
        pid: 42,
        created_at: 1_000_000_000,
        started_at: 2_000_000_000,
        addresses: vec!["10.88.0.2/22".into(), "fd00::2/64".into()],
        ports: vec![
            Publish { proto: "tcp".into(), host: 8080, worker: 80, address: String::new() },
            Publish { proto: "udp".into(), host: 53, worker: 5353, address: "::1".into() },
        ],
        command: vec![b"sh".to_vec(), b"-c".to_vec(), b"echo \x1b[31m\xff".to_vec()],
        network: "bridge".into(),
        owner: "alice".into(),
        ..Worker::default()
    }
}

fn ended(phase: Phase, exit: Exit) -> Worker {
    Worker { phase: phase.into(), pid: 0, finished_at: 5_000_000_000, exit: Some(exit), ..worker() }
}

fn code(code: u32) -> Exit {
    Exit { how: Some(How::Code(code)), ..Exit::default() }
}

fn signal(number: u32) -> Exit {
    Exit { how: Some(How::Signal(number)), ..Exit::default() }
}

fn now() -> Timestamp {
    Timestamp::from_second(10).unwrap()
}

#[test]
fn a_live_workers_row_tells_all_that_counts() {
    let expected = [
        "0123456789abcdef",
        "web",
        "running",
        "8 seconds ago",
        "0",
        "10.88.0.2, fd00::2",
        "*:8080->80/tcp, [::1]:53->5353/udp",
        "sh -c echo \\u{1b}[31m\u{fffd}",
    ];
    assert_eq!(row(&worker(), now()), expected.map(str::to_owned));
}

#[test]
fn how_a_worker_ended_is_told_in_its_status() {
    let not_started = Exit { not_started: "mount /proc".into(), ..code(125) };
    let lost = Exit { shim_lost: true, ..Exit::default() };
    for (worker, told) in [
        (ended(Phase::Stopped, code(0)), "stopped (0)"),
        (ended(Phase::Failed, signal(11)), "failed (SIGSEGV)"),
        (ended(Phase::Failed, signal(40)), "failed (signal 40)"),
        (ended(Phase::Failed, Exit { oom: true, ..signal(9) }), "failed (SIGKILL, out of memory)"),
        (ended(Phase::Failed, not_started), "failed (not started)"),
        (ended(Phase::Failed, lost), "failed (end not known)"),
        (ended(Phase::Waiting, code(1)), "waiting (1), again now"),
        (Worker { next_start_at: 12_500_000_000, ..ended(Phase::Waiting, code(1)) }, "waiting (1), again in 3 seconds"),
        (ended(Phase::Running, code(1)), "running"),
    ] {
        assert_eq!(row(&worker, now())[2], told);
        assert_eq!(row(&worker, now())[3], "5 seconds ago");
    }
}

#[test]
fn exit_codes_are_those_of_a_shell() {
    for (exit, shown) in [
        (code(0), Some(0)),
        (code(42), Some(42)),
        (code(300), Some(255)),
        (signal(11), Some(139)),
        (signal(9), Some(137)),
        (signal(u32::MAX), Some(255)),
        (Exit::default(), None),
    ] {
        assert_eq!(exit_code(&exit), shown, "{exit:?}");
    }
}

#[test]
fn nothing_that_a_terminal_acts_on_gets_through() {
    let all: String = (0..=0x9f).filter_map(char::from_u32).chain("\u{202e}\u{2066}\u{200f}é漢".chars()).collect();
    let shown = plain(&all);
    assert!(shown.chars().all(|letter| letter == '\n' || !letter.is_control()));
    assert!(!shown.contains(['\u{202e}', '\u{2066}', '\u{200f}']) && shown.ends_with("é漢"));
    assert!(!cell(&all, 10_000).contains('\n'));
}

#[test]
fn a_json_document_says_the_same_without_what_a_terminal_acts_on() {
    let all: String = (0..=0x9f).filter_map(char::from_u32).chain("\\\u{7f}\u{202e}\u{2066}é漢".chars()).collect();
    let document = serde_json::to_string_pretty(&[&all]).unwrap();
    let shown = plain_json(&document);
    assert!(shown.chars().all(|letter| letter == '\n' || !letter.is_control()));
    assert!(!shown.contains(['\u{7f}', '\u{202e}', '\u{2066}']) && shown.contains("é漢"));
    assert_eq!(serde_json::from_str::<[String; 1]>(&shown).unwrap(), [all]);
}

#[test]
fn cells_are_cut_between_characters() {
    assert_eq!(cell("é漢字", 2), "é漢…");
    assert_eq!(cell("ab", 2), "ab");
    assert_eq!(cell(&"\x1b".repeat(1000), 10).chars().count(), 11);
}

#[test]
fn ports_are_listed_from_the_workers_side() {
    assert_eq!(port_lines(&worker()), ["80/tcp -> 0.0.0.0:8080", "5353/udp -> [::1]:53"]);
}

#[test]
fn json_is_the_contracts() {
    let live = serde_json::to_value(json::worker(&worker())).unwrap();
    let expected = serde_json::json!({
        "id": "0123456789abcdef", "name": "web", "phase": "running", "pid": 42,
        "started_at": "1970-01-01T00:00:02Z", "finished_at": null, "restarts": 0, "exit": null,
        "addresses": ["10.88.0.2/22", "fd00::2/64"],
        "ports": [
            {"host": 8080, "worker": 80, "proto": "tcp", "address": ""},
            {"host": 53, "worker": 5353, "proto": "udp", "address": "::1"},
        ],
        "command": ["sh", "-c", "echo \u{1b}[31m\u{fffd}"],
        "network": "bridge", "labels": {}, "owner": "alice", "generation": 1, "next_start_at": null,
    });
    assert_eq!(live, expected);
    let exit_of = |exit| serde_json::to_value(json::worker(&ended(Phase::Stopped, exit))).unwrap()["exit"].clone();
    assert_eq!(exit_of(code(7)), serde_json::json!({"code": 7}));
    assert_eq!(exit_of(signal(9)), serde_json::json!({"signal": 9}));
    assert_eq!(exit_of(Exit::default()), serde_json::Value::Null);
}

#[test]
fn every_phase_has_its_word() {
    let words: Vec<&str> = (1..=10).map(|number| phase(Phase::try_from(number).unwrap())).collect();
    let expected = "created starting running suspending suspended resuming stopping stopped waiting failed";
    assert_eq!(words.join(" "), expected);
}
