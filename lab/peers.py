"""One exchange with a service, as its simplest client would make it, and what is checked of the answer."""

import socket
import struct
import time

from table import Failed

PATIENCE = 10


def check(good, what):
    """A proof goes on only if this is so."""
    if not good:
        raise Failed(what)


def loopback(family):
    return "127.0.0.1" if family == socket.AF_INET else "::1"


def tcp(port, sent, count, family=socket.AF_INET):
    """What comes back over a connection: `count` bytes at least, or all up to the end."""
    with socket.socket(family) as peer:
        peer.settimeout(PATIENCE)
        peer.connect((loopback(family), port))
        peer.sendall(sent)
        data = b""
        while len(data) < count:
            piece = peer.recv(65536)
            if not piece:
                break
            data += piece
        return data


def udp(port, sent, family=socket.AF_INET):
    """The datagram that answers."""
    with socket.socket(family, socket.SOCK_DGRAM) as peer:
        peer.settimeout(PATIENCE)
        peer.sendto(sent, (loopback(family), port))
        return peer.recv(65536)


def is_now(answer):
    """Whether an answer of service time (RFC 868) is right."""
    return abs(struct.unpack("!I", answer[:4])[0] - 2208988800 - time.time()) < 5
