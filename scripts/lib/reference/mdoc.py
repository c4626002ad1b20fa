"""Text as mdoc(7), the language of manual pages: escaping, paragraphs, tables, and the little Markdown that our documents
use. Used by manual.py and configuration.py."""

import datetime
import os
import re
import subprocess
import textwrap

from . import tool


def escape(text):
    """Running text. Hyphens stay what they are typed as: options are copied out of manual pages."""
    return text.replace("\\", "\\e").replace("-", "\\-")


def inline(text):
    """Markdown within a line: `code`, **bold** and [links](target)."""
    text = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", text.replace("\\|", "|"))
    parts = re.split(r"`([^`]+)`|\*\*([^*]+)\*\*", text)
    result = ""
    for index, part in enumerate(parts):
        if part is not None:
            result += escape(part) if index % 3 == 0 else f"\\fB{escape(part)}\\fR"
    return result


def guard(line):
    """A line that begins with a control character is text all the same."""
    return "\\&" + line if line[:1] in (".", "'") else line


def paragraph(text):
    """Each sentence begins a line, as mdoc wants it, and no line is long."""
    lines = []
    for sentence in re.split(r"(?<=[.?])\s+(?=[A-Z])", " ".join(text.split())):
        lines += textwrap.wrap(inline(sentence), 78, break_long_words=False, break_on_hyphens=False)
    return "".join(guard(line) + "\n" for line in lines)


def items(rows):
    """A tagged list of (tag, text); the tag is mdoc already."""
    lines = [".Bl -tag -width Ds"]
    for tag, text in rows:
        lines += [f".It {tag}", paragraph(text).rstrip("\n")]
    return "\n".join(lines + [".El", ""])


def word(text):
    """An argument of a macro: quoted, so that nothing in it is taken for a macro."""
    return '"' + escape(text).replace('"', '\\(dq') + '"'


def head(name, section, description):
    return (f".Dd {date()}\n.Dt {name.upper()} {section}\n.Os pilot\\-tun\n"
            f".Sh NAME\n.Nm {name}\n.Nd {escape(description[:1].lower() + description[1:].rstrip('.'))}\n")


def date():
    """Of the commit, so that two builds give the same page."""
    seconds = os.environ.get("SOURCE_DATE_EPOCH") or commit_time() or os.path.getmtime(__file__)
    day = datetime.datetime.fromtimestamp(int(seconds), datetime.timezone.utc)
    return f"{day:%B} {day.day}, {day.year}"


def commit_time():
    """Nothing without git, or outside a checkout."""
    line = ["git", "-C", os.path.dirname(os.path.abspath(__file__)), "log", "-1", "--format=%ct"]
    try:
        return subprocess.run(line, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def option(argument):
    """The tag of an option or operand."""
    if argument.kind == "positional":
        return f"Ar {word(argument.value.upper())}"
    return f"Fl \\-{escape(argument.name)}" + (f" Ar {word(argument.value)}" if argument.kind == "option" else "")


def synopsis(command):
    """The lines of a command's synopsis after its name."""
    lines = []
    for each in sorted(command.arguments, key=lambda each: each.kind == "positional"):
        more = " ..." if each.is_repeating else ""
        lines.append((".Op " if each.is_optional else ".") + option(each) + more)
    return lines


def arguments(found):
    return items((option(each), each.help + tool.default(each)) for each in found)


