"""One look at the landed files of a table: what it counts and what it scans are the same rows."""

import datetime as dt
import re
from collections import Counter, defaultdict
from dataclasses import dataclass

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from pdm_assets.resources.landed_columns import date_in_name
from pdm_assets.resources.staging import StagedFile, StagedPart
from pdm_assets.schemas.raw import MACHINES, MAINTENANCE
from pdm_assets.schemas.table import DATE, Table

RANK = T.StructType(
    [
        T.StructField("file", T.StringType(), nullable=False),
        T.StructField("landed_rank", T.IntegerType(), nullable=False),
    ]
)


@dataclass(frozen=True)
class LandedTable:
    """The files of a table as they were at one moment, in the order they landed, and their rows by day.

    Rows of days before the first day partition belong to it: history of maintenance that the plant brings
    along, and of the other tables rows with a problem. A row of a fleet list stands once on each day that the
    list is in force.
    """

    table: Table
    files: tuple[StagedFile, ...]
    first_day: dt.date

    @property
    def refused(self) -> list[StagedFile]:
        """Files of which nothing was taken; `refusal` says why."""
        return [file for file in self.files if file.refusal]

    def of_days_to_come(self, today: dt.date) -> dict[str, tuple[int, dt.date]]:
        """Rows after tomorrow by file, with the last of their days: a clock gone wrong, for no zone is two days ahead.

        They wait until their days come. Fleet lists may be known as long ahead as one likes.
        """
        limit = today + dt.timedelta(days=1)
        found = {}
        for file in self.files if self.table != MACHINES else ():
            later = {day: rows for day, rows in (file.rows_by_day or {}).items() if day > limit}
            if later:
                found[file.name] = sum(later.values()), max(later)
        return found

    def rows(self, start: dt.date, end: dt.date) -> dict[dt.date, int]:
        """Rows of each day of [start, end), as `scan` gives them; days without rows are left out."""
        counts: dict[dt.date, int] = defaultdict(int)
        if self.table == MACHINES:
            for rank, day in self._in_force(start, end):
                counts[day] += self.files[rank].rows
        else:
            for file in self.files:
                for day, rows in (file.rows_by_day or {}).items():
                    counts[max(day, self.first_day)] += rows
        return {day: rows for day, rows in sorted(counts.items()) if start <= day < end and rows}

    def repeating_days(self, start: dt.date, end: dt.date) -> set[dt.date]:
        """Days of [start, end) on which a key may be in more than one row: of one file, or as two files have rows of it."""
        if self.table == MACHINES:
            lists = self._in_force(start, end)
            several = Counter(day for _, day in lists)
            return {day for rank, day in lists if several[day] > 1 or self.files[rank].repeating != frozenset()}
        taken: set[dt.date] = set()
        found: set[dt.date] = set()
        for file in self.files:
            days = set(file.rows_by_day or ())
            repeating = days if file.repeating is None else file.repeating
            partitions, of_one = ({max(day, self.first_day) for day in some} for some in (days, repeating))
            found |= of_one | (partitions & taken)
            taken |= partitions
        return {day for day in found if start <= day < end}

    def scan(self, spark: SparkSession, start: dt.date, end: dt.date) -> DataFrame:
        """The landed rows of the days [start, end).

        One row per row of a file: the table's columns (null where it could not be read), `date`, `file`,
        `line`, `problem` and `text` of an unreadable row, and `landed_rank`, higher for the file that landed
        later.
        """
        if self.table == MACHINES:
            return self._scan_machines(spark, start, end)
        ranked = enumerate(self.files)
        parts = {part: rank for rank, file in ranked for part in file.parts if self._overlaps(part, start, end)}
        rows = self._read(spark, parts).where(F.col(DATE) < F.lit(end))
        if start > self.first_day:
            rows = rows.where(F.col(DATE) >= F.lit(start))
        if self.table != MAINTENANCE:
            reason = F.lit(f"before the first day partition ({self.first_day.isoformat()})")
            early = F.when(F.col(DATE) < F.lit(self.first_day), reason)
            rows = rows.withColumn("problem", F.coalesce("problem", early))
        ranks = spark.createDataFrame([(self.files[rank].name, rank) for rank in sorted(set(parts.values()))], RANK)
        rows = rows.withColumn(DATE, F.greatest(DATE, F.lit(self.first_day)))
        return rows.join(F.broadcast(ranks), on="file", how="inner")

    def machine_lists(self) -> dict[dt.date, list[int]]:
        """Places in `files` of the fleet lists, by the day from which they hold.

        Undated ones hold from the beginning. Lists of the same day are united; a refused file is no list.
        """
        lists: dict[dt.date, list[int]] = defaultdict(list)
        for place, file in enumerate(self.files):
            if file.refusal is None:
                lists[date_in_name(file.name) or dt.date.min].append(place)
        return lists

    def _overlaps(self, part: StagedPart, start: dt.date, end: dt.date) -> bool:
        return max(part.first_day, self.first_day) < end and max(part.last_day, self.first_day) >= start

    def _in_force(self, start: dt.date, end: dt.date) -> list[tuple[int, dt.date]]:
        """(place in `files`, day) of each list in force on each partition of [start, end)."""
        lists = self.machine_lists()
        found = []
        for day in (start + dt.timedelta(days=n) for n in range((end - start).days)):
            since = max((each for each in lists if each <= day), default=None)
            if since is not None and day >= self.first_day:
                found += [(place, day) for place in lists[since]]
        return found

    def _scan_machines(self, spark: SparkSession, start: dt.date, end: dt.date) -> DataFrame:
        in_force = self._in_force(start, end)
        parts = {part: rank for rank in sorted({rank for rank, _ in in_force}) for part in self.files[rank].parts}
        schema = T.StructType([*RANK.fields, T.StructField(DATE, T.DateType(), nullable=False)])
        days = spark.createDataFrame([(self.files[rank].name, rank, day) for rank, day in in_force], schema)
        return self._read(spark, parts).drop(DATE).join(F.broadcast(days), on="file", how="inner")

    def _read(self, spark: SparkSession, parts: dict[StagedPart, int]) -> DataFrame:
        schema = T.StructType(
            [
                T.StructField("file", T.StringType()),
                T.StructField("line", T.LongType()),
                *(T.StructField(field.name, field.dataType) for field in self.table.columns),
                T.StructField("problem", T.StringType()),
                T.StructField("text", T.StringType()),
                T.StructField(DATE, T.DateType()),
            ]
        )
        if not parts:
            return spark.createDataFrame([], schema)
        # Spark reads a path as a pattern.
        paths = [re.sub(r"([\\*?\[\]{}])", r"\\\1", str(part.path.absolute())) for part in parts]
        return spark.read.schema(schema).parquet(*paths)
