"""The manual pages of the programs, section 1. What a program does not say of itself (files, environment, examples) stands
here."""

from . import mdoc, tool

SECTIONS = {
    "pilot-tun": {
        "FILES": [
            ("/etc/pilot-tun/config.toml", "Settings, see pilot-tun.toml(5)."),
            ("/var/lib/pilot-tun", "Identity, pinned keys, trust, what is known of peers. Who reads `identity.json` is the "
             "node; without it the node is a stranger with a new address."),
            ("/run/pilot-tun/control.sock", "Where the other commands reach the node: root, the node's user and members of "
             "the group pilot-tun."),
        ],
        "ENVIRONMENT": [
            ("PILOT_TUN_CONFIG", "Configuration file."),
            ("PILOT_TUN_CONTROL_SOCKET", "Control socket of the node."),
            ("PILOT_TUN_*", "Any setting of pilot-tun.toml(5) in capitals, with _ for -."),
            ("PILOT_TUN_DISABLE_OFFLOADS", "Kernel offloads that are not used, comma-separated: tun-vnet, tun-csum, "
             "tun-tso, tun-uso, udp-gso, udp-gro."),
        ],
        "EXAMPLES": [
            ("pilot-tun up --rendezvous rendezvous.example.net --hostname papers", "A node that joins a directory."),
            ("pilot-tun trust request papers", "Ask a peer for trust; its operator says `pilot-tun trust approve`."),
            ("pilot-tun explain papers", "Why a peer is reached as it is, or is not."),
        ],
    },
    "pilot-rendezvous": {
        "FILES": [("/var/lib/pilot-rendezvous", "The database: nodes, networks, trust.")],
        "ENVIRONMENT": [("PILOT_RENDEZVOUS_*", "Any option of serve in capitals, with _ for -.")],
        "EXAMPLES": [
            ("pilot-rendezvous serve --network lab:open", "Directory and relay with a network that anyone may join."),
        ],
    },
    "pilotctl": {
        "FILES": [
            ("~/.pilot", "State, pid file and logs of nodes that `pilotctl daemon start` started."),
            ("~/.pilot/config.json", "Defaults of flags."),
        ],
        "ENVIRONMENT": [
            ("PILOT_SOCKET", "Control socket of the node."),
            ("PILOT_HOME", "Where .pilot is, instead of the home directory."),
            ("PILOT_DAEMON_BIN", "The program that `daemon start` runs."),
            ("PILOT_REGISTRY, PILOT_BEACON", "Registry and beacon of `daemon start`."),
        ],
        "EXAMPLES": [
            ("pilotctl daemon start --hostname papers", "A node in the background."),
            ("pilotctl ping papers", "The way to a peer."),
        ],
    },
}
EXIT_STATUS = "0 when it is done, 1 when it failed, 2 when the command line or a setting makes no sense."
SEE_ALSO = [("pilot-rendezvous", 1), ("pilot-tun", 1), ("pilotctl", 1), ("pilot-tun.toml", 5)]


def pages(tools):
    return {f"{program.title}.1": page(program) for program in tools}


def page(program):
    name = program.title
    shared = tool.common(program)
    parts = [mdoc.head(name, 1, program.abstract), ".Sh SYNOPSIS\n"]
    for leaf in program.leaves:
        words = " ".join(f"Cm {word}" for word in leaf.path[1:])
        parts.append(f".Nm {name}{' ' + words if words else ''}\n")
        parts.append("".join(line + "\n" for line in mdoc.synopsis(leaf) if leaf is not program))
    parts.append(".Sh DESCRIPTION\n" + mdoc.paragraph(program.discussion or program.abstract))
    if program.arguments:
        parts.append(mdoc.arguments(program.arguments))
    parts.append(".Sh COMMANDS\n")
    for leaf in program.leaves:
        parts.append(f".Ss {' '.join(leaf.path[1:])}\n" + mdoc.paragraph(leaf.abstract))
        if leaf.discussion:
            parts.append(".Pp\n" + mdoc.paragraph(leaf.discussion))
        arguments = tool.own(leaf, shared)
        if arguments:
            parts.append(mdoc.arguments(arguments))
    if shared:
        parts.append(".Ss Options of most commands\n" + mdoc.arguments(shared))
    sections = SECTIONS[name]
    parts.append(".Sh ENVIRONMENT\n" + mdoc.items((f"Ev {mdoc.word(tag)}", text) for tag, text in sections["ENVIRONMENT"]))
    parts.append(".Sh FILES\n" + mdoc.items((f"Pa {mdoc.word(tag)}", text) for tag, text in sections["FILES"]))
    parts.append(".Sh EXIT STATUS\n" + mdoc.paragraph(EXIT_STATUS))
    parts.append(".Sh EXAMPLES\n" + mdoc.items((f"Li {mdoc.word(tag)}", text) for tag, text in sections["EXAMPLES"]))
    others = [f".Xr {other} {section}" for other, section in SEE_ALSO if other != name]
    parts.append(".Sh SEE ALSO\n" + " ,\n".join(others) + "\n")
    return "".join(parts)
