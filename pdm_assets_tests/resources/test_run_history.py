"""Old runs of which nothing is the latest are forgotten, and no partition looks as if it had not been made."""

import datetime as dt
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterEventType
from dagster._core.events import DagsterEvent

from pdm_assets.demo import make_home
from pdm_assets.resources.run_history import Forgotten, forget_runs

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
    assert forget_runs(instance, SOON) == Forgotten(3, {})
    assert left(instance) == {half, *newest}
    assert last_of_its_job in left(instance)
    assert instance.get_materialized_partitions(dg.AssetKey("readings")) == partitions
    latest = instance.get_latest_materialization_event(dg.AssetKey("report"))
    assert latest.run_id == newest[1]
    for run in (again, failed, old_report):
        assert [path for path in logs[run] if path.exists()] == []
        assert instance.all_logs(run) == []
    assert forget_runs(instance, SOON).runs == 0


def test_a_young_run_and_one_under_way_stay(instance):
    young = [made(instance, "2015-01-01"), made(instance, "2015-01-01")]
    under_way = instance.create_run_for_job(
        dg.define_asset_job("a_job", [readings]).resolve(asset_graph=dg.Definitions([readings]).resolve_asset_graph()),
        status=dg.DagsterRunStatus.STARTED,
    ).run_id
    assert forget_runs(instance, dt.datetime.now(dt.UTC) - dt.timedelta(days=30)).runs == 0
    assert forget_runs(instance, SOON).runs == 1
    assert left(instance) == {young[1], under_way}


def test_the_newest_of_a_job_stays_also_where_nothing_came_of_it(instance):
    made_nothing = made(instance, "2015-01-01", fails=True)
    assert forget_runs(instance, SOON).runs == 0
    canceled = run_of(instance, "another_job", dg.DagsterRunStatus.CANCELED)
    newest = run_of(instance, "another_job", dg.DagsterRunStatus.CANCELED)
    assert canceled != newest
    assert forget_runs(instance, SOON).runs == 1
    assert left(instance) == {made_nothing, newest}


def test_the_latest_of_an_asset_without_partitions_stays_when_its_job_ran_on(instance):
    with_report = dg.materialize([report], instance=instance).run_id
    newest = made(instance, "2015-01-01")
    assert instance.get_run_by_id(newest).job_name == instance.get_run_by_id(with_report).job_name
    assert forget_runs(instance, SOON).runs == 0


def test_the_latest_of_every_partition_stays_however_many_there_are(instance, monkeypatch):
    monkeypatch.setattr("pdm_assets.resources.run_history.AT_ONCE", 2)
    latest = {made(instance, f"2015-01-0{number}") for number in range(1, 8)}
    assert forget_runs(instance, SOON).runs == 0
    assert left(instance) == latest


def test_what_a_run_that_stays_was_made_from_stays(instance):
    """Dagster looks for it when the run is tried again, and gives up where it finds none."""
    first = run_of(instance, "a_job", dg.DagsterRunStatus.FAILURE)
    second = run_of(instance, "a_job", dg.DagsterRunStatus.FAILURE, root_run_id=first, parent_run_id=first)
    third = run_of(instance, "a_job", dg.DagsterRunStatus.SUCCESS, root_run_id=first, parent_run_id=second)
    assert forget_runs(instance, SOON).runs == 0
    run_of(instance, "a_job", dg.DagsterRunStatus.SUCCESS)
    assert forget_runs(instance, SOON).runs == 3
    assert not left(instance) & {first, second, third}


def test_one_that_can_not_be_deleted_is_named_left_and_keeps_no_other(instance, monkeypatch):
    runs = [made(instance, "2015-01-01") for _ in range(3)]
    real = type(instance.event_log_storage).delete_events

    def delete_events(self, run_id):
        if run_id == runs[0]:
            raise OSError("database is locked")
        real(self, run_id)

    monkeypatch.setattr(type(instance.event_log_storage), "delete_events", delete_events)
    assert forget_runs(instance, SOON) == Forgotten(1, {runs[0]: "OSError('database is locked')"})
    assert left(instance) == {runs[0], runs[2]}
    monkeypatch.undo()
    assert forget_runs(instance, SOON) == Forgotten(1, {})


def run_of(instance, job, status, **lineage):
    run = dg.DagsterRun(job, status=dg.DagsterRunStatus.STARTED, **lineage)
    instance.add_run(run)
    ends = {dg.DagsterRunStatus.FAILURE: instance.report_run_failed, dg.DagsterRunStatus.CANCELED: instance.report_run_canceled}
    if status in ends:
        ends[status](run)
    else:
        instance.report_dagster_event(DagsterEvent(DagsterEventType.RUN_SUCCESS.value, job, message="done"), run_id=run.run_id)
    return run.run_id


def test_an_event_of_a_run_that_another_process_deleted_is_stored_anew(instance, tmp_path):
    """As Dagster's own storage does it: the run goes on."""
    run = run_of(instance, "a_job", dg.DagsterRunStatus.SUCCESS)
    with dg.DagsterInstance.from_config(str(tmp_path / "dagster")) as another:
        another.delete_run(run)
    instance.report_engine_event("still there", run_id=run, job_name="a_job")
    assert [event.message for event in instance.all_logs(run)] == ["still there"]
