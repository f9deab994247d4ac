"""The Spark session that assets use: on DuckDB inside this process, or a Spark's."""

import contextlib
import os
import shutil
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import dagster as dg
import psutil
from dagster_pyspark import PySparkResource
from pydantic import PrivateAttr
from pyspark.sql import SparkSession

from pdm_assets.engine import spark
from pdm_assets.engine.delta import DeltaRs
from pdm_assets.engine.processes import private_folder
from pdm_assets.models.fitting import FitProcess, Fitter, SessionFitter
from pdm_assets.resources.object_store import deltalake_options
from pdm_assets.settings import Settings

Engine = Literal["duckdb", "spark"]
CGROUPS, OWN_CGROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
LEAST_MB, MOST_MB = 1024, 4096


class SparkEngine(PySparkResource):
    """A Spark session on first use, released when the run ends.

    Engines: `duckdb` runs plans inside this process, without a JVM (pdm_assets.engine.duckdb). `spark` connects to
    PDM_SPARK_REMOTE; without an address it takes the session of the Databricks job that it runs in, or starts a local one.
    """

    spark_config: dict[str, Any] = {}  # noqa: RUF012 - a pydantic default is copied
    engine: Engine = "duckdb"
    data: str = "data"
    memory_mb: int = LEAST_MB
    store: str = "file"

    # No field: the UI shows fields, and an address may hold a token.
    _address: ClassVar[str | None] = None
    _shared: "_Shared | None" = PrivateAttr(default=None)

    @classmethod
    def of(cls, settings: Settings) -> "SparkEngine":
        """The resource that the settings describe."""
        cls._address = settings.spark_remote
        return cls(
            engine=settings.engine,
            data=str(settings.data.absolute()),
            memory_mb=settings.memory_mb or quarter_of_memory_mb(),
            store=settings.store,
        )

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Start nothing yet: a run that needs no session pays for none."""

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Release the session with all that it holds."""
        self.close()

    @property
    def is_duckdb(self) -> bool:
        """Whether DuckDB runs the plans and delta-rs keeps the tables."""
        return self.engine == "duckdb"

    @property
    def spark_session(self) -> SparkSession:
        """The session of this run.

        Raises:
            SparkUnavailable: if the engine is `spark` and no session can be had.
        """
        return self._joined.session

    @property
    def delta(self) -> DeltaRs:
        """The tables as delta-rs reads them, and with the engine `duckdb` writes them; opened ones are kept for the run."""
        return _tables

    @property
    def tables(self) -> Any:
        """Who creates, changes and looks after tables: delta-rs or Spark's SQL."""
        return self.delta if self.is_duckdb else spark.SparkTables(lambda: self.spark_session)

    def fitter(self) -> contextlib.AbstractContextManager[Fitter]:
        """Where models are fitted: with the engine `spark` in its session, else in a process of their own."""
        return FitProcess(self.memory_mb) if self.is_duckdb else contextlib.nullcontext(SessionFitter(self.spark_session))

    @property
    def _joined(self) -> "_Shared":
        if self._shared is None:
            self._shared = _Shared.join((self.model_dump_json(), self._address), self._open)
        return self._shared

    def close(self) -> None:
        """Let go of the session; the last one who does ends it."""
        if self._shared is not None:
            self._shared.leave()
            self._shared = None

    def _open(self, held: contextlib.ExitStack) -> SparkSession:
        folder = Path(self.data).absolute() / "engine"
        if self.is_duckdb:
            session = _open_duckdb(folder / "spill", self.memory_mb, self.delta, held)
        elif self._address is not None:
            session = spark.connect(self._address)
        elif "DATABRICKS_RUNTIME_VERSION" in os.environ:
            session = SparkSession.builder.getOrCreate()  # the job's: its owner stops it
            for name, value in spark.UTC.items():
                session.conf.set(name, value)
        else:
            private_folder(folder)
            session = spark.local(folder, os.cpu_count() or 1, self.memory_mb, self.store)
        for name, value in self.spark_config.items():
            session.conf.set(name, value)
        if "DATABRICKS_RUNTIME_VERSION" not in os.environ:
            held.callback(session.stop)
        return session


_tables = DeltaRs(deltalake_options)


def _open_duckdb(spill: Path, memory_mb: int, tables: DeltaRs, held: contextlib.ExitStack) -> SparkSession:
    from pdm_assets.engine.duckdb.channel import connect
    from pdm_assets.engine.duckdb.session import Limits

    _clear_left_behind(spill)
    ours = spill / str(os.getpid())
    private_folder(ours)
    held.callback(shutil.rmtree, ours, ignore_errors=True)
    return cast(SparkSession, connect(Limits(memory_mb, ours), tables))  # the Connect client's has the same DataFrame API


def _clear_left_behind(spill: Path) -> None:
    """Remove what processes that were killed have spilled."""
    for folder in spill.glob("[0-9]*"):
        if not psutil.pid_exists(int(folder.name)):
            shutil.rmtree(folder, ignore_errors=True)


def quarter_of_memory_mb() -> int:
    """A quarter of the memory that this machine, container or systemd unit has, 1 to 4 GiB."""
    total = psutil.virtual_memory().total
    for limit in _cgroup_limits():
        with contextlib.suppress(OSError, ValueError):  # not there, or `max`
            total = min(total, int(limit.read_text()))
    return min(MOST_MB, max(LEAST_MB, total // 4 // 2**20))


def _cgroup_limits() -> Iterator[Path]:
    """Where limits of a container or of a systemd unit (MemoryMax) would be: of this process's group and of those above it."""
    with contextlib.suppress(OSError):
        own = OWN_CGROUP.read_text().splitlines()[-1].rsplit(":", 1)[-1].strip("/")
        for group in (CGROUPS / own, *(CGROUPS / own).parents):
            yield group / "memory.max"
            if group == CGROUPS:
                return


class _Shared:
    """The session of a process: Dagster copies a resource for each resource that needs it, and frames of two don't mix."""

    _all: ClassVar[dict[Hashable, "_Shared"]] = {}

    def __init__(self, key: Hashable, open_session: Callable[[contextlib.ExitStack], SparkSession]) -> None:
        self.key, self.holders = key, 0
        with contextlib.ExitStack() as held:
            self.session = open_session(held)
            self.held = held.pop_all()

    @classmethod
    def join(cls, key: Hashable, open_session: Callable[[contextlib.ExitStack], SparkSession]) -> "_Shared":
        if key not in cls._all:
            cls._all[key] = cls(key, open_session)
        shared = cls._all[key]
        shared.holders += 1
        return shared

    def leave(self) -> None:
        self.holders -= 1
        if self.holders == 0:
            del self._all[self.key]
            self.held.close()
