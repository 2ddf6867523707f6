"""Clients that talk to a service until they are told to stop, and count what became of it."""

import collections
import http.client
import socket
import threading

from table import Failed

PATIENCE = 20


class Load:
    """Threads that repeat an exchange. An exchange that fails is kept with its reason."""

    def __init__(self):
        self.stop = threading.Event()
        self.threads = []
        self.answers = collections.Counter()
        self.ended = collections.Counter()
        self.failures = []

    def add(self, name, session, clients=1):
        """`session(self, name)` is repeated in each of `clients` threads: it answers for one connection."""

        def repeat():
            while not self.stop.is_set():
                try:
                    session(self, name)
                except Exception as error:
                    self.failures.append(f"{name}: {type(error).__name__}: {error}")

        for _ in range(clients):
            thread = threading.Thread(target=repeat, daemon=True)
            self.threads.append(thread)
            thread.start()
        return self

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self.stop.set()
        for thread in self.threads:
            thread.join(PATIENCE + 5)

    def verdict(self):
        """Words for a table, or Failed."""
        counts = ", ".join(f"{count} {name}" for name, count in sorted(self.answers.items()))
        ends = ", ".join(f"{count} {name}" for name, count in sorted(self.ended.items()))
        if self.failures:
            raise Failed(f"{len(self.failures)} failed ({counts}; {ends}): {self.failures[:3]}")
        if not all(self.answers.values()) or not self.answers:
            raise Failed(f"nothing was answered: {counts}")
        return f"0 failed of {counts}" + (f"; ended in order: {ends}" if ends else "")


def received(connection, count):
    """Exactly `count` bytes, or what came before the end."""
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            break
        data += piece
    return data


def fresh_echo(address, size=100):
    """A connection for each exchange, to an echo service."""
    message = b"x" * size

    def session(load, name):
        with socket.create_connection(address, PATIENCE) as connection:
            connection.sendall(message)
            got = received(connection, size)
            if got != message:
                raise Failed(f"{len(got)} bytes of {size} came back")
        load.answers[name] += 1

    return session


def kept_echo(address, size=100, pause=0.002):
    """One connection for many exchanges. An end between two of them is in order. So is one that crosses a
    message on its way: an echo cannot say that it is about to end. An end within an answer is a failure."""
    message = b"y" * size

    def session(load, name):
        with socket.create_connection(address, PATIENCE) as connection:
            while not load.stop.is_set():
                # What a server says before it ends: nothing, then the end of the stream.
                connection.setblocking(False)
                try:
                    if not connection.recv(1):
                        load.ended[name] += 1
                        return
                    raise Failed("bytes that nobody asked for")
                except BlockingIOError:
                    pass
                connection.settimeout(PATIENCE)
                connection.sendall(message)
                got = received(connection, size)
                if not got:
                    load.ended[f"{name}, crossing a message"] += 1
                    return
                if got != message:
                    raise Failed(f"{len(got)} bytes of {size} came back")
                load.answers[name] += 1
                load.stop.wait(pause)

    return session


def fresh_http(host, port, path="/hello?name=lab"):
    """A connection for each request."""

    def session(load, name):
        client = http.client.HTTPConnection(host, port, timeout=PATIENCE)
        client.request("GET", path, headers={"Connection": "close"})
        answer = client.getresponse()
        body = answer.read()
        client.close()
        if answer.status != 200 or b"lab" not in body:
            raise Failed(f"{answer.status} {body[:60]}")
        load.answers[name] += 1

    return session


def kept_http(host, port, path="/hello?name=lab", pause=0.002):
    """Keep-alive: the server says with `Connection: close` which answer is the last."""

    def session(load, name):
        client = http.client.HTTPConnection(host, port, timeout=PATIENCE)
        client.connect()
        while not load.stop.is_set():
            client.request("GET", path)
            answer = client.getresponse()
            body = answer.read()
            if answer.status != 200 or b"lab" not in body:
                raise Failed(f"{answer.status} {body[:60]}")
            load.answers[name] += 1
            if answer.will_close:
                load.ended[name] += 1
                break
            load.stop.wait(pause)
        client.close()

    return session
