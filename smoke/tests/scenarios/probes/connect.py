"""Connects to each path given, as a stream and as a packet socket; prints `path errno`."""
import errno, socket, sys
for path in sys.argv[1:]:
    outcome = "connected"
    for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
        try:
            socket.socket(socket.AF_UNIX, kind).connect(path)
            outcome = "connected"
            break
        except OSError as error:
            outcome = errno.errorcode[error.errno]
            if outcome != "EPROTOTYPE":
                break
    print(path, outcome)
