"""Messages of a Kafka topic as lines of a CSV file, and the file into the landing zone. Nothing here asks a broker.

A value is written as it came and judged by the platform, like that of any landed file. A message that is no row becomes a
line of two fields, which no table has: the platform quarantines it, and its text there says what is wrong with which message.
"""

import functools
import json
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pdm_assets.resources.landed_values import csv_line
from pdm_assets.resources.landing import appear, folder_of, place_of
from pdm_assets.resources.staging import locked
from pdm_assets.schemas.raw import FILE_COLUMNS
from pdm_assets.schemas.table import Table

MOST_LEFT_OUT = 20  # names of fields that a file's line in the log tells, and those of one message more
PREFIX = "kafka+"  # no topic has a plus sign, and a topic's name may begin with what the landing zone passes over
ROW_BYTES = 300  # of memory that a waiting row takes beside its text
LONGEST_LINE = 1 << 20  # bytes; the landing zone refuses a file in which no line ends within 8 MiB
SHOWN_OF_LONG = 1_000  # characters
LINE_BREAK = re.compile(r"[\r\n]")


class _Object(list[tuple[str, Any]]):
    """A JSON object as its pairs: a name that is there twice is seen."""


@dataclass(frozen=True)
class Row:
    """What a message became: one line of the file, without its end.

    `key` are the texts of the key's columns, None if the message is no row. `left_out` are the names of a row's fields that are
    no columns.
    """

    line: str
    key: tuple[str, ...] | None = None
    left_out: frozenset[str] = frozenset()


class _NoRow(ValueError):
    """Why a message can't be a row."""


def row_of(table: Table, offset: int, key: bytes | None, value: bytes | None) -> Row:
    """The line for a message of the table's topic.

    A row is a JSON object with the table's columns, by the reference's names or ours, in any case. Numbers keep their digits,
    null and a column that is not there are missing values.
    """
    if value is None:
        return Row(csv_line([f"offset {offset}: has no value (a tombstone) and this key", _as_text(key or b"")]))
    try:
        return _row(table, value)
    except _NoRow as error:
        return Row(csv_line([f"offset {offset}: {error}", _as_text(value)]))


def _row(table: Table, value: bytes) -> Row:
    columns, known = FILE_COLUMNS[table.key], _known_names(table.key)
    try:
        parsed = json.loads(
            value.decode("utf-8-sig"), object_pairs_hook=_Object, parse_int=str, parse_float=str, parse_constant=str
        )
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, _Object):
        raise _NoRow("is not a JSON object")
    values: dict[str, str] = {}
    others = set()
    for name, content in parsed:
        landed = known.get(name.strip().lower())
        if landed is None:
            others.add(name)
        elif landed in values:
            raise _NoRow(f"{landed} is there twice")
        else:
            values[landed] = _text_of(landed, content)
    if others and (missing := [name for name in columns if name not in values]):
        raise _NoRow(f"has no {', '.join(missing)}, but fields that are no columns")
    fields = [values.get(name, "") for name in columns]
    of_key = tuple(values.get(name, "").strip() for name, ours in columns.items() if ours in table.unique)
    return Row(csv_line(fields), of_key, frozenset(others))


@functools.cache
def _known_names(table_key: str) -> dict[str, str]:
    """The landed column by each of its names, in lower case."""
    return {name.lower(): landed for landed, ours in FILE_COLUMNS[table_key].items() for name in (landed, ours)}


def _text_of(name: str, content: Any) -> str:
    if content is None:
        return ""
    if isinstance(content, bool):
        return str(content).lower()
    if not isinstance(content, str):
        raise _NoRow(f"{name} holds an object or a list")
    if LINE_BREAK.search(content):
        raise _NoRow(f"{name} has a line break")
    if any("\ud800" <= c <= "\udfff" for c in content):
        raise _NoRow(f"{name} has half of a character")
    return content


def _as_text(value: bytes) -> str:
    """Bytes as one line of text; what is no UTF-8 and what would break the line is escaped."""
    text = value.decode("utf-8", errors="backslashreplace")
    return text.replace("\r", "\\r").replace("\n", "\\n")


@dataclass
class Waiting:
    """The rows of one partition that wait to be landed as one file."""

    table: Table
    topic: str
    partition: int
    first: int  # offset of the first message
    last: int = -1
    lines: list[bytes] = field(default_factory=list)
    size: int = 0  # bytes of memory, about
    no_rows: int = 0
    left_out: set[str] = field(default_factory=set)
    since: float = field(default_factory=time.monotonic)
    _place_of: dict[tuple[str, ...], int] = field(default_factory=dict)  # of the line with a key

    @property
    def name(self) -> str:
        """Name of the file; of two files of one partition that with the later offsets comes later in the alphabet."""
        return f"{PREFIX}{self.topic}+{self.partition}+{self.first:010d}-{self.last:010d}.csv"

    def corrects(self, row: Row) -> bool:
        """Whether a row has a key that waits with other values.

        It needs a file of its own: of two files that disagree the one landed last wins, in one file neither is taken.
        """
        # A key with a part missing is none: the platform refuses such rows one by one.
        place = self._place_of.get(row.key) if row.key and all(row.key) else None
        return place is not None and self.lines[place] != row.line.encode()

    def add(self, offset: int, row: Row, whole: bytes, landing_root: Path) -> None:
        """Let a row wait. A message too long for a line is kept whole at once, as a file that the landing zone passes over."""
        line = row.line.encode()
        if len(line) > LONGEST_LINE:
            name = f"{PREFIX}{self.topic}+{self.partition}+{offset:010d}.message"
            name = _keep(folder_of(self.table, landing_root), name, whole, landing_root).name
            why = f"offset {offset}: is of {len(whole)} bytes, which {name} has; it begins so"
            row = Row(csv_line([why, row.line[:SHOWN_OF_LONG]]))
            line = row.line.encode()
        if row.key is not None:
            self._place_of[row.key] = len(self.lines)
        self.lines.append(line)
        self.size += len(line) + ROW_BYTES
        self.last = offset
        self.no_rows += row.key is None
        if len(self.left_out) < MOST_LEFT_OUT:
            self.left_out |= row.left_out

    def land(self, landing_root: Path) -> Path:
        """Write the file, whole and on the disk before it is seen; one with the same bytes that lies there is landed anew.

        Raises:
            OSError: if it can't be written; nothing has landed then.
            LandingError: if the table's folder is a link.
        """
        header = ",".join(FILE_COLUMNS[self.table.key]).encode()
        content = b"\n".join([header, *self.lines, b""])
        return _keep(folder_of(self.table, landing_root), self.name, content, landing_root)


def _keep(folder: Path, name: str, content: bytes, landing_root: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with locked(landing_root):
        for left in folder.glob(f".{PREFIX}*.landing"):  # by a bridge that died: who lives holds the lock
            left.unlink()
        copy = folder / f".{name}.landing"
        try:
            with copy.open("xb") as target:
                target.write(content)
            # A file that is there already lands anew: what was read after it must not count as landed before.
            final, _ = place_of(copy, name)
            appear(copy, final)
        finally:
            copy.unlink(missing_ok=True)
    return final
