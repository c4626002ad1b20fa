"""What the laboratory asks of the kernel: namespaces, programs and sockets in them, the flush of a NAT's table."""

import ctypes
import os
import socket
import struct
import subprocess
import threading


class Failure(Exception):
    """Something that the person at the keyboard should read."""


def run(*command, text=None, check=True):
    """Runs a program to its end and gives its output."""
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    if check and done.returncode != 0:
        raise Failure(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


class Namespace:
    """One machine of the laboratory."""

    def __init__(self, name, full_name):
        self.name, self.full_name = name, full_name

    def command(self, *words):
        return ["ip", "netns", "exec", self.full_name, *words]

    def run(self, line, check=True):
        """A command line of blank-separated words. ip(8) enters by itself, which is faster."""
        words = line.split()
        command = ["ip", "-n", self.full_name, *words[1:]] if words[0] == "ip" else self.command(*words)
        return run(*command, check=check)

    def load(self, rules):
        """Adds nft rules."""
        if rules.strip():
            run(*self.command("nft", "-f", "-"), text=rules)

    def set(self, settings, may_lack=False):
        """Kernel settings by their path below /proc/sys."""

        def write():
            for name, value in settings.items():
                path = "/proc/sys/" + name
                if not may_lack or os.path.exists(path):
                    with open(path, "w") as file:
                        file.write(str(value))

        self.inside(write)

    def socket(self, address, port=0, kind=socket.SOCK_DGRAM):
        """A bound socket of this machine."""

        def make():
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            made = socket.socket(family, kind)
            made.bind((address, port))
            return made

        return self.inside(make)

    def flush(self):
        """The router forgets every connection and mapping, as after a restart. Its rules stay."""

        def flush_conntrack():
            # A request to delete connections that names none deletes all of this namespace (nfnetlink).
            subsystem, delete = 1, 2
            header = struct.pack("=IHHII", 20, subsystem << 8 | delete, 5, 1, 0) + struct.pack("=BBH", 0, 0, 0)
            with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as netlink:
                netlink.send(header)
                _, _, _, _, _, error = struct.unpack_from("=IHHIIi", netlink.recv(4096))
            if error:
                raise Failure(f"cannot flush the connections of {self.name}: {os.strerror(-error)}")

        if " table ip nat" in " " + self.run("nft list tables"):
            for kind, name in (("map", "mapping"), ("map", "inner"), ("set", "permitted")):
                self.run(f"nft flush {kind} ip nat {name}", check=False)
        self.inside(flush_conntrack)

    def inside(self, body):
        """Calls `body` in a thread that has entered this namespace; sockets made there stay there."""
        result = []

        def enter_and_call():
            try:
                with open(f"/run/netns/{self.full_name}") as there:
                    if ctypes.CDLL(None, use_errno=True).setns(there.fileno(), 0x40000000) != 0:
                        raise OSError(ctypes.get_errno(), f"setns {self.full_name}")
                result.append((body(), None))
            except BaseException as error:
                result.append((None, error))

        thread = threading.Thread(target=enter_and_call)
        thread.start()
        thread.join()
        value, error = result[0]
        if error:
            raise error
        return value
