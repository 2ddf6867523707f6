"""A worker in Python that speaks fd-broker's own protocol: docs/protocols/fd-broker.md.

usage: native.py SOCKET [OPTION=VALUE ...]    name, capacity, weight; mode: echo, refuse, hold (takes and
says nothing), late (takes when a line comes on standard input)
"""
import array, os, selectors, socket, struct, sys

HELLO, REPORT, CAPACITY, DRAIN, RESUME, PING = range(1, 7)
WELCOME, REJECTED, OFFER, LISTENER, STOP, GO, PONG = range(0x21, 0x28)
TAKEN, REFUSED, DONE = 1, 2, 3


def message(kind, body=b""):
    return struct.pack(">BBH", kind, 0, len(body)) + body


def hello(name=b"", capacity=16, weight=1, flags=1, version=1):
    field = struct.pack(">BH", 1, len(name)) + name if name else b""
    return message(HELLO, struct.pack(">HHIH", version, flags, capacity, weight) + field)


def report(*records):
    return message(REPORT, b"".join(struct.pack(">BBQ", verb, 0, number) for verb, number in records))


def receive(broker):
    packet, ancillary, flags, _ = broker.recvmsg(16 * 1024, socket.CMSG_SPACE(4 * 64))
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(data[: len(data) - len(data) % 4])
    assert not flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC)
    if not packet:
        return None, [], []
    kind, count, length = struct.unpack_from(">BBH", packet)
    assert count == len(descriptors) and length == len(packet) - 4, packet
    entries, at = [], 4
    while kind == OFFER and at < len(packet):
        size, number, arrival = struct.unpack_from(">HQQ", packet, at)
        fields, end, place = {}, at + 2 + size, at + 18
        while place < end:
            field, width = struct.unpack_from(">BH", packet, place)
            fields.setdefault(field, []).append(packet[place + 3 : place + 3 + width])
            place += 3 + width
        entries.append((number, arrival, fields))
        at = end
    return kind, entries or packet[4:], list(descriptors)


def connect(path):
    broker = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    broker.connect(path)
    return broker


def main():
    options = dict(argument.split("=", 1) for argument in sys.argv[2:])
    mode = options.get("mode", "echo")
    broker = connect(sys.argv[1])
    broker.send(hello(options.get("name", "").encode(), int(options.get("capacity", 16)), int(options.get("weight", 1))))
    kind, body, _ = receive(broker)
    if kind != WELCOME:
        sys.exit("rejected: %r" % body)
    select = selectors.DefaultSelector()
    select.register(broker, selectors.EVENT_READ)
    clients = {}
    print("ready", flush=True)
    if mode == "echo":
        select.register(sys.stdin, selectors.EVENT_READ)
    draining = False
    while not (draining and not clients):
        for key, _ in select.select():
            if key.fileobj is sys.stdin:
                # Asked to end: finish what is there, refuse what is on its way.
                select.unregister(sys.stdin)
                if sys.stdin.readline():
                    draining = True
                    broker.send(message(DRAIN))
                continue
            if key.fileobj is not broker:
                client = key.fileobj
                try:
                    bytes_ = client.recv(65536)
                    if bytes_:
                        client.send(bytes_)
                        continue
                except OSError:
                    pass
                select.unregister(client)
                number = clients.pop(client)
                client.close()
                broker.send(report((DONE, number)))
                continue
            kind, entries, descriptors = receive(broker)
            if kind is None:
                return
            if kind == LISTENER:
                print("listener", socket.socket(fileno=descriptors[0]).getsockname(), flush=True)
                continue
            if kind in (STOP, GO):
                print("drain" if kind == STOP else "resume", flush=True)
            if kind != OFFER:
                continue
            for (number, _, fields), descriptor in zip(entries, descriptors):
                if mode == "refuse" or draining:
                    os.close(descriptor)
                    broker.send(report((REFUSED, number)))
                    continue
                if mode == "late":
                    print("offered", flush=True)
                    sys.stdin.readline()
                client = socket.socket(fileno=descriptor)
                if mode == "hold":
                    clients[client] = number
                    print("holds", flush=True)
                    continue
                # Taken only once that has been said: the broker may have parted with us.
                broker.send(report((TAKEN, number)))
                client.setblocking(False)
                clients[client] = number
                select.register(client, selectors.EVENT_READ)


if __name__ == "__main__":
    main()
