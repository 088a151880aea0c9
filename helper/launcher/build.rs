//! Makes the worker's seccomp filter: a constant in the shim, so that no launch pays for building it.

use seccompiler::SeccompCmpArgLen::Dword;
use seccompiler::SeccompCmpOp::{Eq, MaskedEq, Ne};
use seccompiler::{BpfProgram, SeccompAction, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, sock_filter};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Refused with EPERM whatever the arguments: what could rebuild the cage from inside, or reaches far into the kernel.
const REFUSED: &[i64] = &[
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_open_by_handle_at,
];

/// `CLONE_NEW*`: no namespaces within the worker's.
const NAMESPACES: &[i32] = &[
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

/// In unshare(2) alone: in clone(2) this bit belongs to the exit signal.
const CLONE_NEWTIME: i32 = 0x80;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let program = filter();
    let mut text = format!("const FILTER: [libc::sock_filter; {}] = [\n", program.len());
    for sock_filter { code, jt, jf, k } in program {
        writeln!(text, "    libc::sock_filter {{ code: {code}, jt: {jt}, jf: {jf}, k: {k} }},").expect("into a String");
    }
    text.push_str("];\n");
    let out = std::env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    std::fs::write(format!("{out}/seccomp.rs"), text).expect("OUT_DIR is writable");
}

fn filter() -> BpfProgram {
    let arch = std::env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets it");
    assert_eq!(
        arch,
        std::env::consts::ARCH,
        "system call numbers here are the building machine's: build on the target"
    );
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = REFUSED.iter().map(|number| (*number, Vec::new())).collect();
    let spaces = |flags: &[i32]| flags.iter().map(|flag| any_of(0, MaskedEq(*flag as u64), *flag as u64)).collect();
    rules.insert(libc::SYS_clone, spaces(NAMESPACES));
    rules.insert(libc::SYS_unshare, spaces(&[NAMESPACES, &[CLONE_NEWTIME]].concat()));
    // Limits of others: RLIMIT_FSIZE 0 on the shim would lose the record (DESIGN, 3).
    rules.insert(libc::SYS_prlimit64, vec![any_of(0, Ne, 0)]);
    // Typing into a terminal that somebody else reads (CVE-2017-5226 and its kin).
    rules.insert(libc::SYS_ioctl, vec![any_of(1, Eq, libc::TIOCSTI), any_of(1, Eq, libc::TIOCLINUX)]);
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let arch = arch.as_str().try_into().expect("an architecture that seccompiler knows");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).expect("rules that do not contradict");
    let mut program = not_there(arch_is_x86_64());
    program.extend(BpfProgram::try_from(filter).expect("short enough"));
    program
}

fn any_of(argument: u8, operator: SeccompCmpOp, value: u64) -> SeccompRule {
    let condition = SeccompCondition::new(argument, Dword, operator, value).expect("an argument number below 6");
    SeccompRule::new(vec![condition]).expect("one condition")
}

fn arch_is_x86_64() -> bool {
    std::env::consts::ARCH == "x86_64"
}

/// Answers ENOSYS to clone3, whose flags lie in memory that a filter cannot read (libc then uses clone), and to
/// the x32 numbers, which would walk past every rule. One filter of seccompiler's has a single refusal only.
fn not_there(x32: bool) -> BpfProgram {
    const X32_BIT: u32 = 0x4000_0000;
    let step = |code: u32, jt, jf, k| sock_filter { code: code as u16, jt, jf, k };
    let enosys = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    // Offset 0 of struct seccomp_data is the number.
    let mut program = vec![
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_clone3 as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, enosys),
    ];
    if x32 {
        program.push(step(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, X32_BIT));
        program.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, enosys));
    }
    program
}
