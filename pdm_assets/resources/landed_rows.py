"""The rows of a landed file, typed; a row that can't be read keeps its text and says why.

CSV is cut into blocks at line ends, and PyArrow parses blocks on all cores. Where a block does not parse as a whole, smaller
pieces of it are tried, and in the end single lines are read by Python: only these know the reason. Both ways take the same
rows (a test holds them together). A line break inside quotes is not supported: either physical line is a row with a problem.
"""

import csv
import datetime as dt
import math
import os
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from pyspark.sql import types as T

from pdm_assets.resources.landed_columns import LandingError, format_of, match_columns, open_csv, read_header
from pdm_assets.schemas.table import Table

WORKERS = min(4, os.cpu_count() or 1)
BLOCK_BYTES = 8 << 20
PIECES = 16  # parts that a block is cut into where it does not parse as a whole
SINGLE_LINES_BYTES = 32 << 10  # a piece this small is read line by line
PARQUET_ROWS = 128 << 10
LONGEST_VALUE = 80  # characters of a bad value that a reason quotes
FIRST_REAL_TIME = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)  # what is before is a clock that was never set

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
KIND_NAMES = {"timestamp": "a time", "double": "a number", "int64": "a whole number", "int32": "a whole number"}

ISO_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[ T](\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)?)?(?: ?(?:(Z)|([+-])(\d\d):?(\d\d)))?", re.ASCII
)
US_TIME = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4}) (\d{1,2}):(\d\d):(\d\d) ([AP])M", re.ASCII | re.IGNORECASE)
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(inf|infinity|nan)", re.ASCII | re.IGNORECASE)
WHOLE_NUMBER = re.compile(r"[+-]?\d{1,19}", re.ASCII)


def parse_time(text: str) -> dt.datetime | None:
    """A UTC time from ISO form (naive means UTC; digits below the microsecond are cut off) or '1/31/2015 6:00:00 AM'."""
    text = text.strip()
    try:
        if iso := ISO_TIME.fullmatch(text):
            year, month, day, hour, minute, second, fraction, _, sign, offset_hours, offset_minutes = iso.groups()
            micros = int((fraction or "")[:6].ljust(6, "0"))
            parts = (int(part or 0) for part in (year, month, day, hour, minute, second))
            offset = dt.timedelta(hours=int(offset_hours or 0), minutes=int(offset_minutes or 0))
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
    """Turns the values of rows, in the file's column order, into typed Arrow tables: line, columns, problem, text."""

    def __init__(self, table: Table, columns: Sequence[str]) -> None:
        self.columns = columns
        types = {field.name: ARROW_TYPES[type(field.dataType)] for field in table.columns}
        self.types = {name: types[name] for name in columns}
        self.schema = pa.schema(
            [("line", pa.int64()), *types.items(), ("problem", pa.string()), ("text", pa.string())]
        )
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
                masks.append(pc.fill_null(pc.match_substring_regex(values[name], r"^[^\x{FFFD}]*[^\s\x{FFFD}][^\x{FFFD}]*$"), False))
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


class CsvReader(RowReader):
    """Reads CSV blocks; safe to use from several threads."""

    def read_block(self, block: bytes, first_line: int) -> list[pa.Table]:
        """The rows of a block of whole lines, the first of them being line `first_line`."""
        rows = self._read_typed(block, first_line)
        if rows is not None:
            return rows
        if len(block) <= SINGLE_LINES_BYTES:
            return [self.read_lines(block, first_line)]
        tables = []
        for piece in _pieces(block):
            tables += self.read_block(piece, first_line)
            first_line += piece.count(b"\n")
        return tables

    def _read_typed(self, block: bytes, first_line: int) -> list[pa.Table] | None:
        """The rows by PyArrow, if each line is one row and every value is of its type or missing."""
        # PyArrow takes hexadecimal whole numbers, and lets an open quote swallow the line end.
        if b"0x" in block or b"0X" in block or _has_open_quote(block):
            return None
        lines = block.count(b"\n")
        types = {name: NAIVE if kind == UTC else kind for name, kind in self.types.items()}
        parsed = _parse(block, types)
        if parsed is None and self.time is not None:
            parsed = _parse(block, types | {self.time: pa.string()})  # other forms of time
        if parsed is None or parsed.num_rows != lines:
            return None
        values = {name: parsed[name].combine_chunks() for name in self.columns}
        if any(pc.any(pc.match_substring_regex(v, '["\\r\\n]')).as_py() for v in values.values() if v.type == pa.string()):
            return None
        if self.time is not None:
            values[self.time] = _times(values[self.time])
        numbers = np.arange(first_line, first_line + lines)
        good = self.acceptable(values)
        if good is None:
            return [self.complete(values, numbers)]
        ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n")) + 1
        starts = np.concatenate([[0], ends[:-1]])
        bad = [self.read_lines(block[starts[n] : ends[n]], first_line + int(n)) for n in np.flatnonzero(~good)]
        return [self.complete(values, numbers).filter(pa.array(good)), *bad]


def _has_open_quote(block: bytes) -> bool:
    if b'"' not in block:
        return False
    data = np.frombuffer(block, np.uint8)
    line_of_quote = np.searchsorted(np.flatnonzero(data == ord("\n")), np.flatnonzero(data == ord('"')))
    return bool((np.bincount(line_of_quote) % 2).any())


def _parse(block: bytes, types: dict[str, pa.DataType]) -> pa.Table | None:
    try:
        return pacsv.read_csv(
            pa.BufferReader(block),
            read_options=pacsv.ReadOptions(column_names=list(types), use_threads=False, block_size=len(block) + 1),
            convert_options=pacsv.ConvertOptions(column_types=types, null_values=list(MISSING)),
        )
    except pa.ArrowInvalid:
        return None


def _times(times: pa.Array) -> pa.Array:
    """UTC times from naive ones, or from text; null where it is no time."""
    if times.type == NAIVE:
        return times.view(UTC)
    distinct = times.dictionary_encode()
    parsed = pa.array([None if text is None else parse_time(text) for text in distinct.dictionary.to_pylist()], UTC)
    return parsed.take(distinct.indices)


def _pieces(block: bytes) -> Iterator[bytes]:
    """About PIECES parts of whole lines."""
    start = 0
    while start < len(block):
        end = block.find(b"\n", start + len(block) // PIECES) + 1 or len(block)
        yield block[start:end]
        start = end


def _blocks(stream: BinaryIO) -> Iterator[bytes]:
    """The stream in blocks of whole lines."""
    rest = b""
    while chunk := stream.read(BLOCK_BYTES):
        chunk = rest + chunk
        cut = chunk.rfind(b"\n") + 1
        rest = chunk[cut:]
        if len(rest) > BLOCK_BYTES:
            raise LandingError(f"no line ends within {BLOCK_BYTES >> 20} MiB: this is no CSV file")
        if cut:
            yield chunk[:cut]
    if rest:
        yield rest + b"\n"


def _csv_rows(path: Path, table: Table) -> Iterator[pa.Table]:
    with open_csv(path) as stream, ThreadPoolExecutor(WORKERS) as pool:
        reader = CsvReader(table, match_columns(path, read_header(stream), table))
        line = 2
        parsing: deque[Future[list[pa.Table]]] = deque()
        for block in _blocks(stream):
            parsing.append(pool.submit(reader.read_block, block, line))
            line += block.count(b"\n")
            if len(parsing) > WORKERS:
                yield from parsing.popleft().result()
        for block_rows in parsing:
            yield from block_rows.result()


def _parquet_rows(path: Path, table: Table) -> Iterator[pa.Table]:
    with pq.ParquetFile(path) as file:
        columns = match_columns(path, file.schema_arrow.names, table)
        reader = RowReader(table, columns)
        number = 1
        for batch in file.iter_batches(batch_size=PARQUET_ROWS):
            values = {
                name: _typed(column, reader.types[name], f"{path.name}: column {name}")
                for name, column in zip(columns, batch.columns, strict=True)
            }
            good = reader.acceptable(values)
            rows = reader.complete(values, np.arange(number, number + batch.num_rows))
            if good is None:
                yield rows
            else:
                yield rows.filter(pa.array(good))
                yield reader.read_rows(
                    (number + int(n), _csv_line(fields), fields)
                    for n in np.flatnonzero(~good)
                    for fields in [[_text(column[int(n)].as_py()) for column in batch.columns]]
                )
            number += batch.num_rows


def _typed(column: pa.Array, kind: pa.DataType, name: str) -> pa.Array:
    """A Parquet column in the table's type, null where a value can't be read."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    given = column.type
    textual = pa.types.is_string(given) or pa.types.is_large_string(given) or pa.types.is_string_view(given)
    numeric = pa.types.is_integer(given) or pa.types.is_floating(given) or pa.types.is_decimal(given)
    if textual and kind != pa.string():
        distinct = column.cast(pa.string()).dictionary_encode()
        parser = PARSERS[str(kind)]
        parsed = [None if text is None else parser(text) for text in distinct.dictionary.to_pylist()]
        return pa.array(parsed, kind).take(distinct.indices)
    if kind == UTC and (pa.types.is_timestamp(given) or pa.types.is_date(given)):
        return column.cast(NAIVE if getattr(given, "tz", None) is None else UTC, safe=False).view(UTC)
    if pa.types.is_integer(kind) and numeric:
        wide = column.cast(pa.float64(), safe=False)
        whole = pc.and_(pc.equal(wide, pc.floor(wide)), pc.less(pc.abs(wide), 2.0 ** (kind.bit_width - 1)))
        return pc.if_else(whole, column, pa.scalar(None, given)).cast(kind)
    if (kind == pa.float64() and numeric) or (kind == pa.string() and (textual or pa.types.is_integer(given))):
        return column.cast(kind)
    if pa.types.is_null(given):
        return pa.nulls(len(column), kind)
    raise LandingError(f"{name} is of type {given}, which can't be read as {kind}. Convert it and land the file again")


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value.isoformat(sep=" ") if isinstance(value, dt.datetime) else str(value)


def _csv_line(fields: Sequence[str]) -> str:
    return ",".join(f'"{f.replace(chr(34), chr(34) * 2)}"' if re.search('[,"\r\n]', f) else f for f in fields)


def read_landed(path: Path, table: Table) -> Iterator[pa.Table]:
    """The rows of a landed file, in batches: line, the table's columns, problem, text.

    `line` is the line in a CSV file, the header being line 1, and the row number from 1 in a Parquet file. A row with a
    `problem` has a null for each value that could not be read, and its `text` (of a Parquet row: its values as CSV).

    Raises:
        LandingError: if the file is refused whole: its columns are not the table's, or it can't be read to its end.
    """
    try:
        yield from (_parquet_rows if format_of(path.name) == ".parquet" else _csv_rows)(path, table)
    except (EOFError, zlib.error, pa.ArrowException) as error:
        raise LandingError(f"{path.name}: can't be read to its end: {error}. Land a whole file in its place") from error
    except OSError as error:
        if error.errno is not None:  # the disk's trouble, not the file's
            raise
        raise LandingError(f"{path.name}: can't be read to its end: {error}. Land a whole file in its place") from error
