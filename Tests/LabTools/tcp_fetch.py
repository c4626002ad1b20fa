"""Fetches what tcp_serve.py serves and compares its SHA-256. Arguments: address, port.

Prints a line "received N MiB" for each MiB, and at the end the rate and "the content is right".
"""

import hashlib
import socket
import sys
import time

client = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=60)
begin = time.monotonic()
buffer = b""
while b"\n" not in buffer:
    data = client.recv(65536)
    if not data:
        sys.exit("the connection closed before the digest came")
    buffer += data
expected, rest = buffer.split(b"\n", 1)
digest = hashlib.sha256(rest)
received = len(rest)
while True:
    data = client.recv(1 << 18)
    if not data:
        break
    digest.update(data)
    if (received + len(data)) >> 20 != received >> 20:
        print("received %d MiB" % ((received + len(data)) >> 20))
    received += len(data)
if digest.hexdigest().encode() != expected:
    sys.exit("%d octets came with another content" % received)
seconds = time.monotonic() - begin
print("%d octets in %.2f s, %.0f Mbit/s; the content is right" % (received, seconds, received * 8e-6 / seconds))
