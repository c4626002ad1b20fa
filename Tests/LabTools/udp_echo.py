"""Echoes UDP datagrams. Arguments: address, port."""

import socket
import sys

server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
server.bind((sys.argv[1], int(sys.argv[2])))
print("ready")
while True:
    data, sender = server.recvfrom(65536)
    server.sendto(data, sender)
