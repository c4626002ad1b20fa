"""The programs compared. Each runs one daemon in namespace a and one in b, and gives b an address inside."""

import json
import os

from . import wire
from .system import BenchError, run, wait_until


class Peer:
    name = ""
    title = ""
    packages = []

    def __init__(self, system, folder):
        self.system = system
        self.folder = folder
        self.daemons = []
        self.helpers = []

    def start(self):
        """Starts the daemons; returns when b answers a ping from a."""
        raise NotImplementedError

    def address(self, side):
        raise NotImplementedError

    def stop(self):
        for process in self.daemons + self.helpers:
            self.system.stop(process)
        self.daemons, self.helpers = [], []

    @classmethod
    def version(cls):
        return ""

    def daemon(self, side, *command, env=None):
        process = self.system.start(side, *command, env=env)
        self.daemons.append(process)
        return process

    def cpu_seconds(self):
        return sum(process.cpu_seconds() for process in self.daemons)

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, content):
        with open(self.path(name), "w") as file:
            file.write(content)
        os.chmod(self.path(name), 0o600)
        return self.path(name)

    def wait_for_ping(self, timeout=20):
        def answers():
            for process in self.daemons:
                if not process.is_running:
                    raise BenchError(f"{self.name} ended: {process.output.strip()[-600:]}")
            out = self.system.inside("a", "ping", "-n", "-c", "1", "-W", "1", self.address("b"), check=False)
            return " 0% packet loss" in out
        wait_until(answers, f"{self.name}: ping through it", timeout)


def debian_version(package):
    return run("dpkg-query", "-W", "-f", "${Version}", package, check=False)


class Raw(Peer):
    name = "raw"
    title = "plain veth"

    def start(self):
        self.wait_for_ping()

    def address(self, side):
        return wire.ADDRESS6[side]


class WireGuardGo(Peer):
    name = "wireguard-go"
    title = "wireguard-go (Debian)"
    packages = ["wireguard-go", "wireguard-tools"]

    @classmethod
    def version(cls):
        return debian_version("wireguard-go")

    def address(self, side):
        return {"a": "fd13:2d6::1", "b": "fd13:2d6::2"}[side]

    def start(self):
        secrets = {side: run("wg", "genkey").strip() for side in "ab"}
        publics = {side: run("wg", "pubkey", text_input=secrets[side]).strip() for side in "ab"}
        env = dict(os.environ, WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD="1", LOG_LEVEL="error")
        for side, other in (("a", "b"), ("b", "a")):
            device = f"ptbenchwg{side}"
            self.daemon(side, "wireguard-go", "-f", device, env=env)
            wait_until(lambda: os.path.exists(f"/var/run/wireguard/{device}.sock"), "wireguard-go's socket")
            key = self.write(f"wg-{side}", secrets[side])
            self.system.inside(
                side, "wg", "set", device, "private-key", key, "listen-port", "51820", "peer", publics[other],
                "endpoint", f"{wire.ADDRESS[other]}:51820", "allowed-ips", self.address(other) + "/128")
            self.system.inside(side, "ip", "-6", "address", "add", self.address(side) + "/64", "dev", device, "nodad")
            self.system.inside(side, "ip", "link", "set", device, "mtu", "1420", "up")
        self.wait_for_ping()


class Nebula(Peer):
    """Carries IPv4 only in this version."""
    name = "nebula"
    title = "nebula (Debian)"
    packages = ["nebula"]

    @classmethod
    def version(cls):
        return debian_version("nebula")

    def address(self, side):
        return {"a": "10.213.8.1", "b": "10.213.8.2"}[side]

    def start(self):
        ca, key = self.path("nebula-ca.crt"), self.path("nebula-ca.key")
        for path in (ca, key):
            if os.path.exists(path):
                os.unlink(path)
        run("nebula-cert", "ca", "-name", "bench", "-out-crt", ca, "-out-key", key)
        for side, other in (("a", "b"), ("b", "a")):
            crt, own = self.path(f"nebula-{side}.crt"), self.path(f"nebula-{side}.key")
            for path in (crt, own):
                if os.path.exists(path):
                    os.unlink(path)
            run("nebula-cert", "sign", "-ca-crt", ca, "-ca-key", key, "-name", side,
                "-ip", self.address(side) + "/24", "-out-crt", crt, "-out-key", own)
            config = self.write(f"nebula-{side}.yml", f"""
pki: {{ca: {ca}, cert: {crt}, key: {own}}}
static_host_map: {{"{self.address(other)}": ["{wire.ADDRESS[other]}:4242"]}}
lighthouse: {{am_lighthouse: false, hosts: []}}
listen: {{host: 0.0.0.0, port: 4242, read_buffer: 7340032, write_buffer: 7340032}}
punchy: {{punch: false}}
tun: {{dev: ptbenchneb, mtu: 1420}}
logging: {{level: error}}
firewall:
  outbound: [{{port: any, proto: any, host: any}}]
  inbound: [{{port: any, proto: any, host: any}}]
""")
            self.daemon(side, "nebula", "-config", config)
        self.wait_for_ping()


class Yggdrasil(Peer):
    name = "yggdrasil"
    title = "yggdrasil (Debian)"
    packages = ["yggdrasil"]

    @classmethod
    def version(cls):
        return debian_version("yggdrasil")

    def address(self, side):
        return self.addresses[side]

    def start(self):
        self.addresses = {}
        for side in "ab":
            config = json.loads(run("yggdrasil", "-genconf", "-json"))
            config.update({
                "Listen": [f"tcp://{wire.ADDRESS['a']}:4243"] if side == "a" else [],
                "Peers": [] if side == "a" else [f"tcp://{wire.ADDRESS['a']}:4243"],
                "MulticastInterfaces": [], "AdminListen": "none", "IfName": "ptbenchygg"})
            file = self.write(f"ygg-{side}.json", json.dumps(config))
            self.addresses[side] = run("yggdrasil", "-useconffile", file, "-address").strip()
            self.daemon(side, "yggdrasil", "-useconffile", file)
        self.wait_for_ping()


class PilotTun(Peer):
    name = "pilot-tun"
    title = "pilot-tun"
    binaries = ""  # folder of the programs, set by the command line

    @classmethod
    def version(cls):
        program = os.path.join(cls.binaries, "pilot-tun")
        return run(program, "version", check=False).strip() if os.path.exists(program) else ""

    def program(self, name):
        return os.path.join(self.binaries, name)

    def address(self, side):
        return self.addresses[side]

    def control(self, side):
        return self.path(f"pilot-{side}.sock")

    def status(self, side):
        out = self.system.inside(
            side, self.program("pilot-tun"), "status", "--json", "--control-socket", self.control(side), check=False)
        try:
            return json.loads(out)["data"]
        except (ValueError, KeyError):
            return None

    def start_rendezvous(self, side, state):
        os.makedirs(state, exist_ok=True)
        process = self.system.start(
            side, self.program("pilot-rendezvous"), "serve", "--state-dir", state, "--registry-listen", "0.0.0.0:9000",
            "--beacon-listen", "0.0.0.0:9001")
        self.helpers.append(process)
        wait_until(
            lambda: ":9000" in self.system.inside(side, "ss", "-Hltn") or not process.is_running,
            "pilot-rendezvous listens")
        if not process.is_running:
            raise BenchError(f"pilot-rendezvous ended: {process.output.strip()[-600:]}")

    def start_node(self, side, hostname, rendezvous, state, extra=()):
        os.makedirs(state, exist_ok=True)
        process = self.daemon(
            side, self.program("pilot-tun"), "up", "--state-dir", state, "--control-socket", self.control(side),
            "--rendezvous", rendezvous, "--interface", "pilot0", "--hostname", hostname, "--public",
            "--trust-auto-approve", "--log-level", "warning", *extra)

        def ready():
            if not process.is_running:
                raise BenchError(f"pilot-tun ended: {process.output.strip()[-600:]}")
            status = self.status(side)
            return status if status and status.get("ipv6") else None
        return wait_until(ready, "pilot-tun is ready", timeout=30, pause=0.1)

    def start(self):
        self.addresses = {}
        serial = self.system.serial()  # a fresh state for each start
        self.start_rendezvous("a", self.path(f"rendezvous-{serial}"))
        for side in "ab":
            status = self.start_node(side, f"bench-{side}", wire.ADDRESS["a"], self.path(f"node-{side}-{serial}"))
            self.addresses[side] = first_address(status["ipv6"])
        self.make_trust()
        self.wait_for_ping(30)

    def make_trust(self):
        """Mutual trust, as nodes are private by default: each asks, the other approves on its own."""
        for side, other in (("a", "b"), ("b", "a")):
            self.system.inside(
                side, self.program("pilot-tun"), "trust", "request", self.addresses[other], "--control-socket",
                self.control(side), check=False)


def first_address(value):
    """`ipv6` of the status: one address, or a list with that of the backbone first."""
    value = value[0] if isinstance(value, list) else value
    return str(value).split("/")[0]


PEERS = [Raw, WireGuardGo, Nebula, Yggdrasil, PilotTun]
