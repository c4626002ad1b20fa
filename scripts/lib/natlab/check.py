"""Proves that the laboratory is what it says: each NAT is probed as STUN would (RFC 5780), each trouble is looked for.

The probe has its sockets on the host, the rendezvous and the second beacon at once, so it needs no protocol.
"""

import socket

from . import rules
from .network import BEACON2, BEACON2_IPV6, RENDEZVOUS, RENDEZVOUS_IPV6, Network, Topology

# A packet that does not come within this time (seconds) does not come: all machines are in one kernel.
PATIENCE = 0.25


class Probe:
    """One socket of a host, and three outside: two ports of the rendezvous, one of the second beacon."""

    def __init__(self, network, host, is_ipv6=False):
        first, second, any_address = (
            (RENDEZVOUS_IPV6, BEACON2_IPV6, "::") if is_ipv6 else (RENDEZVOUS, BEACON2, "0.0.0.0")
        )
        self.inner = network.namespace(host).socket(any_address)
        self.near = network.namespace("rendezvous").socket(first)
        self.near_other_port = network.namespace("rendezvous").socket(first)
        self.far = network.namespace("beacon2").socket(second)
        self.sockets = [self.inner, self.near, self.near_other_port, self.far]
        for each in self.sockets:
            each.settimeout(PATIENCE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for each in self.sockets:
            each.close()

    def seen_by(self, outside, content=b"?"):
        """From where a packet of the host comes; None when it does not."""
        self.inner.sendto(content, outside.getsockname()[:2])
        return receive(outside)

    def lets_in(self, outside, endpoint):
        """Whether a packet from outside to the endpoint comes to the host."""
        outside.sendto(b"!", endpoint)
        return receive(self.inner) is not None


def receive(from_socket):
    try:
        return from_socket.recvfrom(4096)[1][:2]
    except TimeoutError:
        return None


def mapping_and_filtering(network, host, is_ipv6=False):
    """What RFC 5780 would say: mapping (None: no translation) and filtering (None: all comes in)."""
    with Probe(network, host, is_ipv6) as probe:
        first = probe.seen_by(probe.near)
        if first is None:
            return "blocked", "blocked"
        # Filtering before mapping: asking for the mapping opens what the filtering is about.
        if probe.lets_in(probe.far, first):
            filtering = rules.INDEPENDENT
        elif probe.lets_in(probe.near_other_port, first):
            filtering = rules.ADDRESS
        else:
            filtering = rules.PORT if probe.lets_in(probe.near, first) else "closed"
        others = {probe.seen_by(probe.near_other_port), probe.seen_by(probe.far)}
        own = network.namespace(host).run("ip -o address show dev eth0")
        if others == {first}:
            mapping = None if f" {first[0]}/" in own else rules.INDEPENDENT
        else:
            mapping = rules.PORT
        return mapping, (None if mapping is None and filtering == rules.INDEPENDENT else filtering)


def has_hairpin(network):
    """Whether the host's packets to its own outer endpoint come back to another of its sockets."""
    with Probe(network, "a") as probe, Probe(network, "a") as other:
        first = probe.seen_by(probe.near)
        other.inner.sendto(b"!", first)
        return receive(probe.inner) is not None


def largest(network, sizes):
    """Which of the sizes (octets of an IPv4 packet) pass towards the rendezvous, and whether an error told of the
    others."""
    passed, has_error = [], False
    for size in sizes:
        with Probe(network, "a") as probe:
            probe.inner.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
            for _ in range(2):
                try:
                    if probe.seen_by(probe.near, bytes(size - 28)):
                        passed.append(size)
                        break
                except OSError:
                    has_error = True
    return passed, has_error


def train_that_passes(network, segments=20):
    """How many segments of a train (UDP_SEGMENT) come out, where no packet as long as the train could pass."""
    with Probe(network, "a") as probe:
        probe.seen_by(probe.near)
        probe.inner.setsockopt(socket.IPPROTO_UDP, 103, 1200)  # UDP_SEGMENT
        probe.inner.sendto(bytes(1200 * segments), probe.near.getsockname())
        count = 0
        while receive(probe.near):
            count += 1
        return count


def share_that_passes(network, packets=400):
    with Probe(network, "a") as probe:
        probe.near.settimeout(0.05)
        return sum(probe.seen_by(probe.near) is not None for _ in range(packets)) / packets


def moves_with_flush(network):
    """Whether the mapping is another one after the router forgot everything."""
    with Probe(network, "a") as probe:
        before = probe.seen_by(probe.near)
        network.namespace("nat-a").flush()
        comes_in = probe.lets_in(probe.near, before)
        return not comes_in, probe.seen_by(probe.near) != before


def forgets(network):
    """Whether who was sent to is let in at once, and no longer after a rest of two seconds."""
    with Probe(network, "a") as probe:
        first = probe.seen_by(probe.near)
        at_once = probe.lets_in(probe.near, first)
        probe.inner.settimeout(2)
        receive(probe.inner)
        probe.inner.settimeout(PATIENCE)
        return at_once, probe.lets_in(probe.near, first)


def check(prefix, tell):
    """Makes every kind of side and compares. Gives the number of deviations; `tell` gets a line for each fact."""
    network = Network(prefix)
    wrong = 0

    def compare(what, found, wanted):
        nonlocal wrong
        wrong += found != wanted
        tell(f"{'ok   ' if found == wanted else 'WRONG'} {what}: {found}" + ("" if found == wanted else f", not {wanted}"))

    def with_network(text, body):
        network.up(Topology.parse(text))
        try:
            body()
        finally:
            network.down()

    kinds = list(rules.KINDS)
    for first, second in zip(kinds[::2], kinds[1::2] + kinds[:1]):

        def sides():
            for host, name in (("a", first), ("b", second)):
                kind = rules.KINDS[name]
                if kind.has_ipv4:
                    found = mapping_and_filtering(network, host)
                    compare(f"{name}: mapping, filtering", found, (kind.mapping, kind.filtering))
                if kind.has_ipv6:
                    found = mapping_and_filtering(network, host, is_ipv6=True)
                    compare(f"{name}: mapping, filtering of IPv6", found, (None, rules.PORT))
            if first == "restricted":
                compare(f"{first}: hairpin", has_hairpin(network), False)

        with_network(f"{first}:{second}", sides)

    def flush():
        compare("full-cone: hairpin", has_hairpin(network), True)
        compare("full-cone flushed: shut, mapping moved", moves_with_flush(network), (True, True))

    with_network("full-cone:open", flush)
    with_network(
        "symmetric:open",
        lambda: compare("symmetric flushed: shut, mapping moved", moves_with_flush(network), (True, True)),
    )
    for mtu in (1280, 1360, 1420, 1500):
        with_network(
            f"port-restricted+mtu{mtu}:open",
            lambda: compare(
                f"mtu{mtu}: sizes that pass, error", largest(network, [mtu, mtu + 1]), ([mtu], True)
            ),
        )

    def hole():
        compare("hole1400: sizes that pass, error", largest(network, [1400, 1401, 1500]), ([1400], False))
        compare("hole1400: segments of a train of 20 that pass", train_that_passes(network), 20)

    with_network("port-restricted+hole1400:open", hole)

    def loss():
        share = share_that_passes(network)
        compare("loss20: share that passes is about 0.8", 0.7 < share < 0.9, True)

    with_network("port-restricted+loss20:open", loss)
    with_network(
        "port-restricted+blocked:open",
        lambda: compare("blocked: mapping, filtering", mapping_and_filtering(network, "a"), ("blocked", "blocked")),
    )
    for name in ("full-cone", "restricted", "symmetric"):
        with_network(
            f"{name}+idle1:open",
            lambda: compare(f"{name}+idle1: lets in at once, after a rest", forgets(network), (True, False)),
        )
    return wrong
