"""Measures pilot-tun in the laboratory: for each cell the path that is reached, and what it takes to get there.

A cell is a topology (`network.Topology`): two nodes that never met. Before it may stand
  official/   host b runs the official daemon
  flush/      in mid flow the router of host a forgets everything; the longest silence is measured
  known/      the first answer is that after a restart of a's node: the pair knows each other
  rested/     the first answer is that after a rest in which the NATs have forgotten the pair
"""

import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time

from . import rules
from .kernel import Failure
from .network import RENDEZVOUS, RENDEZVOUS_IPV6, Topology

ROOT = pathlib.Path(__file__).resolve().parents[3]
STREAMS = str(ROOT / "Tests/LabTools/streams.py")

NATS = ["open", "full-cone", "restricted", "port-restricted", "symmetric", "cgnat"]
CELLS = (
    [f"{first}:{second}" for n, first in enumerate(NATS) for second in NATS[n:]]
    + ["masquerade:masquerade", "lan:port-restricted", "lan:symmetric"]
    + ["ipv6:ipv6", "dual:dual", "dual:ipv6", "port-restricted:dual", "port-restricted:ipv6"]
    + [f"port-restricted+mtu{mtu}:port-restricted" for mtu in (1420, 1360, 1280)]
    + ["symmetric+mtu1280:symmetric", "ipv6+mtu1280:ipv6", "port-restricted+hole1400:port-restricted"]
    + ["port-restricted+loss1:port-restricted", "port-restricted+loss10:port-restricted"]
    + ["port-restricted+blocked:open"]
    + [f"{before}port-restricted+delay25:{other}+delay25" for before in ("", "known/") for other in NATS]
    + [f"{before}symmetric+delay25:symmetric+delay25" for before in ("", "known/")]
    + ["rested/port-restricted+delay25+idle20:port-restricted+delay25+idle20"]
    + ["flush/port-restricted:port-restricted", "flush/symmetric:open", "flush/symmetric:symmetric"]
    + ["official/" + cell for cell in ("open:open", "port-restricted:port-restricted", "symmetric:port-restricted",
                                       "symmetric:symmetric", "open:symmetric", "restricted:cgnat")]
)

# Seconds that a cell may take to become direct: two upgrade rounds of official daemons and some more.
PATIENCE = 40
PING_INTERVAL = 0.05
# Seconds that a pair rests: programs' use, a keepalive, and what a NAT with +idle20 remembers after it.
REST = 180


def programs():
    folder = os.environ.get("PILOT_TUN_BIN_DIR")
    candidates = [pathlib.Path(folder)] if folder else [ROOT / ".build/release", ROOT / ".build/debug"]
    for candidate in candidates:
        if (candidate / "pilot-tun").exists() and (candidate / "pilot-rendezvous").exists():
            return candidate
    raise Failure("no pilot-tun and pilot-rendezvous to measure: build them, or set PILOT_TUN_BIN_DIR")


def official_programs():
    folder = pathlib.Path(os.environ.get("PILOT_OFFICIAL_DIR", ROOT / ".build/interop/programs"))
    if not (folder / "pilot-daemon").exists():
        raise Failure("the official programs are not here: scripts/setup --interop, or set PILOT_OFFICIAL_DIR")
    return folder


class Program:
    """A program in a machine of the laboratory; what it says goes to a file."""

    def __init__(self, machine, command, log, environment=None):
        self.log = log
        with open(log, "wb") as file:
            self.process = subprocess.Popen(
                machine.command(*map(str, command)),
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=os.environ | (environment or {}),
            )

    def text(self):
        return pathlib.Path(self.log).read_text(errors="replace")

    def wait_for(self, text, seconds=30):
        """Whether it says so in time."""
        end = time.monotonic() + seconds
        while text not in self.text():
            if self.process.poll() is not None or time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    def end(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class OwnNode:
    """A pilot-tun on a host."""

    def __init__(self, machine, rendezvous, work):
        self.machine, self.socket = machine, f"{work}/{machine.name}.sock"
        command = [programs() / "pilot-tun", "up", "--hostname", machine.name, "--rendezvous", rendezvous, "--public"]
        command += ["--tls-ca-file", f"{work}/certificate.pem"]
        command += ["--dns", "off", "--listen", "4000", "--state-dir", f"{work}/{machine.name}"]
        self.command, self.log = command + ["--control-socket", self.socket], f"{work}/{machine.name}.log"
        self.start()

    def start(self):
        self.program = Program(self.machine, self.command, self.log)
        self.is_up = self.program.wait_for("ready: ")
        self.address = self.status().get("ipv6") if self.is_up else None

    def status(self):
        try:
            with socket.socket(socket.AF_UNIX) as control:
                control.settimeout(5)
                control.connect(self.socket)
                control.sendall(b'{"verb":"status"}\n')
                with control.makefile("rb") as answers:
                    return json.loads(answers.readline()).get("data", {})
        except (OSError, ValueError):
            return {}

    def path_to(self, hostname):
        """`direct4`, `direct6`, `relay`, `tcp443` or `none`."""
        for peer in self.status().get("peers", []):
            if peer.get("hostname") == hostname or (hostname is None and peer.get("session") != "none"):
                if peer["path"] != "direct":
                    return peer["path"]
                return "direct6" if peer["endpoint"].startswith("[") else "direct4"
        return "none"

    def serve(self, work):
        return Program(self.machine, ["python3", STREAMS, "serve", "socket", self.address], f"{work}/serve.log")


class OfficialAgent:
    """An official daemon on a host. It tells no path."""

    def __init__(self, machine, rendezvous, work):
        self.machine, self.socket = machine, f"{work}/official.sock"
        programs = official_programs()
        home = f"{work}/official"
        os.mkdir(home)
        self.environment = {
            "HOME": home, "PILOT_HOME": home, "PILOT_SOCKET": self.socket, "PILOT_TELEMETRY_URL": "",
            "PILOT_MOTD_URL": "", "PILOT_NO_SKILLINJECT": "1", "PILOT_REGISTRY": f"{rendezvous}:9000",
        }
        command = [programs / "pilot-daemon", "--registry", f"{rendezvous}:9000", "--beacon", f"{rendezvous}:9001"]
        command += ["--listen", ":4000", "--socket", self.socket, "--identity", f"{home}/identity.json", "--public"]
        self.program = Program(
            machine, command + ["--hostname", machine.name], f"{work}/{machine.name}.log", self.environment
        )
        self.python = programs.parent / "venv/bin/python"
        self.is_up, self.address = False, None
        end = time.monotonic() + 30
        while time.monotonic() < end and not self.is_up:
            told = subprocess.run(
                machine.command(str(programs / "pilotctl"), "--json", "info"), env=os.environ | self.environment,
                capture_output=True, text=True,
            ).stdout
            found = re.search(r"\b(\d+):([0-9A-F]{4})\.([0-9A-F]{4})\.([0-9A-F]{4})", told)
            if found:
                self.address = f"fd50:494c:4f54::{found[3]}:{found[4]}".lower()
                self.is_up = True
            time.sleep(0.1)

    def serve(self, work):
        return Program(self.machine, [self.python, STREAMS, "serve", "sdk", self.socket], f"{work}/serve.log")


class Pings:
    """`ping` from host a, running. Times are seconds since it was started."""

    def __init__(self, machine, address):
        self.address = address
        # When each answer came, and how long after the first packet the first one did.
        self.answers, self.first_answer = [], None
        self.begin = time.time()
        self.process = subprocess.Popen(
            machine.command("ping", "-6", "-n", "-D", "-i", str(PING_INTERVAL), address),
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            found = re.search(r"\[([\d.]+)\] \d+ bytes from .*icmp_seq=(\d+) .*time=([\d.]+) ms", line)
            if found:
                self.answers.append(float(found[1]) - self.begin)
                since_first = (int(found[2]) - 1) * PING_INTERVAL + float(found[3]) / 1000
                self.first_answer = min(self.first_answer or since_first, since_first)

    def now(self):
        return time.time() - self.begin

    def end(self):
        self.process.terminate()
        self.process.wait()
        self.reader.join()


def measure(network, cell, octets):
    """One row of the matrix. A node that cannot start, or a transfer that fails, is a result as well."""
    *variants, text = cell.split("/")
    topology = Topology.parse(text)
    work = tempfile.mkdtemp(prefix="pt-lab-")
    row = {"cell": cell, "path": "none", "first_answer_ms": None, "direct_s": None, "transfer": "not tried"}
    network.up(topology)
    try:
        _measure(network, topology, variants, octets, work, row)
    finally:
        network.down()
        if os.environ.get("PILOT_LAB_KEEP"):
            row["work"] = work
        else:
            shutil.rmtree(work)
    return row


def _measure(network, topology, variants, octets, work, row):
    rendezvous = Program(
        network.namespace("rendezvous"),
        [programs() / "pilot-rendezvous", "serve", "--state-dir", f"{work}/rendezvous", *_certificate(work)],
        f"{work}/rendezvous.log",
    )
    if not rendezvous.wait_for("ready"):
        raise Failure("the rendezvous did not start:\n" + rendezvous.text())
    sides = [topology.a, topology.b or topology.a]
    homes = [RENDEZVOUS if rules.KINDS[side.kind].has_ipv4 else f"[{RENDEZVOUS_IPV6}]" for side in sides]
    a = OwnNode(network.namespace("a"), homes[0], work)
    b = (OfficialAgent if "official" in variants else OwnNode)(network.namespace("b"), homes[1], work)
    for node in (a, b):
        if not node.is_up:
            row["path"] = f"{node.machine.name} is not up"
            return
    name = None if "official" in variants else "b"
    pings = Pings(a.machine, b.address)
    try:
        _watch(pings, a, b, name, row)
        if "flush" in variants:
            row["silence_s"] = _flush(pings, network.namespace("nat-a"))
    finally:
        pings.end()
    if "known" in variants or "rested" in variants:
        pings = _again(pings, a, variants)
    if pings.answers:
        row["first_answer_ms"] = round(pings.first_answer * 1000)
        row.update(_transfer(a, b, octets, work))
    row["path"] = a.path_to(name)


def _again(pings, a, variants):
    """The pings of a pair that has met before."""
    if "known" in variants:
        a.program.end()
        a.start()
    else:
        time.sleep(REST)
    again = Pings(a.machine, pings.address)
    end = time.monotonic() + PATIENCE
    while not again.answers and time.monotonic() < end:
        time.sleep(PING_INTERVAL)
    again.end()
    return again


def _certificate(work):
    """For TLS, which nodes take where UDP is blocked."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=rendezvous", "-addext", f"subjectAltName=IP:{RENDEZVOUS},IP:{RENDEZVOUS_IPV6}",
         "-keyout", f"{work}/key.pem", "-out", f"{work}/certificate.pem"],
        check=True, capture_output=True,
    )
    return ["--tls-certificate", f"{work}/certificate.pem", "--tls-key", f"{work}/key.pem"]


def _watch(pings, a, b, name, row):
    """Waits until both ends say that the path is direct, at most for a while."""
    while pings.now() < PATIENCE:
        paths = [a.path_to(name)] + ([b.path_to("a")] if isinstance(b, OwnNode) else [])
        if all(path.startswith("direct") for path in paths) and pings.answers:
            row["direct_s"] = round(pings.now(), 1)
            return
        time.sleep(PING_INTERVAL)


def _flush(pings, router):
    """The longest time without an answer after the router forgot everything, in seconds; None: it never ended."""
    time.sleep(1)
    at = pings.now()
    router.flush()
    time.sleep(PATIENCE)
    after = [at] + [answer for answer in pings.answers if answer > at]
    if len(after) == 1 or pings.now() - after[-1] > 5:
        return None
    return round(max(later - earlier for earlier, later in zip(after, after[1:])), 1)


def _transfer(a, b, octets, work):
    server = b.serve(work)
    if not server.wait_for("ready"):
        return {"transfer": "the server did not start: " + server.text()[-200:]}
    command = ["python3", STREAMS, "get", str(octets), "8003", "socket", b.address]
    try:
        done = subprocess.run(a.machine.command(*command), capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        return {"transfer": "not within 120 s"}
    finally:
        server.end()
    found = re.search(r"^whole \d+ ([\d.]+) MB/s", done.stdout, re.MULTILINE)
    if not found:
        return {"transfer": (done.stdout + done.stderr).strip().splitlines()[-1][:80]}
    return {"transfer": "whole", "megabytes_per_second": float(found[1])}


# --- telling ---------------------------------------------------------------------------------------------------------

HEAD = ["a : b", "path", "first answer", "direct after", "transfer"]


def cells_of(row):
    first, direct = row["first_answer_ms"], row["direct_s"]
    transfer = row["transfer"]
    if transfer == "whole":
        transfer = f"{row['megabytes_per_second']:.0f} MB/s"
    texts = [row["cell"], row["path"], "–" if first is None else f"{first} ms", "–" if direct is None else f"{direct} s"]
    if "silence_s" in row:
        transfer += ", silent for " + ("ever" if row["silence_s"] is None else f"{row['silence_s']} s")
    return texts + [transfer]


def line(row):
    return "  ".join(cells_of(row))


def markdown(rows):
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [HEAD, ["---"] * len(HEAD), *map(cells_of, rows)])
