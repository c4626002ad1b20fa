"""Prints the requests that arrive at TCP port 9000 of this namespace, one line each: source address, a blank, the JSON.

Plain frames only, from connections whose beginning it has seen. Runs until it is ended.
"""

import socket
import struct

PORT = 9000

packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
streams = {}
print("ready")
while True:
    packet = packets.recv(1 << 17)
    if len(packet) < 54 or packet[12:14] != b"\x08\x00" or packet[23] != 6:
        continue
    tcp = 14 + (packet[14] & 15) * 4
    end = 14 + struct.unpack(">H", packet[16:18])[0]
    source_port, port, sequence = struct.unpack(">HHI", packet[tcp : tcp + 8])
    if port != PORT:
        continue
    source = socket.inet_ntoa(packet[26:30])
    key = (source, source_port)
    if packet[tcp + 13] & 2:
        streams[key] = [(sequence + 1) & 0xFFFFFFFF, b""]
        continue
    data = packet[tcp + (packet[tcp + 12] >> 4) * 4 : end]
    stream = streams.get(key)
    if not stream or not data or sequence != stream[0]:
        continue
    stream[0] = (sequence + len(data)) & 0xFFFFFFFF
    stream[1] += data
    while len(stream[1]) >= 4 and stream[1][0] == 0:
        length = struct.unpack(">I", stream[1][:4])[0]
        if len(stream[1]) < 4 + length:
            break
        print(source, stream[1][4 : 4 + length].decode())
        stream[1] = stream[1][4 + length :]
