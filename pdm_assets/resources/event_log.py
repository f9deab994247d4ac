"""Dagster's SQLite event log with a batch as one transaction and one statement, and statements that are planned once.

A range run reports each of its days for each asset: 14 assets and a year are ten thousand events. Dagster hands them over in
batches, but its SQLite storage opens two databases, plans the statements anew and commits twice for each single event: 20 to
50 ms apiece on two slow cores, minutes a run. `make demo` and `make dev` configure this one in the instance's dagster.yaml;
PostgreSQL, for production, needs none of it: its storage does what `_store_together` does.
"""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

from dagster import EventLogEntry
from dagster._core.events import ASSET_EVENTS
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._serdes import ConfigurableClassData
from sqlalchemy import create_engine
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import NullPool

EVENTS_A_BATCH = "500"
ENGINES_KEPT = 8  # of the runs that were asked about last


class BatchedSqliteEventLog(SqliteEventLogStorage):
    """SqliteEventLogStorage that stores the events of a batch in one transaction for each database it touches."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._batch = threading.local()
        self._engines: dict[str, Engine] = {}  # the last used ones
        super().__init__(base_dir, inst_data)
        # How an instance is told to collect batches at all; each of Dagster's processes makes its own storage.
        os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", EVENTS_A_BATCH)

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> "BatchedSqliteEventLog":
        """What Dagster calls with the config in dagster.yaml."""
        return cls(inst_data=inst_data, **config_value)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store the events, of each of the two databases all or none."""
        with self._db_lock, ExitStack() as transactions:
            self._batch.open = {}
            self._batch.begin = lambda shard: transactions.enter_context(self._engine(shard).begin())
            try:
                for (_, is_of_an_asset), alike in groupby(events, lambda event: (event.run_id, _is_of_an_asset(event))):
                    if is_of_an_asset:
                        self._store_together(list(alike))
                    else:
                        for event in alike:
                            self.store_event(event)
            finally:
                self._batch.open = None

    def _store_together(self, events: Sequence[EventLogEntry]) -> None:
        """What `store_event` does for each event that is about an asset, of one run, with a statement for all of them."""
        rows = [self._event_to_row(event) for event in events]
        with self.run_connection(events[0].run_id) as connection:
            connection.execute(SqlEventLogStorageTable.insert(), rows)
        with self.index_connection() as connection:
            statement = SqlEventLogStorageTable.insert().returning(SqlEventLogStorageTable.c.id, sort_by_parameter_order=True)
            ids = list(connection.execute(statement, rows).scalars())
            self._store_asset_event_tags(connection, events, ids)
            # An asset has one row, of its last event of each type.
            last = {(row["asset_key"], row["dagster_event_type"]): place for place, row in enumerate(rows)}
            for place in last.values():
                self._store_asset_event(connection, events[place], ids[place])

    def delete_events(self, run_id: str) -> None:
        """Delete them, and the database that each run has here: Dagster would leave it, empty."""
        super().delete_events(run_id)
        database = Path(self.path_for_shard(run_id))
        for path in (database, *(database.with_name(f"{database.name}{journal}") for journal in ("-wal", "-shm"))):
            path.unlink(missing_ok=True)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        if not Path(self.path_for_shard(shard)).exists():
            self._initialized_dbs.discard(shard)  # deleted, perhaps by another process
        shared = getattr(self._batch, "open", None)
        if shared is None:
            with self._db_lock, self._engine(shard).begin() as connection:
                yield connection
            return
        if shard not in shared:
            shared[shard] = self._batch.begin(shard)
        yield shared[shard]

    def _engine(self, shard: str) -> Engine:
        """The shard's engine, which knows the statements it has planned; it holds no connection. Under the lock."""
        engine = self._engines.pop(shard, None) or create_engine(
            self.conn_string_for_shard(shard),
            poolclass=NullPool,
            connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS},
        )
        self._engines[shard] = engine
        if len(self._engines) > ENGINES_KEPT:
            del self._engines[next(iter(self._engines))]
        if shard not in self._initialized_dbs:
            self._initdb(engine)
            self._initialized_dbs.add(shard)
        return engine


def _is_of_an_asset(event: EventLogEntry) -> bool:
    return event.dagster_event_type in ASSET_EVENTS and event.get_dagster_event().asset_key is not None
