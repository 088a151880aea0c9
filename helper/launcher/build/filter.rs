//! From the table to a program of the kernel's (seccomp(2), bpf classic). Pure.
//!
//! Not by a library: those at hand give one program one refusal, and test the calls one after the other. The kernel
//! runs a new filter once for each of its calls to know which verdicts are constant, so a launch pays for a long chain.

use crate::calls::{Answer, Row, When};
use libc::sock_filter;
use std::collections::BTreeMap;

/// Offsets in struct seccomp_data.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

#[cfg(target_arch = "x86_64")]
const THIS_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const THIS_ARCH: u32 = 0xc000_00b7;

/// The numbers of x32 would walk past every rule; kernels with x32 are rare, so they are answered as if it was not there.
#[cfg(target_arch = "x86_64")]
const X32_BIT: u32 = 0x4000_0000;

/// The filter that these rows say.
pub fn program<'a>(rows: impl Iterator<Item = &'a Row>) -> Vec<sock_filter> {
    let mut bodies: BTreeMap<u32, Vec<sock_filter>> = BTreeMap::new();
    for row in rows {
        let number = u32::try_from(row.number).expect("call numbers are small");
        bodies.entry(number).or_default().extend(body(row));
    }
    let bodies: Vec<_> = bodies.into_iter().collect();
    let mut program = vec![load(ARCH), jump(libc::BPF_JEQ, THIS_ARCH, 1, 0), verdict(libc::SECCOMP_RET_KILL_PROCESS)];
    program.push(load(NUMBER));
    #[cfg(target_arch = "x86_64")]
    program.extend([jump(libc::BPF_JGE, X32_BIT, 0, 1), verdict(answer(Answer::Enosys))]);
    program.extend(search(&bodies));
    program
}

/// Halves the calls until one is left.
fn search(calls: &[(u32, Vec<sock_filter>)]) -> Vec<sock_filter> {
    if let [(number, body)] = calls {
        let mut found = vec![jump(libc::BPF_JEQ, *number, 0, body.len())];
        found.extend(body);
        found.push(verdict(libc::SECCOMP_RET_ALLOW));
        return found;
    }
    let (low, high) = calls.split_at(calls.len() / 2);
    let low = search(low);
    let mut both = vec![jump(libc::BPF_JGE, high[0].0, low.len(), 0)];
    both.extend(low);
    both.extend(search(high));
    both
}

/// Refuses under the row's condition; otherwise the next instruction is the next row's.
fn body(row: &Row) -> Vec<sock_filter> {
    let refuse = verdict(answer(row.answer));
    match row.when {
        When::Always => vec![refuse],
        When::AnyBit(argument, bits) => vec![load_argument(argument), jump(libc::BPF_JSET, bits, 0, 1), refuse],
        When::OneOf(argument, values) => {
            let each = values.iter().flat_map(|value| [jump(libc::BPF_JEQ, *value, 0, 1), refuse]);
            std::iter::once(load_argument(argument)).chain(each).collect()
        }
        When::NoneOf(argument, values) => {
            let past = |index: usize| values.len() - index;
            let each = values.iter().enumerate().map(|(index, value)| jump(libc::BPF_JEQ, *value, past(index), 0));
            std::iter::once(load_argument(argument)).chain(each).chain([refuse]).collect()
        }
        When::OtherThanZero(argument, value, other) => vec![
            load_argument(argument),
            jump(libc::BPF_JEQ, value, 0, 3),
            load_argument(other),
            jump(libc::BPF_JEQ, 0, 1, 0),
            refuse,
        ],
    }
}

fn answer(answer: Answer) -> u32 {
    let errno = match answer {
        Answer::Eperm => libc::EPERM,
        Answer::Enosys => libc::ENOSYS,
    };
    libc::SECCOMP_RET_ERRNO | errno as u32
}

fn load(offset: u32) -> sock_filter {
    step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset)
}

/// Its low half: both architectures here are little-endian.
fn load_argument(argument: u8) -> sock_filter {
    load(ARGUMENTS + 8 * u32::from(argument))
}

fn jump(test: u32, value: u32, if_true: usize, if_false: usize) -> sock_filter {
    let near = |distance: usize| u8::try_from(distance).expect("a jump within 255 instructions");
    step(libc::BPF_JMP | test | libc::BPF_K, near(if_true), near(if_false), value)
}

fn verdict(verdict: u32) -> sock_filter {
    step(libc::BPF_RET | libc::BPF_K, 0, 0, verdict)
}

fn step(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}
