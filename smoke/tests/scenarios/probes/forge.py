"""Run in a worker: tries every way there could be to what its shim keeps of it. Prints what worked, then `tried N`."""
import glob, os, sys

tried = 0


def attempt(what, work):
    global tried
    tried += 1
    try:
        if work():
            print(what)
    except OSError:
        pass


def write(path):
    with open(path, "wb") as file:
        file.write(b"\1forged")
    return True


for base in ("/var/lib/holdfast", "/run/holdfast", "/mnt/state/holdfast", "/mnt/run/holdfast"):
    for place in ("", "/owners", "/owners/alice", "/owners/alice/workers"):
        attempt(f"listed {base}{place}", lambda: os.listdir(base + place))
    attempt(f"record below {base}", lambda: write(f"{base}/owners/alice/workers/exit.1"))
    attempt(f"link at {base}", lambda: os.symlink("/etc/passwd", f"{base}/owners/alice/link") or True)
for pid in ("1", "self/../1", str(os.getppid())):
    for name in ("cwd", "root/var/lib/holdfast", "root/run/holdfast"):
        attempt(f"listed /proc/{pid}/{name}", lambda: name != "cwd" and os.listdir(f"/proc/{pid}/{name}"))
    attempt(f"descriptors of {pid}", lambda: pid != "self/../1" and glob.glob(f"/proc/{pid}/fd/*") and write(glob.glob(f"/proc/{pid}/fd/*")[0]))
    attempt(f"memory of {pid}", lambda: open(f"/proc/{pid}/mem", "r+b"))
for descriptor in range(3, 64):
    attempt(f"descriptor {descriptor}", lambda: os.write(descriptor, b"forged"))
for name in ("/log", "/exit.1", "/proc/1/fdinfo/5", "/sys/fs/cgroup/cgroup.procs", "/dev/shm/../../exit.1"):
    attempt(f"wrote {name}", lambda: write(name))
print("tried", tried)
sys.stdout.flush()
os._exit(7)
