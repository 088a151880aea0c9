"""A virtual machine's network, as small as it can be: behind tap0, with the worker's address, it answers ARP and echoes
UDP on port 53, and says hello to each PLACE (ADDRESS:PORT) that is given. Prints who answered."""
import fcntl, os, select, socket, struct, sys, time

ip = socket.inet_aton(socket.gethostbyname(os.environ["HOSTNAME"]))
gateway = ip[:3] + b"\xfe"
mac = b"\x02\x00\x00\x00\x00\x07"
places = [(socket.inet_aton(p.split(":")[0]), int(p.split(":")[1])) for p in sys.argv[1:]]
tap = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH22x", b"tap0", 0x1002))
print("guest", socket.inet_ntoa(ip), flush=True)


def checksum(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def udp(to, source_port, port, payload):
    segment = struct.pack("!HHHH", source_port, port, 8 + len(payload), 0) + payload
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(segment), 0, 0, 64, 17, 0, ip, to)
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    os.write(tap, router + mac + b"\x08\x00" + head + segment)


def arp(kind, to, target_mac, target):
    body = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, kind, mac, ip, target_mac, target)
    os.write(tap, to + mac + b"\x08\x06" + body)


router, heard, asked = None, set(), 0.0
while True:
    if time.monotonic() - asked > 0.5:
        asked = time.monotonic()
        arp(1, b"\xff" * 6, b"\0" * 6, gateway)
        for place in places if router else []:
            udp(place[0], 4000, place[1], b"hello")
    if not select.select([tap], [], [], 0.2)[0]:
        continue
    frame = os.read(tap, 2048)
    kind, body = frame[12:14], frame[14:]
    if kind == b"\x08\x06" and body[24:28] == ip and body[6:8] == b"\0\1":
        arp(2, frame[6:12], body[8:14], body[14:18])
    elif kind == b"\x08\x06" and body[14:18] == gateway and router is None:
        router = body[8:14]
        print("gateway", flush=True)
    elif kind == b"\x08\x00" and body[9] == 17 and body[16:20] == ip and router:
        length = (body[0] & 15) * 4
        source, port, payload = body[12:16], struct.unpack("!HH", body[length : length + 4]), body[length + 8 :]
        if port[1] == 53:
            udp(source, 53, port[0], b"guest:" + payload)
        elif (source, port[0]) not in heard:
            heard.add((source, port[0]))
            print("answer", socket.inet_ntoa(source), port[0], flush=True)
