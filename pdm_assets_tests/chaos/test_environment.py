"""Faults of the machine: each is named in the run's log, leaves the lake as it was, and is over when its cause is."""

import errno
import os
import subprocess
from contextlib import suppress

import dagster as dg
import pytest
from pyspark.errors import PySparkException
from pyspark.sql import functions as F

from pdm_assets.engine.spark import SparkUnavailable
from pdm_assets.models.fitting import FitProcessError
from pdm_assets.resources.faults import DENIED, ENDING, FULL, LOST, NO_MEMORY, READ_ONLY, TRIED_AGAIN, fault_in
from pdm_assets.resources.lake import LakeError, LakeGone
from pdm_assets.resources.landing import LandingGone
from pdm_assets.resources.spark import SparkEngine
from pdm_assets.schemas.tables import TABLES
from pdm_assets_tests.plant import Plant

TELEMETRY = "machines telemetry"


def caused(text: str, cause: BaseException) -> BaseException:
    error = RuntimeError(text)
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), FULL),
        (caused("Error occurred while handling output", OSError(errno.EROFS, "x")), READ_ONLY),
        (RuntimeError("[TASK_WRITE_FAILED] ... java.io.IOException: No space left on device"), FULL),
        (RuntimeError("java.io.FileNotFoundException: /lake/part-0.parquet (Permission denied)"), DENIED),
        (RuntimeError("java.lang.OutOfMemoryError: Java heap space"), NO_MEMORY),
        (RuntimeError("[OUT_OF_MEMORY] DuckDB needs more memory than it may take"), NO_MEMORY),
        (RuntimeError("Generic LocalFileSystem error: No space left on device (os error 28)"), FULL),
        (RuntimeError("(java.lang.IllegalStateException) Cannot call methods on a stopped SparkContext."), ENDING),
        (RuntimeError("org.apache.spark.SparkException: Job 7 cancelled because SparkContext was shut down"), ENDING),
        (RuntimeError("[CHECKPOINT_RDD_BLOCK_ID_NOT_FOUND] Checkpoint block rdd_5_0 not found! Either the executor"), LOST),
        (RuntimeError("Job aborted due to stage failure: Task 0 failed 4 times ... ExecutorLostFailure (executor 1"), LOST),
        (LakeError("raw/telemetry has never been written"), None),
        (ValueError("a row of another day"), None),
        (OSError(errno.ENOENT, "no such file"), None),
        (None, None),
    ],
    ids=str,
)
def test_a_fault_is_told_from_an_error_of_the_data(error, fault):
    assert fault_in(error) is fault


def test_what_may_pass_is_retried():
    away, killed, gone = SparkUnavailable("no server"), FitProcessError("killed"), LakeGone("not mounted")
    unmounted = LandingGone("not mounted")
    assert [fault_in(caused("x", error)).passes for error in (away, killed, gone, unmounted)] == [True] * 4
    assert not NO_MEMORY.passes


@pytest.fixture
def mounted(tmp_path):
    """A small disk of its own for the lake."""
    lake = tmp_path / "lake"
    lake.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1500k", "pdm-test", str(lake)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield lake
    subprocess.run(["umount", "-l", str(lake)], check=True)


@pytest.fixture
def plant(tmp_path, engine, spark):
    plant = Plant(tmp_path, engine)
    plant.land_fleet(1, 2)
    plant.land_telemetry("2015-01-01", "2015-01-02")
    return plant


def said(plant: Plant, result: dg.ExecuteInProcessResult) -> str:
    """What the run's log says of the fault; the run is marked to be tried again."""
    run = plant.instance.get_run_by_id(result.run_id)
    assert run.tags.get(TRIED_AGAIN) == "true", [str(e.step_failure_data.error) for e in result.all_events if e.is_step_failure]
    return "\n".join(entry.user_message for entry in plant.instance.all_logs(result.run_id) if entry.level >= 40)


def telemetry(plant: Plant) -> list[tuple]:
    return plant.rows("raw/telemetry", "2015-01-01", "2015-01-02", "machine_id", "observed_at", "volt")


def test_a_full_disk_is_named_costs_nothing_that_was_there_and_is_over_with_room(plant, mounted):
    assert plant.run("2015-01-01", tables=TELEMETRY).success
    before, version = telemetry(plant), plant.lake.version(TABLES["raw/telemetry"])
    ballast = mounted / "ballast"
    with suppress(OSError), ballast.open("wb") as file:
        while file.write(b"0" * 4096):
            file.flush()
    assert os.statvfs(mounted).f_bavail == 0
    failed = plant.run("2015-01-02", tables=TELEMETRY)
    assert not failed.success
    assert "the disk is full: make room" in said(plant, failed)
    assert (telemetry(plant), plant.lake.version(TABLES["raw/telemetry"])) == (before, version)

    ballast.unlink()
    assert plant.run("2015-01-02", tables=TELEMETRY).success
    assert len(telemetry(plant)) == 2 * len(before) == 96


def test_a_lake_mounted_read_only_is_named_and_is_over_when_it_is_writable(plant, mounted):
    assert plant.run("2015-01-01", tables=TELEMETRY).success
    before = telemetry(plant)
    subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True)
    try:
        failed = plant.run("2015-01-02", tables=TELEMETRY)
        assert not failed.success
        assert "mounted read-only" in said(plant, failed)
        assert telemetry(plant) == before
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(mounted)], check=True)
    assert plant.run("2015-01-02", tables=TELEMETRY).success
    assert len(telemetry(plant)) == 96


@pytest.mark.parametrize("is_empty", [True, False], ids=["an empty mount point", "no folder"])
def test_a_lake_that_is_gone_is_not_begun_anew(plant, tmp_path, is_empty):
    lake, away = tmp_path / "lake", tmp_path / "away"
    assert plant.run("2015-01-01", tables="machines").success
    lake.rename(away)
    if is_empty:
        lake.mkdir()
    failed = plant.run("2015-01-02", tables="machines")
    assert not failed.success
    assert "is gone, and it was there before: mount it" in said(plant, failed)
    assert not lake.exists() or not any(lake.iterdir()), "nothing was written where the lake should be"
    with pytest.raises(LakeGone):
        plant.lake.read(TABLES["raw/machines"])

    if is_empty:
        lake.rmdir()
    away.rename(lake)
    assert plant.run("2015-01-02", tables="machines").success
    assert len(plant.rows("raw/machines", "2015-01-01", "2015-01-02", "machine_id")) == 4


@pytest.mark.parametrize("is_empty", [True, False], ids=["an empty mount point", "no folder"])
def test_a_landing_folder_that_is_gone_empties_no_table(plant, tmp_path, is_empty):
    assert plant.run("2015-01-01", "2015-01-02", tables=TELEMETRY).success
    before, folder = telemetry(plant), plant.landing / "telemetry"
    folder.rename(tmp_path / "away")
    if is_empty:
        folder.mkdir()
    failed = plant.run("2015-01-01", "2015-01-02", tables=TELEMETRY)
    assert not failed.success
    assert f"{folder} holds none of the 1 files that it had: mount it" in said(plant, failed)
    assert telemetry(plant) == before


def test_a_query_that_runs_out_of_memory_says_which_setting_is_not_retried_and_the_next_works(tmp_path):
    resource = SparkEngine(data=str(tmp_path), memory_mb=256)
    try:
        session = resource.spark_session
        too_much = session.range(20_000_000).agg(F.collect_list(F.col("id").cast("string")).alias("all"))
        with pytest.raises(PySparkException) as caught:
            too_much.select(F.size("all").alias("size")).collect()
        fault = fault_in(caught.value)
        assert fault is not None, caught.value
        assert "PDM_MEMORY_MB" in fault.words
        assert not fault.passes
        assert session.range(3).count() == 3
    finally:
        resource.close()
    assert list((tmp_path / "engine" / "spill").iterdir()) == []


def test_without_a_network_a_run_starts_and_ends(tmp_path, monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    engine = SparkEngine(data=str(tmp_path / "data"), memory_mb=256)
    plant = Plant(tmp_path / "plant", engine)
    plant.land_fleet(1, 2)
    plant.land_telemetry("2015-01-01")
    assert plant.run("2015-01-01").success
    engine.close()
