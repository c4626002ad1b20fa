"""The nft rules of the laboratory's routers: what each kind of NAT is. The one place where these rules are.

How a NAT with endpoint-independent mapping is made of nft: conntrack alone chooses a port for each destination anew.
Here two maps decide: `mapping` (inner endpoint -> outer port, filled with the next free port by the first packet that
leaves) is what source NAT takes the port from, whatever the destination; `inner` (outer port -> inner endpoint) is
where destination NAT sends what comes to that port. Who may come decides the filtering:

  any         whoever knows the port
  address     hosts that were sent to from that port (the set `permitted`)
  port        endpoints that were sent to: those conntrack knows already, so no destination NAT at all

What is not let in is dropped in `input`, never answered: an answered packet leaves an entry in conntrack, and the
mapping towards that peer would move to another port.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A way to stand behind a router. `mapping` and `filtering` in the terms of RFC 4787."""

    text: str
    # None: no NAT. Else "endpoint-independent" or "address-and-port-dependent".
    mapping: str | None = None
    # None: nothing is filtered. Else "endpoint-independent", "address-dependent", "address-and-port-dependent".
    filtering: str | None = None
    hairpin: bool = False
    # A second NAT of the same rules, the provider's, in front of the first.
    is_double: bool = False
    has_ipv4: bool = True
    has_ipv6: bool = False


INDEPENDENT, ADDRESS, PORT = "endpoint-independent", "address-dependent", "address-and-port-dependent"

KINDS = {
    "open": Kind("public address, no filter"),
    "full-cone": Kind("one outer port for each inner one, open to everybody, hairpin", INDEPENDENT, INDEPENDENT, True),
    "restricted": Kind("one outer port for each inner one, open to hosts sent to", INDEPENDENT, ADDRESS),
    "port-restricted": Kind("one outer port for each inner one, open to endpoints sent to", INDEPENDENT, PORT),
    "masquerade": Kind("plain Linux masquerade: keeps the inner port, open to endpoints sent to", INDEPENDENT, PORT),
    "symmetric": Kind("another outer port for each destination", PORT, PORT),
    "cgnat": Kind("port-restricted twice: the home's and the provider's", INDEPENDENT, PORT, is_double=True),
    "ipv6": Kind("IPv6 only, stateful firewall", None, PORT, has_ipv4=False, has_ipv6=True),
    "dual": Kind("port-restricted IPv4, and IPv6 behind a stateful firewall", INDEPENDENT, PORT, has_ipv6=True),
}


def nat(kind_name, outer, idle):
    """The IPv4 rules of a router whose interfaces are `wan` (address `outer`) and `lan`; empty without NAT. Who was
    not sent to for `idle` seconds is let in no more."""
    kind = KINDS[kind_name]
    if kind.mapping is None:
        return ""
    before = ""
    udp = ""
    if kind_name == "symmetric":
        udp = 'oifname "wan" meta l4proto udp masquerade fully-random'
    elif kind_name != "masquerade":
        before = endpoint_independent(kind, outer, idle)
        udp = f"""oifname "wan" meta l4proto udp snat to {outer} : ip saddr . udp sport map @mapping
    iifname "lan" ct original ip daddr {outer} meta l4proto udp snat to {outer} : ip saddr . udp sport map @mapping"""
    return f"""
table ip nat {{{before}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    {udp}
    oifname "wan" masquerade
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    meta l4proto udp drop
  }}
}}
"""


def endpoint_independent(kind, outer, idle):
    """Maps and chains that keep one outer port for each inner endpoint, and let in who may come. A mapping itself
    stays until it is flushed: the dynamic maps of nft would draw a new port with each refresh. Ports come in no order
    (`numgen` counts in the byte order of this machine), but none comes twice."""
    lasting = f"flags dynamic,timeout; timeout {idle}s; size 65535;"
    if kind.filtering == INDEPENDENT:
        let_in = "dnat ip addr . port to udp dport map @inner"
    elif kind.filtering == ADDRESS:
        let_in = "udp dport . ip saddr @permitted dnat ip addr . port to udp dport map @inner"
    else:
        let_in = "return"
    side = "" if kind.hairpin else 'iifname "wan" '
    return f"""
  map mapping {{ type ipv4_addr . inet_service : inet_service; flags dynamic; size 65535; }}
  map inner {{ type inet_service : ipv4_addr . inet_service; {lasting} }}
  set permitted {{ type inet_service . ipv4_addr; {lasting} }}
  chain outgoing {{
    type filter hook forward priority filter; policy accept;
    meta l4proto != udp accept
    iifname != "lan" accept
    oifname != "wan" ct original ip daddr != {outer} accept
    ip saddr . udp sport != @mapping add @mapping {{ ip saddr . udp sport : numgen inc mod 40000 offset 20000 }}
  }}
  chain sent {{
    type filter hook postrouting priority srcnat + 10; policy accept;
    meta l4proto != udp accept
    ip saddr != {outer} accept
    ct direction original update @inner {{ udp sport : ct original ip saddr . ct original proto-src }}
    ct direction reply update @inner {{ udp sport : ct reply ip saddr . ct reply proto-src }}
    update @permitted {{ udp sport . ip daddr }}
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    {side}ip daddr {outer} meta l4proto udp {let_in}
  }}"""


def firewall():
    """A home router's IPv6: what was not asked for stays outside."""
    return """
table ip6 firewall {
  chain forward {
    type filter hook forward priority filter; policy accept;
    iifname "wan" meta l4proto icmpv6 accept
    iifname "wan" ct state established,related accept
    iifname "wan" drop
  }
}
"""


def trouble(loss=0, hole=0, is_blocked=False):
    """Trouble on the way, in both directions: percent lost, packets above `hole` octets gone without a word, no UDP."""
    rules = ""
    if is_blocked:
        rules += "    meta l4proto udp drop\n"
    if hole:
        rules += f"    meta length > {hole} drop\n"
    if loss:
        rules += f"    numgen random mod 1000 < {round(loss * 10)} drop\n"
    if not rules:
        return ""
    return f"""
table inet trouble {{
  chain forward {{
    type filter hook forward priority filter - 20; policy accept;
{rules}  }}
}}
"""
