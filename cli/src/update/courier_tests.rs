//! The parent against a child that was taken over: a script plays it.

use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// A courier whose child is this shell script. `$5` is the cap, `$7` what to leave out; its folder is its `$0`'s.
fn courier(script: &str) -> (tempfile::TempDir, Courier) {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("child");
    fs::write(&program, format!("#!/bin/sh\nhere=${{0%/*}}\n{script}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    (folder, Courier { program, as_nobody: false, proxy: None })
}

fn bring(courier: &Courier, limit: Duration) -> (Vec<u8>, Result<(), UpdateError>) {
    let mut bytes = Vec::new();
    let outcome = courier.bring("http://a/b", 100, Instant::now() + limit, &mut |piece| {
        bytes.extend(piece);
        Ok(())
    });
    (bytes, outcome)
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn what_a_child_brings_comes_whole() {
    let (_folder, courier) = courier("printf %s \"$*\"");
    let (bytes, outcome) = bring(&courier, LONG);
    assert!(outcome.is_ok(), "{outcome:?}");
    assert_eq!(bytes, b"fetch --url http://a/b --most 100 --skip 0");
    assert_eq!(courier.small("http://a/b", 100).unwrap(), bytes);
}

#[test]
fn a_child_cannot_give_more_or_take_longer_than_was_agreed() {
    for script in ["yes", "head -c 101 /dev/zero; exit 0", "cat /dev/zero >&1"] {
        let (_folder, courier) = courier(script);
        assert!(matches!(bring(&courier, LONG).1, Err(UpdateError::TooLarge(_))), "{script}");
    }
    let short = Duration::from_millis(300);
    // Silent; dripping; silent after all bytes.
    for script in ["exec sleep 1000", "while :; do printf x; sleep 0.2; done", "printf all; exec sleep 1000"] {
        let (_folder, courier) = courier(script);
        assert!(matches!(bring(&courier, short).1, Err(UpdateError::TooSlow(_))), "{script}");
    }
    // Its stdout is at its end, and it stays alive, saying nothing or very much.
    for script in ["printf all; exec sleep 1000 >&-", "printf all; exec >&-; exec yes >&2"] {
        let (_folder, courier) = courier(script);
        let outcome = bring(&courier, Duration::from_secs(1)).1;
        assert!(matches!(outcome, Err(UpdateError::Unreachable(_) | UpdateError::TooSlow(_))), "{script}: {outcome:?}");
    }
}

#[test]
fn its_code_and_its_words_are_all_it_has_to_say() {
    let name = |script: &str| {
        let (_folder, courier) = courier(script);
        bring(&courier, LONG).1.expect_err(script)
    };
    assert!(matches!(name("exit 4"), UpdateError::NotThere(_)));
    assert!(matches!(name("exit 7"), UpdateError::TooSlow(_)));
    assert!(matches!(name("exit 8"), UpdateError::TooLarge(_)));
    for script in ["exit 1", "exit 255", "kill -9 $$", "kill -11 $$"] {
        assert!(matches!(name(script), UpdateError::Unreachable(_)), "{script}");
    }
    let said = name("printf 'it \\033[2Jfailed\\r\\n' >&2; exit 1").to_string();
    assert_eq!(said, "it \\u{1b}[2Jfailed");
    let long = name("yes | head -c 50000 >&2; exit 1").to_string();
    assert!(long.len() <= WORDS_BYTES_MAX, "{} bytes of words", long.len());
}

#[test]
fn a_line_that_breaks_is_taken_up_a_few_times() {
    let count = "n=$(cat $here/n 2>/dev/null || echo 0); echo $((n + 1)) > $here/n;";
    let (folder, broken) =
        courier(&format!("{count} printf 0123456789 | tail -c +$(($7 + 1)) | head -c 3; exit $((n < 3))"));
    let (bytes, outcome) = bring(&broken, LONG);
    assert!(outcome.is_ok(), "{outcome:?}");
    assert_eq!(bytes, b"0123456789");
    assert_eq!(fs::read_to_string(folder.path().join("n")).unwrap(), "4\n");
    // It ends after four, and at once where nothing comes at all.
    for (script, times) in [("printf x; exit 1", "4\n"), ("exit 1", "1\n"), ("printf x; exit 4", "1\n")] {
        let (folder, courier) = courier(&format!("{count} {script}"));
        assert!(bring(&courier, LONG).1.is_err(), "{script}");
        assert_eq!(fs::read_to_string(folder.path().join("n")).unwrap(), times, "{script}");
    }
}

#[test]
fn a_child_has_no_environment_but_a_path() {
    let (_folder, courier) = courier("env | grep -v -e ^PWD= -e ^OLDPWD= -e ^SHLVL= -e ^_=; pwd");
    let (bytes, outcome) = bring(&courier, LONG);
    assert!(outcome.is_ok(), "{outcome:?}");
    let said = String::from_utf8(bytes).unwrap();
    assert_eq!(said.trim_end(), format!("PATH={}\n/", command::PATH));
}
