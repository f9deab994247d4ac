"""What lies in quarantine: by reason for the UI, and row by row with what became of it, for the person who corrects it."""

import csv
import datetime as dt
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.compute as pc

from pdm_assets.resources.lake import Lake
from pdm_assets.resources.landed_columns import LandingError, columns_of
from pdm_assets.resources.landed_values import RowReader, split
from pdm_assets.resources.landing import folder_of
from pdm_assets.schemas.raw import FILE_COLUMNS, MACHINES, quarantine_of
from pdm_assets.schemas.table import DATE, Table

ANY = "…"
# What differs from row to row of a reason, and what its rule says there. A bad value may hold any text, so the first two
# are bound to the beginning, and quoted values end where Python's quotes do.
VALUES_IN_REASONS = (
    (r"(?s)^(\w+) is .*, valid: ", rf"\1 is {ANY}, valid: "),
    (r"^machine \S+ is not in ", f"machine {ANY} is not in "),
    (r"^\d+ fields ", f"{ANY} fields "),
    (r"""(?s)(\w+) (?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*") is (not|before) """, rf"\1 {ANY} is \2 "),
)
LINK = ("file", "line", "reason")  # columns before those of the table in the file to correct: which row each line is about
FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")
RECORD = ".release.json"  # a hidden file beside the landed one, which the landing zone passes over
BATCH_ROWS = 64 << 10
LONGEST_TEXT = 200  # characters of a row in a summary


def rules_of(reasons: pa.Array) -> pa.Array:
    """The rule that each reason is a case of: the reason with an ellipsis for what the row had there."""
    for pattern, rule in VALUES_IN_REASONS:
        reasons = pc.replace_substring_regex(reasons, pattern, rule)
    return reasons


def printable(text: str) -> str:
    """Text of a file or its name for a terminal or a page: what is no visible character as its escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@dataclass
class Group:
    """The rows that one rule keeps out."""

    rule: str
    rows: int = 0
    unsettled: int = 0
    files: set[str] = field(default_factory=set)
    first: tuple[str, int, str, str] = ("", 0, "", "")  # file, line, reason, text

    def add(self, file: str, line: int, reason: str, text: str, rows: int = 1, unsettled: int = 0) -> None:
        """Count rows of a file, the first of which is at the line."""
        if not self.rows or (file, line) < self.first[:2]:
            self.first = (file, line, reason, text[:LONGEST_TEXT])
        self.rows += rows
        self.unsettled += unsettled
        self.files.add(file)


def most_first(groups: Iterable[Group]) -> list[Group]:
    """The groups, that of the most rows first."""
    return sorted(groups, key=lambda group: (-group.rows, group.rule))


def _ruled(rows: pa.Table) -> pa.Table:
    """Quarantined rows with their rule, by file and line."""
    return rows.append_column("rule", rules_of(rows["reason"])).sort_by([("file", "ascending"), ("line", "ascending")])


def reasons_by_day(lake: Lake, quarantine: Table, start: dt.date, end: dt.date) -> dict[dt.date, dict[str, Group]]:
    """Of each day of [start, end) with quarantined rows, what keeps them out, by rule. Starts no Spark and holds no rows."""
    days: dict[dt.date, dict[str, Group]] = {}
    scan = lake.arrow(quarantine, start, end).to_batches(
        columns=[DATE, *LINK, "text"], batch_size=BATCH_ROWS, batch_readahead=1, fragment_readahead=1
    )
    for batch in scan:
        rows = _ruled(pa.table(batch))
        of_files = rows.group_by([DATE, "rule", "file"], use_threads=False)
        wanted = [("line", "count"), ("line", "first"), ("reason", "first"), ("text", "first")]
        for row in of_files.aggregate(wanted).to_pylist():
            group = days.setdefault(row[DATE], {}).setdefault(row["rule"], Group(row["rule"]))
            group.add(row["file"], row["line_first"], row["reason_first"], row["text_first"], rows=row["line_count"])
    return days


def together(days: Mapping[dt.date, Mapping[str, Group]]) -> dict[str, Group]:
    """The groups of several days as one."""
    found: dict[str, Group] = {}
    for group in (group for groups in days.values() for group in groups.values()):
        whole = found.setdefault(group.rule, Group(group.rule))
        whole.add(*group.first, rows=group.rows)
        whole.files |= group.files
    return found


@dataclass(frozen=True)
class Release:
    """A landed file of corrected rows: who let them in and when, and which quarantined row each of its lines is for."""

    name: str
    at: dt.datetime
    by: str
    rows: Mapping[tuple[str, int], str]  # (file, line) in quarantine -> the line that landed
    texts: Mapping[tuple[str, int], str]  # and what the row was in quarantine, which records of earlier releases do not tell

    def write(self, landed: Path) -> None:
        """Keep it beside the file that is about to land."""
        record = {
            "released_at": self.at.isoformat(timespec="seconds"),
            "released_by": self.by,
            "rows": [[file, line, text] for (file, line), text in self.rows.items()],
            "texts": [self.texts[row] for row in self.rows],
        }
        landed.with_name(f".{landed.name}{RECORD}").write_text(json.dumps(record, indent=1))

    @classmethod
    def read(cls, path: Path) -> "Release":
        """The release of a record."""
        record = json.loads(path.read_bytes())
        rows = {(file, line): text for file, line, text in record["rows"]}
        texts = dict(zip(rows, record["texts"], strict=True)) if "texts" in record else {}
        name = path.name.removeprefix(".").removesuffix(RECORD)
        return cls(name, dt.datetime.fromisoformat(record["released_at"]), record["released_by"], rows, texts)

    def corrects(self, row: tuple[str, int], text: str) -> bool:
        """Whether it let this row in. One of another text in its place is another row: the file was replaced since."""
        return row in self.rows and self.texts.get(row, text) == text

    @property
    def words(self) -> str:
        """For people."""
        return f"released as {self.name} by {self.by}, {self.at:%Y-%m-%d %H:%M} UTC"


def releases(folder: Path) -> dict[tuple[str, int], list[Release]]:
    """By file and line, the releases of rows there; one whose file was taken out of the landing folder never was."""
    known: dict[tuple[str, int], list[Release]] = {}
    for path in sorted(folder.glob(f".*{RECORD}")):
        if (folder / path.name[1 : -len(RECORD)]).exists():
            release = Release.read(path)
            for row in release.rows:
                known.setdefault(row, []).append(release)
    return known


def release_of(known: Mapping[tuple[str, int], Iterable[Release]], row: tuple[str, int], text: str) -> Release | None:
    """Of what `releases` knows, the one that corrected a quarantined row."""
    return next((release for release in known.get(row, ()) if release.corrects(row, text)), None)


@dataclass(frozen=True)
class Quarantined:
    """A quarantined row. `settled` says what became of it, or is None while nobody saw to it."""

    day: dt.date
    file: str
    line: int
    reason: str
    rule: str
    text: str
    fields: tuple[str, ...]  # its text cut up, in the reference's order of columns where there are as many as these
    key: tuple[Any, ...] | None  # None where it can't be read
    settled: str | None = None


class Quarantine:
    """The quarantine of a raw table, with the landing folder that its rows came from."""

    def __init__(self, lake: Lake, landing_root: Path, table: Table) -> None:
        self.lake, self.table, self.rejected = lake, table, quarantine_of(table)
        self.folder = folder_of(table, landing_root)
        self._readers: dict[str, RowReader] = {}

    def rows(self, first: dt.date | None = None, last: dt.date | None = None, words: str = "") -> Iterator[Quarantined]:
        """The rows of the days first to last whose reason has the words, day by day, by file and line.

        A row of a fleet list, which stands in quarantine on each day that the list is in force, comes once. A row is settled
        if it was released, or raw has a row of its key: a file that landed otherwise said it better.
        """
        known = self.lake.first_and_last_day(self.rejected)
        if known is None:
            return
        start, end = max(first or known[0], known[0]), min(last or known[1], known[1]) + dt.timedelta(days=1)
        released = releases(self.folder)
        seen: set[tuple[str, int]] = set()
        for day, count in self.lake.rows_by_day(self.rejected, start, end).items() if start < end else ():
            if not count:
                continue
            found = self.lake.arrow(self.rejected, day, day + dt.timedelta(days=1)).to_table(columns=[*LINK, "text"])
            its = [row for row in _ruled(found).to_pylist() if words in row["reason"] or words in row["rule"]]
            if self.table == MACHINES:
                its = [row for row in its if (row["file"], row["line"]) not in seen]
                seen |= {(row["file"], row["line"]) for row in its}
            parsed = [(row, *self._parse(row)) for row in its]
            in_raw = self._in_raw(day, {key for _, _, key in parsed if key})
            for row, fields, key in parsed:
                release = release_of(released, (row["file"], row["line"]), row["text"])
                better = f"{self.table.key} has a row of its key" if key in in_raw else None
                yield Quarantined(day, **row, fields=fields, key=key, settled=release.words if release else better)

    def _parse(self, row: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[Any, ...] | None]:
        """The fields of a row in the reference's order, and its key."""
        reference = list(FILE_COLUMNS[self.table.key].values())
        reader, fields = self._reader(row["file"]), split(row["text"])
        values, problem = reader.read_fields(fields)
        if problem == row["reason"] and len(fields) == len(reference):  # its text is as it landed, in the file's order
            fields = [fields[reader.columns.index(name)] for name in reference]
        elif problem != row["reason"]:  # it was written anew, from its values (transforms/ingest.py)
            values, _ = RowReader(self.table, reference).read_fields(fields)
        key = tuple(values.get(name) for name in self.table.unique)
        return tuple(fields), None if None in key else key

    def _reader(self, file: str) -> RowReader:
        if file not in self._readers:
            try:
                columns = columns_of(self.folder / file, self.table)
            except (LandingError, OSError):  # gone, or of a name that is no UTF-8
                columns = tuple(FILE_COLUMNS[self.table.key].values())
            self._readers[file] = RowReader(self.table, columns)
        return self._readers[file]

    def _in_raw(self, day: dt.date, keys: set[tuple[Any, ...]]) -> set[tuple[Any, ...]]:
        if not keys or not self.lake.exists(self.table):
            return set()
        machines = pc.field("machine_id").isin([key[0] for key in keys])
        rows = self.lake.arrow(self.table, day, day + dt.timedelta(days=1)).to_table([*self.table.unique], filter=machines)
        return keys & set(zip(*(rows[name].to_pylist() for name in self.table.unique), strict=True))

    def texts(self, wanted: Iterable[tuple[str, int]]) -> dict[tuple[str, int], set[str]]:
        """The texts that are in quarantine for these (file, line): several while days are still of a file that was replaced."""
        wanted, found = set(wanted), dict[tuple[str, int], set[str]]()
        if not wanted or not self.lake.exists(self.rejected):
            return found
        files = pc.field("file").isin(list({file for file, _ in wanted}))
        rows = self.lake.arrow(self.rejected, None, None).to_table(["file", "line", "text"], filter=files)
        for place, row in enumerate(zip(rows["file"].to_pylist(), rows["line"].to_pylist(), strict=True)):
            if row in wanted:
                found.setdefault(row, set()).add(rows["text"][place].as_py())
        return found


def write_csv(rows: Iterable[Quarantined], table: Table, out: TextIO) -> int:
    """The rows as a file to correct by hand and release: LINK, then the table's columns. How many.

    A field that a spreadsheet would take for a formula has an apostrophe before it, unless it is a number.
    """
    writer, count = csv.writer(out), 0
    writer.writerow([*LINK, *FILE_COLUMNS[table.key]])
    for row in rows:
        # A line end in a field can't be landed, so it is not handed out.
        fields = (row.file, str(row.line), row.reason, *row.fields)
        writer.writerow([guarded(text.replace("\r", " ").replace("\n", " ")) for text in fields])
        count += 1
    return count


def guarded(text: str) -> str:
    """What a spreadsheet shows as it is; `unguarded` gives the text back."""
    if not text.startswith(FORMULA):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def unguarded(text: str) -> str:
    """The text before `guarded`."""
    return text.removeprefix("'") if text[1:].startswith(FORMULA) else text
