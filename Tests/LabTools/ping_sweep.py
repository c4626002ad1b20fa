"""Sends ICMPv6 echo requests of each payload size and compares the replies. Arguments: address, from, to."""

import os
import select
import socket
import struct
import sys

address, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
client = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
client.connect((address, 0))
identifier = os.getpid() & 0xFFFF
REQUEST, REPLY = 128, 129


def ping(size):
    payload = bytes((size + index) & 0xFF for index in range(size))
    client.send(struct.pack("!BBHHH", REQUEST, 0, 0, identifier, size) + payload)
    while select.select([client], [], [], 1)[0]:
        message = client.recv(65536)
        kind, _, _, who, which = struct.unpack("!BBHHH", message[:8])
        if kind == REPLY and who == identifier and which == size:
            if message[8:] != payload:
                sys.exit("the reply of size %d has another content" % size)
            return True
    return False


for size in range(first, last + 1):
    if not any(ping(size) for _ in range(3)):
        sys.exit("no reply to a payload of %d octets" % size)
print("%d sizes answered" % (last - first + 1))
