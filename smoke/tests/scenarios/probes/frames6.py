# Sends IPv6 that a worker has no right to, from inside its network namespace (run there as root): argv are its own address, another
# worker's, its gateway's, the host's, a server's outside, and the link-layer address of its link. Then listens: prints each packet
# that comes back to it, and at last "sent N".
import select, socket, struct, sys, time
own, other, gateway, host, server, mac = sys.argv[1:7]
mac = bytes.fromhex(mac.replace(":", ""))
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x86dd))
s.bind(("eth0", 0x86dd))
six = lambda text: socket.inet_pton(socket.AF_INET6, text)
sent = 0

def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return struct.pack("!H", ~total & 0xffff)

def send(source, to, protocol, body, at):
    global sent
    pseudo = six(source) + six(to) + struct.pack("!II", len(body), protocol)
    body = body[:at] + checksum(pseudo + body) + body[at + 2:]
    link = b"\x33\x33" + six(to)[12:] if to.startswith("ff") else mac
    s.send(link + mac + b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(body), protocol, 255) + six(source) + six(to) + body)
    sent += 1

def udp(source, to, port, text):
    send(source, to, 17, struct.pack("!HHHH", 9999, port, 8 + len(text), 0) + text, 6)

icmp = lambda source, to, kind, rest: send(source, to, 58, bytes([kind, 0, 0, 0]) + rest, 2)
target = b"\2\1" + mac
strangers = [other, "fe80::bad", gateway, host, server, "::1", "::", "ff02::1", "::ffff:10.88.0.1", "fd00:ec2::254", "2001:db8:9::9"]
places = ["ff02::1", "ff02::2", "ff02::16", "ff05::2", "ff0e::1", gateway, host, other, "fd00:ec2::254", "fd20:ce::254", "fe80::1", "::1", "::"]
for _ in range(3):
    for source in strangers:
        for to in places + [server]:
            udp(source, to, 9999, b"forged " + source.encode())
            icmp(source, to, 128, b"\0\1\0\1forged")
    for to in places:
        udp(own, to, 9999, b"forbidden " + to.encode())
        icmp(own, to, 128, b"\0\1\0\1forbidden")
    for source in [own, "fe80::bad", gateway, host, "::"]:
        for to in ["ff02::1", "ff02::2", gateway, host]:
            prefix = struct.pack("!BBBBIII", 3, 4, 64, 0xc0, 9999, 9999, 0) + six("2001:db8:bad::")
            icmp(source, to, 134, b"\x40\x80\x07\x08" + b"\0" * 8 + prefix + b"\1\1" + mac)
            icmp(source, to, 133, b"\0" * 4 + b"\1\1" + mac)
            icmp(source, to, 135, b"\0" * 4 + six(host) + b"\1\1" + mac)
            icmp(source, to, 136, b"\x60\0\0\0" + six(host) + target)
            icmp(source, to, 136, b"\x60\0\0\0" + six(server) + target)
            icmp(source, to, 137, b"\0" * 4 + six("fe80::bad") + six(server) + target)
            icmp(source, to, 143, b"\0\0\0\1" + b"\4\0\0\0" + six("ff02::bad"))
            icmp(source, to, 131, b"\0" * 4 + six("ff02::bad"))
            udp(source, to, 546, b"\2\0\0\1")
udp(own, server, 9999, b"allowed")
until = time.monotonic() + 1.5
while time.monotonic() < until:
    if select.select([s], [], [], 0.1)[0]:
        frame, about = s.recvfrom(2000)
        # What this program itself sent is shown to it as well; what the host tells all of a link is no answer.
        if about[2] != socket.PACKET_OUTGOING and frame[38] != 0xff:
            print("heard", socket.inet_ntop(socket.AF_INET6, frame[22:38]), "protocol", frame[20], frame[54:58].hex(), flush=True)
print("sent", sent, flush=True)
