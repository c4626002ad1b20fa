"""Sends registry requests as they stand, over one plain connection. Arguments: address, port, then one JSON text each.

Prints the reply to each on a line of its own.
"""

import socket
import struct
import sys

client = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=20)
for request in sys.argv[3:]:
    body = request.encode()
    client.sendall(struct.pack(">I", len(body)) + body)
    head = client.recv(4, socket.MSG_WAITALL)
    if len(head) < 4:
        sys.exit("the registry closed the connection")
    print(client.recv(struct.unpack(">I", head)[0], socket.MSG_WAITALL).decode())
