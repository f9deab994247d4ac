"""The weekly upkeep: what it deletes, what it never does, and the return of a table to a version."""

import datetime as dt
import json
import sys
from types import SimpleNamespace

import dagster as dg
import pytest
from click.testing import CliRunner

from pdm_assets import cli, upkeep_commands
from pdm_assets.automation.upkeep import upkeep
from pdm_assets.resources.faults import TRIED_AGAIN
from pdm_assets.resources.lake import Lake, LakeError
from pdm_assets.resources.model_store import ModelStore
from pdm_assets.resources.spark import SparkEngine
from pdm_assets.resources.upkeep import _days_to_keep, tidy
from pdm_assets.resources.versions import named_versions, unreadable
from pdm_assets.schemas.features import DECISIONS, OBSERVATIONS
from pdm_assets.schemas.raw import ERRORS, TELEMETRY
from pdm_assets_tests import builders
from pdm_assets_tests.builders import day, utc
from pdm_assets_tests.plant import failure
from pdm_assets_tests.upkeep.saved import MODEL

NOW = utc("2015-06-30 12:00")


def files(lake, table):
    return lake.delta(table).get_add_actions(flatten=True).num_rows


@pytest.mark.parametrize(
    ("named_at", "days"),
    [
        ([], 30),
        (["2015-06-29 12:00"], 30),
        (["2015-06-10 12:00", "2015-06-29 12:00"], 30),
        (["2015-06-07 12:00"], 60),  # 23 days old, 31 when upkeep has come by once more
        (["2014-06-30 12:00"], 390),
    ],
)
def test_the_retention_reaches_back_to_the_oldest_named_version_until_upkeep_comes_again(named_at, days):
    assert _days_to_keep(30, [utc(at) for at in named_at], NOW) == days


def test_which_versions_are_named_is_what_the_registered_models_say_but_those_let_go(plant):
    now = dt.datetime.now(dt.UTC)
    named = {
        key: {1: [MODEL]} for key in ("features/observations", "labels/component_failures", "raw/failures", "raw/maintenance")
    }
    assert named_versions(plant.store, None, now) == named
    (trained,) = plant.store.registered()
    assert named_versions(plant.store, 9, trained.trained_at + dt.timedelta(days=8)) == named
    assert named_versions(plant.store, 9, trained.trained_at + dt.timedelta(days=9)) == {}


def test_a_version_that_a_model_names_stays_and_the_same_is_let_go_once_none_does(plant, spark):
    now = dt.datetime.now(dt.UTC)
    kept = tidy(plant.lake, OBSERVATIONS, [1], now)
    assert kept.days_kept > (now - utc("2024-01-01 01:00")).days
    assert (kept.oldest_version, kept.bytes_freed, kept.files_before, kept.files_after) == (0, 0, 6, 6)
    assert plant.lake.read(OBSERVATIONS, version=1).count() == 12
    let_go = tidy(plant.lake, OBSERVATIONS, [], now)
    assert (let_go.days_kept, let_go.files_after) == (30, 3)
    assert let_go.bytes_freed > 0
    assert unreadable(plant.lake, OBSERVATIONS, 1).startswith("3 of its files are gone")
    assert plant.lake.read(OBSERVATIONS).count() == 12


def test_only_what_is_crowded_is_compacted_and_a_second_time_there_is_nothing_to_do(plant, spark):
    where = f"{plant.lake.root}/{ERRORS.key}"
    for machine in range(1, 7):
        crowd = builders.errors(spark, [(machine + 6 * n, "2015-01-03 05:00", "error1") for n in range(6)])
        crowd.write.format("delta").mode("append").save(where)
    before = plant.rows("raw/errors", "2015-01-01", "2015-01-03", *ERRORS.column_names)
    calm = [name for name in plant.lake.delta(ERRORS).file_uris() if "2015-01-02" in name]
    now = dt.datetime.now(dt.UTC)
    assert tidy(plant.lake, ERRORS, [], now).compacted == 1
    assert files(plant.lake, ERRORS) == 2
    assert [name for name in plant.lake.delta(ERRORS).file_uris() if "2015-01-02" in name] == calm
    assert plant.rows("raw/errors", "2015-01-01", "2015-01-03", *ERRORS.column_names) == before
    version = plant.lake.version(ERRORS)
    assert tidy(plant.lake, ERRORS, [], now).compacted == 0
    assert plant.lake.version(ERRORS) == version


def test_the_job_says_of_each_table_what_it_did(plant, spark, monkeypatch):
    decision = spark.createDataFrame(plant.lake.arrow(DECISIONS, None, None).to_table().to_pandas(), DECISIONS.struct)
    for _ in range(4):  # with the one that is there, a file more than is let be
        decision.write.format("delta").mode("append").save(f"{plant.lake.root}/models/decisions")
    monkeypatch.setattr(Lake, "tables", lambda self: [TELEMETRY, DECISIONS])
    result = upkeep.execute_in_process(resources=plant.resources, instance=dg.DagsterInstance.ephemeral())
    assert result.success
    seen = {
        event.event_specific_data.asset_observation.asset_key.to_user_string(): {
            name: value.value for name, value in event.event_specific_data.asset_observation.metadata.items()
        }
        for event in result.all_events
        if event.event_type_value == "ASSET_OBSERVATION"
    }
    freed = seen["raw/telemetry"].pop("bytes_freed")
    assert freed > 0
    assert seen["raw/telemetry"] == {
        "files_before": 6,
        "files_after": 3,
        "days_compacted": 0,
        "days_kept": 30,
        "oldest_version_kept": "2 of 2023-12-31",
    }
    assert (seen["models/decisions"]["days_compacted"], files(plant.lake, DECISIONS)) == (1, 1)
    told = {event.step_key: event.step_output_data.metadata for event in result.all_events if event.is_successful_output}
    assert told["forget_old_runs"]["runs_forgotten"].value == 0
    shown = told["tidy_tables"]["tables"].value
    assert f"| raw/telemetry | 6 | 3 | {freed} | 0 | 30 | 2 of 2023-12-31 |" in shown


@pytest.mark.parametrize(("keep_days", "count"), [(30, 0), (-1, 1)])
def test_the_job_deletes_runs_that_ended_before_the_days_to_keep(plant, monkeypatch, keep_days, count):
    monkeypatch.setattr(Lake, "tables", lambda self: [])
    module = sys.modules["pdm_assets.automation.upkeep"]  # its package gives the name to the job
    monkeypatch.setattr(module, "SETTINGS", SimpleNamespace(keep_days=keep_days, keep_model_data_days=None))
    with dg.DagsterInstance.ephemeral() as instance:
        for _ in range(2):
            instance.report_run_failed(instance.add_run(dg.DagsterRun("a_job")))
        result = upkeep.execute_in_process(resources=plant.resources, instance=instance)
    (told,) = (e.step_output_data.metadata for e in result.all_events if e.is_successful_output and e.step_key != "tidy_tables")
    assert told["runs_forgotten"].value == count


def test_where_another_writes_the_lake_the_job_waits_its_turn(plant, monkeypatch):
    monkeypatch.setattr("pdm_assets.resources.hold.PATIENCE_S", 0.2)
    with dg.DagsterInstance.ephemeral() as instance, plant.lake.held_by("another"):
        refused = upkeep.execute_in_process(resources=plant.resources, instance=instance, raise_on_error=False)
        assert "written by another" in failure(refused)
        assert instance.get_run_by_id(refused.run_id).tags[TRIED_AGAIN] == "true"


def test_tables_of_a_catalog_are_left_to_it():
    lake = Lake(spark=None, root="lake", catalog="main", schema_name="pdm")
    with pytest.raises(LakeError, match="is in a catalog: use its OPTIMIZE and VACUUM"):
        tidy(lake, ERRORS, [], NOW)


def test_the_job_leaves_the_tables_of_a_catalog_to_it_and_deletes_old_runs_all_the_same(tmp_path):
    spark = SparkEngine(data=str(tmp_path))
    lake = Lake(spark=spark, root="lake", catalog="main", schema_name="pdm")
    resources = {"spark": spark, "lake": lake, "model_store": ModelStore(lake=lake, root="models", horizon_hours=48)}
    result = upkeep.execute_in_process(resources=resources, instance=dg.DagsterInstance.ephemeral())
    assert result.success
    told = {event.step_key: event.step_output_data.metadata for event in result.all_events if event.is_successful_output}
    assert told["tidy_tables"]["tables"].value == "left to the catalog main, which looks after its own"
    assert told["forget_old_runs"]["runs_forgotten"].value == 0
    assert not (tmp_path / "engine").exists()


@pytest.fixture
def pdm(plant, monkeypatch):
    monkeypatch.setattr(upkeep_commands, "_store", lambda: plant.store)

    def run(*arguments):
        result = CliRunner().invoke(cli.main, ["lake", "restore", *map(str, arguments)])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


def test_a_table_returns_to_a_version_or_a_time_and_says_what_is_stale(pdm, plant, spark):
    newest = plant.lake.version(ERRORS)
    was = plant.rows("raw/errors", "2015-01-01", "2015-01-31", *ERRORS.column_names)
    lake = plant.lake
    changed = lake.replace_days(ERRORS, None, day("2015-01-02"), day("2015-01-03"), {}).version
    assert plant.rows("raw/errors", "2015-01-01", "2015-01-31", *ERRORS.column_names) != was

    said = pdm("raw/errors", "--version", newest, "--reason", "emptied by mistake")
    assert said.exit_code == 0, said.output
    lines = said.output.splitlines()
    assert lines[0] == f"raw/errors is what it was at version {newest}, and that is version {changed + 1} now"
    assert lines[1] == f"to undo it: pdm-assets lake restore raw/errors --version {changed}"
    assert lines[2] == "1 days changed: 2015-01-02"
    assert lines[3] == "stale now, from 2015-01-02 to 2015-01-06: materialize in the UI, for these days, all of"
    assert {"  features/observations", "  scores/component_risk", "  worklist/maintenance"} <= set(lines[4:])
    assert "  labels/component_failures" not in lines
    assert plant.rows("raw/errors", "2015-01-01", "2015-01-31", *ERRORS.column_names) == was
    note = json.loads(lake.delta(ERRORS).history(1)[0]["userMetadata"])
    assert (note["reason"], note["to_version"]) == ("emptied by mistake", newest)
    assert note["restored_by"]

    early = pdm("raw/errors", "--at", "2023-12-01T23:00")
    assert early.exit_code == 1
    assert "raw/errors has no version of 2023-12-01 23:00:00 UTC: its log begins 2023-12-31 " in early.output
    at = dt.datetime.now(dt.UTC).isoformat()
    assert (
        pdm("raw/errors", "--at", at).output.splitlines()[0].startswith(f"raw/errors is what it was at version {changed + 1}")
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("raw/errors",), "say either --version or --at"),
        (("raw/errors", "--version", 1, "--at", "2026-01-01"), "say either --version or --at"),
        (("raw/noise", "--version", 1), "no table 'raw/noise'. Tables: raw/telemetry"),
        (("raw/errors", "--version", 99), "raw/errors has no version 99: the newest is 3"),
        (("raw/errors", "--at", "soon"), "'soon' is no time: write YYYY-MM-DDTHH:MM, UTC"),
    ],
)
def test_what_can_not_be_restored_is_said_without_spark(pdm, plant, arguments, said):
    result = pdm(*arguments)
    assert result.exit_code != 0
    assert said in result.output
    assert plant.lake.version(ERRORS) == 3


def test_a_version_whose_files_are_gone_is_refused_before_anything_is_done(pdm, plant):
    for path in (plant.landing.parent / "lake" / ERRORS.key).rglob("*.parquet"):
        path.unlink()
    result = pdm("raw/errors", "--version", 1)
    assert result.exit_code == 1
    assert "version 1 of raw/errors can't be restored: 1 of its files are gone, such as part-" in result.output
    assert plant.lake.version(ERRORS) == 3


def test_none_returns_to_a_version_while_another_writes_the_lake(pdm, plant, monkeypatch):
    monkeypatch.setattr("pdm_assets.resources.hold.PATIENCE_S", 0.2)
    with plant.lake.held_by("a run"):
        said = pdm("raw/errors", "--version", 1)
    assert said.exit_code == 1
    assert "the lake is being written by a run, and not by pdm-assets lake restore" in said.output
