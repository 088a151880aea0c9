"""A launcher that an attacker wrote: dials the helper as its owner and answers one launch with what it should not.
`hostile_launcher.py UID GROUP ANSWER [PID]`, started as root so that it can hold a descriptor of somebody else's
namespace (as if it had been passed); gives root up before it dials. Prints what the helper said to that."""
import grp, os, socket, struct, sys

uid, group, answer = int(sys.argv[1]), sys.argv[2], sys.argv[3]
other = sys.argv[4] if len(sys.argv) > 4 else "self"
held = os.open(f"/proc/{other}/ns/{ {'user-namespace': 'user', 'mount-namespace': 'mnt'}.get(answer, 'net') }", os.O_RDONLY)
gid = grp.getgrnam(group).gr_gid
os.setgroups([gid])
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)

helper = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
helper.settimeout(15)
helper.connect("/run/holdfast/launch.sock")
version = b"0.1.0"
helper.send(bytes([1, 1]) + struct.pack("<I", len(version)) + version)
print("dialled", flush=True)
packet, _, _, _ = socket.recv_fds(helper, 4096, 4)
assert packet[:2] == bytes([1, 1]), packet
seq = struct.unpack_from("<Q", packet, 2)[0]
pidfd = os.pidfd_open(os.getpid())
prepared = bytes([1, 2]) + struct.pack("<QI", seq, os.getpid())
match answer:
    case "host-netns" | "foreign-netns" | "user-namespace" | "mount-namespace":
        socket.send_fds(helper, [prepared], [held, pidfd])
    case "plain-file":
        socket.send_fds(helper, [prepared], [os.open("/etc/passwd", os.O_RDONLY), pidfd])
    case "socket":
        socket.send_fds(helper, [prepared], [helper.fileno(), pidfd])
    case "one-descriptor":
        socket.send_fds(helper, [prepared], [held])
    case "many-descriptors":
        socket.send_fds(helper, [prepared], [held] * 4)
    case "no-descriptors":
        helper.send(prepared)
    case "other-seq":
        socket.send_fds(helper, [bytes([1, 2]) + struct.pack("<QI", seq + 1, 1)], [held, pidfd])
    case "garbage":
        helper.send(os.urandom(512))
    case "too-long":
        helper.send(prepared + bytes(8192))
    case "silence":
        pass
try:
    said = helper.recv(4096)
    print({b"": "hung up", b"\x01\x02": "released", b"\x01\x03": "aborted"}.get(said[:2], said[:2]))
except OSError as error:
    print("hung up" if error.errno else "silence", error)
