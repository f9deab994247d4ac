"""The rows of a landed file, typed; a row that can't be read keeps its text and says why.

CSV is cut into blocks at line ends, and PyArrow parses blocks on all cores. Where a block does not parse as a
whole, smaller pieces of it are tried, and in the end single lines are read by Python: only these know the
reason. Both ways take the same rows (a test holds them together). A line break inside quotes is not
supported: either physical line is a row with a problem.
"""

import datetime as dt
import os
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from pdm_assets.resources.landed_columns import (
    BOMB_ROWS_A_BYTE,
    LandingError,
    format_of,
    match_columns,
    open_csv,
    open_file,
    read_header,
    shown,
)
from pdm_assets.resources.landed_values import MISSING, NAIVE, PARSERS, UTC, RowReader, csv_line, parse_time
from pdm_assets.schemas.table import Table

WORKERS = min(4, os.cpu_count() or 1)
BLOCK_BYTES = 8 << 20
PIECES = 16  # parts that a block is cut into where it does not parse as a whole
SINGLE_LINES_BYTES = 32 << 10  # a piece this small is read line by line
PARQUET_ROWS = 128 << 10


class CsvReader(RowReader):
    """Reads CSV blocks; safe to use from several threads."""

    def read_block(self, block: bytes, first_line: int) -> list[pa.Table]:
        """The rows of a block of whole lines, the first of them being line `first_line`."""
        rows = self._read_typed(block, first_line)
        if rows is not None:
            return rows
        if len(block) <= SINGLE_LINES_BYTES or block.find(b"\n") == len(block) - 1:
            return [self.read_lines(block, first_line)]
        tables = []
        for piece in _pieces(block):
            tables += self.read_block(piece, first_line)
            first_line += piece.count(b"\n")
        return tables

    def _read_typed(self, block: bytes, first_line: int) -> list[pa.Table] | None:
        """The rows by PyArrow, if each line is one row and every value is of its type or missing."""
        # PyArrow takes hexadecimal whole numbers, and lets an open quote swallow the line end.
        if _has_hexadecimal(block) or _has_open_quote(block):
            return None
        # It ends rows at a lone carriage return too, and skips blank lines: one of each, and the count is right again.
        if b"\r" in block and block.count(b"\r") != block.count(b"\r\n"):
            return None
        lines = _lines(block)
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


def _lines(block: bytes) -> int:
    """Line ends; many times faster than bytes.count, which lets no other thread work meanwhile."""
    return int(np.count_nonzero(np.frombuffer(block, np.uint8) == ord("\n")))


def _has_hexadecimal(block: bytes) -> bool:
    return (b"x" in block or b"X" in block) and (b"0x" in block or b"0X" in block)  # one byte is found much faster than two


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
    """About PIECES parts of whole lines, at least two where there are two lines."""
    start, most = 0, len(block) // PIECES
    while start < len(block):
        end = block.rfind(b"\n", start, start + most) + 1 or block.find(b"\n", start + most) + 1 or len(block)
        yield block[start:end]
        start = end


def _blocks(stream: BinaryIO, name: str) -> Iterator[bytes]:
    """The stream in blocks of whole lines."""
    rest = b""
    while chunk := stream.read(BLOCK_BYTES):
        chunk = rest + chunk
        cut = chunk.rfind(b"\n") + 1
        rest = chunk[cut:]
        if len(rest) > BLOCK_BYTES:
            raise LandingError(f"{name}: no line ends within {BLOCK_BYTES >> 20} MiB: no CSV file. Land one in its place")
        if cut:
            yield chunk[:cut]
    if rest:
        yield rest + b"\n"


def _csv_rows(path: Path, table: Table) -> Iterator[pa.Table]:
    with open_csv(path) as stream, ThreadPoolExecutor(WORKERS) as pool:
        reader = CsvReader(table, match_columns(path, read_header(stream), table))
        line = 2
        parsing: deque[Future[list[pa.Table]]] = deque()
        for block in _blocks(stream, shown(path)):
            parsing.append(pool.submit(reader.read_block, block, line))
            line += _lines(block)
            if len(parsing) > WORKERS:
                yield from parsing.popleft().result()
        for block_rows in parsing:
            yield from block_rows.result()


def _parquet_rows(path: Path, table: Table) -> Iterator[pa.Table]:
    with open_file(path) as stream, pq.ParquetFile(stream) as file:
        columns = match_columns(path, file.schema_arrow.names, table)
        rows, size = file.metadata.num_rows, os.fstat(stream.fileno()).st_size
        if rows > BOMB_ROWS_A_BYTE * size:
            raise LandingError(
                f"{shown(path)}: claims {rows:,} rows in {size:,} bytes, which no readings fit in. Nothing was "
                "taken; land it as CSV if it is meant"
            )
        reader = RowReader(table, columns)
        number = 1
        for batch in file.iter_batches(batch_size=PARQUET_ROWS):
            values = {
                name: _typed(column, reader.types[name], f"{shown(path)}: column {name}")
                for name, column in zip(columns, batch.columns, strict=True)
            }
            good = reader.acceptable(values)
            rows = reader.complete(values, np.arange(number, number + batch.num_rows))
            if good is None:
                yield rows
            else:
                yield rows.filter(pa.array(good))
                yield reader.read_rows(
                    (number + int(n), csv_line(fields), fields)
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


def read_landed(path: Path, table: Table) -> Iterator[pa.Table]:
    """The rows of a landed file, in batches: line, the table's columns, problem, text.

    `line` is the line in a CSV file, the header being line 1, and the row number from 1 in a Parquet file. A
    row with a `problem` has a null for each value that could not be read, and its `text` (of a Parquet row:
    its values as CSV).

    Raises:
        LandingError: if the file is refused whole: its columns are not the table's, or it can't be read to
        its end.
    """
    try:
        yield from (_parquet_rows if format_of(path.name) == ".parquet" else _csv_rows)(path, table)
    except (EOFError, zlib.error, pa.ArrowException) as error:
        raise LandingError(f"{shown(path)}: can't be read to its end: {error}. Land a whole file in its place") from error
    except OSError as error:
        if error.errno is not None:  # the disk's trouble, not the file's
            raise
        raise LandingError(f"{shown(path)}: can't be read to its end: {error}. Land a whole file in its place") from error
