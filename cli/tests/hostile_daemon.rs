//! A daemon that lies, floods or hangs (threat T10): the command ends, in bounds, and the terminal is not touched.

mod fake;

use fake::{Done, Running, worker};
use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

#[test]
fn control_bytes_of_names_and_commands_are_shown_not_sent() {
    let mut evil = worker("\x1b]0;owned\x07\u{202e}\u{9b}31m");
    evil.command = vec![b"\x1b[2J\r\nfake line".to_vec()];
    evil.addresses = vec!["\x1b[31m".into()];
    evil.id = "\x1b[1;1H".into();
    let daemon = Running::with(vec![evil]);
    for words in [&["ps"][..], &["ps", "-q"], &["ps", "--json"], &["inspect", "\x1b[1;1H"], &["stop", "\x1bx"]] {
        let done = daemon.run(words);
        let all = done.out + &done.err;
        let bad = |letter: char| (letter.is_control() && letter != '\n') || letter == '\u{202e}';
        assert!(!all.contains(|letter: char| bad(letter) && !words.contains(&"--json")), "{words:?}: {all:?}");
        assert!(!all.contains('\x1b'), "{words:?}: {all:?}");
    }
}

#[test]
fn a_daemon_that_never_answers_is_left_within_ten_seconds() {
    let daemon = Running::with(vec![worker("hang")]);
    let began = Instant::now();
    let done = daemon.run(&["ps"]);
    assert_eq!(done.code, Some(3), "{}", done.err);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(done.err.contains("did not answer"), "{}", done.err);
}

#[test]
fn a_message_over_the_cap_is_refused() {
    let mut huge = worker("web");
    huge.command = vec![vec![b'x'; 16 * 1024 * 1024]];
    let done = Running::with(vec![huge]).run(&["ps"]);
    assert_eq!(done.code, Some(1), "{}", done.err);
    assert!(done.err.len() < 1000 && done.out.is_empty());
}

#[test]
fn a_message_of_countless_empty_entries_ends_the_command_not_the_host() {
    let daemon = Running::with(vec![Default::default(); 500_000]);
    let done = daemon.run(&["ps", "-a"]);
    assert_ne!(done.code, Some(0));
    assert!(done.out.is_empty());
}

#[test]
fn endless_output_takes_no_more_memory_than_its_pipe() {
    let daemon = Running::with(vec![worker("endless")]);
    for words in [&["logs", "endless"][..], &["run", "endless"]] {
        let mut child = daemon.command(words).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut pipe = child.stdout.take().unwrap();
        let mut buffer = vec![0; 1 << 20];
        for _ in 0..64 {
            pipe.read_exact(&mut buffer).unwrap();
        }
        // A reader that stops reading is waited for, not buffered for.
        std::thread::sleep(Duration::from_millis(300));
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
        let kib: u64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(kib < 32 * 1024, "{words:?}: {peak}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn a_socket_in_a_directory_that_others_write_to_is_not_used() {
    use std::os::unix::fs::PermissionsExt;
    let daemon = Running::with(vec![worker("web")]);
    let directory = daemon.socket().parent().unwrap().to_owned();
    std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o777)).unwrap();
    let done: Done = daemon.run(&["ps"]);
    assert_eq!((done.code, done.out.as_str()), (Some(5), ""));
    assert!(done.err.contains("others may write"), "{}", done.err);
    assert_eq!(daemon.asked(), Vec::<String>::new());
}
