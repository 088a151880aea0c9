//! `docs/seccomp.md` is the table of refused calls in words. `HOLDFAST_WRITE_FIXTURES=1` writes it anew.

use crate::sources::root;
use std::fmt::Write;
use std::fs;

#[path = "../../../helper/launcher/build/calls.rs"]
mod calls;

use calls::{Answer, GROUPS, ROWS, When};

const HEAD: &str = "# What a worker may not ask the kernel

Made from `helper/launcher/build/calls.rs`, which the filter is made from as well; a guard holds the two together, and scenario
`t37_each_refused_call_is_refused_and_the_rest_of_the_kernel_is_there` tries every row in a worker. Everything else is allowed: threads, executable
memory, `ptrace` of the worker's own processes (the kernel's usual rules; the shim cannot be traced), `seccomp` and Landlock of its own, limits and
priorities of its own. Answer is EPERM unless said. Programs of another architecture (32-bit x86) are ended by SIGSYS; x32 calls answer ENOSYS.
";

fn page() -> String {
    let mut page = HEAD.to_owned();
    for group in GROUPS {
        let (heading, about) = group.text();
        write!(page, "\n## {heading}\n{about}\n\n| call | refused | why |\n|---|---|---|\n").expect("into a String");
        for row in ROWS.iter().filter(|row| row.group == *group) {
            let answer = if row.answer == Answer::Enosys { " (ENOSYS)" } else { "" };
            writeln!(page, "| `{}` | {}{answer} | {} |", row.name, when(row.when), row.reason).expect("into a String");
        }
    }
    page
}

fn when(when: When) -> String {
    let hex = |values: &[u32]| values.iter().map(|value| format!("{value:#x}")).collect::<Vec<_>>().join(", ");
    match when {
        When::Always => "always".to_owned(),
        When::AnyBit(argument, bits) => format!("argument {argument} has a bit of {bits:#x}"),
        When::OneOf(argument, values) => format!("argument {argument} is one of {}", hex(values)),
        When::NoneOf(argument, values) => format!("argument {argument} is none of {}", hex(values)),
        When::OtherThanZero(argument, value, other) => {
            format!("argument {argument} is {value:#x} and argument {other} is not 0")
        }
    }
}

#[test]
fn seccomp_page_is_the_table() {
    let path = root().join("docs/seccomp.md");
    if std::env::var_os("HOLDFAST_WRITE_FIXTURES").is_some() {
        fs::write(&path, page()).expect("docs/seccomp.md");
    }
    let text = fs::read_to_string(&path).unwrap_or_default();
    assert!(text == page(), "docs/seccomp.md is not the table: run this guard with HOLDFAST_WRITE_FIXTURES=1");
}

#[test]
fn rows_of_one_call_belong_together_and_say_why() {
    for row in ROWS {
        assert!(!row.reason.is_empty(), "{} has no reason", row.name);
        let same = ROWS.iter().filter(|other| other.number == row.number);
        assert!(same.clone().all(|other| other.name == row.name), "{} shares its number", row.name);
        // The rows of a call are one block in the filter: nothing may follow one that always refuses.
        assert!(same.count() == 1 || row.when != When::Always, "{}: a row behind one that always refuses", row.name);
    }
}
