"""Fetches a page many times, each over a connection of its own. Arguments: host, port, path, count."""

import http.client
import sys

host, port, path, count = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
for number in range(count):
    connection = http.client.HTTPConnection(host, port, timeout=10)
    connection.request("GET", path)
    reply = connection.getresponse()
    body = reply.read()
    if reply.status != 200 or not body:
        sys.exit("connection %d: status %d, %d octets" % (number, reply.status, len(body)))
    connection.close()
print("%d connections served" % count)
