"""An HTTP proxy that does nothing but CONNECT. Arguments: address, port, [file with USER:PASSWORD].

The file is read for every request, so that a test can change the credentials; without them the answer is 407. Each
request is told as a line "CONNECT host:port status".
"""

import base64
import socket
import sys
import threading

address, port = sys.argv[1], int(sys.argv[2])
secret = sys.argv[3] if len(sys.argv) > 3 else None


def pump(source, target):
    try:
        while data := source.recv(1 << 16):
            target.sendall(data)
    except OSError:
        pass
    for end in (source, target):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def serve(client):
    try:
        head = b""
        while b"\r\n\r\n" not in head:
            data = client.recv(4096)
            if not data or len(head) > 65536:
                return client.close()
            head += data
        head, rest = head.split(b"\r\n\r\n", 1)
        lines = head.decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ")
        headers = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines[1:])}

        def answer(status, *more):
            print(method, target, status.split(" ")[0], flush=True)
            client.sendall("\r\n".join([f"HTTP/1.1 {status}", *more, "", ""]).encode())

        if secret:
            with open(secret, encoding="ascii") as file:
                wanted = "Basic " + base64.b64encode(file.read().strip().encode()).decode()
            if headers.get("proxy-authorization") != wanted:
                answer("407 Proxy Authentication Required", 'Proxy-Authenticate: Basic realm="lab"', "Content-Length: 0")
                return client.close()
        if method != "CONNECT":
            answer("405 Method Not Allowed", "Content-Length: 0")
            return client.close()
        host, _, number = target.rpartition(":")
        server = socket.create_connection((host.strip("[]"), int(number)), timeout=10)
        server.settimeout(None)
        answer("200 Connection established")
        if rest:
            server.sendall(rest)
        threading.Thread(target=pump, args=(client, server), daemon=True).start()
        pump(server, client)
    except (OSError, ValueError) as error:
        print("failed:", error, flush=True)
        client.close()


listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind((address, port))
listener.listen(64)
print("ready", flush=True)
while True:
    client, _ = listener.accept()
    threading.Thread(target=serve, args=(client,), daemon=True).start()
