"""The wires that tests run over: two namespaces and a veth pair between them."""

from .system import PREFIX, run

ADDRESS = {"a": "10.213.7.1", "b": "10.213.7.2"}
ADDRESS6 = {"a": "fd13:2d5::1", "b": "fd13:2d5::2"}
DEVICE = "wire0"

# What the two ends of the veth pair do, by ethtool's names.
#
# veth: everything on, as the kernel has it. A train of UDP segments arrives at the far socket as one piece, which
#       flatters every program that sends trains.
# nic:  the kernel cuts trains before the wire, as for a network card that cannot; the receiving end puts datagrams
#       together again (GRO). veth's GRO takes UDP only with rx-udp-gro-forwarding, and acts only while TSO is on.
# none: every datagram and segment crosses alone.
WIRES = {
    "veth": [],
    "nic": ["tx-udp-segmentation", "off", "rx-udp-gro-forwarding", "on", "gro", "on"],
    "none": ["tso", "off", "gso", "off", "gro", "off", "tx-udp-segmentation", "off"],
}


def build(system, kind):
    """Makes namespaces a and b and the wire. Returns what ethtool says about it afterwards."""
    for name in ("a", "b"):
        system.add_namespace(name)
    run("ip", "link", "add", DEVICE, "netns", PREFIX + "a", "type", "veth",
        "peer", "name", DEVICE, "netns", PREFIX + "b")
    state = {}
    for name in ("a", "b"):
        system.inside(name, "ip", "address", "add", ADDRESS[name] + "/24", "dev", DEVICE)
        system.inside(name, "ip", "-6", "address", "add", ADDRESS6[name] + "/64", "dev", DEVICE, "nodad")
        system.inside(name, "ip", "link", "set", DEVICE, "up")
        if WIRES[kind]:
            system.inside(name, "ethtool", "-K", DEVICE, *WIRES[kind])
        shown = system.inside(name, "ethtool", "-k", DEVICE)
        wanted = ("tcp-segmentation-offload", "tx-udp-segmentation", "generic-receive-offload", "rx-udp-gro-forwarding")
        state[name] = {
            line.split(":")[0].strip(): line.split(":")[1].split()[0]
            for line in shown.splitlines() if line.strip().startswith(wanted)}
    return state


def tear_down(system):
    for name in ("a", "b"):
        if name in system.namespaces:
            system.remove_namespace(name)
