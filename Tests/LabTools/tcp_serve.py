"""Serves pseudo-random octets by TCP, one connection after another. Arguments: address, port, octets, [pause].

Each connection first gets the SHA-256 of what follows as a line of 64 hexadecimal digits. With `pause` (seconds)
it rests after each 256 KiB, so that a test can do something in the middle.
"""

import hashlib
import random
import socket
import sys
import time

address, port, octets = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
pause = float(sys.argv[4]) if len(sys.argv) > 4 else 0
content = random.Random(octets).randbytes(octets)
digest = hashlib.sha256(content).hexdigest()
server = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind((address, port))
server.listen(8)
print("ready")
while True:
    connection, _ = server.accept()
    try:
        connection.sendall(digest.encode() + b"\n")
        view = memoryview(content)
        for start in range(0, octets, 256 * 1024):
            connection.sendall(view[start : start + 256 * 1024])
            if pause:
                time.sleep(pause)
        connection.close()
    except OSError as error:
        print("connection lost:", error)
