"""Just enough HTTP/2 (RFC 9113) and HPACK without a table (RFC 7541) to say to a gRPC server what no library would.
Imported by other probes; by itself: `h2.py SOCKET METHOD [HEX-OF-MESSAGE]` prints `answered` or `refused`."""
import os, socket, struct, sys, time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS = 1, 4


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def number(value, bits):
    limit = (1 << bits) - 1
    if value < limit:
        return bytes([value])
    out, value = [limit], value - limit
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes(out + [value])


def header(name, value):
    name, value = name.encode("latin-1"), value.encode("latin-1")
    return b"\0" + number(len(name), 7) + name + number(len(value), 7) + value


def headers(method, authority="localhost", extra=()):
    fields = [(":method", "POST"), (":scheme", "http"), (":path", "/" + method), (":authority", authority),
              ("content-type", "application/grpc"), ("te", "trailers"), *extra]
    return b"".join(header(name, value) for name, value in fields)


def message(fields):
    """Protobuf: {number: bytes | int}."""
    out = b""
    for field, value in fields.items():
        if isinstance(value, int):
            out += varint(field << 3) + varint(value)
        else:
            out += varint(field << 3 | 2) + varint(len(value)) + value
    return out


def varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def request(method, body=b"", **named):
    """One whole unary call, from the preface on."""
    framed = b"\0" + struct.pack(">I", len(body)) + body
    return (PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 1, headers(method, **named))
            + frame(DATA, END_STREAM, 1, framed))


def connect(path, bound=None):
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(10)
    if bound:
        peer.bind(bound)
    peer.connect(path)
    return peer


def frames(peer):
    """(kind, flags, stream, payload) as they come, to the end of the connection."""
    kept = b""
    while True:
        while len(kept) >= 9 and len(kept) >= 9 + int.from_bytes(kept[:3], "big"):
            length = int.from_bytes(kept[:3], "big")
            yield kept[3], kept[4], int.from_bytes(kept[5:9], "big") & 0x7FFFFFFF, kept[9:9 + length]
            kept = kept[9 + length:]
        try:
            more = peer.recv(65536)
        except OSError:
            return
        if not more:
            return
        kept += more


def outcome(peer, stream=1):
    """A gRPC answer has a message before its trailers; a refusal is trailers alone."""
    for kind, flags, of, _ in frames(peer):
        if of == stream and kind == DATA:
            return "answered"
        if of == stream and (flags & END_STREAM or kind == RST):
            return "refused"
        if kind == GOAWAY:
            return "closed"
    return "closed"


def call(path, method, body=b"", bound=None, **named):
    try:
        peer = connect(path, bound)
        peer.sendall(request(method, body, **named))
        return outcome(peer)
    except OSError as error:
        return f"refused-by-kernel-{error.errno}"


DAEMON = "holdfast.daemon.v1.Daemon/"

if __name__ == "__main__":
    body = bytes.fromhex(sys.argv[3]) if len(sys.argv) > 3 else b""
    print(call(sys.argv[1], sys.argv[2], body))
