"""Prints the tunnel frames of one kind that pass in this namespace, one line each: source address, a blank, the hex.

Arguments: the magic. Frames in the relay's wrapper are not looked into. Runs until it is ended.
"""

import socket
import sys

magic = sys.argv[1].encode()
packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
print("ready")
while True:
    packet = packets.recv(1 << 17)
    if len(packet) < 42 or packet[12:14] != b"\x08\x00" or packet[23] != 17:
        continue
    udp = 14 + (packet[14] & 15) * 4
    frame = packet[udp + 8 :]
    if frame.startswith(magic):
        print(socket.inet_ntoa(packet[26:30]), frame.hex())
