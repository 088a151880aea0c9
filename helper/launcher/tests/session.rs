//! Sessions of a real shim: programs beside the worker's own, their streams, their ends, and connections that break.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod stage;

use holdfast_launcher::control::Report;
use holdfast_launcher::orders::{Input, Orders};
use holdfast_launcher::output::Stream;
use holdfast_launcher::record::Outcome;
use holdfast_launcher::session::{
    Call, DATA_BYTES_MAX, End, FromSession, OWN, PACKET_BYTES_MAX, Program, Refusal, SESSIONS_MAX, Size, ToSession,
    WINDOW_BYTES,
};
use rustix::net::{RecvFlags, SendFlags};
use stage::{Prepared, Stage, Watch, await_in, dial_as, output, record, send_with_memfd, wait_gone};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const SIZE: Size = Size { rows: 24, columns: 80 };

#[test]
fn a_worker_of_its_own_reads_what_whoever_attaches_last_types() {
    let Some(stage) = Stage::set("own input") else { return };
    let launched = |input, script: &str| {
        let mut orders = stage.orders(&["sh", "-c", script]);
        orders.input = input;
        let prepared = stage.launch(&orders);
        (orders, prepared)
    };
    let attach = |orders: &Orders| {
        let call = Call::Resume { nonce: [7; 16], session: OWN, taken: 0 };
        let socket = dial_as(&stage, orders, stage.uid);
        rustix::net::send(&socket, &call.encode(), SendFlags::NOSIGNAL).unwrap();
        Link(socket)
    };
    let (orders, prepared) = launched(Input::Pipe, "read a; echo got $a; cat; exit 4");
    let first = attach(&orders);
    assert_eq!(first.hear(), Some(FromSession::Opened { input: 0 }));
    first.say(&ToSession::Input { offset: 0, bytes: b"one\n".to_vec() });
    assert_eq!(first.hear(), Some(FromSession::InputTaken { offset: 4 }));
    let second = attach(&orders);
    assert_eq!(second.hear(), Some(FromSession::Opened { input: 4 }));
    assert_eq!(first.hear(), None, "the first was cut off");
    second.say(&ToSession::Input { offset: 4, bytes: b"two\n".to_vec() });
    second.say(&ToSession::InputEnd { offset: 8 });
    wait_gone(&prepared.pidfd);
    assert_eq!(record(&orders).outcome, Outcome::Code(4));
    assert_eq!(output(&orders, Stream::Stdout), b"got one\ntwo\n");

    let script = "stty size; tty; read a; stty size; exit 5";
    let (orders, prepared) = launched(Input::Terminal(SIZE), script);
    let link = attach(&orders);
    link.hear();
    link.say(&ToSession::Resize(Size { rows: 50, columns: 132 }));
    link.say(&ToSession::Input { offset: 0, bytes: b"x\n".to_vec() });
    wait_gone(&prepared.pidfd);
    assert_eq!(record(&orders).outcome, Outcome::Code(5));
    let out = String::from_utf8(output(&orders, Stream::Stdout)).unwrap();
    assert!(out.contains("/dev/pts/0\r\n") && out.ends_with("50 132\r\n"), "{out:?}");

    let (orders, prepared) = launched(Input::None, "cat; sleep 0.5");
    assert_eq!(attach(&orders).hear(), Some(FromSession::Refused(Refusal::Unknown)));
    wait_gone(&prepared.pidfd);
}

/// A worker that runs until it is killed; what is left of it ends with the test.
struct Running<'s> {
    stage: &'s Stage,
    orders: Orders,
    prepared: Prepared,
    worker: OwnedFd,
}

impl<'s> Running<'s> {
    fn start(stage: &'s Stage) -> Self {
        let orders = stage.orders(&["sleep", "1000"]);
        let prepared = stage.launch(&orders);
        let watch = Watch::connect(stage, &orders, [7; 16]);
        loop {
            match watch.hear().unwrap() {
                (Report::Running { .. }, fds) => {
                    let worker = fds.into_iter().next().unwrap();
                    return Self { stage, orders, prepared, worker };
                }
                (Report::Preparing { .. }, _) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn call(&self, call: &Call, program: Option<&[u8]>) -> Link {
        let socket = dial_as(self.stage, &self.orders, self.stage.uid);
        match program {
            Some(bytes) => send_with_memfd(&socket, &call.encode(), bytes),
            None => drop(rustix::net::send(&socket, &call.encode(), SendFlags::NOSIGNAL).unwrap()),
        }
        Link(socket)
    }

    fn open(&self, session: u64, terminal: Option<Size>, input: bool, argv: &[&str]) -> Link {
        let program = Program {
            argv: argv.iter().map(Into::into).collect(),
            env: vec!["PATH=/usr/bin:/bin".into(), "TERM=dumb".into()],
            workdir: "/tmp".into(),
        };
        self.call(&Call::Open { nonce: [7; 16], session, terminal, input }, Some(&program.encode()))
    }

    fn resume(&self, session: u64, taken: u64) -> Link {
        self.call(&Call::Resume { nonce: [7; 16], session, taken }, None)
    }

    /// A session of a number of its own.
    fn sh(&self, script: &str) -> (End, String) {
        static NUMBERS: AtomicU64 = AtomicU64::new(1000);
        let session = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let link = self.open(session, None, false, &["sh", "-c", script]);
        assert_eq!(link.hear(), Some(FromSession::Opened { input: 0 }));
        let (end, out, _) = link.rest();
        link.say(&ToSession::Hangup);
        (end, String::from_utf8(out).unwrap())
    }

    fn kill(self) {
        rustix::process::pidfd_send_signal(&self.worker, rustix::process::Signal::KILL).unwrap();
        wait_gone(&self.prepared.pidfd);
    }
}

struct Link(OwnedFd);

impl Link {
    fn say(&self, word: &ToSession) {
        rustix::net::send(&self.0, &word.encode(), SendFlags::NOSIGNAL).unwrap();
    }

    fn hear(&self) -> Option<FromSession> {
        await_in(&self.0);
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        match rustix::net::recv(&self.0, &mut buffer, RecvFlags::empty()) {
            Ok((0, _)) | Err(_) => None,
            Ok((len, _)) => Some(FromSession::decode(&buffer[..len]).unwrap()),
        }
    }

    /// Takes everything up to the end: how, standard output, standard error.
    fn rest(&self) -> (End, Vec<u8>, Vec<u8>) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        loop {
            match self.hear() {
                Some(FromSession::Output { is_stderr, offset, bytes }) => {
                    self.say(&ToSession::Taken { offset: offset + bytes.len() as u64 });
                    if is_stderr { err.extend(bytes) } else { out.extend(bytes) }
                }
                Some(FromSession::InputTaken { .. } | FromSession::Opened { .. }) => {}
                Some(FromSession::Ended(end)) => return (end, out, err),
                other => panic!("{other:?}"),
            }
        }
    }

    fn until(&self, text: &str) -> String {
        let mut seen = String::new();
        while !seen.contains(text) {
            match self.hear() {
                Some(FromSession::Output { bytes, offset, .. }) => {
                    self.say(&ToSession::Taken { offset: offset + bytes.len() as u64 });
                    seen.push_str(&String::from_utf8_lossy(&bytes));
                }
                Some(FromSession::Opened { .. } | FromSession::InputTaken { .. }) => {}
                other => panic!("{other:?} after {seen:?}"),
            }
        }
        seen
    }
}

#[test]
fn a_session_ends_as_its_program_does() {
    let Some(stage) = Stage::set("session ends") else { return };
    let worker = Running::start(&stage);
    assert_eq!(worker.sh("echo out; exit 0"), (End::Code(0), "out\n".to_owned()));
    assert_eq!(worker.sh("exit 42").0, End::Code(42));
    assert_eq!(worker.sh("kill -SEGV $$").0, End::Signal(11));
    let not_started = |session, argv: &[&str]| match worker.open(session, None, false, argv).rest().0 {
        End::NotStarted { code, failure } => (code, failure.step, failure.errno),
        other => panic!("{other:?}"),
    };
    assert_eq!(not_started(4, &["nosuch"]), (127, "program nosuch".to_owned(), libc::ENOENT));
    assert_eq!(not_started(5, &["/etc/passwd"]), (126, "program /etc/passwd".to_owned(), libc::EACCES));
    let argument = "x".repeat(200 * 1024);
    assert_eq!(not_started(6, &["/bin/true", &argument]), (126, "program /bin/true".to_owned(), libc::E2BIG));
    // A program that leaves another behind ends nonetheless.
    assert_eq!(worker.sh("sleep 1000 & echo left").1, "left\n");
    worker.kill();
}

#[test]
fn a_session_is_in_the_workers_cage() {
    let Some((cgroup, stage)) = Stage::set_delegated("session cage") else { return };
    let worker = Running::start(&stage);
    let (_, out) = worker.sh("ls /proc/$$/fd; grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status; pwd; cat /proc/self/cgroup | tail -n 1",
    );
    let mut expected: Vec<String> = ["0", "1", "2"].map(str::to_owned).to_vec();
    expected.extend(["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|set| format!("{set}:\t{:016x}", 0)));
    expected.extend(["NoNewPrivs:\t1", "Seccomp:\t2", "/tmp", "0::/"].map(str::to_owned));
    assert_eq!(out.lines().collect::<Vec<_>>(), expected);
    for space in ["user", "mnt", "pid", "net", "ipc", "uts"] {
        let (_, out) = worker.sh(&format!("readlink /proc/self/ns/{space} /proc/2/ns/{space} | uniq | wc -l"));
        assert_eq!(out, "1\n", "{space}");
    }
    let (_, out) = worker
        .sh("unshare -U true && echo new; mount -t tmpfs x /tmp && echo mounted; kill -9 1; ls /proc/1/fd; echo alive");
    assert_eq!(out, "alive\n");
    let link = worker.open(4, None, true, &["cat"]);
    link.hear();
    let members = cgroup.members(&format!("w-{}/worker", worker.orders.worker));
    assert_eq!(members.len(), 2, "the worker and the session");
    // The shim itself holds nothing that acts: one capability of its own namespace, permitted and not effective.
    let status = std::fs::read_to_string(format!("/proc/{}/status", worker.prepared.shim_pid)).unwrap();
    for (set, bits) in [("CapInh", 0), ("CapPrm", 1 << 21), ("CapEff", 0), ("CapBnd", 0), ("CapAmb", 0)] {
        assert!(status.contains(&format!("{set}:\t{bits:016x}")), "{set} in {status}");
    }
    worker.kill();
    drop((stage, cgroup));
}

#[test]
fn bytes_go_through_in_both_directions_whoever_is_slow() {
    let Some(stage) = Stage::set("session bytes") else { return };
    let worker = Running::start(&stage);
    let link = worker.open(1, None, true, &["sh", "-c", "cat; echo end >&2"]);
    assert_eq!(link.hear(), Some(FromSession::Opened { input: 0 }));
    let all: Vec<u8> = (0..3 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let (mut sent, mut room, mut out, mut err) = (0, WINDOW_BYTES, Vec::new(), Vec::new());
    let end = loop {
        while sent < all.len() && room > sent {
            let part = (all.len() - sent).min(DATA_BYTES_MAX).min(room - sent);
            link.say(&ToSession::Input { offset: sent as u64, bytes: all[sent..sent + part].to_vec() });
            sent += part;
            if sent == all.len() {
                link.say(&ToSession::InputEnd { offset: sent as u64 });
            }
        }
        match link.hear() {
            Some(FromSession::Output { is_stderr, offset, bytes }) => {
                assert_eq!(offset as usize, out.len() + err.len());
                link.say(&ToSession::Taken { offset: offset + bytes.len() as u64 });
                if is_stderr { err.extend(bytes) } else { out.extend(bytes) }
            }
            Some(FromSession::InputTaken { offset }) => room = offset as usize + WINDOW_BYTES,
            Some(FromSession::Ended(end)) => break end,
            other => panic!("{other:?}"),
        }
    };
    assert!(end == End::Code(0) && out == all && err == b"end\n");
    // A reader that takes nothing stops its own program alone.
    let stuck = worker.open(2, None, false, &["sh", "-c", "head -c 10000000 /dev/zero; echo done >&2"]);
    assert_eq!(worker.sh("echo others").1, "others\n");
    let mut seen = 0;
    while seen < WINDOW_BYTES {
        if let Some(FromSession::Output { bytes, .. }) = stuck.hear() {
            seen += bytes.len();
        }
    }
    std::thread::sleep(Duration::from_millis(50));
    let mut probe = [0; 1];
    let more = rustix::net::recv(&stuck.0, &mut probe, RecvFlags::DONTWAIT);
    assert_eq!(more.err(), Some(rustix::io::Errno::AGAIN), "more than the window came");
    stuck.say(&ToSession::Taken { offset: seen as u64 });
    let (end, out, err) = stuck.rest();
    assert!(end == End::Code(0) && out.len() + seen == 10_000_000 && err == b"done\n");
    worker.kill();
}

#[test]
fn a_broken_connection_is_gone_on_from_without_a_gap() {
    let Some(stage) = Stage::set("session resume") else { return };
    let worker = Running::start(&stage);
    let script = "read first; echo got $first; read second; echo got $second; seq 1 30000; exit 7";
    let link = worker.open(9, None, true, &["sh", "-c", script]);
    link.hear();
    link.say(&ToSession::Input { offset: 0, bytes: b"one\n".to_vec() });
    let seen = link.until("got one\n");
    drop(link);
    let link = worker.resume(9, seen.len() as u64);
    assert_eq!(link.hear(), Some(FromSession::Opened { input: 4 }));
    // Sent again from further back, as a sender does that does not know how far the first connection came.
    link.say(&ToSession::Input { offset: 0, bytes: b"one\ntwo\n".to_vec() });
    let mut all = link.until("got two\n");
    drop(link);
    let link = worker.resume(9, (seen.len() + all.len()) as u64);
    let (end, out, _) = link.rest();
    assert_eq!(end, End::Code(7));
    all.push_str(&String::from_utf8(out).unwrap());
    let expected: String = (1..=30000).map(|n| format!("{n}\n")).collect();
    assert!(all == format!("got two\n{expected}"), "{} bytes", all.len());
    // The end is kept as well, until its reader says that it has it.
    drop(link);
    let link = worker.resume(9, (seen.len() + all.len()) as u64);
    assert_eq!(link.rest().0, End::Code(7));
    link.say(&ToSession::Hangup);
    while link.hear().is_some() {}
    assert_eq!(worker.resume(9, 0).hear(), Some(FromSession::Refused(Refusal::Unknown)));
    worker.kill();
}

#[test]
fn a_terminal_has_its_size_its_signals_and_its_end() {
    let Some(stage) = Stage::set("session terminal") else { return };
    let worker = Running::start(&stage);
    let script = "stty size; trap 'echo resized; stty size' WINCH; trap 'echo int' INT; echo ready; while :; do sleep 0.05; done";
    let link = worker.open(1, Some(SIZE), true, &["sh", "-c", script]);
    let seen = link.until("ready\r\n");
    assert!(seen.starts_with("24 80\r\n"), "{seen:?}");
    link.say(&ToSession::Resize(Size { rows: 50, columns: 132 }));
    link.until("50 132\r\n");
    link.say(&ToSession::Input { offset: 0, bytes: vec![3] });
    link.until("int\r\n");
    link.say(&ToSession::Signal(15));
    assert_eq!(link.rest().0, End::Signal(15));
    // Hung up: who ignores it is killed after the grace, and the session is free again.
    let link = worker.open(
        2,
        Some(SIZE),
        true,
        &["sh", "-c", "trap '' HUP; echo $$ > /tmp/deaf; echo deaf; while :; do sleep 0.05; done"],
    );
    link.until("deaf");
    link.say(&ToSession::Hangup);
    let until = Instant::now() + Duration::from_secs(20);
    while worker.sh("kill -0 $(cat /tmp/deaf)").0 == End::Code(0) {
        assert!(Instant::now() < until, "it lives on");
        std::thread::sleep(Duration::from_millis(100));
    }
    worker.kill();
}

#[test]
fn what_is_too_much_or_wrong_is_refused_by_name() {
    let Some(stage) = Stage::set("session refusals") else { return };
    let worker = Running::start(&stage);
    let open: Vec<Link> = (1..=SESSIONS_MAX as u64).map(|n| worker.open(n, None, true, &["cat"])).collect();
    assert!(open.iter().all(|link| link.hear() == Some(FromSession::Opened { input: 0 })));
    let refused = |link: Link| match link.hear() {
        Some(FromSession::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(worker.open(99, None, true, &["cat"])), Refusal::Full);
    assert_eq!(refused(worker.open(1, None, true, &["cat"])), Refusal::Taken);
    open[0].say(&ToSession::InputEnd { offset: 0 });
    assert_eq!(open[0].rest().0, End::Code(0));
    open[0].say(&ToSession::Hangup);
    while open[0].hear().is_some() {}
    let call = Call::Open { nonce: [7; 16], session: 100, terminal: None, input: false };
    assert_eq!(refused(worker.call(&call, Some(b"nothing of the form"))), Refusal::Invalid);
    assert_eq!(refused(worker.call(&call, None)), Refusal::Invalid);
    // Another nonce, or another uid, hears nothing at all.
    let other = Call::Open { nonce: [8; 16], session: 100, terminal: None, input: false };
    assert_eq!(worker.call(&other, Some(b"")).hear(), None);
    // More input than the window lets through cuts the connection, and nothing else.
    for n in 0..5 {
        let bytes = vec![0; DATA_BYTES_MAX];
        open[1].say(&ToSession::Input { offset: 1 + n * DATA_BYTES_MAX as u64, bytes });
        if open[1].hear().is_none() {
            break;
        }
    }
    assert_eq!(worker.sh("echo on").1, "on\n");
    // The end of the worker is the end of its sessions, and each hears so.
    rustix::process::pidfd_send_signal(&worker.worker, rustix::process::Signal::TERM).unwrap();
    assert_eq!(open[2].rest().0, End::Signal(9));
    wait_gone(&worker.prepared.pidfd);
}
