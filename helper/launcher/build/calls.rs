//! The system calls that a worker is refused: one row each, with its group and the reason. `docs/seccomp.md` is this
//! table in words (the guard `seccomp_page_is_the_table` writes and checks it), `build.rs` makes the filter of it.
//!
//! What no row names is allowed: a JIT, a debugger and a runtime with threads of its own need most of the kernel, and
//! a worker has no capability that would make the rest of it dangerous.

use std::ffi::c_long;

/// What a row is there for. Its text heads the group on the page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Group {
    /// Namespaces and mounts; with `--allow-userns` these rows are left out.
    Namespaces,
    /// What could reach the shim or a terminal.
    Others,
    /// Kernel interfaces with a long list of faults.
    Kernel,
    /// Socket families.
    Sockets,
    /// What belongs to the host as a whole.
    Host,
}

/// All groups, in the order of the page.
pub const GROUPS: &[Group] = &[Group::Namespaces, Group::Others, Group::Kernel, Group::Sockets, Group::Host];

/// What a refused call answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Operation not permitted.
    Eperm,
    /// No such call: for those whose callers then use an older one.
    Enosys,
}

/// When a call is refused. Arguments count from 0; their low 32 bits are looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// Always.
    Always,
    /// Where any of these bits is set in the argument.
    AnyBit(u8, u32),
    /// Where the argument is one of these.
    OneOf(u8, &'static [u32]),
    /// Where the argument is none of these.
    NoneOf(u8, &'static [u32]),
    /// Where the first argument has this value and the other is not 0.
    OtherThanZero(u8, u32, u8),
}

/// One refused call.
pub struct Row {
    /// As in the manual.
    pub name: &'static str,
    /// On the architecture that this is built on.
    pub number: c_long,
    /// Under which condition.
    pub when: When,
    /// With which answer.
    pub answer: Answer,
    /// Where it stands on the page.
    pub group: Group,
    /// Why, for a reader of the page.
    pub reason: &'static str,
}

const fn row(name: &'static str, number: c_long, when: When, group: Group, reason: &'static str) -> Row {
    Row { name, number, when, answer: Answer::Eperm, group, reason }
}

/// `CLONE_NEW*` of clone(2); the bit of CLONE_NEWTIME is part of the exit signal there.
const NEW: u32 = (libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP) as u32;
const NEWTIME: u32 = 0x80;

/// Families that a worker may have sockets of.
const FAMILIES: &[u32] = &[libc::AF_UNIX as u32, libc::AF_INET as u32, libc::AF_INET6 as u32, libc::AF_NETLINK as u32];

/// PER_LINUX, PER_LINUX32, each with UNAME26 or ADDR_NO_RANDOMIZE or without, and the question which one it is.
const PERSONAS: &[u32] = &[0, 8, 0x2_0000, 0x2_0008, 0x4_0000, 0x4_0008, u32::MAX];

/// Same number on every architecture, and later than the libc crate.
const SYS_OPEN_TREE_ATTR: c_long = 467;

const TREE: &str = "the view of the host is fixed before the worker starts";
const KEYS: &str = "keyrings are not namespaced by name: those of the owner's other processes are in reach";
const RING: &str = "a second way to make calls that no filter sees, and many kernel faults";
const MODULE: &str = "code for the kernel";
const CLOCK: &str = "the host's clock";

/// The table.
pub const ROWS: &[Row] = &[
    row(
        "unshare",
        libc::SYS_unshare,
        When::AnyBit(0, NEW | NEWTIME),
        Group::Namespaces,
        "a namespace of its own, with every capability in it, opens nf_tables, mounts and more to the worker",
    ),
    row("clone", libc::SYS_clone, When::AnyBit(0, NEW), Group::Namespaces, "the same by another call"),
    Row {
        name: "clone3",
        number: libc::SYS_clone3,
        when: When::Always,
        answer: Answer::Enosys,
        group: Group::Namespaces,
        reason: "its flags lie in memory that a filter cannot read; libc and Go then use clone",
    },
    row("setns", libc::SYS_setns, When::Always, Group::Namespaces, "no namespace but its own"),
    row("mount", libc::SYS_mount, When::Always, Group::Namespaces, TREE),
    row("umount2", libc::SYS_umount2, When::Always, Group::Namespaces, TREE),
    row("pivot_root", libc::SYS_pivot_root, When::Always, Group::Namespaces, TREE),
    row("move_mount", libc::SYS_move_mount, When::Always, Group::Namespaces, TREE),
    row("open_tree", libc::SYS_open_tree, When::Always, Group::Namespaces, TREE),
    row("open_tree_attr", SYS_OPEN_TREE_ATTR, When::Always, Group::Namespaces, TREE),
    row("fsopen", libc::SYS_fsopen, When::Always, Group::Namespaces, TREE),
    row("fsconfig", libc::SYS_fsconfig, When::Always, Group::Namespaces, TREE),
    row("fsmount", libc::SYS_fsmount, When::Always, Group::Namespaces, TREE),
    row("fspick", libc::SYS_fspick, When::Always, Group::Namespaces, TREE),
    row("mount_setattr", libc::SYS_mount_setattr, When::Always, Group::Namespaces, TREE),
    row(
        "prlimit64",
        libc::SYS_prlimit64,
        When::NoneOf(0, &[0]),
        Group::Others,
        "limits of others: RLIMIT_FSIZE 0 on the shim would lose the record; for itself a process names pid 0",
    ),
    row(
        "ioctl",
        libc::SYS_ioctl,
        When::OneOf(1, &[libc::TIOCSTI as u32, libc::TIOCLINUX as u32]),
        Group::Others,
        "typing into a terminal that somebody else reads (CVE-2017-5226)",
    ),
    row(
        "open_by_handle_at",
        libc::SYS_open_by_handle_at,
        When::Always,
        Group::Others,
        "files by number, past the worker's root",
    ),
    row("bpf", libc::SYS_bpf, When::Always, Group::Kernel, "programs in the kernel"),
    row(
        "perf_event_open",
        libc::SYS_perf_event_open,
        When::Always,
        Group::Kernel,
        "sees beyond the worker, and many kernel faults",
    ),
    row(
        "userfaultfd",
        libc::SYS_userfaultfd,
        When::Always,
        Group::Kernel,
        "holds the kernel where an exploit needs it",
    ),
    row("io_uring_setup", libc::SYS_io_uring_setup, When::Always, Group::Kernel, RING),
    row("io_uring_enter", libc::SYS_io_uring_enter, When::Always, Group::Kernel, RING),
    row("io_uring_register", libc::SYS_io_uring_register, When::Always, Group::Kernel, RING),
    row("add_key", libc::SYS_add_key, When::Always, Group::Kernel, KEYS),
    row("request_key", libc::SYS_request_key, When::Always, Group::Kernel, KEYS),
    row("keyctl", libc::SYS_keyctl, When::Always, Group::Kernel, KEYS),
    row(
        "personality",
        libc::SYS_personality,
        When::NoneOf(0, PERSONAS),
        Group::Kernel,
        "old systems' behaviour, such as executable data; a debugger and some Lisps need ADDR_NO_RANDOMIZE, which stays",
    ),
    #[cfg(target_arch = "x86_64")]
    row("modify_ldt", libc::SYS_modify_ldt, When::Always, Group::Kernel, "16-bit segments, and several kernel faults"),
    row(
        "socket",
        libc::SYS_socket,
        When::NoneOf(0, FAMILIES),
        Group::Sockets,
        "packets, vsock, the kernel's ciphers, CAN, Bluetooth and the like; a worker has AF_UNIX, AF_INET, AF_INET6 and AF_NETLINK",
    ),
    row(
        "socket",
        libc::SYS_socket,
        When::OtherThanZero(0, libc::AF_NETLINK as u32, 2),
        Group::Sockets,
        "of netlink only NETLINK_ROUTE (0), by which Go, Node and Java list interfaces; never NETFILTER",
    ),
    row(
        "socketpair",
        libc::SYS_socketpair,
        When::NoneOf(0, &[libc::AF_UNIX as u32]),
        Group::Sockets,
        "as socket; no other family has pairs that matter",
    ),
    row("kexec_load", libc::SYS_kexec_load, When::Always, Group::Host, "another kernel"),
    row("kexec_file_load", libc::SYS_kexec_file_load, When::Always, Group::Host, "another kernel"),
    row("init_module", libc::SYS_init_module, When::Always, Group::Host, MODULE),
    row("finit_module", libc::SYS_finit_module, When::Always, Group::Host, MODULE),
    row("delete_module", libc::SYS_delete_module, When::Always, Group::Host, MODULE),
    row(
        "reboot",
        libc::SYS_reboot,
        When::Always,
        Group::Host,
        "the host's power; in a pid namespace it would end the shim",
    ),
    row("settimeofday", libc::SYS_settimeofday, When::Always, Group::Host, CLOCK),
    row("clock_settime", libc::SYS_clock_settime, When::Always, Group::Host, CLOCK),
    row("swapon", libc::SYS_swapon, When::Always, Group::Host, "the host's memory"),
    row("swapoff", libc::SYS_swapoff, When::Always, Group::Host, "the host's memory"),
    row("acct", libc::SYS_acct, When::Always, Group::Host, "the host's accounts"),
    row("quotactl", libc::SYS_quotactl, When::Always, Group::Host, "the host's file systems"),
    row("quotactl_fd", libc::SYS_quotactl_fd, When::Always, Group::Host, "the host's file systems"),
    row(
        "syslog",
        libc::SYS_syslog,
        When::Always,
        Group::Host,
        "the kernel's log, which shows the host's addresses and devices",
    ),
    row("vhangup", libc::SYS_vhangup, When::Always, Group::Host, "terminals of others"),
    #[cfg(target_arch = "x86_64")]
    row("iopl", libc::SYS_iopl, When::Always, Group::Host, "the machine's ports"),
    #[cfg(target_arch = "x86_64")]
    row("ioperm", libc::SYS_ioperm, When::Always, Group::Host, "the machine's ports"),
];

impl Group {
    /// Its heading and what it is about.
    pub fn text(self) -> (&'static str, &'static str) {
        match self {
            Self::Namespaces => (
                "Namespaces and mounts",
                "Left out with `--allow-userns`, so that sandboxes (bwrap, Chromium, nested containers) can make theirs.",
            ),
            Self::Others => (
                "Reaching others",
                "The shim has the worker's own kernel uid, so the kernel alone would let these through.",
            ),
            Self::Kernel => ("Deep kernel interfaces", "No worker needs them, exploits do."),
            Self::Sockets => ("Sockets", "By family."),
            Self::Host => (
                "The host's own",
                "Most ask for a capability that no worker has; refused here as well, should one ever have it.",
            ),
        }
    }
}
