"""A cable that takes its time, for kernels without sch_netem: two TUN interfaces in two namespaces, and this program
between them, which holds every packet back for some milliseconds. network.py starts it inside the router:

    delay.py MILLISECONDS INNER_INTERFACE OUTER_NAMESPACE OUTER_INTERFACE

It says "ready" when both interfaces exist and ends with the laboratory.
"""

import collections
import ctypes
import fcntl
import os
import select
import struct
import sys
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI, CLONE_NEWNET = 0x400454CA, 1, 0x1000, 0x40000000


def interface(name):
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return device


def main():
    milliseconds, inner_name, namespace, outer_name = sys.argv[1:]
    delay = float(milliseconds) / 1000
    inner = interface(inner_name)
    with open(f"/run/netns/{namespace}") as there:
        if ctypes.CDLL(None, use_errno=True).setns(there.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {namespace}")
    outer = interface(outer_name)
    print("ready", flush=True)
    # Packets by when they are due: all wait alike, so they stay in order.
    waiting = collections.deque()
    readers = select.poll()
    to = {inner: outer, outer: inner}
    for device in to:
        readers.register(device, select.POLLIN)
    while True:
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, device, packet = waiting.popleft()
            try:
                os.write(device, packet)
            except OSError:
                pass  # the other end is down, or its queue is full: lost, as on any cable
        timeout = max(0.0, waiting[0][0] - time.monotonic()) * 1000 if waiting else None
        for device, _ in readers.poll(timeout):
            for _ in range(64):
                try:
                    packet = os.read(device, 65535)
                except BlockingIOError:
                    break
                waiting.append((time.monotonic() + delay, to[device], packet))


if __name__ == "__main__":
    main()
