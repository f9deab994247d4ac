"""The event log that stores a batch as one transaction keeps what Dagster's own keeps."""

import dagster as dg
import pytest
from dagster import DagsterInstance
from dagster._core.storage.event_log import SqliteEventLogStorage

from pdm_assets.demo import make_home
from pdm_assets.resources.event_log import BatchedSqliteEventLog

DAYS = 40


@dg.asset(
    partitions_def=dg.DailyPartitionsDefinition("2015-01-01", end_date="2015-03-01"),
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def readings() -> None:
    """An asset with many days a run."""


def events_of(instance):
    tags = {"dagster/asset_partition_range_start": "2015-01-01", "dagster/asset_partition_range_end": "2015-02-09"}
    result = dg.materialize([readings], instance=instance, tags=tags)
    return result.run_id, events_in(instance, result.run_id)


def events_in(instance, run_id):
    return [entry.dagster_event_type for entry in instance.all_logs(run_id) if entry.dagster_event_type]


@pytest.fixture
def instance(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "500")
    with DagsterInstance.from_config(str(make_home(tmp_path))) as instance:
        assert isinstance(instance.event_log_storage, BatchedSqliteEventLog)
        yield instance


def test_a_run_leaves_the_events_that_dagsters_own_log_keeps(instance, tmp_path_factory, monkeypatch):
    _, batched = events_of(instance)
    assert len(instance.get_materialized_partitions(dg.AssetKey("readings"))) == DAYS
    monkeypatch.delenv("DAGSTER_EVENT_BATCH_SIZE")
    with DagsterInstance.local_temp(str(tmp_path_factory.mktemp("own"))) as own:
        assert type(own.event_log_storage) is SqliteEventLogStorage
        _, single = events_of(own)
    assert sorted(batched) == sorted(single)
    assert batched.count(dg.DagsterEventType.ASSET_MATERIALIZATION) == DAYS


def test_a_batch_is_stored_whole_or_not_at_all(instance, monkeypatch):
    run_id, kinds = events_of(instance)
    log = instance.event_log_storage
    entries = [record.event_log_entry for record in log.get_records_for_run(run_id).records][:3]
    store = SqliteEventLogStorage.store_event
    stored = []

    def fails_at_the_third(self, event):
        if len(stored) == 2:
            raise OSError("the disk is full")
        stored.append(event)
        store(self, event)

    monkeypatch.setattr(SqliteEventLogStorage, "store_event", fails_at_the_third)
    with pytest.raises(OSError, match="disk is full"):
        log.store_event_batch(entries)
    assert len(stored) == 2
    monkeypatch.undo()
    assert len(events_in(instance, run_id)) == len(kinds)
    log.store_event_batch(entries)
    assert len(events_in(instance, run_id)) == len(kinds) + 3
