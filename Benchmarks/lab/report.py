"""Medians, ratios and verdicts from the raw samples; the table a person reads."""

import statistics

# What the project promises (workload, number, comparison, bound). Ratios are pilot-tun's rate over the other's, within
# a rep; the median of those is compared.
RATIO_BARS = {"wireguard-go": 10.0, "nebula": 8.0, "yggdrasil": 2.5}
# Of the plain wire with all offloads. Four plain flows fill both cores with copying alone; an optimal single-threaded
# carrier with the same cipher, written in C, reached 0.22 of them.
RAW_BARS = {"tcp1": 0.25, "tcp1r": 0.25, "tcp4": 0.19}
FLOWS = {"tcp1": "1 flow", "tcp1r": "1 flow, reverse", "tcp4": "4 flows"}
LEAST_RATE = 49_000  # of the 50,000 small datagrams a second, or their other numbers mean little
LIMITS = [
    ("tcp1", "cpu_s_per_gb", 2.5, "daemons' CPU, s/GB"),
    ("tcp1r", "cpu_s_per_gb", 2.5, "daemons' CPU, s/GB, reverse"),
    ("tcp4", "cpu_s_per_gb", 2.5, "daemons' CPU, s/GB, 4 flows"),
    ("udp50k", "cpu_us_per_packet", 12.0, "64-byte UDP, CPU µs/packet"),
    ("udp50k", "loss_percent", 0.5, "64-byte UDP, loss %"),
    ("ping", "p50_ms", 0.2, "ping p50, ms"),
    ("loaded", "p50_ms", 5.0, "ping p50 under load, ms"),
    ("memory", "rss_mb", 30.0, "memory of an idle node, MB"),
]
EXTRA_LIMITS = [
    ("idle", "wakeups_per_second", 10.0, "wake-ups per second, idle, 100 known peers"),
    # Three round trips of 200 ms; the tenth (20 ms) is for the work of both ends and of the delay line.
    ("firstbyte", "first_byte_rtts", 3.1, "first HTTP byte on a fresh pair, round trips"),
]
COLUMNS = [
    ("tcp1", "gbps", "1 flow"), ("tcp1r", "gbps", "reverse"), ("tcp4", "gbps", "4 flows"),
    ("tcp1", "cpu_s_per_gb", "s/GB"), ("tcp1r", "cpu_s_per_gb", "s/GB rev"), ("ping", "p50_ms", "ping p50"),
    ("ping", "p99_ms", "p99"), ("loaded", "p50_ms", "loaded p50"), ("loaded", "p99_ms", "p99"),
    ("udp50k", "cpu_us_per_packet", "udp µs"), ("udp50k", "loss_percent", "loss %"), ("memory", "rss_mb", "RSS MB"),
]


def values(samples, wire, peer, workload, field):
    """The field in each rep that has it: rep -> value."""
    return {
        sample["rep"]: sample["result"][field] for sample in samples
        if (sample["wire"], sample["peer"], sample["workload"]) == (wire, peer, workload)
        and field in sample["result"]}


def median(samples, wire, peer, workload, field):
    found = list(values(samples, wire, peer, workload, field).values())
    return statistics.median(found) if found else None


def ratio(samples, wire, over, under, workload):
    """Median over the reps of the rates' ratio within a rep."""
    upper = values(samples, wire, over, workload, "gbps")
    lower = values(samples, wire, under, workload, "gbps")
    found = [upper[rep] / lower[rep] for rep in upper if lower.get(rep)]
    return statistics.median(found) if found else None


def ratios(samples, wires, peers, over="pilot-tun"):
    return {
        wire: {
            peer: {workload: ratio(samples, wire, over, peer, workload) for workload in FLOWS}
            for peer in peers if peer != over}
        for wire in wires}


def verdicts(samples, extras, wires):
    """One line for each bar: what, the bound, what was measured, and whether it holds (None: not measured)."""
    out = []

    def add(what, sign, bound, value):
        holds = None if value is None else (value >= bound if sign == ">=" else value <= bound)
        out.append({"what": what, "bar": f"{sign} {bound}", "value": value, "holds": holds})

    for wire in wires:
        if wire == "none":
            continue
        for peer, bound in RATIO_BARS.items():
            for workload, title in FLOWS.items():
                add(f"{wire}: times {peer}, {title}", ">=", bound, ratio(samples, wire, "pilot-tun", peer, workload))
        if wire == "veth":
            for workload, title in FLOWS.items():
                add(f"{wire}: share of plain veth, {title}", ">=", RAW_BARS[workload],
                    ratio(samples, wire, "pilot-tun", "raw", workload))
        for workload, field, bound, title in LIMITS:
            add(f"{wire}: {title}", "<=", bound, median(samples, wire, "pilot-tun", workload, field))
        add(f"{wire}: 64-byte UDP, packets/s sent", ">=", LEAST_RATE,
            median(samples, wire, "pilot-tun", "udp50k", "packets_per_second"))
    for name, field, bound, title in EXTRA_LIMITS:
        found = [result[field] for result in extras.get(name, []) if field in result]
        add(title, "<=", bound, statistics.median(found) if found else None)
    return out


def number(value):
    if value is None:
        return "–"
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def table(samples, wires, peers):
    lines = []
    for wire in wires:
        lines.append(f"Wire: {wire}  (Gbit/s; s/GB = CPU of both daemons; ping in ms; medians)")
        heads = [title for _, _, title in COLUMNS]
        width = [max(9, len(head)) for head in heads]
        lines.append("  " + "peer".ljust(14) + " ".join(head.rjust(size) for head, size in zip(heads, width)))
        for peer in peers:
            cells = [number(median(samples, wire, peer, workload, field)) for workload, field, _ in COLUMNS]
            lines.append("  " + peer.ljust(14) + " ".join(cell.rjust(size) for cell, size in zip(cells, width)))
        lines.append("")
    return "\n".join(lines)


def verdict_table(lines):
    width = max((len(line["what"]) for line in lines), default=0)
    out = []
    for line in lines:
        word = {True: "PASS", False: "FAIL", None: "not measured"}[line["holds"]]
        out.append(f"  {line['what'].ljust(width)}  {line['bar']:>8}  {number(line['value']):>8}  {word}")
    return "\n".join(out)


def foreign_note(samples, limit):
    loads = [sample["foreign_cores"] for sample in samples]
    steals = [sample["steal_cores"] for sample in samples]
    if not loads:
        return ""
    above = sum(load > limit for load in loads)
    return (
        f"Other programs used {statistics.median(loads):.2f} cores at the median, {max(loads):.2f} at most; "
        f"{above} of {len(loads)} samples above {limit} after all repeats. Steal at most {max(steals):.2f} cores.")
