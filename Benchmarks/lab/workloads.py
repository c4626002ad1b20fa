"""What is measured through a peer. Each function takes a started peer and gives a flat dictionary of numbers."""

import json
import re
import statistics
import time

from .system import BenchError, wait_until

PORT = 5201


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Server:
    """iperf3's server in b, for the length of one test: a fresh one cannot be busy with an earlier client."""

    def __init__(self, peer):
        self.system = peer.system
        self.process = self.system.start("b", "iperf3", "-s", "-1", "-p", PORT)
        wait_until(lambda: f":{PORT}" in self.system.inside("b", "ss", "-Hltn"), "iperf3's server listens")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.system.stop(self.process)


def iperf(peer, seconds, *options):
    """One iperf3 run from a to b; gives its report and the daemons' CPU time over it."""
    with Server(peer):
        before = peer.cpu_seconds()
        out = peer.system.inside(
            "a", "iperf3", "-c", peer.address("b"), "-p", PORT, "-t", seconds, "-J", "--connect-timeout", "5000",
            *options, timeout=seconds + 30, check=False)
        cpu = peer.cpu_seconds() - before
    try:
        report = json.loads(out)
    except ValueError:
        raise BenchError(f"{peer.name}: iperf3 gave no report: {out[-300:]}")
    if "error" in report:
        raise BenchError(f"{peer.name}: iperf3: {report['error']}")
    return report, cpu


def tcp(peer, seconds, *options):
    report, cpu = iperf(peer, seconds, "-C", "cubic", *options)
    received = report["end"]["sum_received"]
    gigabytes = received["bytes"] / 1e9
    result = {"gbps": received["bits_per_second"] / 1e9}
    if peer.daemons and gigabytes > 0:
        result["cpu_s_per_gb"] = cpu / gigabytes
    sent = report["end"].get("sum_sent", {})
    if "retransmits" in sent:
        result["retransmits"] = sent["retransmits"]
    return result


def tcp1(peer, seconds):
    return tcp(peer, seconds)


def tcp1_reverse(peer, seconds):
    return tcp(peer, seconds, "-R")


def tcp4(peer, seconds):
    return tcp(peer, seconds, "-P", "4")


def udp50k(peer, seconds, rate=50_000, size=64):
    """Small datagrams at a fixed rate: both daemons' CPU for each, and how many are lost."""
    # -w: twice the default receive buffer, the most that needs no change of the host's limits. By default 5 ms of these
    # datagrams fill it, and iperf3's server being late would count as the tunnel's loss.
    report, cpu = iperf(peer, seconds, "-u", "-l", size, "-b", rate * size * 8, "-w", "208K")
    total = report["end"]["sum"]
    packets = total["packets"]
    result = {"loss_percent": total["lost_percent"], "packets_per_second": packets / total["seconds"]}
    if peer.daemons and packets:
        result["cpu_us_per_packet"] = cpu / packets * 1e6
    return result


def ping_times(peer, count, interval):
    """Round trips in milliseconds."""
    out = peer.system.inside(
        "a", "ping", "-n", "-c", count, "-i", interval, "-W", "1", peer.address("b"),
        timeout=count * interval + 20, check=False)
    times = [float(value) for value in re.findall(r"time=([\d.]+) ms", out)]
    if not times:
        raise BenchError(f"{peer.name}: no ping was answered")
    return {
        "p50_ms": statistics.median(times), "p99_ms": percentile(times, 0.99),
        "lost_percent": 100 * (1 - len(times) / count)}


def ping_idle(peer, seconds):
    """500 a second: slower ones measure how deep the processor sleeps in between, on a plain wire as well."""
    return ping_times(peer, max(50, int(seconds / 0.002)), 0.002)


def ping_loaded(peer, seconds):
    """Pings while one TCP flow runs, its first half second left out."""
    with Server(peer):
        flow = peer.system.start(
            "a", "iperf3", "-c", peer.address("b"), "-p", PORT, "-t", seconds + 2, "-C", "cubic", "-J")
        try:
            time.sleep(0.5)
            result = ping_times(peer, max(20, int(seconds / 0.02)), 0.02)
            if not flow.is_running:
                raise BenchError(f"{peer.name}: the flow ended early: {flow.output[-300:]}")
        finally:
            peer.system.stop(flow)
    return result


def memory(peer, seconds):
    """Resident memory of the larger side before anything ran through it."""
    if not peer.daemons:
        return {}
    return {"rss_mb": max(process.rss_bytes() for process in peer.daemons) / 1e6}


WORKLOADS = {
    "memory": memory,
    "ping": ping_idle,
    "tcp1": tcp1,
    "tcp1r": tcp1_reverse,
    "tcp4": tcp4,
    "udp50k": udp50k,
    "loaded": ping_loaded,
}
# Not a rate through a peer but a test of its own; see idle.py and firstbyte.py.
EXTRAS = ["idle", "firstbyte"]
