"""Reads the description that a program gives of itself: the JSON of swift-argument-parser's `--experimental-dump-help`
(ToolInfoV0). Used by everything that scripts/reference writes."""

import collections
import dataclasses
import json
import os
import subprocess

PROGRAMS = ["pilot-tun", "pilot-rendezvous", "pilotctl"]


class Unusable(Exception):
    """A program is missing or does not describe itself."""


@dataclasses.dataclass
class Argument:
    name: str  # of an option or flag: without hyphens
    kind: str  # positional, option, flag
    help: str
    value: str
    is_optional: bool
    is_repeating: bool
    default: str

    @property
    def spelling(self):
        if self.kind == "positional":
            return f"<{self.value}>"
        return f"--{self.name}" + (f" <{self.value}>" if self.kind == "option" else "")


@dataclasses.dataclass
class Command:
    path: list  # of words: ["pilot-tun", "trust", "list"]
    abstract: str
    discussion: str
    arguments: list
    commands: list

    @property
    def title(self):
        return " ".join(self.path)

    @property
    def leaves(self):
        return [leaf for command in self.commands for leaf in command.leaves] or [self]


def load(program):
    try:
        environment = os.environ | {"PILOT_TUN_CONFIG": "/dev/null"}
        output = subprocess.run([program, "--experimental-dump-help"], check=True, capture_output=True, timeout=60,
                                env=environment).stdout
        return command(json.loads(output)["command"], [])
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
        raise Unusable(f"{program} does not describe itself: {error}") from error


def command(info, path):
    path = path + [info["commandName"]]
    arguments = [argument(each) for each in info.get("arguments", []) if each.get("shouldDisplay", True)]
    commands = [command(each, path) for each in info.get("subcommands", [])
                if each.get("shouldDisplay", True) and each["commandName"] != "help"]
    return Command(path, text(info.get("abstract")), text(info.get("discussion")),
                   [each for each in arguments if each.name not in ("help", "version")], commands)


def argument(info):
    names = [name["name"] for name in info.get("names", []) if name["kind"] != "short"]
    return Argument(names[0] if names else "", info["kind"], text(info.get("abstract")), info.get("valueName", ""),
                    info.get("isOptional", True), info.get("isRepeating", False), info.get("defaultValue", ""))


def text(value):
    return (value or "").strip()


def common(tool):
    """Options that several commands share, word for word: they are explained once."""
    counts = collections.Counter(
        (each.name, each.help) for leaf in tool.leaves for each in leaf.arguments if each.kind != "positional")
    found = {}
    for leaf in tool.leaves:
        for each in leaf.arguments:
            if counts[(each.name, each.help)] >= 3:
                found.setdefault((each.name, each.help), each)
    return list(found.values())


def own(command, shared):
    """The arguments of a command that are not explained elsewhere."""
    known = {(each.name, each.help) for each in shared if each.kind != "positional"}
    return [each for each in command.arguments if (each.name, each.help) not in known]


def default(argument):
    """What follows the help of an argument with a default that it does not tell itself."""
    return f" Default: {argument.default}" if argument.default and argument.default not in argument.help else ""
