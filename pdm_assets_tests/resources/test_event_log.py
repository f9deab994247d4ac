"""The event log that stores a batch as one transaction keeps what Dagster's own keeps."""

import dagster as dg
import pytest
from dagster import DagsterInstance
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.events import ASSET_EVENTS
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


def kept(instance, run_id):
    """All that the log tells of the asset and of the run's events, without times and numbers of this run."""
    log, key = instance.event_log_storage, dg.AssetKey("readings")
    tagged = dg.DagsterEventType.ASSET_MATERIALIZATION
    entry = log.get_asset_records([key])[0].asset_entry
    records = instance.fetch_materializations(key, limit=100).records
    return {
        "events": events_in(instance, run_id),
        "days": [e.dagster_event.partition for e in instance.all_logs(run_id, of_type=tagged)],
        "days across runs": sorted(instance.get_materialized_partitions(key)),
        "records": [record.partition_key for record in records],
        "latest by day": sorted(log.get_latest_storage_id_by_partition(key, tagged)),
        "latest": instance.get_latest_materialization_event(key).dagster_event.partition,
        "asset": (entry.last_run_id == run_id, entry.last_materialization_record.partition_key),
        "it is the record": entry.last_materialization_record.storage_id == records[0].storage_id,
        "days with a data version": sorted(log.get_latest_tags_by_partition(key, tagged, [DATA_VERSION_TAG])),
    }


def test_a_run_leaves_the_events_that_dagsters_own_log_keeps(instance, tmp_path_factory, monkeypatch):
    run_id, _ = events_of(instance)
    batched = kept(instance, run_id)
    monkeypatch.delenv("DAGSTER_EVENT_BATCH_SIZE")
    with DagsterInstance.local_temp(str(tmp_path_factory.mktemp("own"))) as own:
        assert type(own.event_log_storage) is SqliteEventLogStorage
        run_id, _ = events_of(own)
        assert batched == kept(own, run_id)
    assert len(batched["days across runs"]) == len(batched["days with a data version"]) == DAYS
    assert batched["events"].count(dg.DagsterEventType.ASSET_MATERIALIZATION) == DAYS


@pytest.mark.parametrize(
    ("picked", "step"),
    [
        ((-4, -3), "_store_asset_event"),
        ((0, 1, -1), "store_event"),
    ],  # days alone; days and the run's end, which is about no asset
)
def test_a_batch_is_stored_whole_or_not_at_all(instance, monkeypatch, picked, step):
    run_id, kinds = events_of(instance)
    log = instance.event_log_storage
    of_assets = [entry for entry in instance.all_logs(run_id) if entry.dagster_event_type in ASSET_EVENTS]
    entries = [[*of_assets, instance.all_logs(run_id)[-1]][place] for place in picked]

    def fails(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(SqliteEventLogStorage, step, fails)
    with pytest.raises(OSError, match="disk is full"):
        log.store_event_batch(entries)
    monkeypatch.undo()
    assert len(events_in(instance, run_id)) == len(kinds)
    log.store_event_batch(entries)
    assert len(events_in(instance, run_id)) == len(kinds) + len(picked)
