"""Which table a landed file belongs to, and whether its columns are that table's."""

import csv
import datetime as dt
import gzip
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from pdm_assets.schemas.raw import FILE_COLUMNS, FILE_STEMS, RAW_TABLES
from pdm_assets.schemas.table import Table

FORMATS = (".csv", ".csv.gz", ".parquet")
UNFINISHED = (".tmp", ".part", ".crdownload", ".filepart")
HEADER_BYTES = 64 * 1024
LONGEST_HEADER = 500  # characters of wrong column names that an error quotes
BOMB_RATIO, BOMB_FROM_BYTES = 200, 64 << 20  # telemetry that never changes unpacks to some 30 times its size
BOMB_ROWS_A_BYTE = 1_000  # of Parquet: times and machines differ from row to row, and no encoding hides that
DATE_IN_NAME = re.compile(r"(?<!\d)(\d{4}-\d{2}-\d{2})(?!\d)")


class LandingError(ValueError):
    """A file or folder that can't be taken; the text names it, says why and what to do."""


class LandingGone(LandingError):
    """The folder that files of a table were taken from holds none any more: not mounted, moved or deleted."""


def format_of(name: str) -> str | None:
    """The format that a file name ends in, or None."""
    return next((suffix for suffix in FORMATS if name.lower().endswith(suffix)), None)


def table_of(name: str) -> Table | None:
    """The table of a file with a usual name (`telemetry.csv`, `PdM_maint.csv.gz`, ...), or None."""
    suffix = format_of(name)
    if suffix is None:
        return None
    stem = re.sub(r"^pdm[_-]", "", name.lower()[: -len(suffix)])
    stem = re.sub(r"[._-]?\d{4}-\d{2}-\d{2}.*$", "", stem)
    return next((table for table in RAW_TABLES if stem in FILE_STEMS[table.key]), None)


def date_in_name(name: str) -> dt.date | None:
    """The date YYYY-MM-DD in a file name, or None."""
    for text in DATE_IN_NAME.findall(name):
        try:
            return dt.date.fromisoformat(text)
        except ValueError:
            continue
    return None


def shown(path: Path) -> str:
    """A file's name as text that can be kept and printed: bytes that are no UTF-8 in hexadecimal, after a backslash.

    A backslash of the name is doubled, so that no two names are shown alike: rows find their file by it.
    """
    return os.fsencode(path.name).replace(b"\\", b"\\\\").decode("utf-8", errors="backslashreplace")


def open_file(path: Path) -> BinaryIO:
    """A file that was put there by others, for reading: no link is followed, no pipe waited for.

    Whoever may land files may also swap one for a link between a look at it and its opening.
    """
    return open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK))


class _Unpacked(gzip.GzipFile):
    """A gzip file that stops where its content is out of all proportion to its size."""

    def __init__(self, path: Path) -> None:
        self.packed = open_file(path)
        super().__init__(fileobj=self.packed, mode="rb")
        self.packed_bytes, self.shown_name = os.fstat(self.packed.fileno()).st_size, shown(path)

    def close(self) -> None:
        super().close()
        self.packed.close()

    def read(self, size: int | None = -1) -> bytes:
        content = super().read(size)
        if self.tell() > max(BOMB_FROM_BYTES, BOMB_RATIO * self.packed_bytes):
            raise LandingError(
                f"{self.shown_name}: unpacks to more than {BOMB_RATIO} times its size, which no readings do. "
                "Nothing was taken; land it unpacked if it is meant"
            )
        return content


def open_csv(path: Path) -> BinaryIO:
    """A CSV or CSV.gz file as plain bytes.

    Reading raises LandingError where a file unpacks to more than BOMB_RATIO times its size.
    """
    return _Unpacked(path) if path.name.lower().endswith(".gz") else open_file(path)  # type: ignore[return-value]


def read_header(stream: BinaryIO) -> list[str]:
    """The names in the first line of a CSV stream, which is left at the second line."""
    line = stream.readline(HEADER_BYTES).decode("utf-8-sig", errors="replace").rstrip("\r\n")
    if "\r" in line:
        raise csv.Error("its lines end in carriage returns alone, and must in line feeds")
    return next(csv.reader([line]), [])


def match_columns(path: Path, found: Sequence[str], table: Table) -> tuple[str, ...]:
    """The table's columns in the order of the file.

    A name may be the reference's or ours, in any case, with blanks around.

    Raises:
        LandingError: if a column is missing, unknown or there twice.
    """
    expected = FILE_COLUMNS[table.key]
    known = {name.lower(): ours for landed, ours in expected.items() for name in (landed, ours)}
    ours = [known.get(name.strip().lower()) for name in found]
    if sorted(ours, key=str) != sorted(expected.values()):
        names = ", ".join(found)
        names = f"{names[:LONGEST_HEADER]} ..." if len(names) > LONGEST_HEADER else names or "none"
        raise LandingError(
            f"{shown(path)}: its columns are not those of {table.key}. Found: {names}. "
            f"Expected, in any order: {', '.join(expected)}. Nothing was taken; correct it and land it again"
        )
    return tuple(name for name in ours if name is not None)


def columns_of(path: Path, table: Table) -> tuple[str, ...]:
    """The table's columns in the order of the file, for a file of any of the formats.

    Raises:
        LandingError: if its columns are not the table's, or its beginning can't be read.
        OSError: if the disk, not the file, is in trouble.
    """
    try:
        if format_of(path.name) == ".parquet":
            import pyarrow.parquet as pq

            with open_file(path) as stream:
                return match_columns(path, pq.read_schema(stream).names, table)
        with open_csv(path) as stream:
            return match_columns(path, read_header(stream), table)
    except LandingError:
        raise
    except (OSError, EOFError, ValueError, csv.Error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise LandingError(f"{shown(path)}: can't be read: {error}. Land a whole file in its place") from error
