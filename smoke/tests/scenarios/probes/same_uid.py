"""The probes of the threat table's fact 1: all that one process can try on another. `same_uid.py PID [read]`,
with `read` only those that read or steal. Prints `probe errno`, or `probe done` where the kernel allowed it."""
import ctypes, errno, os, sys

libc = ctypes.CDLL(None, use_errno=True)
pid = int(sys.argv[1])
read_only = len(sys.argv) > 2
SYS = dict(process_vm_readv=310, process_vm_writev=311, kcmp=312, pidfd_open=434, pidfd_getfd=438,
           prlimit64=302, ioprio_set=251, process_madvise=440, move_pages=279, migrate_pages=256, get_robust_list=274)


def syscall(name, *args):
    result = libc.syscall(SYS[name], *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result


def ptrace(request):
    if libc.ptrace(ctypes.c_long(request), ctypes.c_long(pid), None, None) < 0:
        raise OSError(ctypes.get_errno(), "ptrace")


def opened(name, mode):
    with open(f"/proc/{pid}/{name}", mode) as file:
        file.read(1) if "r" in mode else file.write("0")


def vm(name):
    buffer = ctypes.create_string_buffer(8)
    local = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 8)
    remote = (ctypes.c_void_p * 2)(0x400000, 8)
    syscall(name, pid, local, 1, remote, 1, 0)


def pidfd():
    return syscall("pidfd_open", pid, 0)


def limit(resource):
    new = (ctypes.c_ulong * 2)(5, 5)
    syscall("prlimit64", pid, resource, new, None)


def listed(name):
    os.listdir(f"/proc/{pid}/{name}")


reads = {
    "ptrace-attach": lambda: ptrace(16),
    "ptrace-seize": lambda: ptrace(0x4206),
    "mem-read": lambda: opened("mem", "rb"),
    "mem-write": lambda: opened("mem", "r+b"),
    "environ": lambda: opened("environ", "rb"),
    "maps": lambda: opened("maps", "rb"),
    "auxv": lambda: opened("auxv", "rb"),
    "exe": lambda: os.readlink(f"/proc/{pid}/exe"),
    "root": lambda: os.readlink(f"/proc/{pid}/root"),
    "cwd": lambda: os.readlink(f"/proc/{pid}/cwd"),
    "ns-net": lambda: os.readlink(f"/proc/{pid}/ns/net"),
    "ns-mnt": lambda: os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY),
    "fd-list": lambda: listed("fd"),
    "map-files": lambda: listed("map_files"),
    "vm-read": lambda: vm("process_vm_readv"),
    "vm-write": lambda: vm("process_vm_writev"),
    "pidfd-getfd": lambda: syscall("pidfd_getfd", pidfd(), 0, 0),
    "kcmp": lambda: syscall("kcmp", os.getpid(), pid, 0, 0, 0),
    "robust-list": lambda: syscall("get_robust_list", pid, (ctypes.c_void_p * 1)(), (ctypes.c_void_p * 1)()),
}
starves = {
    "signal-0": lambda: os.kill(pid, 0),
    "prlimit-nofile": lambda: limit(7),
    "prlimit-nproc": lambda: limit(6),
    "prlimit-fsize": lambda: limit(1),
    "setpriority": lambda: os.setpriority(os.PRIO_PROCESS, pid, 19),
    "affinity": lambda: os.sched_setaffinity(pid, {0}),
    "scheduler": lambda: os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0)),
    "ioprio": lambda: syscall("ioprio_set", 1, pid, 3 << 13),
    "oom-score": lambda: opened("oom_score_adj", "w"),
    "coredump-filter": lambda: opened("coredump_filter", "w"),
    "clear-refs": lambda: opened("clear_refs", "w"),
    "comm": lambda: opened("comm", "w"),
    "sigstop": lambda: os.kill(pid, 19),
    "sigkill": lambda: os.kill(pid, 9),
}

for name, probe in (reads if read_only else {**reads, **starves}).items():
    try:
        probe()
        print(name, "done")
    except OSError as error:
        print(name, errno.errorcode.get(error.errno, error.errno))
