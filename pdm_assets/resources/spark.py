"""The Spark session that assets use: the warm local engine, a session inside the run, or a cluster's address."""

import contextlib
import os
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import dagster as dg
from dagster_pyspark import PySparkResource
from pydantic import PrivateAttr
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from pdm_assets.resources.engine import (
    Engine,
    EngineError,
    Sizing,
    delta_conf,
    jars_are_fetched,
    java_for_spark,
    one_fetches,
    the_only_writer,
)
from pdm_assets.settings import Settings

UTC = {"spark.sql.session.timeZone": "UTC"}
# A day of a thousand machines takes longer to plan and compile than to compute: no code is generated for it, no plan made over
# while it runs, and a task a core is enough (docs/performance.md).
FEW_ROWS = {
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.optimizer.dynamicPartitionPruning.enabled": "false",
}


class SparkEngine(PySparkResource):
    """A Spark session on first use, released when the run ends.

    Modes: `engine` attaches to the warm local Spark Connect engine of the data root (starting it if need be), `classic` makes
    a session in this process and holds the lake while it lives, `remote` connects to PDM_SPARK_REMOTE (a Spark cluster,
    Databricks), `session` takes the one that is there, as in a job of Databricks, and leaves it there.
    """

    spark_config: dict[str, Any] = {}  # noqa: RUF012 - a pydantic default is copied
    mode: str = "engine"
    data: str = "data"
    cores: int = 1
    memory_mb: int = 1024
    idle_minutes: float = 20
    store: str = "file"

    # No field: the UI shows fields, and an address may hold a token.
    _address: ClassVar[str | None] = None
    _few_rows: ClassVar[bool] = False  # of the run that this process is: all copies of the resource share its session
    _shared: "_Shared | None" = PrivateAttr(default=None)

    @classmethod
    def of(cls, settings: Settings) -> "SparkEngine":
        """The resource that the settings describe."""
        sizing = Sizing.of(settings)
        cls._address = settings.spark_remote
        return cls(
            mode=settings.spark_mode,
            data=str(settings.data.absolute()),
            cores=sizing.cores,
            memory_mb=sizing.memory_mb,
            idle_minutes=settings.spark_idle_minutes,
            store=sizing.store,
        )

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Start nothing yet: a run that needs no Spark pays for none."""

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Release the session, with its caches and models on the server, and the engine's lease."""
        self.close()

    def expect(self, *, few_rows: bool) -> None:
        """Say, before the session opens, whether planning and compiling will take most of the run's time."""
        SparkEngine._few_rows = few_rows and self.mode in ("engine", "classic")

    @contextlib.contextmanager
    def for_many_rows(self) -> Iterator[None]:
        """What reads many rows in a run that was expected to read few, such as a training."""
        conf = self.spark_session.conf
        assert self._shared is not None
        changed = self._shared.changed
        for name, (usual, _) in changed.items():  # unset, a name would have Spark's own default and not the server's
            conf.set(name, usual)
        try:
            yield
        finally:
            for name, (_, for_few) in changed.items():
                conf.set(name, for_few)

    @property
    def engine(self) -> Engine:
        """The local engine of this data root, running or not."""
        return Engine(Path(self.data), Sizing(self.cores, self.memory_mb, self.idle_minutes, self.store))

    @property
    def spark_session(self) -> SparkSession:
        """The session of this run.

        Raises:
            EngineError: if the engine can't be started or another writer holds the lake.
        """
        if self._shared is None:
            address = self._address if self.mode == "remote" else None
            self._shared = _Shared.join((self.model_dump_json(), address), self._open, self._for_few)
        return self._shared.session

    def close(self) -> None:
        """Let go of the session; the last one who does ends it."""
        if self._shared is not None:
            self._shared.leave()
            self._shared = None

    @property
    def _for_few(self) -> dict[str, str]:
        """What a session of few rows is opened with, besides; nothing for others, and nothing that was configured."""
        wanted = {**FEW_ROWS, "spark.sql.shuffle.partitions": str(self.cores)} if self._few_rows else {}
        return {name: value for name, value in wanted.items() if name not in self.spark_config}

    def _open(self, held: contextlib.ExitStack) -> SparkSession:
        builder = SparkSession.builder
        if self.mode == "session":
            session = builder.getOrCreate()  # its owner stops it
            for name, value in {**UTC, **self.spark_config}.items():
                session.conf.set(name, value)
            return session
        if self.mode == "classic":
            folder = Path(self.data).absolute() / "engine"
            held.enter_context(the_only_writer(folder, "a classic Spark session"))
            os.environ["JAVA_HOME"] = java_for_spark()  # pyspark asks the environment
            fetching = held.enter_context(contextlib.ExitStack())
            fetching.enter_context(one_fetches(self.store))
            for name, value in {**delta_conf(self.cores, folder, self.store), **self.spark_config}.items():
                builder = builder.config(name, value)
            builder = builder.config("spark.driver.memory", f"{self.memory_mb}m")
            if "spark.master" not in self.spark_config:
                builder = builder.master(f"local[{self.cores}]")
            session = builder.getOrCreate()
            held.callback(session.stop)
            jars_are_fetched(self.store)
            fetching.close()
            return session
        if self.mode == "remote":
            assert self._address is not None  # settings refuse the mode without it
            address, policy = self._address, _patience(lambda: None)
        else:
            info = held.enter_context(self.engine.lease())
            address, policy = info.address, _patience(lambda: self.engine.check_alive(info))
        # create(), not getOrCreate(): a session that an earlier run of this process left is stopped on the server. The settings
        # follow once the client has our patience: with its own it would ask a server that is not there for ten minutes.
        session = builder.remote(address).create()
        session.client.set_retry_policies([policy])
        try:
            for name, value in {**UTC, **self.spark_config}.items():
                session.conf.set(name, value)
        except Exception as error:
            session.client.set_retry_policies([])
            session.stop()  # else it is asked to forget its models when the process ends, for ten minutes if it is not there
            if not isinstance(error, PySparkException) or error.getCondition() is not None:
                raise  # what a server says names what is wrong
            raise EngineError(
                "the Spark server can't be reached, or does not let us in (in mode remote PDM_SPARK_REMOTE says where it is): "
                f"{error}"
            ) from error
        held.callback(session.stop)
        return session


def _patience(check_alive: Callable[[], None]) -> Any:
    """When a call to the server is tried again: not ten minutes as by default, and never where `check_alive` raises."""
    import grpc
    from pyspark.sql.connect.client.retries import DefaultPolicy

    class WhileItLives(DefaultPolicy):
        def can_retry(self, e: BaseException) -> bool:
            if isinstance(e, grpc.RpcError):
                check_alive()
            return super().can_retry(e)

    return WhileItLives(max_retries=8, max_backoff=5_000)


class _Shared:
    """The session of a process: Dagster copies a resource for each resource that needs it, and frames of two don't mix."""

    _all: ClassVar[dict[Hashable, "_Shared"]] = {}

    def __init__(
        self, key: Hashable, open_session: Callable[[contextlib.ExitStack], SparkSession], for_few: dict[str, str]
    ) -> None:
        self.key, self.holders = key, 0
        self.changed: dict[str, tuple[str, str]] = {}  # what the session had of itself, and what it has instead
        with contextlib.ExitStack() as held:
            self.session = open_session(held)
            for name, value in for_few.items():
                self.changed[name] = str(self.session.conf.get(name)), value
                self.session.conf.set(name, value)
            self.held = held.pop_all()

    @classmethod
    def join(
        cls, key: Hashable, open_session: Callable[[contextlib.ExitStack], SparkSession], for_few: dict[str, str]
    ) -> "_Shared":
        if key not in cls._all:
            cls._all[key] = cls(key, open_session, for_few)
        shared = cls._all[key]
        shared.holders += 1
        return shared

    def leave(self) -> None:
        self.holders -= 1
        if self.holders == 0:
            del self._all[self.key]
            self.held.close()
