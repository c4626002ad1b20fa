"""Processes, network namespaces and CPU accounting. Everything made here is removed by `System.close`."""

import itertools
import os
import signal
import subprocess
import time

PREFIX = "pt-bench-"
TICK = os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """Something a person has to know: a missing program, a peer that does not come up."""


def run(*command, timeout=20, check=True, text_input=None, env=None):
    """Runs a command to its end and returns its standard output."""
    try:
        done = subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, timeout=timeout,
            input=text_input, env=env, stdin=None if text_input is not None else subprocess.DEVNULL)
    except FileNotFoundError:
        raise BenchError(f"{command[0]} is not installed")
    except subprocess.TimeoutExpired:
        raise BenchError(f"no end after {timeout} s: {' '.join(map(str, command))}")
    if check and done.returncode != 0:
        raise BenchError(f"{' '.join(map(str, command))}: {(done.stderr or done.stdout).strip()[-400:]}")
    return done.stdout


class Process:
    """A program running in a namespace; its output goes to a file."""

    def __init__(self, namespace, command, log, env=None):
        self.name = str(command[0])
        self.log = log
        command = [str(part) for part in command]
        if namespace:
            # `ip netns exec` becomes the program, so the process id is the program's own.
            command = ["ip", "netns", "exec", PREFIX + namespace] + command
        with open(log, "wb") as out:
            self.child = subprocess.Popen(
                command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=env,
                start_new_session=True)
        self.pid = self.child.pid

    @property
    def is_running(self):
        return self.child.poll() is None

    @property
    def output(self):
        with open(self.log, errors="replace") as file:
            return file.read()

    def wait(self, timeout):
        try:
            return self.child.wait(timeout)
        except subprocess.TimeoutExpired:
            raise BenchError(f"{self.name} does not end")

    def stop(self, grace=5):
        if self.is_running:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(grace)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait(5)

    def cpu_seconds(self):
        """User and system time of all its threads, those that ended included."""
        return sum(cpu_fields(self.pid)[:2])

    def rss_bytes(self):
        with open(f"/proc/{self.pid}/status") as file:
            for line in file:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
        return 0

    def context_switches(self):
        """Voluntary and involuntary ones of all threads: how often the program was put on a core."""
        total = 0
        for task in os.listdir(f"/proc/{self.pid}/task"):
            try:
                with open(f"/proc/{self.pid}/task/{task}/status") as file:
                    total += sum(int(line.split()[1]) for line in file if "ctxt_switches" in line)
            except FileNotFoundError:
                pass
        return total


def cpu_fields(pid):
    """(user, system, children's user, children's system) in seconds; zeros when the process is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0, 0.0, 0.0, 0.0
    return tuple(int(fields[index]) / TICK for index in range(11, 15))


class ForeignLoad:
    """How many cores other processes of this machine used while a test ran, and what the hypervisor took.

    Sums the CPU time, reaped children included, of every process that is neither this script nor begun by it. A child's
    time moves to its parent when it ends, so the sum only grows.
    """

    def __init__(self):
        self.began = time.monotonic()
        self.before = self._sum()
        self.steal_before = self._steal()

    @staticmethod
    def _sum():
        parents = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    with open(f"/proc/{entry}/stat") as file:
                        parents[int(entry)] = int(file.read().rsplit(")", 1)[1].split()[1])
                except (FileNotFoundError, ProcessLookupError):
                    pass
        own = {os.getpid()}
        grown = True
        while grown:
            more = {pid for pid, parent in parents.items() if parent in own} - own
            own |= more
            grown = bool(more)
        # Kernel threads (children of 2) do the work of the tests themselves.
        return sum(
            sum(cpu_fields(pid)) for pid, parent in parents.items() if pid not in own and parent != 2 and pid != 2)

    @staticmethod
    def _steal():
        with open("/proc/stat") as file:
            return int(file.readline().split()[8]) / TICK

    def cores(self):
        elapsed = max(time.monotonic() - self.began, 0.001)
        return max(0.0, self._sum() - self.before) / elapsed, (self._steal() - self.steal_before) / elapsed


class System:
    """The namespaces and processes of one run."""

    def __init__(self, folder):
        self.folder = folder
        self.namespaces = []
        self.processes = []
        self.counter = itertools.count(1)  # one step is atomic: threads start programs too

    def serial(self):
        """A number not used before in this run."""
        return next(self.counter)

    def remove_leftovers(self):
        """Namespaces that an earlier run could not remove (it was killed). The caller holds the lock."""
        for line in run("ip", "netns", "list").splitlines():
            name = line.split()[0] if line.split() else ""
            if name.startswith(PREFIX):
                run("ip", "netns", "del", name, check=False)

    def add_namespace(self, name):
        run("ip", "netns", "add", PREFIX + name)
        self.namespaces.append(name)
        self.inside(name, "ip", "link", "set", "lo", "up")
        # Addresses are usable at once.
        for scope in ("all", "default"):
            self.inside(name, "sysctl", "-qw", f"net.ipv6.conf.{scope}.accept_dad=0")

    def remove_namespace(self, name):
        run("ip", "netns", "del", PREFIX + name, check=False)
        self.namespaces.remove(name)

    def inside(self, namespace, *command, **options):
        return run("ip", "netns", "exec", PREFIX + namespace, *command, **options)

    def start(self, namespace, *command, env=None):
        log = os.path.join(self.folder, f"{self.serial():03d}-{os.path.basename(str(command[0]))}.log")
        process = Process(namespace, command, log, env)
        self.processes.append(process)
        return process

    def stop(self, process):
        process.stop()
        if process in self.processes:
            self.processes.remove(process)

    def close(self):
        for process in reversed(self.processes):
            try:
                process.stop(grace=3)
            except Exception:  # go on removing the rest
                pass
        self.processes = []
        for name in list(self.namespaces):
            self.remove_namespace(name)


def wait_until(condition, what, timeout=20, pause=0.02):
    """Polls until the condition holds."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(pause)
    raise BenchError(f"{what}: not within {timeout} s")
