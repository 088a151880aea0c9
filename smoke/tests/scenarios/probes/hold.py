"""`hold.py SOCKET N`: opens N connections that have begun to speak, and keeps them."""
import socket, sys, time

held = []
for _ in range(int(sys.argv[2])):
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(0.5)
    try:
        peer.connect(sys.argv[1])
        peer.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
    except OSError:
        pass
    held.append(peer)
print("held", flush=True)
time.sleep(600)
