"""Text of others inside Markdown: Dagster's UI makes pictures, links and HTML of what is not kept from it.

A backslash before each sign would not do, for a bare address becomes a link all the same. In a code span nothing is anything.
"""

import re
from collections.abc import Iterable, Sequence

SIGNS = re.compile(r"[\\`*\[\]<>|&~!#@]|://|www\.", re.IGNORECASE)
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def text(value: object) -> str:
    """A value as one line that shows as it is: plain, or as a code span where it holds signs of Markdown."""
    plain = CONTROL.sub(" ", str(value))
    if not SIGNS.search(plain):
        return plain
    fence = "`" * (1 + max(map(len, re.findall("`+", plain)), default=0))
    pad = " " if plain.startswith("`") or plain.endswith("`") else ""
    return f"{fence}{pad}{plain}{pad}{fence}"


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; a bar inside a cell is broken: what a backslash before one means depends on those before it."""
    lines = [[text(str(cell).replace("|", "\u00a6")) for cell in line] for line in (head, *rows)]
    lines.insert(1, ["---"] * len(head))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
