"""A router that speaks NAT-PMP and nothing else, to the letter of RFC 6886, with nft behind it.

nat_pmp.py ADDRESS EXTERNAL WAN: listens on ADDRESS:5351, tells EXTERNAL as its outer address and maps UDP ports that
come in by the interface WAN. Requests of another version hear that it is not supported, as PCP expects it (RFC 6887
Appendix A).
"""

import socket
import struct
import subprocess
import sys
import time

address, external, wan = sys.argv[1:]
started = time.monotonic()
mappings = {}  # outer port -> (client's address, inner port)


def load():
    """Puts the present mappings into the kernel, in place of those before."""
    rules = "".join(
        f'    iifname "{wan}" udp dport {outer} dnat ip to {client}:{inner}\n'
        for outer, (client, inner) in mappings.items()
    )
    table = f"table inet pmp {{\n  chain prerouting {{\n    type nat hook prerouting priority -100;\n{rules}  }}\n}}\n"
    subprocess.run(["nft", "-f", "-"], input="add table inet pmp\ndelete table inet pmp\n" + table, text=True, check=True)


def answer(kind, code, body=b""):
    return struct.pack("!BBHI", 0, 128 + kind, code, int(time.monotonic() - started)) + body


def serve(request, client):
    if len(request) < 2:
        return None
    version, kind = request[:2]
    if version != 0:
        return answer(0, 1)
    if kind == 0:
        return answer(0, 0, socket.inet_aton(external))
    if kind != 1 or len(request) != 12:
        return answer(kind & 127, 5)
    inner, outer, lifetime = struct.unpack("!HHI", request[4:])
    for port in [port for port, owner in mappings.items() if owner == (client, inner)]:
        del mappings[port]
    if lifetime == 0:
        load()
        return answer(1, 0, struct.pack("!HHI", inner, 0, 0))
    outer = outer or inner
    while outer in mappings:
        outer += 1
    mappings[outer] = (client, inner)
    load()
    return answer(1, 0, struct.pack("!HHI", inner, outer, lifetime))


load()
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((address, 5351))
print("listening", flush=True)
while True:
    request, peer = server.recvfrom(1100)
    reply = serve(request, peer[0])
    if reply:
        server.sendto(reply, peer)
