# Sends forged frames from inside a worker's network namespace (run there as root): argv are the worker's own address,
# another worker's and the gateway's, and the link-layer address of its link. Prints each kind that went out.
import socket, struct, sys
own, other, gateway, mac = sys.argv[1:5]
mac = bytes.fromhex(mac.replace(":", ""))
evil = bytes.fromhex("02deadbeef01")
every, ip4 = b"\xff" * 6, socket.inet_aton
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("eth0", 0))

def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return struct.pack("!H", ~total & 0xffff)

def arp(code, sender, ip, target):
    return struct.pack("!HHBBH", 1, 0x800, 6, 4, code) + sender + ip4(ip) + b"\0" * 6 + ip4(target)

def ipv4(source, to, protocol, body):
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 1, 0, 64, protocol, 0, ip4(source), ip4(to))
    return head[:10] + checksum(head) + head[12:] + body

def icmp6(source, to, body):
    source, to = socket.inet_pton(socket.AF_INET6, source), socket.inet_pton(socket.AF_INET6, to)
    pseudo = source + to + struct.pack("!II", len(body), 58)
    body = body[:2] + checksum(pseudo + body) + body[4:]
    return struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + source + to + body

def frame(kind, to, source, ethertype, body):
    s.send(to + source + struct.pack("!H", ethertype) + body)
    print(kind, flush=True)

udp = struct.pack("!HHHH", 68, 67, 16, 0) + b"forged.."
ll = struct.pack("!BB", 2, 1) + evil
six = lambda text: socket.inet_pton(socket.AF_INET6, text)
for _ in range(3):
    frame("arp-request-as-gateway", every, evil, 0x806, arp(1, evil, gateway, other))
    frame("arp-request-as-other", every, mac, 0x806, arp(1, evil, other, gateway))
    frame("arp-reply-gratuitous", every, evil, 0x806, arp(2, evil, other, other))
    frame("arp-request-as-stranger", every, mac, 0x806, arp(1, evil, "192.0.2.77", gateway))
    frame("foreign-link-address", mac, evil, 0x800, ipv4(own, gateway, 17, udp))
    frame("foreign-address", mac, mac, 0x800, ipv4(other, gateway, 17, udp))
    frame("loopback-address", mac, mac, 0x800, ipv4("127.0.0.1", gateway, 17, udp))
    redirect = b"\5\1\0\0" + ip4(own) + ipv4(gateway, other, 17, udp)[:28]
    frame("icmp-redirect", mac, mac, 0x800, ipv4(own, gateway, 1, redirect[:2] + checksum(redirect) + redirect[4:]))
    frame("dhcp-offer", every, evil, 0x800, ipv4(gateway, "255.255.255.255", 17, udp))
    ra = b"\x86\0\0\0\x40\x80\x07\x08" + b"\0" * 8 + struct.pack("!BBBBIII", 3, 4, 64, 0xc0, 9999, 9999, 0) + six("2001:db8::") + b"\1\1" + evil
    frame("router-advertisement", b"\x33\x33\0\0\0\1", evil, 0x86dd, icmp6("fe80::1", "ff02::1", ra))
    frame("neighbour-advertisement", b"\x33\x33\0\0\0\1", evil, 0x86dd, icmp6("fe80::2", "ff02::1", b"\x88\0\0\0\x20\0\0\0" + six("fe80::9") + ll))
    frame("neighbour-solicitation", b"\x33\x33\0\0\0\1", evil, 0x86dd, icmp6("fe80::3", "ff02::1", b"\x87\0\0\0\0\0\0\0" + six("fe80::9") + b"\1\1" + evil))
    frame("icmp6-redirect", mac, evil, 0x86dd, icmp6("fe80::1", "ff02::1", b"\x89\0\0\0\0\0\0\0" + six("fe80::9") + six("2001:db8::1") + ll))
    frame("spanning-tree", bytes.fromhex("0180c2000000"), evil, 38, b"\x42\x42\3" + b"\0" * 35)
    frame("vlan", every, evil, 0x8100, struct.pack("!HH", 7, 0x806) + arp(1, evil, other, gateway))
    frame("lldp", bytes.fromhex("0180c200000e"), evil, 0x88cc, b"\2\7\4" + evil + b"\4\2\7x\6\2\0x\0\0")
