"""From a name to the first byte of HTTP between two nodes that never met, counted in round trips of the wire.

netem is not in every kernel, so the delay is made here: namespaces a and b end in a third one, where line.py
carries the frames from one side to the other and keeps each for half a round trip. The rendezvous runs beside the
asking node, so that the directory costs no round trip.
"""

import os
import sys

from . import wire
from .peers import PilotTun, first_address
from .system import PREFIX, BenchError, run, wait_until

MIDDLE = "mid"
LINE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "line.py")


def build(system, delay):
    for name in ("a", "b", MIDDLE):
        system.add_namespace(name)
    for side, leg in (("a", "left"), ("b", "right")):
        run("ip", "link", "add", wire.DEVICE, "netns", PREFIX + side, "type", "veth",
            "peer", "name", leg, "netns", PREFIX + MIDDLE)
        system.inside(side, "ip", "address", "add", wire.ADDRESS[side] + "/24", "dev", wire.DEVICE)
        system.inside(side, "ip", "link", "set", wire.DEVICE, "up")
        system.inside(MIDDLE, "ip", "link", "set", leg, "up")
        # The carrier copies frames: they must be whole, with their checksums, and no larger than the link.
        for space, device in ((side, wire.DEVICE), (MIDDLE, leg)):
            system.inside(space, "ethtool", "-K", device, "tx", "off", "gso", "off", "tso", "off", "gro", "off")
    line = system.start(MIDDLE, sys.executable, LINE, "carry", delay)
    wait_until(lambda: "ready" in line.output or not line.is_running, "the delay line is up")
    if not line.is_running:
        raise BenchError(f"delay line: {line.output[-300:]}")
    return line


SERVER = """
import socket
port = socket.create_server(("::", 80), family=socket.AF_INET6)
print("ready", flush=True)
while True:
    connection, _ = port.accept()
    connection.recv(4096)
    connection.sendall(b"HTTP/1.0 200 OK\\r\\nContent-Length: 3\\r\\n\\r\\nhi\\n")
    connection.close()
"""


def measure(system, folder, round_trip=0.2, note=print):
    node = PilotTun(system, folder)
    node.addresses = {}
    serial = system.serial()
    line = server = None
    try:
        line = build(system, round_trip / 2)
        out = system.inside("a", "ping", "-n", "-c", "5", "-i", "0.3", wire.ADDRESS["b"], check=False)
        times = [float(part.split("=")[1]) for part in out.split() if part.startswith("time=")]
        if not times:
            raise BenchError("the delay line carries nothing")
        real = min(times) / 1000
        node.start_rendezvous("a", f"{folder}/first-rendezvous-{serial}")
        for side in "ab":
            status = node.start_node(
                side, f"first-{side}", wire.ADDRESS["a"], f"{folder}/first-{side}-{serial}")
            node.addresses[side] = first_address(status["ipv6"])
        # Both are public and never asked for each other: b's directory is a round trip away from it, and says nothing
        # of a before a's first frame comes.
        server = system.start("b", sys.executable, "-c", SERVER)
        wait_until(lambda: "ready" in server.output, "the HTTP server listens")
        out = system.inside("a", sys.executable, LINE, "fetch", "first-b.pilot", timeout=30)
        connected, first = (float(value) / real for value in out.split())
        ahead = (node.status("b") or {}).get("counters", {}).get("handshakes-answered-ahead", 0)
        if not ahead:
            note("    b knew a before: this was no fresh pair")
        return {"answered_ahead": ahead, "round_trip_ms": real * 1000, "connected_rtts": connected, "first_byte_rtts": first}
    finally:
        node.stop()
        for process in (server, line):
            if process:
                system.stop(process)
        for name in ("a", "b", MIDDLE):
            if name in system.namespaces:
                system.remove_namespace(name)
