"""Prints each datagram that arrives: sender and text. Arguments: address, port."""

import socket
import sys

server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
server.bind((sys.argv[1], int(sys.argv[2])))
print("ready")
while True:
    data, sender = server.recvfrom(65536)
    print("from", sender[0], data.decode(errors="replace"))
