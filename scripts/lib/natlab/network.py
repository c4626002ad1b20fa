"""The machines and cables of the laboratory.

    a -- nat-a [-- cgn-a] --+        +-- [cgn-b --] nat-b -- b
                            [ core ]
    rendezvous -------------+        +-------------- beacon2

The outside world has public addresses (of the documentation and benchmark prefixes): behind cable n of the core are
203.0.113.(4n)/30 and 2001:db8:0:n::/64. No machine has a default route: nothing leads out of the laboratory.
"""

import os
import pathlib
import re
import signal
import subprocess
import time
from dataclasses import dataclass

from . import rules
from .kernel import Failure, Namespace, run

RENDEZVOUS, RENDEZVOUS_IPV6 = "203.0.113.2", "2001:db8:0:0::2"
BEACON2, BEACON2_IPV6 = "203.0.113.6", "2001:db8:0:1::2"
WORLD = ["203.0.113.0/24", "198.18.0.0/15"]
WORLD_IPV6 = "2001:db8::/32"


@dataclass(frozen=True)
class Side:
    """What one host stands behind, from a text like `symmetric+mtu1280+loss5`."""

    text: str
    kind: str
    mtu: int = 1500
    loss: float = 0
    delay: float = 0
    hole: int = 0
    idle: int = 120
    is_blocked: bool = False

    @staticmethod
    def parse(text):
        kind, *options = text.split("+")
        if kind not in rules.KINDS:
            raise Failure(f"no NAT is called “{kind}”: " + ", ".join(rules.KINDS))
        values = {}
        for option in options:
            found = re.fullmatch(r"(mtu|loss|delay|hole|idle)(\d+(?:\.\d+)?)|(blocked)", option)
            if not found:
                raise Failure(f"“{option}” is no option: mtuN, holeN, lossPERCENT, delayMS, idleSECONDS, blocked")
            if found[3]:
                values["is_blocked"] = True
            else:
                values[found[1]] = float(found[2]) if found[1] in ("loss", "delay") else int(float(found[2]))
        side = Side(text, kind, **values)
        if not 1280 <= side.mtu <= 1500:
            raise Failure("the MTU is between 1280 and 1500")
        return side

    @property
    def is_per_packet(self):
        """Whether each packet must pass by itself: trains would be lost, or too long, as a whole."""
        return bool(self.loss or self.delay or self.hole or self.mtu != 1500)


@dataclass(frozen=True)
class Topology:
    """`A:B`, or `lan:A` with both hosts in one network behind A."""

    text: str
    a: Side
    b: Side | None

    @staticmethod
    def parse(text):
        parts = text.split(":")
        if len(parts) != 2:
            raise Failure(f"“{text}” is no topology: NAT[+OPTION…]:NAT[+OPTION…] or lan:NAT[+OPTION…]")
        if parts[0] == "lan":
            return Topology(text, Side.parse(parts[1]), None)
        return Topology(text, *map(Side.parse, parts))


class Network:
    """A laboratory that is up, or is being made. All names begin with `prefix`."""

    def __init__(self, prefix):
        self.prefix = prefix

    def namespace(self, name):
        return Namespace(name, self.prefix + name)

    def names(self):
        """The machines that exist."""
        names = [line.split()[0] for line in run("ip", "netns", "list").splitlines() if line.strip()]
        return [name[len(self.prefix) :] for name in names if name.startswith(self.prefix)]

    # --- making ------------------------------------------------------------------------------------------------

    def up(self, topology):
        if self.names():
            raise Failure(f"a laboratory {self.prefix}* is up already: scripts/lab down")
        try:
            core = self._machine("core", forwards=True)
            self._place(core, 0, self._machine("rendezvous"), "eth0")
            self._place(core, 1, self._machine("beacon2"), "eth0")
            lan = self._side(core, 2, "a", topology.a)
            if topology.b is None:
                self._host(lan, 2, "b", topology.a, 20)
            else:
                self._side(core, 3, "b", topology.b)
        except BaseException:
            self.down()
            raise

    def _machine(self, name, forwards=False):
        machine = self.namespace(name)
        run("ip", "netns", "add", machine.full_name)
        # An address is there at once, not after a second of asking whether somebody has it.
        machine.set({"net/ipv6/conf/default/accept_dad": 0})
        machine.run("ip link set lo up")
        if forwards:
            machine.set({"net/ipv4/ip_forward": 1, "net/ipv6/conf/all/forwarding": 1})
        return machine

    def _cable(self, inner, inner_name, outer, outer_name, mtu=1500, is_per_packet=False):
        run(
            *f"ip link add {outer_name} mtu {mtu} netns {outer.full_name} type veth".split(),
            *f"peer name {inner_name} mtu {mtu} netns {inner.full_name}".split(),
        )
        for machine, name in ((inner, inner_name), (outer, outer_name)):
            if is_per_packet:
                machine.run(f"ip link set {name} gso_max_segs 1")
            machine.run(f"ip link set {name} up")

    def _slow_cable(self, inner, inner_name, outer, outer_name, mtu, delay):
        """The same, but each packet is under way for `delay` milliseconds."""
        program = str(pathlib.Path(__file__).with_name("delay.py"))
        command = inner.command("python3", program, str(delay), inner_name, outer.full_name, outer_name)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        with process.stdout as said:
            if said.readline() != "ready\n":
                raise Failure(f"the slow cable of {inner.name} did not come up")
        for machine, name in ((inner, inner_name), (outer, outer_name)):
            machine.run(f"ip link set {name} mtu {mtu} up")

    def _place(self, core, n, machine, interface, mtu=1500, is_per_packet=False, ipv4=True, ipv6=True, delay=0):
        """Connects a machine to the core by cable n."""
        if delay:
            self._slow_cable(machine, interface, core, f"net{n}", mtu, delay)
        else:
            self._cable(machine, interface, core, f"net{n}", mtu, is_per_packet)
        if ipv4:
            core.run(f"ip address add 203.0.113.{4 * n + 1}/30 dev net{n}")
            machine.run(f"ip address add 203.0.113.{4 * n + 2}/30 dev {interface}")
            for prefix in WORLD:
                machine.run(f"ip route add {prefix} via 203.0.113.{4 * n + 1}")
        if ipv6:
            core.run(f"ip address add 2001:db8:0:{n}::1/64 dev net{n} nodad")
            machine.run(f"ip address add 2001:db8:0:{n}::2/64 dev {interface} nodad")
            machine.run(f"ip route add {WORLD_IPV6} via 2001:db8:0:{n}::1")

    def _side(self, core, n, name, side):
        """The routers of one side, and its host. Gives the router that has the host's network."""
        kind = rules.KINDS[side.kind]
        outer = f"203.0.113.{4 * n + 2}"
        if kind.is_double:
            provider = self._machine(f"cgn-{name}", forwards=True)
            self._place(core, n, provider, "wan", side.mtu, side.is_per_packet, ipv6=False, delay=side.delay)
            self._keep(provider, side, outer)
            router = self._machine(f"nat-{name}", forwards=True)
            self._cable(router, "wan", provider, "lan", is_per_packet=side.is_per_packet)
            provider.run("ip address add 100.64.0.1/24 dev lan")
            router.run("ip address add 100.64.0.2/24 dev wan")
            for prefix in WORLD:
                router.run(f"ip route add {prefix} via 100.64.0.1")
            self._keep(router, side, "100.64.0.2")
        else:
            router = self._machine(f"nat-{name}", forwards=True)
            self._place(
                core, n, router, "wan", side.mtu, side.is_per_packet, kind.has_ipv4, kind.has_ipv6, delay=side.delay
            )
            self._keep(router, side, outer)
        router.load(rules.trouble(side.loss, side.hole, side.is_blocked))
        router.run("ip link add lan type bridge mcast_snooping 0")
        # Where br_netfilter is loaded, the bridge itself would carry out our NAT, and drop what hairpins.
        for family in ("iptables", "ip6tables"):
            router.set({f"net/bridge/bridge-nf-call-{family}": 0}, may_lack=True)
        router.run("ip link set lan up")
        if kind.has_ipv4:
            router.run(f"ip address add {self._inner(side, n)}.1/24 dev lan")
            if kind.mapping is None:
                core.run(f"ip route add {self._inner(side, n)}.0/24 via 203.0.113.{4 * n + 2}")
        if kind.has_ipv6:
            router.load(rules.firewall())
            router.run(f"ip address add 2001:db8:1:{n}::1/64 dev lan nodad")
            core.run(f"ip route add 2001:db8:1:{n}::/64 via 2001:db8:0:{n}::2")
        self._host(router, n, name, side, 10)
        return router

    @staticmethod
    def _inner(side, n):
        """The first three octets of a side's own network: public, or what every second home has."""
        return f"198.18.{n}" if side.kind == "open" else f"192.168.{n - 1}"

    def _keep(self, router, side, outer):
        """The router's NAT, and how long it remembers who was silent."""
        router.load(rules.nat(side.kind, outer, side.idle))
        router.set({f"net/netfilter/nf_conntrack_udp_timeout{kind}": side.idle for kind in ("", "_stream")})

    def _host(self, router, n, name, side, number):
        kind = rules.KINDS[side.kind]
        host = self._machine(name)
        self._cable(host, "eth0", router, f"host-{name}", is_per_packet=side.is_per_packet)
        router.run(f"ip link set host-{name} master lan")
        if kind.has_ipv4:
            host.run(f"ip address add {self._inner(side, n)}.{number}/24 dev eth0")
            for prefix in WORLD:
                host.run(f"ip route add {prefix} via {self._inner(side, n)}.1")
        if kind.has_ipv6:
            host.run(f"ip address add 2001:db8:1:{n}::{number}/64 dev eth0 nodad")
            host.run(f"ip route add {WORLD_IPV6} via 2001:db8:1:{n}::1")

    # --- unmaking ----------------------------------------------------------------------------------------------

    def down(self):
        """Ends what runs inside, and removes everything. Gives the number of machines that were there."""
        names = self.names()
        machines = [self.namespace(name) for name in names]
        for number, patience in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):
            end = time.monotonic() + patience
            for pid in self._inmates(machines):
                self._signal(pid, number)
            while time.monotonic() < end and self._inmates(machines):
                time.sleep(0.05)
        for machine in machines:
            run("ip", "netns", "delete", machine.full_name, check=False)
        return len(names)

    @staticmethod
    def _inmates(machines):
        """Programs inside; never this one, which enters with a thread at times."""
        pids = [pid for machine in machines for pid in run("ip", "netns", "pids", machine.full_name, check=False).split()]
        return [int(pid) for pid in pids if int(pid) != os.getpid()]

    @staticmethod
    def _signal(pid, number):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass
