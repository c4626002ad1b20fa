"""A steady TCP transfer, to measure how long nothing arrives. Used by scripts/lib/booted-checks.

  steady.py receive PORT            one connection; prints bytes and the longest silence in milliseconds
  steady.py send HOST PORT SECONDS  1 KiB every 5 ms
"""
import socket
import sys
import time

BLOCK = 1024


def receive(port):
    listener = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("::", port))
    listener.listen(1)
    print("listening", flush=True)
    connection, _ = listener.accept()
    connection.settimeout(30)
    total, longest, last, data = 0, 0.0, time.monotonic(), b""
    while True:
        more = connection.recv(65536)
        now = time.monotonic()
        if not more:
            break
        longest, last = max(longest, now - last), now
        data += more
        while len(data) >= BLOCK:
            number = int.from_bytes(data[:8], "big")
            if number != total // BLOCK:
                sys.exit(f"block {number} came in the place of {total // BLOCK}")
            data, total = data[BLOCK:], total + BLOCK
    print(f"{total} {longest * 1000:.0f}", flush=True)


def send(host, port, seconds):
    connection = socket.create_connection((host, port), timeout=30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    start, number = time.monotonic(), 0
    while time.monotonic() < start + seconds:
        connection.sendall(number.to_bytes(8, "big") + bytes(BLOCK - 8))
        number += 1
        time.sleep(max(0, start + number * 0.005 - time.monotonic()))
    connection.close()


if sys.argv[1] == "receive":
    receive(int(sys.argv[2]))
else:
    send(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
