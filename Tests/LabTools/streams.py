"""Bytes over connections, by plain sockets or by the official SDK. Every command has a transport at its end:

  socket ADDRESS       ordinary TCP
  sdk SOCKET ADDRESS   the official SDK at a daemon's local socket (serve: without ADDRESS)

  serve OPEN...              echo on port 8001, sink on 8002, source on 8003
  echo OCTETS PORT OPEN...   sends pseudo-random octets to an echo and compares what comes back
  put OCTETS PORT OPEN...    to a sink, which tells count and SHA-256 when the end comes
  get OCTETS PORT OPEN...    from a source: the request is the count and a newline
"""

import hashlib
import random
import socket
import sys
import threading
import time

FLOWING = 1_000_000


class Socket:
    """One TCP connection."""

    def __init__(self, raw):
        self.raw = raw

    def read(self):
        return self.raw.recv(1 << 18)

    def write(self, data):
        self.raw.sendall(data)

    def end(self):
        self.raw.shutdown(socket.SHUT_WR)

    def close(self):
        self.raw.close()


class Stream:
    """One stream of the SDK."""

    def __init__(self, raw):
        self.raw = raw

    def read(self):
        try:
            return self.raw.read(1 << 16)
        except Exception as error:
            if "EOF" in str(error):
                return b""
            raise

    def write(self, data):
        self.raw.write(bytes(data))

    def end(self):
        pass

    def close(self):
        self.raw.close()


def connect(port, kind, *where):
    if kind == "socket":
        raw = socket.create_connection((where[0], port), timeout=60)
        return Socket(raw)
    from pilotprotocol import Driver

    return Stream(Driver(where[0]).dial(f"{where[1]}:{port}"))


def listen(port, serve, kind, *where):
    """Calls `serve` with each connection, in a thread of its own."""
    if kind == "socket":
        listener = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((where[0], port))
        listener.listen(64)
    else:
        from pilotprotocol import Driver

        listener = Driver(where[0]).listen(port)

    def accept():
        while True:
            if kind == "socket":
                raw, peer = listener.accept()
                print("from", peer[0], peer[1], "to", port, flush=True)
                connection = Socket(raw)
            else:
                connection = Stream(listener.accept())
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def pieces(octets):
    """Pseudo-random octets that their number decides."""
    block = random.Random(octets).randbytes(1 << 18)
    while octets > 0:
        piece = block[: min(len(block), octets)]
        yield piece
        octets -= len(piece)


def digest_of(octets):
    digest = hashlib.sha256()
    for piece in pieces(octets):
        digest.update(piece)
    return digest.hexdigest()


def take(connection, limit=None):
    """Reads to the end, or `limit` octets: count and SHA-256. Says once that much has come."""
    digest, count = hashlib.sha256(), 0
    while limit is None or count < limit:
        data = connection.read()
        if not data:
            break
        digest.update(data)
        count += len(data)
        if count - len(data) < FLOWING <= count:
            print("flowing", flush=True)
    return count, digest.hexdigest()


def echo_server(connection):
    try:
        while True:
            data = connection.read()
            if not data:
                break
            connection.write(data)
    except Exception as error:
        print("echo:", error, flush=True)
    connection.close()


def sink_server(connection):
    try:
        count, digest = take(connection)
        print("sink", count, digest, flush=True)
    except Exception as error:
        print("sink:", error, flush=True)
    connection.close()


def source_server(connection):
    try:
        request = b""
        while not request.endswith(b"\n"):
            request += connection.read()
        for piece in pieces(int(request)):
            connection.write(piece)
    except Exception as error:
        print("source:", error, flush=True)
    connection.close()


def main():
    command, arguments = sys.argv[1], sys.argv[2:]
    if command == "serve":
        for port, server in ((8001, echo_server), (8002, sink_server), (8003, source_server)):
            listen(port, server, *arguments)
        print("ready", flush=True)
        threading.Event().wait()
    octets, port, where = int(arguments[0]), int(arguments[1]), arguments[2:]
    begin = time.monotonic()
    connection = connect(port, *where)
    if command == "echo":
        def send():
            for piece in pieces(octets):
                connection.write(piece)

        threading.Thread(target=send, daemon=True).start()
        count, digest = take(connection, octets)
    elif command == "put":
        for piece in pieces(octets):
            connection.write(piece)
        connection.end()
        if isinstance(connection, Socket):
            take(connection)
        count, digest = octets, digest_of(octets)
    else:
        connection.write(b"%d\n" % octets)
        count, digest = take(connection, octets)
    elapsed = time.monotonic() - begin
    connection.close()
    is_whole = count == octets and digest == digest_of(octets)
    print("whole" if is_whole else "broken", count, f"{count / elapsed / 1e6:.2f} MB/s", flush=True)
    sys.exit(0 if is_whole else 1)


main()
