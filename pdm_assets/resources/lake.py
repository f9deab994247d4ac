"""The Delta tables of the platform: declared once, created with their constraints, written by day range in one commit.

With the engine `duckdb` delta-rs reads and writes them, with `spark` Spark does. Versions, rows per day and small previews
are read with delta-rs by both.
"""

import datetime as dt
import errno
import json
import os
import socket
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dagster as dg
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError
from pydantic import PrivateAttr
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pdm_assets.resources.hold import held
from pdm_assets.resources.object_store import deltalake_options, file_system
from pdm_assets.resources.spark import SparkEngine
from pdm_assets.schemas.features import COMPONENT_RISK
from pdm_assets.schemas.raw import TELEMETRY
from pdm_assets.schemas.table import DATE, Table
from pdm_assets.schemas.tables import TABLES
from pdm_assets.settings import Settings

CREATED_AT_ONCE = ("DELTA_CREATE_TABLE_WITH_NON_EMPTY_LOCATION", "DELTA_PROTOCOL_CHANGED")
CREATED_BY_ANOTHER = 20.0  # seconds to wait for a table that another writer is creating
HOLDER_TAG = "pdm/holder"
FILES_IN_FLIGHT = 16  # tasks of a range write: a day is one file, whatever their number

# How a table is stored: 1 is release 0.1.0, which did not write it down. One more with each entry of upgrade.MIGRATIONS.
FORMAT = 3
FORMAT_PROPERTY = "pdm.format"
WRITER_PROPERTY = "pdm.writer"
KEEP_FILES, KEEP_LOG = "delta.deletedFileRetentionDuration", "delta.logRetentionDuration"
STATISTICS_OF = "delta.dataSkippingStatsColumns"
LEAST_LOG_DAYS = 365  # Delta cuts the log by itself: not before upkeep, should it have stood still, could ask for more


class LakeError(RuntimeError):
    """A table can't be read or written as asked; the text names it and says what to do."""


class LakeGone(LakeError):
    """The folder of the lake is gone: not mounted, moved or deleted."""


@dataclass(frozen=True)
class Commit:
    """What one write left behind: the table's version and the rows of each day of the range, empty days with 0."""

    version: int
    rows_by_day: Mapping[dt.date, int]

    @property
    def rows(self) -> int:
        """Rows of the whole range."""
        return sum(self.rows_by_day.values())


class Lake(dg.ConfigurableResource):
    """The tables below `root` (a path or an object-store URI), or `catalog.schema.group_name` where these are set."""

    spark: dg.ResourceDependency[SparkEngine]
    root: str
    catalog: str | None = None
    schema_name: str | None = None
    keep_days: int = 30

    _instance: tuple[str, str] | None = PrivateAttr(default=None)
    _held: ExitStack | None = PrivateAttr(default=None)

    @classmethod
    def of(cls, settings: Settings, spark: SparkEngine) -> "Lake":
        """The lake that the settings describe."""
        return cls(
            spark=spark,
            root=settings.lake_root,
            catalog=settings.catalog,
            schema_name=settings.schema,
            keep_days=settings.keep_days,
        )

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Know the Dagster instance whose run this is: by the number of its storage, for containers share a home's name."""
        if context.run is None or context.instance is None:
            return
        from dagster._core.storage.runs.sql_run_storage import SqlRunStorage  # with it SQLAlchemy and Alembic

        storage = context.instance.run_storage
        if context.instance.is_persistent and isinstance(storage, SqlRunStorage):
            number, home = storage.get_run_storage_id(), context.instance.root_directory
            self._instance = f"the Dagster instance {number}", f"(DAGSTER_HOME {home} on {socket.gethostname()})"
        else:
            # A job that a run had started elsewhere writes in that run's name.
            process = f"process {os.getpid()} on {socket.gethostname()}"
            self._instance = context.run.tags.get(HOLDER_TAG, process), ""

    @property
    def holder(self) -> str | None:
        """The name by which this run holds the lake, if it does."""
        return None if self._held is None or self._instance is None else self._instance[0]

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Let other instances write."""
        self.spark.delta.forget()
        if self._held is not None:
            self._held.close()
            self._held = None

    def hold(self) -> None:
        """Hold the lake until the run ends; nothing outside of a run.

        From its first reading on: what is made of rows that another instance replaces meanwhile would be of neither.

        Raises:
            LakeHeld: if another Dagster instance, or a command that wants it alone, is writing.
        """
        if self._instance is not None and self._held is None:
            with ExitStack() as held_so_far:
                held_so_far.enter_context(self.held_by(*self._instance))
                self._held = held_so_far.pop_all()

    def held_by(self, who: str, where: str = "") -> AbstractContextManager[None]:
        """Keep the runs of all Dagster instances from writing a lake that do not go by this name.

        The lock is a file of the data root: of a lake in an object store it keeps only those who share that root.

        Raises:
            LakeHeld: if one does.
        """
        if self.catalog:
            return nullcontext()
        lock = self._beside("held.lock")
        lock.parent.mkdir(parents=True, exist_ok=True)
        return held(lock, who, where)

    def location(self, table: Table) -> str:
        """Folder or URI of a table, or its catalog name."""
        if self.catalog:
            return f"{self.catalog}.{self.schema_name}.{table.group}_{table.name}"
        return f"{self.root}/{table.key}"

    def files(self, table: Table) -> tuple[Any, str]:
        """Fsspec's file system that the table's files are on, and their folder there."""
        return file_system(self.location(table))

    def sql_name(self, table: Table) -> str:
        """The table's name, quoted for SQL."""
        named = [self.catalog, self.schema_name, f"{table.group}_{table.name}"]
        parts = [str(part) for part in named] if self.catalog else ["delta", self.location(table)]
        return ".".join(f"`{part.replace('`', '``')}`" for part in parts)

    def table_name(self, table: Table) -> str:
        """The table's name for whoever looks after tables: quoted for Spark's SQL, a location for delta-rs."""
        return self.location(table) if self.spark.is_duckdb else self.sql_name(table)

    def read(
        self,
        table: Table,
        start: dt.date | None = None,
        end: dt.date | None = None,
        version: int | None = None,
    ) -> DataFrame:
        """Rows of the days [start, end), or of all days before `end`, or of all; of an earlier version where one is named.

        Raises:
            LakeError: if the table was never written.
        """
        if not self.exists(table):
            self.must_be_there()
            raise LakeError(f"{table.key} has never been written: materialize it first")
        self.hold()
        reader = self.spark.spark_session.read
        frame = (reader if version is None else reader.option("versionAsOf", version)).table(self.sql_name(table))
        if start is not None:
            frame = frame.where(F.col(DATE) >= F.lit(start))
        if end is not None:
            frame = frame.where(F.col(DATE) < F.lit(end))
        return frame

    def empty(self, table: Table) -> DataFrame:
        """No rows, with the table's columns."""
        return self.spark.spark_session.createDataFrame([], table.struct)

    def replace_days(
        self, table: Table, rows: DataFrame | None, start: dt.date, end: dt.date, note: Mapping[str, Any]
    ) -> Commit:
        """Make `rows` the whole content of the days [start, end), in one atomic commit; None empties them.

        A row of another day is refused by Delta. Nothing is committed where nothing was and nothing comes.
        """
        self.ensure(table)
        if rows is None:
            if not any(self.rows_by_day(table, start, end).values()):
                return Commit(self.version(table), dict.fromkeys(_days(start, end), 0))
            rows = self.empty(table)
        # Clustered by day before the write, each day is one file; unclustered, every task would write every day. In order of
        # their keys, the same rows make the same file.
        rows = rows.select(*table.column_names).repartition(write_partitions(start, end), DATE)
        rows = rows.sortWithinPartitions(DATE, *table.unique)
        writer = (
            rows.write.format("delta")
            .mode("overwrite")
            .option("replaceWhere", f"{DATE} >= '{start.isoformat()}' AND {DATE} < '{end.isoformat()}'")
            .option("userMetadata", json.dumps(note))
        )
        self._save(table, writer)
        return Commit(self.version(table), self.rows_by_day(table, start, end))

    def append(self, table: Table, rows: DataFrame, note: Mapping[str, Any]) -> int:
        """Add rows to a table that has no days; the version that holds them."""
        self.ensure(table)
        self._save(
            table,
            rows.select(*table.column_names).write.format("delta").mode("append").option("userMetadata", json.dumps(note)),
        )
        return self.version(table)

    def _save(self, table: Table, writer: Any) -> None:
        if self.catalog:
            writer.saveAsTable(self.sql_name(table))
            return
        try:
            writer.save(self.location(table))
        except PySparkException as error:
            self._is_writable(error)
            raise

    def _is_writable(self, error: Exception) -> None:
        """Ask the disk, where a write failed: the engines say that they can not make a folder, and not why.

        Raises:
            OSError: if nothing can be written there.
        """
        if Path(self.root).is_dir() and not os.access(self.root, os.W_OK):
            number = errno.EROFS if os.statvfs(self.root).f_flag & os.ST_RDONLY else errno.EACCES
            raise OSError(number, os.strerror(number), self.root) from error

    def ensure(self, table: Table) -> None:
        """Create the table with its final columns and constraints, once: later changes would break concurrent writers.

        Raises:
            LakeError: if its folder is no Delta table and holds other files, or another release stored it in another way.
        """
        self.hold()
        if self.exists(table):
            self._check_format(table)
            self._check_writer(table)
            self._note_created()
            return
        self.must_be_there()
        self._refuse_foreign_files(table)
        # Of several who create it at once Delta lets one win. The others are refused or, where IF NOT EXISTS finds the
        # winner's folder, told nothing: they look again until the winner's commit is there.
        deadline, cleared = time.monotonic() + CREATED_BY_ANOTHER, False
        while True:
            try:
                self.spark.tables.create(
                    self.table_name(table),
                    table.struct,
                    partition_by=[DATE] if table.daily else [],
                    constraints=table.constraints,
                    properties={**declared_properties(table, self.keep_days), FORMAT_PROPERTY: str(FORMAT), **self._writer},
                )
            except PySparkException as error:
                if error.getCondition() not in CREATED_AT_ONCE and not self.exists(table):
                    self._is_writable(error)
                    raise
            except DeltaError as error:
                if not self.exists(table):
                    self._is_writable(error)
                    raise
            except OSError as error:
                self._is_writable(error)
                raise
            if self.exists(table):
                self._note_created()
                return
            if time.monotonic() > deadline:
                if cleared:
                    raise LakeError(f"{table.key} can not be created: {self.location(table)} holds no table still")
                self._clear_abandoned_creation(table)
                deadline, cleared = deadline + CREATED_BY_ANOTHER, True
            time.sleep(0.2)

    def format_of(self, table: Table) -> int:
        """How a table is stored."""
        return int(self.properties(table).get(FORMAT_PROPERTY, 1))

    def properties(self, table: Table) -> dict[str, str]:
        """The table's properties, Delta's own and the platform's."""
        if self.catalog:
            rows = self.spark.spark_session.sql(f"SHOW TBLPROPERTIES {self.sql_name(table)}").collect()
            return {row["key"]: row["value"] for row in rows}
        return dict(self.delta(table).metadata().configuration)

    @property
    def _writer(self) -> dict[str, str]:
        """Which engine writes a table on S3, as a property: one puts commits on condition, the other with a lock in its JVM.

        Neither sees to the other's. On a disk the lake's lock keeps them apart; other stores refuse a second commit themselves.
        """
        return {WRITER_PROPERTY: self.spark.engine} if self.root.startswith("s3a://") else {}

    def _check_writer(self, table: Table) -> None:
        if not self._writer:
            return
        writes = self.properties(table).get(WRITER_PROPERTY, "spark")  # earlier releases wrote with Spark alone
        if writes != self.spark.engine:
            raise LakeError(
                f"{table.key} is written by the engine {writes}, and PDM_ENGINE={self.spark.engine}: on S3 the commits of one "
                f"can overwrite the other's. Set PDM_ENGINE={writes}, or with no run under way run `pdm-assets lake take-over`"
            )

    def take_over(self, table: Table) -> None:
        """Let this engine write a table on S3 from now on; nothing elsewhere."""
        if self._writer and self.properties(table).get(WRITER_PROPERTY, "spark") != self.spark.engine:
            self.set_properties(table, self._writer)

    def set_properties(self, table: Table, properties: Mapping[str, str]) -> None:
        """Change properties: a commit that a writer at the same time would fail on, so for upkeep and upgrades only."""
        self.spark.tables.set_properties(self.table_name(table), properties)

    def _check_format(self, table: Table) -> None:
        stored = self.format_of(table)
        if stored < FORMAT:
            raise LakeError(
                f"{table.key} was written by an earlier release (format {stored}, this release writes {FORMAT}): with no run "
                "under way, make a backup (`pdm-assets backup FILE`), then run `pdm-assets lake upgrade`"
            )
        if stored > FORMAT:
            raise LakeError(
                f"{table.key} was written by a later release (format {stored}, this release knows {FORMAT}): install that "
                "release or a later one, or restore a backup from before its `pdm-assets lake upgrade`"
            )

    def tables(self) -> list[Table]:
        """The tables that were created: those declared, and the results that score_range wrote."""
        results = [] if self.catalog else _names_below(f"{self.root}/results")
        known = [*TABLES.values(), *(replace(COMPONENT_RISK, key=f"results/{name}") for name in results)]
        return [table for table in known if self.exists(table)]

    def _refuse_foreign_files(self, table: Table) -> None:
        """See to it that a table is not made in a folder that holds files of something else.

        Raises:
            LakeError: if it does.
        """
        if self._on_disk is None or not (folder := Path(self.location(table))).is_dir():
            return
        files = [path for path in folder.rglob("*") if not path.is_dir()]
        foreign = [path for path in files if path.parent.name != "_delta_log" or not path.name.startswith(".")]
        if foreign and not self.exists(table):  # another may just have made it
            raise LakeError(
                f"{table.key} can not be created: its folder {folder} is no Delta table but holds {len(foreign)} files, "
                f"such as {foreign[0].relative_to(folder)}. Move them away and try again"
            )

    def _clear_abandoned_creation(self, table: Table) -> None:
        """Remove what a creation left that was killed before its commit, and nothing that another may be writing just now."""
        if self._on_disk is None:
            return  # an object store has a commit whole or not at all
        folder = Path(self.location(table))
        self._refuse_foreign_files(table)
        for path in (folder / "_delta_log").glob(".*"):
            with suppress(FileNotFoundError):  # renamed by its writer, or cleared by another
                if time.time() - path.stat().st_mtime >= CREATED_BY_ANOTHER:
                    path.unlink()
        for directory in (folder / "_delta_log", folder):
            with suppress(OSError):  # not empty: what is new in it is not ours to remove
                directory.rmdir()

    @property
    def _note(self) -> Path | None:
        """The file of the data root that says a lake was created, and which if it is on an object store.

        It is beside a lake on disk: another disk mounted on the lake does not hide it.
        """
        return None if self.catalog else self._beside("created")

    def _beside(self, kind: str) -> Path:
        """A file of the data root that is about the lake."""
        if self._on_disk is None:
            return Path(self.spark.data) / f".lake.{kind}"
        return self._on_disk.with_name(f".{self._on_disk.name}.{kind}")

    @property
    def _on_disk(self) -> Path | None:
        return None if self.catalog or "://" in self.root else Path(self.root)

    def _note_created(self) -> None:
        if self._note is not None and not self._note.exists():
            self._note.parent.mkdir(parents=True, exist_ok=True)
            self._note.write_text("" if self._on_disk is not None else self.root)

    @property
    def was_begun(self) -> bool:
        """Whether a lake was created here, as far as the data root knows."""
        return self._note is not None and self._note.exists()

    def must_be_there(self) -> None:
        """See to it that a lake that was created has not gone: a new one in its place would begin without its past.

        Raises:
            LakeGone: if it has.
        """
        if self._note is None or not self.was_begun:
            return
        if self._on_disk is None:
            was = self._note.read_text().strip()
            if was != self.root:
                raise LakeGone(
                    f"the tables of this data root are in {was or 'its folder lake/'}, and PDM_LAKE names {self.root}. "
                    f"Copy them and delete {self._note}, or delete it to begin a new lake"
                )
            if not _names_below(self.root):
                raise LakeGone(
                    f"the lake {self.root} holds nothing, and it did before: see to PDM_LAKE, credentials and the store. "
                    f"To begin a new lake, delete {self._note}"
                )
            return
        folder = Path(self.root)
        if not folder.is_dir() or not any(folder.iterdir()):
            raise LakeGone(
                f"the lake {folder} is gone, and it was there before: mount it or restore it from a backup. To begin a new "
                f"lake instead, delete {self._note}"
            )

    def exists(self, table: Table) -> bool:
        """Whether the table was created."""
        if self.catalog:
            return self.spark.spark_session.catalog.tableExists(self.sql_name(table))
        return DeltaTable.is_deltatable(self.location(table), storage_options=deltalake_options())

    def delta(self, table: Table) -> DeltaTable:
        """The table for reading without Spark.

        Raises:
            LakeError: if it was never written.
        """
        try:
            if self._instance is not None:  # a run asks some tables twenty times; a log read anew takes longer than its news
                return self.spark.delta.open(self.location(table))
            return DeltaTable(self.location(table), storage_options=deltalake_options())
        except TableNotFoundError as error:
            self.must_be_there()
            raise LakeError(f"{table.key} has never been written: materialize it first") from error

    def version(self, table: Table) -> int:
        """Newest Delta version of the table."""
        if self.catalog:
            history = self.spark.spark_session.sql(f"DESCRIBE HISTORY {self.sql_name(table)} LIMIT 1")
            return int(history.collect()[0]["version"])
        return self.delta(table).version()

    def rows_by_day(self, table: Table, start: dt.date, end: dt.date) -> dict[dt.date, int]:
        """Rows of each day of [start, end), counted from the log's file statistics: no data is read."""
        counts = dict.fromkeys(_days(start, end), 0)
        if not self.exists(table):
            return counts
        if self.catalog:
            for day, rows in self.read(table, start, end).groupBy(DATE).count().collect():
                counts[day] = rows
            return counts
        files = self.delta(table).get_add_actions(flatten=True)
        days, rows = files.column("partition.date").to_pylist(), files.column("num_records").to_pylist()
        for day, count in zip(days, rows, strict=True):
            if day in counts:
                counts[day] += count
        return counts

    def written_at(self, table: Table, start: dt.date, end: dt.date) -> dict[dt.date, dt.datetime]:
        """When each day of [start, end) that has rows was last written."""
        if self.catalog:
            newest = F.max("_metadata.file_modification_time")
            found = self.read(table, start, end).groupBy(DATE).agg(newest).toArrow()  # whose times have their zone
            return dict(zip(*(column.to_pylist() for column in found.columns), strict=True))
        if not self.exists(table):
            return {}
        files = self.delta(table).get_add_actions(flatten=True)
        times = zip(files.column("partition.date").to_pylist(), files.column("modification_time").to_pylist(), strict=True)
        return {day: dt.datetime.fromtimestamp(at / 1000, dt.UTC) for day, at in sorted(times) if start <= day < end}

    def first_and_last_day(self, table: Table) -> tuple[dt.date, dt.date] | None:
        """Earliest and latest day that have rows, or None where none has."""
        if not self.exists(table):
            return None
        if self.catalog:
            first, last = self.read(table).agg(F.min(DATE), F.max(DATE)).collect()[0]
            return None if first is None else (first, last)
        files = self.delta(table).get_add_actions(flatten=True)
        days = files.column("partition.date").to_pylist()
        return (min(days), max(days)) if days else None

    def rows(
        self,
        table: Table,
        start: dt.date | None = None,
        end: dt.date | None = None,
        columns: list[str] | None = None,
    ) -> list[dict[str, Any]]:
        """Rows of a small table, or of few days, without Spark."""
        return self.arrow(table, start, end).to_table(columns=columns).to_pylist()

    def preview(self, table: Table, day: dt.date, limit: int = 5) -> list[dict[str, Any]]:
        """The first rows of a day, for the UI."""
        return self.arrow(table, day, day + dt.timedelta(days=1)).head(limit).to_pylist()

    def count_true(self, table: Table, start: dt.date, end: dt.date) -> dict[dt.date, dict[str, int]]:
        """Of each day, how often each of the table's `counted` columns is true."""
        days = self.arrow(table, start, end).to_table(columns=[DATE, *table.counted]).group_by(DATE)
        sums = days.aggregate([(name, "sum") for name in table.counted]).to_pylist()
        return {row[DATE]: {name: row[f"{name}_sum"] for name in table.counted} for row in sums}

    def arrow(self, table: Table, start: dt.date | None, end: dt.date | None) -> Any:
        """The days [start, end) as a PyArrow data set, without Spark."""
        if self.catalog:
            import pyarrow.dataset

            return pyarrow.dataset.dataset(self.read(table, start, end).toArrow())
        partitions = [(DATE, ">=", start.isoformat())] if start else []
        partitions += [(DATE, "<", end.isoformat())] if end else []
        return self.delta(table).to_pyarrow_dataset(file_pruning_predicate=partitions or None)


def _names_below(folder: str) -> list[str]:
    files, root = file_system(folder)
    return sorted(path.rsplit("/", 1)[1] for path in (files.ls(root, detail=False) if files.isdir(root) else []))


def known_until(lake: Lake, now: dt.datetime) -> dt.datetime:
    """Up to which instant what happened in the plant is known: to the end of the last day that telemetry has landed of.

    That no failure was told of says nothing of a day that is not over, or that nobody has heard of.
    """
    heard = lake.first_and_last_day(TELEMETRY)
    return min(now, dt.datetime.combine(heard[1] + dt.timedelta(days=1), dt.time(), dt.UTC)) if heard else now


def declared_properties(table: Table, keep_days: int) -> dict[str, str]:
    """What a table is stored with, constraints and format apart."""
    # By default each file has least, greatest and number of nulls of 32 columns in the log, and nobody looks for a mean by its
    # range: days are found by their partition, rows by their key. Without generated code that was a seventh of making features.
    statistics = {STATISTICS_OF: ",".join(table.unique)} if table.unique else {}
    return {**keeping(keep_days), **statistics}


def keeping(days: int) -> dict[str, str]:
    """Properties that keep what a table needs to be read as it was so many days ago: removed files, and the log."""
    return {KEEP_FILES: f"interval {days} days", KEEP_LOG: f"interval {max(days, LEAST_LOG_DAYS)} days"}


def write_partitions(start: dt.date, end: dt.date) -> int:
    """Shuffle partitions by day of a range's write; a plan that split by day into as many before is not split again."""
    return min((end - start).days, FILES_IN_FLIGHT)


def _days(start: dt.date, end: dt.date) -> list[dt.date]:
    return [start + dt.timedelta(days=n) for n in range((end - start).days)]
