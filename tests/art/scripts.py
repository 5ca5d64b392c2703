"""The scripts of ART's documents: their code blocks, found by what they say, with names and models of this machine.

One document lost the indentation of its code; it is put back by rules that hold for these blocks: what stands between
a line that opens a block and the next line of the outer level is inside.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

_FENCE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def fenced(text: str) -> list[str]:
    """The Python blocks of a document that kept its fences."""
    return _FENCE.findall(text)


def between(text: str, first: str, before: str) -> str:
    """The lines from the one that begins with `first` up to the one that begins with `before`."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(first))
    end = next(i for i in range(start + 1, len(lines)) if lines[i].startswith(before))
    return "\n".join(lines[start:end]) + "\n"


def indented(block: str) -> str:
    """A script that lost its indentation, with it: brackets, blocks, and what stands in `main` again after a loop."""
    out: list[str] = []
    depth, level, in_text = 0, 0, False
    for line in block.splitlines():
        stripped = line.strip()
        if in_text:  # inside a text of three quotes nothing is moved
            out.append(line)
            in_text = "'''" not in stripped
            depth -= 0 if in_text else stripped.partition("'''")[2].count(")")
            continue
        if stripped.startswith("if __name__"):
            level = 0
        elif stripped.startswith(("<BACKEND_SETUP>", "for chunk in")):
            level = min(level, 1)
        inner = depth - (stripped[:1] in (")", "]", "}"))
        out.append("    " * (level + max(0, inner)) + stripped if stripped else "")
        in_text = stripped.count("'''") % 2 == 1
        plain = re.sub(r"\"[^\"]*\"|'[^']*'", "", stripped)
        depth += sum(map(plain.count, "([{")) - sum(map(plain.count, ")]}"))
        if stripped.endswith(":") and not depth:
            level += 1
    return "\n".join(out) + "\n"


def levelled(block: str, levels: str) -> str:
    """A block with the indentation that a reader gives it: a digit for each line."""
    lines = [line.strip() for line in block.splitlines() if line.strip()]
    assert len(lines) == len(levels), "the document has changed"
    return "".join(
        "    " * int(level) + line + "\n" for level, line in zip(levels, lines, strict=True)
    )


def filled(code: str, names: dict[str, str]) -> str:
    """The code with `<NAME>` replaced; a name that is left over is an error."""
    for name, value in names.items():
        code = code.replace(f"<{name}>", value)
    left = set(re.findall(r"<[A-Z][A-Z_0-9]+>", code)) - {"<YOUR_TEAM>"}
    assert not left, f"nothing is known of {sorted(left)}"
    return code.replace("<YOUR_TEAM>", "team")


def filled_in(code: str, name: str, block: str) -> str:
    """The code with a block of lines where `<NAME>` stands alone on one, at its indentation."""
    line = re.compile(rf"^( *)<{name}>$", re.MULTILINE)
    return line.sub(lambda match: textwrap.indent(block, match[1]), code)


def ported(code: str, face: str) -> str:
    """The code for `hone`, or for `hone.art`: its imports changed, and nothing else but the package's name."""
    if face == "hone.art":
        code = re.sub(r"^(\s*)import art$", r"\1from hone import art", code, flags=re.MULTILINE)
        return re.sub(r"^(\s*)from art\.", r"\1from hone.art.", code, flags=re.MULTILINE)
    code = re.sub(r"^(\s*)import art$", r"\1import hone", code, flags=re.MULTILINE)
    code = re.sub(
        r"^(\s*)from art\.[a-z.]+ import", r"\1from hone import", code, flags=re.MULTILINE
    )
    code = re.sub(r"art\.dev\.InternalModelConfig\(", "dict(", code)
    return re.sub(r"\bart\.", "hone.", code)


def with_block(script: str, block: str) -> str:
    """The script with the shared block after its training, where its comment stands or at the end of `main`."""
    if not block.startswith(" "):
        block = textwrap.indent(block, "    ")
        # The text of three quotes goes on at the margin, as it stands in the document.
        block = re.sub(r"(print\(f'''\\\n)(.*?)('''\))", _at_margin, block, flags=re.DOTALL)
    if "# ... post-training block" in script:
        return re.sub(
            r"^ *# \.\.\. post-training block.*\n", lambda _: block, script, flags=re.MULTILINE
        )
    head, end, rest = script.partition("\nif __name__")
    assert end
    return head.rstrip() + "\n\n" + block + "\n" + end + rest


def _at_margin(match: re.Match[str]) -> str:
    lines = [line.removeprefix("    ") for line in match[2].splitlines(keepends=True)]
    return match[1] + "".join(lines) + match[3]


def document(shared: Path, name: str) -> str:
    """A document's text."""
    return (shared / "reference" / "documents" / name).read_text(encoding="utf-8")
