"""A name server that gives every A query 192.0.2.1 and everything else no data, and prints the names it is asked for.
Usage: dns_upstream.py ADDRESS"""

import socket
import struct
import sys

server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((sys.argv[1], 53))
print("ready", flush=True)
while True:
    query, sender = server.recvfrom(4096)
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode("ascii", "replace"))
        at += 1 + query[at]
    kind = struct.unpack_from("!H", query, at + 1)[0]
    print("asked", ".".join(labels).lower() or ".", flush=True)
    question = query[12 : at + 5]
    answer = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01" if kind == 1 else b""
    server.sendto(query[:2] + b"\x81\x80\0\x01" + struct.pack("!H", bool(answer)) + b"\0\0\0\0" + question + answer, sender)
