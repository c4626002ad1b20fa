"""How often a node with many known peers wakes up while nothing is sent.

One node is measured; the others are real nodes, each in a namespace of its own, on one bridge. The measured node pings
every one of them first, so that all have sessions.
"""

import time
from concurrent.futures import ThreadPoolExecutor

from .peers import PilotTun, first_address
from .system import PREFIX, BenchError, run, wait_until

HUB = "hub"
NODE_MEMORY = 60e6  # reserved for each, with its kernel side


def available_memory():
    with open("/proc/meminfo") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0


def attach(system, name, number):
    """A namespace with a leg on the hub's bridge."""
    system.add_namespace(name)
    run("ip", "link", "add", "wire0", "netns", PREFIX + name, "type", "veth",
        "peer", "name", f"leg{number}", "netns", PREFIX + HUB)
    system.inside(HUB, "ip", "link", "set", f"leg{number}", "master", "bridge0", "up")
    system.inside(name, "ip", "address", "add", f"10.213.16.{number + 2}/24", "dev", "wire0")
    system.inside(name, "ip", "link", "set", "wire0", "up")


# For two minutes after it asked for trust a node looks every 2 s whether there is an answer.
SETTLE = 130


def measure(system, folder, known, seconds=20, note=print):
    fitting = int(available_memory() * 0.7 / NODE_MEMORY)
    if fitting < known:
        note(f"    memory for {fitting} peers only")
        known = fitting
    known = min(known, 250)
    node = PilotTun(system, folder)
    made = []
    try:
        system.add_namespace(HUB)
        made.append(HUB)
        system.inside(HUB, "ip", "link", "add", "bridge0", "type", "bridge")
        system.inside(HUB, "ip", "address", "add", "10.213.16.1/24", "dev", "bridge0")
        system.inside(HUB, "ip", "link", "set", "bridge0", "up")
        node.start_rendezvous(HUB, f"{folder}/idle-rendezvous")
        names = [f"n{number}" for number in range(known + 1)]
        for number, name in enumerate(names):
            attach(system, name, number)
            made.append(name)
        addresses = {}

        def start(name):
            status = node.start_node(name, f"bench-{name}", "10.213.16.1", f"{folder}/idle-{name}")
            addresses[name] = first_address(status["ipv6"])
        start(names[0])
        measured = node.daemons[0]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(start, names[1:]))
        program = node.program("pilot-tun")

        def trust(name):
            system.inside(names[0], program, "trust", "request", addresses[name], "--control-socket",
                          node.control(names[0]), check=False)
            system.inside(name, program, "trust", "request", addresses[names[0]], "--control-socket",
                          node.control(name), check=False)

        def reach(name):
            trust(name)

            def answers():
                out = system.inside(names[0], "ping", "-n", "-c", "1", "-W", "1", addresses[name], check=False)
                return " 0% packet loss" in out
            try:
                wait_until(answers, f"ping to {name}", timeout=30)
                return 1
            except BenchError:
                return 0
        # What a peer costs is the slope between the halves: the first sessions also touch code and pools for the
        # first time.
        half = 1 + known // 2
        with ThreadPoolExecutor(4) as pool:
            reached = sum(pool.map(reach, names[1:half]))
            time.sleep(SETTLE)
            memory = measured.rss_bytes()
            second = sum(pool.map(reach, names[half:]))
            reached += second
        if reached < known:
            note(f"    only {reached} of {known} peers answered")
        time.sleep(SETTLE)
        before, cpu = measured.context_switches(), measured.cpu_seconds()
        time.sleep(seconds)
        return {
            "peers": reached,
            "wakeups_per_second": (measured.context_switches() - before) / seconds,
            "cpu_percent": (measured.cpu_seconds() - cpu) / seconds * 100,
            "rss_mb": measured.rss_bytes() / 1e6,
            "kb_per_peer": (measured.rss_bytes() - memory) / max(second, 1) / 1e3,
        }
    finally:
        node.stop()
        for name in reversed(made):
            system.remove_namespace(name)
