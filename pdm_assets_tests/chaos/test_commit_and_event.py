"""A run that dies between a commit to Delta and Dagster's event of it, and a lake that is older than Dagster's history."""

import shutil
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from dagster._daemon.monitoring.run_monitoring import execute_run_monitoring_iteration
from deltalake import DeltaTable

from pdm_assets.demo import make_home
from pdm_assets.resources import delta_io
from pdm_assets.schemas.tables import TABLES
from pdm_assets_tests.plant import UP_TO_LABELS, Plant, metadata

DAYS = ("2015-01-01", "2015-01-02")
WRITTEN_BY = {"observations": "features/observations", "component_failures": "labels/component_failures"}
DIES_AFTER_ITS_FIRST_COMMIT = """
import os, sys
from pathlib import Path
import dagster as dg
from pdm_assets.resources import delta_io
from pdm_assets.resources.spark import SparkEngine
from pdm_assets_tests.plant import Plant
delta_io.mark_days = lambda *_: os._exit(9)
engine = SparkEngine(data=sys.argv[1])
plant = Plant(Path(sys.argv[1]), engine)
plant.instance = dg.DagsterInstance.from_config(sys.argv[2])
plant.run("2015-01-01", "2015-01-02", tables="machines")
"""


def landed(root: Path, engine) -> Plant:
    plant = Plant(root, engine)
    plant.land_fleet(1, 2)
    plant.land_telemetry(*DAYS)
    plant.land("telemetry", "bad.csv", f"{DAYS[0]} 05:00:00,1,much,400,100,40")
    plant.land("errors", "errors.csv", f"{DAYS[1]} 05:00:00,1,error1")
    plant.land("maintenance", "maint.csv", f"{DAYS[0]} 06:00:00,1,comp2")
    plant.land("failures", "failures.csv", f"{DAYS[1]} 06:00:00,2,comp2")
    return plant


def content(plant: Plant) -> dict[str, list[tuple]]:
    written = {
        key for key, table in TABLES.items() if plant.lake.exists(table) and table.daily and not key.startswith("models/")
    }
    return {key: plant.rows(key, *DAYS, *TABLES[key].column_names) for key in written}


def is_contiguous(plant: Plant) -> bool:
    logs = list(Path(plant.lake.root).rglob("_delta_log"))
    versions = {log: sorted(int(path.stem) for path in log.glob("*.json")) for log in logs}
    return bool(logs) and all(found == list(range(len(found))) for found in versions.values())


@pytest.mark.slow
def test_a_run_that_dies_after_any_commit_and_before_its_event_is_made_good_by_the_next(tmp_path, engine, spark, monkeypatch):
    undisturbed, plant = landed(tmp_path / "undisturbed", engine), landed(tmp_path / "plant", engine)
    assert undisturbed.run(*DAYS).success

    def die(*_):
        raise RuntimeError("the run died here")

    for name in UP_TO_LABELS.split():
        key = WRITTEN_BY.get(name, f"raw/{name}")
        with monkeypatch.context() as patch:
            patch.setattr(delta_io, "mark_days", die)
            assert not plant.run(*DAYS, tables=name).success
        assert not plant.instance.get_materialized_partitions(dg.AssetKey(key.split("/"))), "there is a commit but no event"
        again = plant.run(*DAYS, tables=name)
        assert again.success
        rows = sum(m["dagster/partition_row_count"] for m in metadata(again, key).values())
        assert rows == len(plant.rows(key, *DAYS, "date"))
    assert content(plant) == content(undisturbed)
    assert is_contiguous(plant)


def test_a_process_that_ends_after_its_commit_is_noticed_and_its_run_tried_again(tmp_path, engine, spark):
    """The process is gone at once, as by kill -9: no event, no end of the run, a lock that the system lets go."""
    home = make_home(tmp_path)
    plant = landed(tmp_path, engine)
    ended = subprocess.run(
        [sys.executable, "-c", DIES_AFTER_ITS_FIRST_COMMIT, str(tmp_path), str(home)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 9, ended.stderr[-2000:]
    assert plant.lake.version(TABLES["raw/machines"]) == 1, "it was created and written"
    with dg.DagsterInstance.from_config(str(home)) as instance:
        plant.instance = instance
        (run,) = instance.get_runs()
        assert run.status == dg.DagsterRunStatus.STARTED
        assert not instance.get_materialized_partitions(dg.AssetKey(["raw", "machines"]))

        monitor(instance)
        run = instance.get_run_by_id(run.run_id)
        assert run.status == dg.DagsterRunStatus.FAILURE
        assert run.is_complete_and_waiting_to_retry

        assert plant.run(*DAYS, tables="machines").success
        assert instance.get_materialized_partitions(dg.AssetKey(["raw", "machines"])) == set(DAYS)
        monitor(instance)
        assert [run.status.value for run in instance.get_runs()] == ["SUCCESS", "FAILURE"], "a run that ended is left alone"
    assert len(plant.rows("raw/machines", *DAYS, "machine_id")) == 4
    assert is_contiguous(plant)


def monitor(instance: dg.DagsterInstance) -> None:
    """One look of the daemon's at the runs under way."""
    import logging
    from types import SimpleNamespace

    process = SimpleNamespace(instance=instance, create_request_context=lambda: None)
    assert [error for error in execute_run_monitoring_iteration(process, logging.getLogger("test")) if error] == []


def test_a_lake_that_is_older_than_dagsters_history_is_made_good_by_materializing_its_days(tmp_path, engine, spark):
    """The reverse: Dagster has the event and the commit is gone, as after a restore of the lake alone."""
    plant = landed(tmp_path, engine)
    assert plant.run(DAYS[0], tables="machines").success
    shutil.copytree(plant.lake.root, tmp_path / "backup")
    assert plant.run(DAYS[1], tables="machines").success
    whole = plant.rows("raw/machines", *DAYS, *TABLES["raw/machines"].column_names)
    assert len(whole) == 4

    shutil.rmtree(plant.lake.root)
    (tmp_path / "backup").rename(plant.lake.root)
    assert set(DAYS) == plant.instance.get_materialized_partitions(dg.AssetKey(["raw", "machines"]))
    assert len(plant.rows("raw/machines", *DAYS, "machine_id")) == 2
    assert plant.run(DAYS[1], tables="machines").success
    assert plant.rows("raw/machines", *DAYS, *TABLES["raw/machines"].column_names) == whole
    assert is_contiguous(plant)
    assert len(DeltaTable(f"{plant.lake.root}/raw/machines").get_add_actions(flatten=True).column("path")) == 2
