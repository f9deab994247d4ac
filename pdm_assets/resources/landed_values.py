"""Values of a landed row, from their text: read, or the reason why they can't be."""

import csv
import datetime as dt
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import types as T

from pdm_assets.schemas.table import Table

LONGEST_VALUE = 80  # characters of a bad value that a reason quotes
FIRST_REAL_TIME = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)  # what is before is a clock that was never set

FARTHEST_ZONE = dt.timedelta(hours=14)  # of all that ever were (IANA time zone database)

NAIVE = pa.timestamp("us")
UTC = pa.timestamp("us", "UTC")
ARROW_TYPES: dict[type[T.DataType], pa.DataType] = {
    T.LongType: pa.int64(),
    T.IntegerType: pa.int32(),
    T.DoubleType: pa.float64(),
    T.StringType: pa.string(),
    T.TimestampType: UTC,
}
MISSING = ("", "NA", "N/A", "NaN", "nan", "NULL", "null")
KIND_NAMES = {
    "timestamp": "a time",
    "double": "a number",
    "int64": "a whole number",
    "int32": "a whole number",
}

ISO_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[ T](\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)?)?"
    r"(?: ?(?:(Z)|([+-])(\d\d):?(\d\d)))?",
    re.ASCII,
)
US_TIME = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4}) (\d{1,2}):(\d\d):(\d\d) ([AP])M", re.ASCII | re.IGNORECASE)
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(inf|infinity|nan)", re.ASCII | re.IGNORECASE)
WHOLE_NUMBER = re.compile(r"[+-]?\d{1,19}", re.ASCII)


def parse_time(text: str) -> dt.datetime | None:
    """A UTC time from ISO form or '1/31/2015 6:00:00 AM'; None if it is none.

    A time without a zone is UTC, and digits below the microsecond are cut off.
    """
    text = text.strip()
    try:
        if iso := ISO_TIME.fullmatch(text):
            year, month, day, hour, minute, second, fraction, _, sign, offset_hours, offset_minutes = iso.groups()
            micros = int((fraction or "")[:6].ljust(6, "0"))
            parts = (int(part or 0) for part in (year, month, day, hour, minute, second))
            offset = dt.timedelta(hours=int(offset_hours or 0), minutes=int(offset_minutes or 0))
            if offset > FARTHEST_ZONE:
                return None
            naive = dt.datetime(*parts, micros, tzinfo=dt.UTC)  # type: ignore[misc,arg-type]
            return naive + offset if sign == "-" else naive - offset
        if us := US_TIME.fullmatch(text):
            month, day, year, hour, minute, second = map(int, us.groups()[:6])
            if not 1 <= hour <= 12:
                return None
            hour = hour % 12 + (12 if us.group(7).upper() == "P" else 0)
            return dt.datetime(year, month, day, hour, minute, second, tzinfo=dt.UTC)
    except (ValueError, OverflowError):  # 30 February
        pass
    return None


def _parse_number(text: str) -> float | None:
    return float(text) if NUMBER.fullmatch(text.strip()) else None


def _parse_whole(bits: int) -> Callable[[str], int | None]:
    def parse(text: str) -> int | None:
        number = int(text) if WHOLE_NUMBER.fullmatch(text.strip()) else None
        return number if number is not None and -(2 ** (bits - 1)) <= number < 2 ** (bits - 1) else None

    return parse


PARSERS: dict[str, Callable[[str], Any]] = {
    str(UTC): parse_time,
    "double": _parse_number,
    "int64": _parse_whole(64),
    "int32": _parse_whole(32),
    "string": lambda text: text if text.strip() and "\ufffd" not in text else None,
}


class RowReader:
    """Turns rows, in the file's column order, into typed Arrow tables: line, columns, problem, text."""

    def __init__(self, table: Table, columns: Sequence[str]) -> None:
        self.columns = columns
        types = {field.name: ARROW_TYPES[type(field.dataType)] for field in table.columns}
        self.types = {name: types[name] for name in columns}
        self.schema = pa.schema([("line", pa.int64()), *types.items(), ("problem", pa.string()), ("text", pa.string())])
        self.time = next((name for name, kind in types.items() if kind == UTC), None)

    def read_fields(self, fields: Sequence[str]) -> tuple[dict[str, Any], str | None]:
        """The values that could be read, and what is wrong with the row, if anything."""
        if len(fields) != len(self.columns):
            return {}, f"{len(fields)} fields where {len(self.columns)} are expected"
        values, problems = {}, []
        for name, text in zip(self.columns, fields, strict=True):
            values[name], problem = self._read_value(name, text)
            problems += [problem] if problem else []
        return values, "; ".join(problems) or None

    def _read_value(self, name: str, text: str) -> tuple[Any, str | None]:
        kind, quoted = self.types[name], repr(text[:LONGEST_VALUE])
        if text.strip() == "" or (kind != pa.string() and text.strip() in MISSING):
            return None, f"{name} is missing"
        value = PARSERS[str(kind)](text)
        if value is None:
            wanted = KIND_NAMES.get(str(kind).split("[")[0], "UTF-8 text")
            return None, f"{name} {quoted} is not {wanted}"
        if kind == pa.float64() and not math.isfinite(value):
            return None, f"{name} {quoted} is not finite"
        if kind == UTC and value < FIRST_REAL_TIME:
            return None, f"{name} {quoted} is before 1970"
        return value, None

    def read_rows(self, rows: Iterable[tuple[int, str, Sequence[str]]]) -> pa.Table:
        """A table from (line, text, fields), value by value."""
        records = []
        for line, text, fields in rows:
            values, problem = self.read_fields(fields)
            records.append({"line": line, **values, "problem": problem, "text": text if problem else None})
        return pa.Table.from_pylist(records, schema=self.schema)

    def read_lines(self, block: bytes, first_line: int) -> pa.Table:
        """A table from CSV text, line by line. Blank lines are no rows."""
        lines = block.decode("utf-8", errors="replace").removesuffix("\n").split("\n")
        texts = ((first_line + n, line.removesuffix("\r")) for n, line in enumerate(lines))
        return self.read_rows((line, text, split(text)) for line, text in texts if text.strip())

    def complete(self, values: dict[str, pa.Array], lines: np.ndarray) -> pa.Table:
        """A table of typed values with no problem and no text."""
        none = pa.nulls(len(lines), pa.string())
        columns = {"line": pa.array(lines), **values, "problem": none, "text": none}
        return pa.Table.from_arrays([columns[name] for name in self.schema.names], schema=self.schema)

    def acceptable(self, values: dict[str, pa.Array]) -> np.ndarray | None:
        """Which rows have all their values, readings finite and time not before 1970; None if all."""
        masks = [column.is_valid() for column in values.values() if column.null_count]
        for name, kind in self.types.items():
            if kind == pa.float64():
                masks.append(pc.fill_null(pc.is_finite(values[name]), False))
            elif kind == UTC:
                masks.append(pc.fill_null(pc.greater_equal(values[name], pa.scalar(FIRST_REAL_TIME, UTC)), False))
            elif kind == pa.string():
                masks.append(
                    pc.fill_null(
                        pc.match_substring_regex(values[name], r"^[^\x{FFFD}]*[^\s\x{FFFD}][^\x{FFFD}]*$"),
                        False,
                    )
                )
        masks = [mask for mask in masks if not pc.all(mask).as_py()]
        if not masks:
            return None
        return np.logical_and.reduce([mask.to_numpy(zero_copy_only=False) for mask in masks])


def split(text: str) -> list[str]:
    """The fields of one CSV line; a line with a quote left open is one field."""
    if '"' not in text:
        return text.split(",")
    if text.count('"') % 2:
        return [text]
    try:
        return next(csv.reader([text]), [])
    except csv.Error:  # a field longer than the reader's limit
        return [text]


def csv_line(fields: Sequence[str]) -> str:
    """One CSV line of the fields."""
    return ",".join(f'"{f.replace(chr(34), chr(34) * 2)}"' if re.search('[,"\r\n]', f) else f for f in fields)
