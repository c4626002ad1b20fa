"""docs/commands.md: every command of every program, as the programs describe them."""

import textwrap

from . import tool

HEAD = """# Commands

What the programs say of themselves; written by `scripts/reference` and compared with them by `scripts/test`. The same is
in the manual pages of the packages. What scripts may rely on: [design.md](design.md) §10; settings:
[configuration.md](configuration.md); errors: [errors.md](errors.md).
"""


def page(tools):
    parts = [HEAD]
    for program in tools:
        parts.append(f"\n## {program.title}\n\n{prose(program)}")
        if program.arguments:
            parts.append("\n" + table(program.arguments))
        shared = tool.common(program)
        if shared:
            parts.append("\nOptions of most commands (each command's line says which it takes; all take `--help`):\n\n"
                         + table(shared))
        for leaf in program.leaves:
            parts.append(f"\n### {leaf.title}\n\n{prose(leaf)}\n```\n{line(leaf)}\n```\n")
            arguments = tool.own(leaf, shared)
            if arguments:
                parts.append("\n" + table(arguments))
    return "".join(parts)


def prose(command):
    lines = [command.abstract, *command.discussion.split("\n")]
    return "".join(textwrap.fill(each, 120, break_long_words=False, break_on_hyphens=False) + "\n" for each in lines if each)


def line(command, width=110):
    """The synopsis, broken where it is too long."""
    lines, current = [], command.title
    options = [each for each in command.arguments if each.kind != "positional"]
    positionals = [each for each in command.arguments if each.kind == "positional"]
    for each in options + positionals:
        word = each.spelling if not each.is_optional else f"[{each.spelling}]"
        word += "…" if each.is_repeating else ""
        if len(current) + 1 + len(word) > width:
            lines.append(current)
            current = " " * 4 + word
        else:
            current += " " + word
    return "\n".join(lines + [current])


def table(arguments):
    rows = [f"| `{cell(each.spelling)}` | {cell(each.help + tool.default(each))} |" for each in arguments]
    return "\n".join(["| | |", "|---|---|", *rows, ""])


def cell(text):
    return text.replace("|", "\\|")

