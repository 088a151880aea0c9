# Tries TCP ports of addresses, many at once. argv: "1-1024,8080" and addresses. Prints "ADDRESS PORT open" or "… refused" for
# each that answers in any way, and at last "tried N".
import errno, resource, select, socket, sys

resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),) * 2)
AT_ONCE = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 64
QUIET_MS = 1500
ports = []
for part in sys.argv[1].split(","):
    first, _, last = part.partition("-")
    ports.extend(range(int(first), int(last or first) + 1))
ends = [(to, port) for to in sys.argv[2:] for port in ports]

def outcome(to, port, code):
    if code in (0, errno.ECONNREFUSED):
        print(to, port, "open" if code == 0 else "refused", flush=True)

for start in range(0, len(ends), AT_ONCE):
    poll, waiting = select.epoll(), {}
    for to, port in ends[start:start + AT_ONCE]:
        family, kind, _, _, address = socket.getaddrinfo(to, port, 0, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)[0]
        s = socket.socket(family, kind)
        s.setblocking(False)
        code = s.connect_ex(address)
        if code == errno.EINPROGRESS:
            poll.register(s, select.EPOLLOUT)
            waiting[s.fileno()] = (s, to, port)
        else:
            outcome(to, port, code)
            s.close()
    while waiting:
        ready = poll.poll(QUIET_MS / 1000)
        if not ready:
            break
        for number, _ in ready:
            s, to, port = waiting.pop(number)
            outcome(to, port, s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
            s.close()
    for s, _, _ in waiting.values():
        s.close()
print("tried", len(ends), flush=True)
