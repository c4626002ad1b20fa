"""pilot-tun.toml(5): docs/configuration.md as a manual page. Knows the Markdown that stands there: paragraphs, lists, tables
and headings."""

from . import mdoc


def page(document):
    title, *blocks = [block for block in document.read_text(encoding="utf-8").split("\n\n") if block.strip()]
    parts = [mdoc.head("pilot-tun.toml", 5, "settings of the pilot-tun node"),
             ".Sh SYNOPSIS\n.Pa /etc/pilot\\-tun/config.toml\n", ".Sh DESCRIPTION\n"]
    for index, block in enumerate(blocks):
        lines = block.strip("\n").split("\n")
        if lines[0].startswith("#"):
            level, text = lines[0].split(" ", 1)
            parts.append((".Sh " + mdoc.escape(text.upper()) if level == "##" else ".Ss " + mdoc.escape(text)) + "\n")
            lines = lines[1:]
            if not lines:
                continue
        elif lines[0].startswith("|"):
            parts.append(table(lines))
            continue
        elif index > 0 and not parts[-1].startswith((".Sh", ".Ss")) and not lines[0].startswith("```"):
            # .Bd leaves a line by itself.
            parts.append(".Pp\n")
        if lines[0].startswith("```"):
            parts.append(".Bd -literal\n" + "\n".join(mdoc.guard(mdoc.escape(line)) for line in lines[1:-1]) + "\n.Ed\n")
        elif lines[0].startswith("- "):
            parts.append(bullets(lines))
        else:
            parts.append(mdoc.paragraph(" ".join(lines)))
    parts.append(".Sh SEE ALSO\n.Xr pilot-tun 1\n")
    return {"pilot-tun.toml.5": "".join(parts)}


def bullets(lines):
    texts = []
    for line in lines:
        if line.startswith("- "):
            texts.append(line[2:])
        else:
            texts[-1] += " " + line.strip()
    return ".Bl -bullet\n" + "".join(".It\n" + mdoc.paragraph(text) for text in texts) + ".El\n"


def table(lines):
    """The first column is the tag; the last is what it means; between them stand values with the column's name."""
    heads, _, *rows = [cells(line) for line in lines]
    items = []
    for first, *between, last in rows:
        facts = [last, *(f"{name}: {value}" for name, value in zip(heads[1:-1], between) if value)]
        text = " ".join(f"{fact[:1].upper()}{fact[1:].rstrip('.')}." for fact in facts if fact)
        items.append((f"Sy {mdoc.word(first.replace('`', ''))}", text))
    return mdoc.items(items)


def cells(line):
    return [cell.strip().replace("\0", "|") for cell in line.replace("\\|", "\0").strip().strip("|").split("|")]
