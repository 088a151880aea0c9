//! The negative controls (`smoke/negative/`): each still applies, and names a test that is there. Whether that
//! test fails then, `smoke/negative/run` shows.

use crate::sources::root;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Changed lines beyond which a patch takes out more than one defence.
const CHANGED_LINES_MAX: usize = 20;

fn patches() -> Vec<(String, PathBuf)> {
    let folder = root().join("smoke/negative");
    let files = fs::read_dir(folder).expect("smoke/negative").map(|entry| entry.expect("an entry").path());
    let patches = files.filter(|path| path.extension().is_some_and(|extension| extension == "patch"));
    patches.map(|path| (path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), path)).collect()
}

/// Rows of the threat table (docs/privileges.md) that have a test: its name begins with the row's.
fn rows() -> BTreeSet<String> {
    let mut tests = String::new();
    collect(&root().join("smoke/tests/scenarios"), &mut tests);
    let names = tests.lines().filter_map(|line| line.trim_start().strip_prefix("fn ")?.split(['(', '_']).next());
    let is_row = |name: &&str| name.len() == 3 && name.starts_with('t') && name[1..].parse::<u8>().is_ok();
    names.filter(is_row).map(str::to_owned).collect()
}

#[test]
fn each_row_has_a_patch_that_takes_its_defence_out() {
    let (rows, patches) = (rows(), patches());
    let mut patched: BTreeSet<&str> = patches.iter().filter_map(|(name, _)| name.split('-').next()).collect();
    // The table of attacks on updates has names in place of numbers.
    assert!(patched.remove("update"), "no defence of an update is taken out any more");
    assert!(rows.len() > 10, "tests are not named by their rows any more: {rows:?}");
    for row in &rows {
        assert!(patched.contains(row.as_str()), "{row} has no patch");
    }
    // Rows of faults (f…) name their test in the patch alone.
    for row in patched.into_iter().filter(|row| row.starts_with('t')) {
        assert!(rows.contains(row), "{row} has a patch, and no test is named by it");
    }
}

#[test]
fn each_patch_says_what_it_takes_out_and_which_test_must_fail_how() {
    let mut tests = String::new();
    collect(&root().join("smoke/tests"), &mut tests);
    for holds_tests in ["helper", "cli/src", "daemon/src", "packaging/release/tests"] {
        collect(&root().join(holds_tests), &mut tests);
    }
    for (name, path) in patches() {
        let text = fs::read_to_string(&path).expect("a patch");
        let (head, diff) = text.split_once("diff --git ").unwrap_or_else(|| panic!("{name} changes nothing"));
        let header = |key: &str| {
            let value = head.lines().find_map(|line| line.strip_prefix(&format!("# {key}: ")));
            value.filter(|value| !value.trim().is_empty())
        };
        for key in ["defence", "crate", "test", "says"] {
            assert!(header(key).is_some(), "{name}: no line \"# {key}: ...\" before the change");
        }
        let test = header("test").unwrap_or_default();
        assert!(tests.contains(&format!("fn {test}()")), "{name}: there is no test {test}");
        let changed = diff.lines().filter(|line| {
            (line.starts_with('+') || line.starts_with('-')) && !line.starts_with("+++ ") && !line.starts_with("--- ")
        });
        let changed = changed.count();
        assert!((1..=CHANGED_LINES_MAX).contains(&changed), "{name}: {changed} lines changed");
    }
}

fn collect(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("a directory entry").path();
        if path.is_dir() {
            collect(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(&path).expect("a source file"));
        }
    }
}

#[test]
fn each_patch_applies_to_the_tree_as_it_is() {
    let refused = |path: &Path| {
        let output = Command::new("git").args(["apply", "--check"]).arg(path).current_dir(root()).output();
        let output = output.expect("git");
        (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let refusals: Vec<String> = patches()
        .into_iter()
        .filter_map(|(name, path)| refused(&path.canonicalize().expect("a path")).map(|why| format!("{name}: {why}")))
        .collect();
    assert!(refusals.is_empty(), "\n{}", refusals.join("\n"));
}
