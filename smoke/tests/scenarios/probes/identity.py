"""Who a caller can be taken for. `identity.py CASE SOCKET …`; needs h2.py beside it. Prints `what outcome` lines."""
import array, ctypes, os, signal, socket, sys, time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import h2

LIST = h2.DAEMON + "List"
libc = ctypes.CDLL(None, use_errno=True)


def send_socket(over, peer):
    over.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [peer.fileno()]))])


def receive_socket(over):
    _, control, _, _ = over.recvmsg(1, socket.CMSG_SPACE(4))
    peer = socket.socket(fileno=array.array("i", control[0][2][:4])[0])
    peer.settimeout(10)
    return peer


def become(uid):
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    # As a process that was hers from its start: one that is not dumpable is invisible to her daemon.
    libc.prctl(4, 1)


def in_child(work):
    """Forks; the child's `work` is all it does."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return pid


def text(path):
    """T05: identity in text. Run as another user on a socket that is open to all."""
    for what, named in {
        "path-name": dict(bound="/tmp/x;uid=0;"),
        "path-owner": dict(bound="/tmp/uid=1000;alice"),
        "authority-root": dict(authority="root@localhost"),
        "authority-alice": dict(authority="alice@localhost"),
        "metadata-uid": dict(extra=(("uid", "0"), ("x-uid", "1000"))),
        "metadata-user": dict(extra=(("user", "alice"), ("owner", "alice"), ("authorization", "Basic YWxpY2U6"))),
        "metadata-peer": dict(extra=(("x-forwarded-for", "uid=0"), ("peer-cred", "pid=1,uid=0,gid=0"), ("forwarded", "for=alice"))),
        "metadata-binary": dict(extra=(("uid-bin", "AAAAAA"), ("grpc-trace-bin", "AAAA"))),
    }.items():
        print(what, h2.call(path, LIST, **named))


def passed(path, owner, other):
    """T06, run as root: a connection passed between users, and one whose maker died."""
    # The other one connects and lets the owner speak: still the other one's connection.
    near, far = socket.socketpair()

    def foreign():
        become(other)
        send_socket(far, h2.connect(path))
        time.sleep(3)

    pid = in_child(foreign)
    peer = receive_socket(near)

    def owners():
        become(owner)
        peer.sendall(h2.request(LIST))
        print("made-by-another-used-by-the-owner", h2.outcome(peer), flush=True)

    os.waitpid(in_child(owners), 0)
    os.kill(pid, 9)
    os.waitpid(pid, 0)

    # The owner connects and passes it on, then dies: nobody's connection any more.
    def mine():
        become(owner)
        peer = h2.connect(path)
        peer.sendall(h2.request(LIST))
        print("the-owners-own", h2.outcome(peer), flush=True)
        send_socket(far, peer)
        signal.pause()

    pid = in_child(mine)
    peer = receive_socket(near)
    again = lambda stream: (h2.frame(h2.HEADERS, h2.END_HEADERS, stream, h2.headers(LIST))
                            + h2.frame(h2.DATA, h2.END_STREAM, stream, b"\0\0\0\0\0"))
    os.kill(pid, 9)
    os.waitpid(pid, 0)

    def others():
        become(other)
        peer.sendall(again(3))
        print("passed-on-by-the-dead", h2.outcome(peer, 3), flush=True)

    os.waitpid(in_child(others), 0)


def reborn(pid, uid):
    """A process with exactly this number (clone3(2) with set_tid), of this uid. Returns whether it could be made."""
    wanted = (ctypes.c_int * 1)(pid)
    arguments = (ctypes.c_uint64 * 10)(0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, ctypes.addressof(wanted), 1)
    made = libc.syscall(435, arguments, 80)
    if made == 0:
        os.setsid()
        become(uid)
        libc.prctl(4, 1)
        signal.pause()
        os._exit(0)
    return made == pid


def reused(path, owner, rounds, daemon):
    """T07, run as root: somebody in another user namespace connects and is gone before the daemon looks; a process of
    the owner's on the host has the number by then. The connection lives on in a child."""
    matches = refused = 0
    for _ in range(rounds):
        os.kill(daemon, signal.SIGSTOP)
        read, write = os.pipe()
        speak_read, speak_write = os.pipe()

        def impostor():
            become(owner)
            libc.prctl(4, 1)
            if libc.unshare(0x10000000) != 0:
                os.write(write, b"no-namespace")
                os._exit(1)
            peer = h2.connect(path)
            if os.fork() == 0:
                os.read(speak_read, 1)
                peer.sendall(h2.request(LIST))
                os.write(write, h2.outcome(peer).encode())
                os._exit(0)
            os._exit(0)

        pid = in_child(impostor)
        os.waitpid(pid, 0)
        made = reborn(pid, owner)
        os.kill(daemon, signal.SIGCONT)
        if made:
            os.write(speak_write, b"x")
            said = os.read(read, 64).decode()
            matches += said == "answered"
            refused += said in ("refused", "closed")
            if said not in ("answered", "refused", "closed"):
                print("odd", said)
            os.kill(pid, 9)
            os.waitpid(pid, 0)
        else:
            os.write(speak_write, b"x")
            os.read(read, 64)
        for end in (read, write, speak_read, speak_write):
            os.close(end)
    print("matches", matches)
    print("refused", refused)


def vanish(path, owner, daemon, worker):
    """T08, run as root: callers that are gone at every point. Each request would change something."""
    call = h2.request(h2.DAEMON + "Remove", h2.message({1: worker.encode(), 2: 1}))
    cuts = 0
    for cut in range(len(call)):
        def cut_short():
            become(owner)
            peer = h2.connect(path)
            peer.sendall(call[:cut])
        os.waitpid(in_child(cut_short), 0)
        cuts += 1
    print("cut-short", cuts)
    # Whole, but its caller is gone before anybody could look who it was.
    for _ in range(10):
        os.kill(daemon, signal.SIGSTOP)

        def gone():
            become(owner)
            peer = h2.connect(path)
            peer.sendall(call)
            # Somebody else keeps it open, so that it is not the hang-up that ends the call.
            if os.fork() == 0:
                time.sleep(2)
        os.waitpid(in_child(gone), 0)
        os.kill(daemon, signal.SIGCONT)
        time.sleep(0.05)
    print("gone-before-the-look", 10)


def decoys(first, second, owner):
    """T43, run as root: processes of the owner's with these numbers, which have done nothing."""
    made = []
    for pid in (first, second):
        for _ in range(200):
            if reborn(pid, owner):
                made.append(str(pid))
                break
            time.sleep(0.02)
    with open(f"/tmp/decoys.{first}", "w") as file:
        file.write(" ".join(["made", *made]))
    signal.pause()


case, path, *rest = sys.argv[1:]
if case == "decoys":
    decoys(int(path), int(rest[0]), int(rest[1]))
if case == "text":
    text(path)
elif case == "passed":
    passed(path, int(rest[0]), int(rest[1]))
elif case == "reused":
    reused(path, int(rest[0]), int(rest[1]), int(rest[2]))
elif case == "vanish":
    vanish(path, int(rest[0]), int(rest[1]), rest[2])
