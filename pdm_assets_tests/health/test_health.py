"""`pdm-assets health`: nothing to say where all is well, and each trouble by its rule; no Spark, and nothing written."""

import dataclasses
import datetime as dt
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner
from dagster._core.remote_origin import RemoteInstigatorOrigin
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    ScheduleInstigatorData,
    TickData,
    TickStatus,
)
from dagster._utils.error import SerializableErrorInfo

from pdm_assets import cli, upkeep_commands
from pdm_assets.health import of_lake
from pdm_assets.health.look import METRICS, Level
from pdm_assets.health.rules import RULES, look_at
from pdm_assets.health.told import prometheus
from pdm_assets.settings import Settings
from pdm_assets_tests.health.root import DAY, DUE, FIRST, LANDED, NOW, DataRoot
from pdm_assets_tests.ports import free_ports
from pdm_assets_tests.upkeep.saved import MODEL

FAILURE, SUCCESS = dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS
OK, WARN, CRITICAL = Level
PASSWORD = "s3cret-5UPPOSED"


HALF_FREE = type(shutil.disk_usage("/"))(total=100 * 10**9, used=50 * 10**9, free=50 * 10**9)


def clock():
    return dt.datetime.now(dt.UTC)


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    return DataRoot(tmp_path_factory.mktemp("filled")).fill()


@pytest.fixture
def it(filled, tmp_path):
    shutil.copytree(filled.root, tmp_path / "data")
    return DataRoot(tmp_path / "data")


@pytest.fixture
def pdm(it, monkeypatch):
    monkeypatch.setenv("PDM_DATA", str(it.root))
    monkeypatch.setenv("PDM_FIRST_DAY", str(FIRST))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    # The command's time is that which the data root was made by, however long the session; its disk is half free.
    monkeypatch.setattr(upkeep_commands, "clock", lambda: NOW)
    monkeypatch.setattr(of_lake.shutil, "disk_usage", lambda _path: HALF_FREE)

    def run(*arguments):
        result = CliRunner().invoke(cli.main, ["health", *map(str, arguments)])
        assert isinstance(result.exception, SystemExit | None), result.exception
        return result

    return run


def content(root):
    """Every file with its size and time, but the journals that SQLite makes of a database that is read."""
    files = (path for path in root.rglob("*") if path.is_file() and not path.name.endswith(("-wal", "-shm")))
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def test_where_all_is_well_every_rule_says_so_and_nothing_is_written_and_no_engine_started(it, pdm):
    before = content(it.root)
    result = pdm()
    assert result.output.splitlines()[0] == f"OK: {len(RULES)} rules are fine", result.output
    assert result.exit_code == 0
    assert "what to do" not in result.output
    assert content(it.root) == before
    assert not (it.root / "engine").exists()


def test_of_a_data_root_that_is_empty_it_says_that_dagster_never_ran_and_leaves_it_empty(tmp_path, monkeypatch):
    monkeypatch.setenv("PDM_DATA", str(tmp_path))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    result = CliRunner().invoke(cli.main, ["health"])
    assert result.exit_code == 2
    assert result.output.startswith("CRITICAL: database, daemon, sensor")
    assert f"Dagster has never run on {tmp_path}/dagster" in result.output
    assert "there are no scores, for nothing was observed yet" in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_setting_that_can_not_be_used_is_critical_and_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PDM_HORIZON", "48")
    result = CliRunner().invoke(cli.main, ["health"])
    assert result.exit_code == 2
    assert result.output.startswith("CRITICAL: no such setting: PDM_HORIZON.")


@pytest.mark.parametrize(("behind", "level"), [(1, WARN), (2, CRITICAL), (5, CRITICAL)])
def test_scores_that_end_too_early_are_told_of(it, behind, level):
    it.table("scores/component_risk", [DUE - n * DAY for n in range(behind, 30)])
    said = it.says()["scores"]
    assert said.level == level
    assert said.what == f"the newest scored day is {DUE - behind * DAY}, {DUE} should be"
    # the first day that is missing is over, and its scores are due
    assert said.since == dt.datetime.combine(DUE - (behind - 2) * DAY, dt.time(), dt.UTC)


def test_until_six_in_the_morning_nobody_waits_for_yesterday(it):
    midnight = dt.datetime.combine(DUE + 2 * DAY, dt.time(), dt.UTC)
    assert it.says(now=midnight + dt.timedelta(hours=5, minutes=59))["scores"].level == OK
    assert it.says(now=midnight + dt.timedelta(hours=6))["scores"].level == WARN


def test_a_plant_that_has_ended_is_not_waited_for(it):
    settings = dataclasses.replace(it.settings, last_day=DUE)
    assert it.says(now=NOW + 10 * DAY, settings=settings)["scores"].level == OK


def test_a_day_without_scores_between_others_is_told_of(it):
    it.table("scores/component_risk", [DUE - n * DAY for n in range(30) if n != 7])
    said = it.says()["scores"]
    assert (said.level, said.what) == (WARN, f"the newest scored day is {DUE}, but days before it have none: {DUE - 7 * DAY}")


def test_a_plant_without_history_enough_for_a_model_is_no_trouble_and_one_with_it_is(it):
    for table in ("scores/component_risk", "models/failure_model", "models/decisions", "models/registry"):
        shutil.rmtree(it.root / "lake" / table)
    never = it.says()
    assert (never["scores"].level, never["scores"].what) == (CRITICAL, "no day was ever scored")
    assert (never["model"].level, never["model"].what) == (CRITICAL, "no model is in force (0 are registered)")
    it.table("features/observations", [DUE - 20 * DAY, DUE])  # raw/telemetry has an older row, of a clock that was wrong
    young = it.says()
    # 2 days of look-back, 270 + 30 + 30 of the windows, 3 gaps of 2 days
    first_model = DUE - 20 * DAY + 338 * DAY
    assert (young["scores"].level, young["model"].level) == (OK, OK)
    assert str(first_model) in young["scores"].what
    assert str(first_model) in young["model"].what


def test_a_run_that_failed_is_told_of_until_it_is_made_good(it):
    failed = it.run("process_days", FAILURE, DUE)
    said = it.says()["failed_runs"]
    assert (said.level, said.what) == (CRITICAL, f"1 runs failed: {failed[:8]} (process_days of {DUE})")
    assert abs((said.since - clock()).total_seconds()) < 600
    assert it.says(now=NOW + 29 * DAY)["failed_runs"].level == CRITICAL, "its day is still as it was"
    assert it.says(now=clock() + 30 * DAY)["failed_runs"].level == OK
    it.run("process_days", SUCCESS, DUE - DAY)
    it.run("process_days", SUCCESS, DUE, asset_selection=frozenset({dg.AssetKey(["raw", "machines"])}))
    it.run("watch_scores", SUCCESS)
    assert it.says()["failed_runs"].level == CRITICAL
    whole = {"dagster/asset_partition_range_start": str(DUE - 3 * DAY), "dagster/asset_partition_range_end": str(DUE)}
    it.run("process_days", SUCCESS, tags=whole)
    assert it.says()["failed_runs"].level == OK


def test_a_run_of_some_assets_is_made_good_by_one_of_these_or_of_all_and_a_job_by_itself(it):
    some = frozenset({dg.AssetKey(["raw", "machines"]), dg.AssetKey(["raw", "errors"])})
    it.run("__ASSET_JOB", FAILURE, DUE, asset_selection=some)
    it.run("__ASSET_JOB", SUCCESS, DUE, asset_selection=frozenset({dg.AssetKey(["raw", "machines"])}))
    it.run("train_model", SUCCESS, DUE)
    assert it.says()["failed_runs"].level == CRITICAL
    it.run("process_days", SUCCESS, DUE)
    assert it.says()["failed_runs"].level == OK
    it.run("score_range", FAILURE, run_config={"ops": {"score_days": {"config": {"results_table": "november"}}}})
    it.run("score_range", SUCCESS, run_config={"ops": {"score_days": {"config": {"results_table": "december"}}}})
    assert it.says()["failed_runs"].level == CRITICAL


def test_of_a_run_that_is_tried_again_the_latest_try_counts(it):
    first = it.run("process_days", FAILURE, DUE, died=True)
    assert it.says()["failed_runs"].level == WARN
    later = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=16)
    assert it.says(now=later)["failed_runs"].level == CRITICAL, "nobody tries it again"
    again = {"root_run_id": first, "parent_run_id": first}
    it.run("process_days", FAILURE, DUE, **again)
    assert (it.says()["failed_runs"].level, it.says()["failed_runs"].metrics[0].value) == (CRITICAL, 1)
    it.run("process_days", dg.DagsterRunStatus.STARTED, DUE, **again)
    assert it.says()["failed_runs"].level == WARN
    it.run("process_days", SUCCESS, DUE, **again)
    assert it.says()["failed_runs"].level == OK


@pytest.mark.parametrize(("hours", "level"), [(1.9, OK), (2.1, WARN), (4.5, CRITICAL)])
@pytest.mark.parametrize("status", [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTED])
def test_a_run_that_waits_or_goes_on_too_long_is_told_of(it, status, hours, level):
    run = it.run("process_days", status, DUE)
    said = it.says(now=clock() + dt.timedelta(hours=hours, minutes=1))["runs_under_way"]
    assert said.level == level
    assert f"the oldest {run[:8]} (process_days of {DUE}) {status.value.lower()} for" in said.what


def test_a_daemon_that_is_silent_and_one_that_never_spoke_are_told_of(it):
    said = it.says(now=NOW + dt.timedelta(seconds=310))["daemon"]
    assert said.level == CRITICAL
    assert "SENSOR" in said.what
    assert said.since == NOW
    with it.instance() as instance:
        it.beat(instance, NOW + dt.timedelta(seconds=300))
        assert it.says(now=NOW + dt.timedelta(seconds=310))["daemon"].level == OK
        instance.wipe_daemon_heartbeats()
    assert it.says()["daemon"].level == CRITICAL


def test_a_sensor_that_ticks_no_more_fails_or_is_off_is_told_of(it):
    assert it.says(now=NOW + dt.timedelta(minutes=9))["sensor"].level == OK
    silent = it.says(now=NOW + dt.timedelta(minutes=11))["sensor"]
    assert (silent.level, silent.what) == (CRITICAL, "the landing sensor has not ticked for 11 min")
    with it.instance() as instance:
        state = it.ticked(instance)
        error = SerializableErrorInfo("PermissionError: landing/telemetry\n\nStack Trace:", [], "PermissionError")
        of = (state.instigator_origin_id, "landing_sensor", InstigatorType.SENSOR)
        instance.create_tick(TickData(*of, TickStatus.FAILURE, NOW.timestamp(), error=error, selector_id=state.selector_id))
        failed = it.says()["sensor"]
        assert failed.level == CRITICAL
        assert failed.what == "the landing sensor's last tick failed: PermissionError: landing/telemetry"
        it.ticked(instance, status=InstigatorStatus.STOPPED)
        assert (it.says()["sensor"].level, it.says()["sensor"].since) == (WARN, NOW)
        schedule = RemoteInstigatorOrigin(it.origin, "daily_scoring")
        instance.add_instigator_state(
            InstigatorState(
                schedule,
                InstigatorType.SCHEDULE,
                InstigatorStatus.RUNNING,
                ScheduleInstigatorData("30 0 * * *", NOW.timestamp()),
            )
        )
    assert it.says()["sensor"].level == OK
    # Yesterday is taken at half past midnight: who waits for that is not told of.
    it.table("raw/telemetry", [FIRST, *(DUE - n * DAY for n in range(1, 40))])
    it.land(DUE, at=NOW - dt.timedelta(hours=25))
    assert it.says()["landed"].level == OK
    assert it.says(now=NOW + dt.timedelta(hours=2))["landed"].level == WARN


def test_checks_count_by_their_latest_evaluation(it):
    assert it.says()["checks"].level == OK
    it.checked("few_rows_are_quarantined", "raw/errors", False, "WARN", "2015-01-01: 3 of 4 rows")
    warned = it.says()["checks"]
    assert (warned.level, warned.what) == (WARN, "1 fail: warn raw/errors: few_rows_are_quarantined (2015-01-01: 3 of 4 rows)")
    it.checked("every_landed_file_was_taken", "raw/errors", False, "ERROR")
    it.checked("every_landed_file_was_taken", "raw/errors", False, "ERROR")
    red = it.says()["checks"]
    assert red.level == CRITICAL
    assert red.what.startswith("2 fail: error raw/errors: every_landed_file_was_taken, warn raw/errors: few_rows")
    assert red.since == warned.since
    it.checked("every_landed_file_was_taken", "raw/errors", True)
    it.checked("few_rows_are_quarantined", "raw/errors", True)
    assert it.says()["checks"].level == OK


def test_a_check_that_a_run_is_about_to_ask_counts_as_it_was_asked_last(it):
    key = dg.AssetCheckKey(dg.AssetKey(["scores", "component_risk"]), "yesterday_is_scored")

    @dg.asset(key=key.asset_key)
    def risks():
        """Dies before its check."""
        raise ValueError("of the data")

    @dg.asset_check(asset=key.asset_key, name=key.name)
    def check():
        return dg.AssetCheckResult(passed=True)

    it.checked(key.name, "scores/component_risk", False, "WARN")
    with it.instance() as instance:
        dg.materialize([risks, check], instance=instance, raise_on_error=False)
        latest = instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
    assert latest.status.value == "PLANNED"
    assert it.says()["checks"].level == WARN


def test_a_refused_file_is_told_of_until_it_is_gone(it):
    path = it.land(DUE - DAY, "when,who,what")
    said = it.says()["files"]
    assert (said.level, said.what) == (CRITICAL, f"1 files were refused: telemetry/{DUE - DAY}.csv")
    assert abs((said.since - LANDED).total_seconds()) < 1
    path.unlink()
    assert it.says()["files"].level == OK


def test_a_file_whose_rows_are_in_no_table_is_told_of_with_its_age_and_staged_by_no_look(it):
    it.table("raw/telemetry", [FIRST, *(DUE - n * DAY for n in range(1, 40))])
    said = it.says()["landed"]
    assert (said.level, said.what) == (WARN, f"files of {DUE} are in no table, for 3 h")
    assert it.says(now=LANDED + dt.timedelta(minutes=59))["landed"].level == OK
    assert it.says(now=LANDED + DAY)["landed"].level == CRITICAL
    it.table("quarantine/telemetry", [DUE])
    assert it.says()["landed"].level == OK


def test_a_file_that_nobody_has_read_is_told_of_and_not_read_by_the_look(it):
    it.land(DUE - DAY, staged=False)
    before = content(it.root / "staging")
    assert it.says()["landed"].what == "1 files were not read yet, for 3 h"
    assert content(it.root / "staging") == before


def test_a_file_that_landed_again_is_waited_for_and_one_of_days_to_come_is_not(it):
    it.land(NOW.date() + 3 * DAY)
    assert it.says()["landed"].level == OK
    soon = dt.datetime.now(dt.UTC).replace(microsecond=0) + dt.timedelta(seconds=5)  # later than the tables
    it.land(DUE, at=soon)
    assert it.says(now=soon + dt.timedelta(hours=2))["landed"].what == f"files of {DUE} are in no table, for 2 h"


@pytest.mark.parametrize(("bad", "level"), [(1, OK), (2, WARN)])
def test_more_than_a_tenth_in_quarantine_is_told_of(it, bad, level):
    it.table("raw/errors", [DUE], rows=10)
    it.table("quarantine/errors", [DUE - DAY], rows=10)
    assert it.says()["quarantine"].level == OK, "the day before is history"
    it.table("quarantine/errors", [DUE], rows=bad)
    said = it.says()["quarantine"]
    assert said.level == level
    shares = {metric.labels["table"]: metric.value for metric in said.metrics}
    assert shares["errors"] == bad / (10 + bad)


def test_a_model_that_is_damaged_refused_or_not_renewed_is_told_of(it):
    assert it.says()["model"].what == f"{MODEL} is in force, {(NOW.date() - DUE).days + 10} days old"
    it.model(DUE - 36 * DAY)  # 28 days and 7 of patience
    old = it.says()["model"]
    assert old.level == WARN
    assert "nothing was trained for 36 days, PDM_RETRAIN_EVERY_DAYS=28" in old.what
    it.model(DUE - 35 * DAY)
    assert it.says()["model"].level == OK
    it.model(DUE - 10 * DAY, "refused")
    assert it.says()["model"].what == "no model is in force (1 are registered)"
    it.model(DUE - 10 * DAY)
    (it.root / "models" / MODEL / "card.json").write_text("{}")
    damaged = it.says()["model"]
    assert damaged.level == CRITICAL
    assert f"model {MODEL} is registered, but" in damaged.what


def test_without_java_it_is_said_that_no_model_can_be_fitted_and_of_another_engine_it_is_not_asked(it, monkeypatch):
    assert it.says()["java"].level == OK
    monkeypatch.setenv("JAVA_HOME", str(it.root))
    missing = it.says()["java"]
    assert missing.level == WARN
    assert missing.what.startswith(f"no model can be fitted: no Java found in JAVA_HOME, {it.root}")
    elsewhere = dataclasses.replace(it.settings, engine="spark", spark_remote=f"sc://host/;token={PASSWORD}")
    asked = it.says(settings=elsewhere)["java"]
    assert asked.what == "not asked: PDM_ENGINE=spark: models are fitted by that Spark"
    assert PASSWORD not in f"{asked}"


def test_a_lake_that_is_not_mounted_is_told_of(it):
    (it.root / ".lake.created").touch()
    (it.root / "lake").rename(it.root / "away")
    said = it.says()
    assert said["lake"].level == CRITICAL
    assert "is gone, and it was there before: mount it" in said["lake"].what


def test_landed_files_that_are_not_mounted_are_told_of(it):
    it.land(DUE - DAY)
    (it.root / "landing").rename(it.root / "away")
    said = it.says()["files"]
    folder = it.root / "landing" / "telemetry"
    assert (said.level, said.what) == (CRITICAL, f"{folder} holds none of the 2 files that it had")
    assert said.todo.startswith("mount it, or put them back")
    (it.root / "away").rename(it.root / "landing")
    assert it.says()["files"].level == OK


def test_a_table_that_was_removed_is_told_of_and_one_without_rows_is_none(it):
    telemetry = it.root / "lake" / "raw" / "telemetry"
    telemetry.rename(it.root / "away")
    assert it.says()["lake"].level == CRITICAL
    (it.root / "away").rename(telemetry)
    it.table("raw/telemetry", [])
    said = it.says()["lake"]
    assert (said.level, said.what) == (OK, "no row of telemetry was taken yet")


def test_an_object_store_that_does_not_answer_is_told_of_once(it, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", PASSWORD)
    said = it.says(settings=dataclasses.replace(it.settings, lake="s3a://plant/lake"))
    assert said["lake"].level == CRITICAL
    assert said["lake"].what.startswith("s3a://plant/lake can't be asked: ")
    for rule in ("landed", "scores", "quarantine", "model"):
        assert (said[rule].level, said[rule].what) == (CRITICAL, "not asked: the object store of the tables can't be asked")
    assert PASSWORD not in f"{said}"


def test_what_is_never_taken_is_told_of(it):
    (it.root / "landing" / "errors").mkdir(parents=True, exist_ok=True)
    (it.root / "landing" / "errors" / "errors.zip").touch()
    said = it.says()["files"]
    assert (said.level, said.what) == (WARN, "1 are passed over: errors/errors.zip (none of .csv, .csv.gz, .parquet)")


def test_a_disk_with_little_room_is_told_of(tmp_path):
    """A real one, of 2 MB."""
    disk = tmp_path / "data"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "pdm-test", disk], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        settings = Settings(data=disk)
        for kilobytes, level in ((1000, OK), (1800, WARN), (1996, CRITICAL)):
            (disk / "ballast").write_bytes(b"0" * 1024 * kilobytes)
            said = {each.rule: each.said for each in look_at(settings, disk / "dagster", NOW)}["disk"]
            assert said.level == level, said
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_data_root_that_is_not_there_is_told_of(it, tmp_path):
    gone = dataclasses.replace(it.settings, data=tmp_path / "gone")
    assert it.says(settings=gone)["disk"].what == f"{tmp_path}/gone is not there"
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize(("days", "level"), [(1, OK), (3, WARN), (9, CRITICAL)])
def test_a_backup_that_is_old_is_told_of_where_one_asks(it, tmp_path, days, level):
    assert it.says()["backup"].what == "not asked: no --backups given"
    assert it.says(backups=tmp_path / "backups")["backup"].level == CRITICAL
    archive = tmp_path / "backups" / "pdm-assets-20261120T020000Z.tar.gz"
    archive.parent.mkdir()
    archive.write_bytes(b"")
    os.utime(archive, ((NOW - days * DAY).timestamp(),) * 2)
    said = it.says(backups=tmp_path / "backups")["backup"]
    assert (said.level, said.since) == (level, NOW - days * DAY)


@pytest.mark.slow
def test_a_database_that_does_not_answer_is_told_of_without_its_password(it, pdm, monkeypatch):
    """Slow, for Dagster asks for some seconds before it gives the database up."""
    (port,) = free_ports(1)
    address = f"postgresql://pdm:{PASSWORD}@127.0.0.1:{port}/pdm"
    monkeypatch.setenv("PDM_DAGSTER_DB", address)
    (it.home / "dagster.yaml").write_text("storage: {postgres: {postgres_url: {env: PDM_DAGSTER_DB}}}\n")
    result = pdm()
    told = result.output
    assert result.exit_code == 2
    assert PASSWORD not in told
    assert "the PostgreSQL of PDM_DAGSTER_DB does not answer, or does not let us in" in told
    assert "not asked: Dagster's database can't be read" in told
    assert f"the newest scored day is {DUE}" in told, "the lake is looked at all the same"


def test_a_damaged_database_is_told_of(it):
    for path in (it.home / "history").glob("runs.db*"):
        path.write_bytes(b"no database at all" * 1000)
    said = it.says()
    assert said["database"].level == CRITICAL
    assert said["scores"].level == OK


def test_what_a_rule_stumbles_over_is_told_without_secrets_and_the_others_go_on(it, monkeypatch):
    log = next((it.root / "lake" / "scores" / "component_risk" / "_delta_log").glob("*.json"))
    log.write_text(f'{{"damaged": "{PASSWORD}')
    settings = dataclasses.replace(it.settings, dagster_db=f"postgresql://pdm:{PASSWORD}@127.0.0.1/pdm")
    said = it.says(settings=settings)
    assert said["scores"].level == CRITICAL
    assert said["scores"].what.startswith("can't be asked: ")
    assert PASSWORD not in f"{said}"
    assert said["model"].level == OK


def test_tables_of_a_catalog_are_not_asked(it):
    said = it.says(settings=dataclasses.replace(it.settings, engine="spark", catalog="main", schema="pdm"))
    for rule in ("lake", "scores", "quarantine", "landed"):
        assert (said[rule].level, said[rule].what) == (OK, "not asked: the tables are in a catalog, which only Spark can ask")


def samples(text):
    """The samples of Prometheus' text format, each line of which must be right."""
    found = []
    for line in text.splitlines():
        if line.startswith("#"):
            assert re.fullmatch(r"# (HELP \w+ .+|TYPE \w+ gauge)", line), line
        else:
            named = re.fullmatch(r'(\w+)(?:\{((?:\w+="(?:[^"\\\n]|\\[\\"n])*",?)+)\})? (-?[\d.]+(?:e[+-]?\d+)?)', line)
            assert named, line
            found.append((named[1], named[2] or "", float(named[3])))
    return found


def test_every_declared_metric_comes_once_and_no_other(it, tmp_path):
    it.checked("few_rows_are_quarantined", "raw/errors", False, "WARN")
    (tmp_path / "x.tar.gz").write_bytes(b"")
    found = samples(prometheus(look_at(it.settings, it.home, NOW, backups=tmp_path), NOW))
    assert {name for name, _, _ in found} == set(METRICS)
    assert len({(name, labels) for name, labels, _ in found}) == len(found)
    assert {labels for name, labels, _ in found if name == "pdm_health_status"} == {f'rule="{rule.name}"' for rule in RULES}
    value = {(name, labels): number for name, labels, number in found}
    assert value["pdm_health_status", 'rule="checks"'] == 1
    assert value["pdm_failing_checks", 'severity="warn"'] == 1
    assert value["pdm_check_failing", 'asset="raw/errors",check="few_rows_are_quarantined",severity="warn"'] == 1
    assert value["pdm_model_age_days", ""] == (NOW.date() - DUE).days + 10
    assert value["pdm_health_time_seconds", ""] == NOW.timestamp()


def test_the_file_for_the_collector_appears_whole_and_others_may_read_it(pdm, tmp_path):
    file = tmp_path / "pdm.prom"
    before = os.umask(0o027)
    try:
        assert pdm("--prometheus", file).exit_code == 0
    finally:
        os.umask(before)
    assert file.stat().st_mode & 0o777 == 0o644
    assert samples(file.read_text())
    assert list(tmp_path.glob("*.part")) == list(tmp_path.glob(".*.part")) == []
    assert samples(pdm("--prometheus", "-").output)
    gone = pdm("--prometheus", tmp_path / "nowhere" / "pdm.prom")
    assert gone.exit_code == 2
    assert "can't be written: No such file or directory" in gone.output


def test_as_json_it_says_the_same(it, pdm):
    it.land(DUE - DAY, "when,who,what")
    result = pdm("--json")
    said = json.loads(result.output)
    assert result.exit_code == 2
    assert said["level"] == "critical"
    (files,) = [rule for rule in said["rules"] if rule["rule"] == "files"]
    assert files["level"] == "critical"
    assert files["runbook"] == "docs/operations.md#a-file-is-not-taken"
    assert abs(dt.datetime.fromisoformat(files["since"]) - LANDED) < dt.timedelta(seconds=1)
    plain = pdm().output
    assert plain.startswith("CRITICAL: files\n")
    assert "what to do: every_landed_file_was_taken says why" in plain


@pytest.mark.slow
def test_a_web_server_whose_code_location_does_not_load_and_none_at_all_are_told_of(it, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("raise ImportError('as after a bad release')\n")
    (port,) = free_ports(1)
    web = f"http://127.0.0.1:{port}"
    assert it.says(web=web)["web"].what == "the web server does not answer as Dagster's does (URLError)"
    program = str(Path(sys.executable).parent / "dagster-webserver")
    server = subprocess.Popen(
        [program, "--host", "127.0.0.1", "--port", str(port), "-f", str(broken)],
        env={**os.environ, "DAGSTER_HOME": str(it.home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while "does not answer" in (said := it.says(web=web)["web"]).what:
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.5)
        assert (said.level, said.what) == (CRITICAL, "code location not loaded: broken.py")
    finally:
        server.terminate()
        server.wait(60)
