"""Sends one datagram of each size and expects each back unchanged. Arguments: address, port, from, to.

Up to 16 are under way at once, so that batches of different sizes form. UDP may lose some: what does not come back
within a second is sent again, twice at most.
"""

import errno
import hashlib
import select
import socket
import sys

address, port, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
client = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
client.connect((address, port))


def content(size):
    seed = hashlib.sha256(str(size).encode()).digest()
    return (seed * (size // len(seed) + 1))[:size]


def send(data):
    """A path that is in doubt for a moment, on a machine that stood still, is taken for a small one: Packet Too Big, which a
    connected socket hears once. From then on the kernel cuts."""
    try:
        client.send(data)
    except OSError as error:
        if error.errno != errno.EMSGSIZE:
            raise
        client.send(data)


def exchange(sizes):
    """Sends the sizes and returns those that did not come back."""
    wanted = {content(size): size for size in sizes}
    for data in list(wanted):
        send(data)
    while wanted:
        ready, _, _ = select.select([client], [], [], 1)
        if not ready:
            break
        data = client.recv(65536)
        # Anything else is a late copy of one sent again, or damaged: then its size is missed.
        wanted.pop(data, None)
    return sorted(wanted.values())


sizes = list(range(first, last + 1))
again = 0
for attempt in range(3):
    left = []
    for start in range(0, len(sizes), 16):
        left += exchange(sizes[start : start + 16])
    if not left:
        print("%d sizes came back, %d sent again" % (last - first + 1, again))
        sys.exit(0)
    again += len(left)
    sizes = left
sys.exit("these sizes never came back: %s" % sizes)
