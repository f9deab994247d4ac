"""Old runs of which nothing is the latest are forgotten, and no partition looks as if it had not been made."""

import datetime as dt
from pathlib import Path

import dagster as dg
import pytest

from pdm_assets.demo import make_home
from pdm_assets.resources.run_history import forget_runs

SOON = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)


@dg.asset(
    partitions_def=dg.DailyPartitionsDefinition("2015-01-01", end_date="2015-03-01"),
    backfill_policy=dg.BackfillPolicy.single_run(),
    config_schema={"fails": dg.Field(bool, default_value=False)},
)
def readings(context) -> None:
    print("said by the asset")
    assert not context.op_execution_context.op_config["fails"]


@dg.asset
def report() -> None:
    """An asset without partitions."""


@pytest.fixture
def instance(tmp_path):
    with dg.DagsterInstance.from_config(str(make_home(tmp_path))) as instance:
        yield instance


def made(instance, first, last=None, fails=False):
    return dg.materialize(
        [readings],
        instance=instance,
        tags={"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last or first},
        run_config={"ops": {"readings": {"config": {"fails": fails}}}},
        raise_on_error=False,
    ).run_id


def left(instance):
    return {run.run_id for run in instance.get_runs()}


def test_a_run_goes_once_all_that_it_made_was_made_again(instance, tmp_path):
    again = made(instance, "2015-01-01", "2015-01-03")
    half = made(instance, "2015-01-04", "2015-01-06")
    failed = made(instance, "2015-01-02", fails=True)
    old_report = dg.materialize([report], instance=instance).run_id
    newest = [made(instance, "2015-01-01", "2015-01-04"), dg.materialize([report], instance=instance).run_id]
    (last_of_its_job,) = [run.run_id for run in instance.get_runs(limit=1)]
    partitions = instance.get_materialized_partitions(dg.AssetKey("readings"))
    logs = {run: list(Path(instance.root_directory).rglob(f"*{run}*")) for run in left(instance)}
    assert all(logs.values())
    assert forget_runs(instance, SOON) == 3
    assert left(instance) == {half, *newest}
    assert last_of_its_job in left(instance)
    assert instance.get_materialized_partitions(dg.AssetKey("readings")) == partitions
    latest = instance.get_latest_materialization_event(dg.AssetKey("report"))
    assert latest.run_id == newest[1]
    for run in (again, failed, old_report):
        assert [path for path in logs[run] if path.exists()] == []
        assert instance.all_logs(run) == []
    assert forget_runs(instance, SOON) == 0


def test_a_young_run_and_one_under_way_stay(instance):
    young = [made(instance, "2015-01-01"), made(instance, "2015-01-01")]
    under_way = instance.create_run_for_job(
        dg.define_asset_job("a_job", [readings]).resolve(asset_graph=dg.Definitions([readings]).resolve_asset_graph()),
        status=dg.DagsterRunStatus.STARTED,
    ).run_id
    assert forget_runs(instance, dt.datetime.now(dt.UTC) - dt.timedelta(days=30)) == 0
    assert forget_runs(instance, SOON) == 1
    assert left(instance) == {young[1], under_way}
