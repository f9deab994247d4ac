"""Staged rows on disk: Parquet files that each hold a few days, so that one day is read without its year."""

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pandas.util import hash_pandas_object

from pdm_assets.schemas.table import DATE

BUCKET_DAYS = 8
ROWS_A_PART = 192 << 10
ROWS_HELD = 3 << 20  # about 250 MB of telemetry: what the buckets may hold together before the fullest is written
KEYS_HELD = 16 << 20  # 128 MB of their hashes; more go to files
DAY_US = 24 * 3_600 * 1_000_000
UNDATED = np.iinfo(np.int64).min
EPOCH = dt.date(1970, 1, 1)


@dataclass(frozen=True)
class StagedRows:
    """What was written for a file: its parts (name, first day, last day), home day, rows by day.

    `repeating` are days of which some key may be in more than one row of the file.
    """

    parts: list[tuple[str, dt.date, dt.date]]
    home_day: dt.date
    rows_by_day: dict[dt.date, int]
    repeating: frozenset[dt.date]


@dataclass
class Buckets:
    """Writes the rows of one landed file, in whatever order they come, to parts of up to BUCKET_DAYS days.

    Adds `date` (the UTC day of the row's time) and `file`. Rows without a readable time wait in parts of
    their own until the home day of the file is known.
    """

    folder: Path
    file: str
    time: str | None
    key: Sequence[str]
    parts: list[tuple[str, dt.date, dt.date]] = field(default_factory=list)
    rows_by_day: dict[dt.date, int] = field(default_factory=lambda: defaultdict(int))

    def __post_init__(self) -> None:
        self._held: dict[int, list[pa.Table]] = defaultdict(list)
        self._held_rows: dict[int, int] = defaultdict(int)
        self._undated: list[Path] = []
        self._written = 0
        self._keys: dict[int, list[np.ndarray]] = defaultdict(list)  # hashes of the keys of a bucket
        self._keys_held = 0

    def add(self, rows: pa.Table) -> None:
        """Take a batch of rows; write the buckets that are full."""
        days = self._days(rows)
        buckets = np.where(days == UNDATED, UNDATED, days // BUCKET_DAYS)
        dates = pa.array(days.astype(np.int32), mask=days == UNDATED).cast(pa.date32())
        rows = rows.append_column(DATE, dates)
        order = np.argsort(buckets, kind="stable")
        starts = np.flatnonzero(np.diff(buckets[order], prepend=UNDATED + 1))
        good = pc.is_null(rows["problem"]).to_numpy()  # the others have no key: they are quarantined whatever else there is
        hashes = _hashes(rows.select(self.key))
        for picked in np.split(order, starts)[1:]:
            bucket = int(buckets[picked[0]])
            self._note_keys(bucket, hashes[picked[good[picked]]])
            # A copy for each bucket: a slice would keep all of the batch in memory until it is written.
            self._hold(bucket, rows.take(pa.array(picked)) if len(picked) < len(rows) else rows)
        while sum(self._held_rows.values()) > ROWS_HELD:
            self._write(max(self._held_rows, key=self._held_rows.__getitem__))

    def _hold(self, bucket: int, rows: pa.Table) -> None:
        self._held[bucket].append(rows)
        self._held_rows[bucket] += len(rows)
        if self._held_rows[bucket] >= ROWS_A_PART:
            self._write(bucket)

    def finish(self, fallback_day: dt.date) -> dt.date:
        """Write what is held; undated rows get the home day: the earliest dated one, or the fallback."""
        for bucket in list(self._held):
            self._write(bucket)
        home_day = min(self.rows_by_day, default=fallback_day)
        for path in self._undated:
            rows = pq.read_table(path)
            path.unlink()
            dates = pa.array([home_day] * len(rows), pa.date32())
            self._save(rows.set_column(rows.schema.get_field_index(DATE), DATE, dates), path.name)
        return home_day

    def repeating(self, home_day: dt.date) -> frozenset[dt.date]:
        """Days of buckets in which a key, or the hash of another, came twice; to be asked once."""
        twice = set()
        for bucket, held in self._keys.items():
            written = self._keys_file(bucket)
            if written.exists():
                held.append(np.fromfile(written, np.uint64))
                written.unlink()
            if not pd.Index(np.concatenate(held)).is_unique:
                twice.add(bucket)
        undated = {home_day} if UNDATED in twice else set()
        return frozenset(undated | {day for day in self.rows_by_day if (day - EPOCH).days // BUCKET_DAYS in twice})

    def _note_keys(self, bucket: int, hashes: np.ndarray) -> None:
        if not len(hashes):
            return
        self._keys[bucket].append(hashes)
        self._keys_held += len(hashes)
        if self._keys_held > KEYS_HELD:
            for full, held in self._keys.items():
                with self._keys_file(full).open("ab") as file:
                    for each in held:
                        each.tofile(file)
                held.clear()
            self._keys_held = 0

    def _keys_file(self, bucket: int) -> Path:
        return self.folder / f"{bucket}.keys"

    def _days(self, rows: pa.Table) -> np.ndarray:
        if self.time is None:
            return np.full(len(rows), UNDATED)
        times = rows[self.time].cast(pa.int64())
        days = pc.fill_null(times, UNDATED).to_numpy()
        return np.where(days == UNDATED, UNDATED, days // DAY_US)

    def _write(self, bucket: int) -> None:
        rows = pa.concat_tables(self._held.pop(bucket))
        del self._held_rows[bucket]
        self._written += 1
        if bucket == UNDATED:
            self._undated.append(self.folder / f"undated-{self._written}.parquet")
            pq.write_table(rows, self._undated[-1])
        else:
            first = EPOCH + dt.timedelta(days=bucket * BUCKET_DAYS)
            self._save(rows, f"{first.isoformat()}-{self._written}.parquet")

    def _save(self, rows: pa.Table, name: str) -> None:
        counts = pc.value_counts(rows[DATE]).to_pylist()
        for count in counts:
            self.rows_by_day[count["values"]] += count["counts"]
        days = [count["values"] for count in counts]
        self.parts.append((name, min(days), max(days)))
        file = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(rows), np.int32)), pa.array([self.file]))
        texts = [field.name for field in rows.schema if field.type in (pa.string(), pa.date32())]
        pq.write_table(
            rows.append_column("file", file),
            self.folder / name,
            compression="lz4",
            use_dictionary=[*texts, "file"],  # readings repeat too little to pay for one
            store_schema=False,
        )


def _hashes(keys: pa.Table) -> np.ndarray:
    """A hash of each row. Times are hashed as numbers, and nulls filled, for a column of floats would give others."""
    plain = [column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column for column in keys.columns]
    filled = [pc.fill_null(column, "" if column.type == pa.string() else 0) for column in plain]
    return hash_pandas_object(pa.table(filled, names=keys.column_names).to_pandas(), index=False).to_numpy()


def write_rows(
    batches: Iterable[pa.Table], folder: Path, file: str, time: str | None, key: Sequence[str], fallback_day: dt.date
) -> StagedRows:
    """Stage the rows of a file into a folder: `time` is its time column, if it has one, and `key` tells its rows apart."""
    buckets = Buckets(folder, file, time, key)
    for rows in batches:
        buckets.add(rows)
    home_day = buckets.finish(fallback_day)
    return StagedRows(buckets.parts, home_day, dict(buckets.rows_by_day), buckets.repeating(home_day))
