"""Ticks of the landing sensor on real files, without Spark."""

import datetime as dt
import importlib
import json
import os
import shutil
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace
from unittest.mock import patch

import dagster as dg
import pytest
from dagster._daemon.sensor import MIN_INTERVAL_LOOP_TIME

from pdm_assets.automation.landing_sensor import landing_sensor
from pdm_assets.definitions import defs
from pdm_assets.partitions import day_partitions
from pdm_assets.resources.lake import Lake
from pdm_assets.resources.landing import LandingGone
from pdm_assets.resources.landing_zone import Landing
from pdm_assets.resources.model_store import ModelStore
from pdm_assets.resources.spark import SparkEngine
from pdm_assets.settings import Settings

MODULE = importlib.import_module("pdm_assets.automation.landing_sensor")  # the package's name for the sensor hides it


class Plant:
    """A landing zone and the sensor's state, tick by tick."""

    watched_s = 0.0  # no tick waits for something to land

    def __init__(self, root):
        self.root, self.cursor, self.keys = root, None, []
        settings = Settings(data=root)
        spark = SparkEngine.of(settings)
        lake = Lake.of(settings, spark)
        self.resources = {"landing": Landing.of(settings), "model_store": ModelStore.of(settings, lake)}
        self.instance = dg.DagsterInstance.ephemeral()

    def land(self, table, name, text, age=60):
        folder = self.root / "landing" / table
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / name
        path.write_text(text)
        os.utime(path, (time.time() - age,) * 2)
        os.utime(folder, (time.time() - age,) * 2)
        return path

    def telemetry(self, days, volt=100.0, name=None, **options):
        rows = [f"{day} {hour:02d}:00:00,1,{volt},400,100,40" for day in days for hour in range(24)]
        text = "\n".join(["datetime,machineID,volt,rotate,pressure,vibration", *rows]) + "\n"
        return self.land("telemetry", name or f"telemetry-{days[0]}.csv", text, **options)

    def evaluate(self):
        with (
            patch.object(MODULE, "WATCHED_S", self.watched_s),
            dg.build_sensor_context(
                instance=self.instance,
                cursor=self.cursor,
                resources=self.resources,
                sensor_name="landing_sensor",
                repository_def=defs.get_repository_def(),
            ) as context,
        ):
            return landing_sensor.evaluate_tick(context)

    def tick(self):
        """(days, reason) of each requested run, or why there is none."""
        data = self.evaluate()
        if data.cursor is not None:
            self.cursor = data.cursor
        for request in data.run_requests or []:
            assert request.run_key not in self.keys, "Dagster would drop a run key that it has seen"
            self.keys.append(request.run_key)
        requested = [(request.tags["landing/days"], request.tags["landing/reason"]) for request in data.run_requests or []]
        return requested or data.skip_message


@pytest.fixture
def plant(tmp_path):
    plant = Plant(tmp_path)
    plant.land("machines", "machines.csv", "machineID,model,age\n1,model3,18\n")
    yield plant
    assert not (tmp_path / "engine").exists(), "the sensor started Spark"


NOTHING = "nothing new has landed"
JANUARY = [f"2015-01-{n:02d}" for n in range(1, 11)]


def test_an_empty_landing_zone_asks_for_nothing(tmp_path):
    assert Plant(tmp_path).tick() == NOTHING


def test_a_history_is_one_run(plant):
    plant.telemetry(JANUARY)
    assert plant.tick() == [("2015-01-01..2015-01-10", "new")]
    assert plant.tick() == NOTHING


def test_the_range_of_a_run_is_in_tags_that_dagster_knows_and_a_day_is_a_partition(plant):
    plant.telemetry(JANUARY)
    (request,) = plant.evaluate().run_requests
    assert request.tags["dagster/asset_partition_range_start"] == "2015-01-01"
    assert request.tags["dagster/asset_partition_range_end"] == "2015-01-10"
    assert request.partition_key is None


def test_the_same_bytes_again_under_the_same_name_and_time_are_nothing_new(plant):
    path = plant.telemetry(JANUARY)
    assert plant.tick() == [("2015-01-01..2015-01-10", "new")]
    stat = path.stat()
    shutil.copyfile(path, copy := path.with_suffix(".part"))
    os.replace(copy, path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    os.utime(path.parent, (time.time() - 60,) * 2)
    assert plant.tick() == NOTHING


def test_a_redelivery_takes_its_day_and_those_that_look_back_on_it(plant):
    for day in JANUARY:
        plant.telemetry([day])
    assert plant.tick() == [("2015-01-01..2015-01-10", "new")]
    plant.telemetry(["2015-01-05"], volt=120.0, age=30)
    assert plant.tick() == [("2015-01-05..2015-01-09", "redelivered")]
    assert plant.tick() == NOTHING


def test_a_late_day_is_filled_in(plant):
    for day in JANUARY:
        if day != "2015-01-04":
            plant.telemetry([day])
    plant.tick()
    plant.telemetry(["2015-01-04"], age=30)
    assert plant.tick() == [("2015-01-04..2015-01-08", "late")]


def test_two_days_far_apart_are_two_runs_one_after_the_other(plant):
    for day in JANUARY:
        plant.telemetry([day])
    plant.tick()
    plant.telemetry(["2015-01-01"], volt=120.0, age=30)
    plant.telemetry(["2015-01-08"], volt=120.0, age=30)
    assert plant.tick() == [("2015-01-01..2015-01-05", "redelivered")]
    assert plant.tick() == [("2015-01-08..2015-01-10", "redelivered")]
    assert plant.tick() == NOTHING


def test_days_that_are_no_partition_are_left_for_later(plant):
    plant.telemetry(["2999-01-01"])
    assert plant.tick() == NOTHING


def test_rows_before_the_first_day_make_it_dirty_for_they_are_quarantined_there(plant):
    plant.telemetry(["2013-12-31"])
    assert plant.tick() == [("2014-01-01", "new")]


@pytest.mark.parametrize("setting", [{"first_day": dt.date(2015, 1, 4)}, {"last_day": dt.date(2015, 1, 8)}], ids=str)
def test_days_that_a_setting_has_cut_off_are_not_asked_for_and_the_others_are(plant, monkeypatch, setting):
    for day in JANUARY:
        plant.telemetry([day])
    assert plant.tick() == [("2015-01-01..2015-01-10", "new")]
    monkeypatch.setattr(MODULE, "DAILY", day_partitions(Settings(**setting)))
    assert plant.tick() == NOTHING
    plant.telemetry(["2015-01-08"], volt=120.0, age=30)
    assert plant.tick()[0][0].startswith("2015-01-08")


@contextmanager
def growing(path):
    """Somebody writes to the file until the block ends."""
    done = threading.Event()

    def write():
        while not done.wait(0.1):
            os.utime(path)

    os.utime(path)
    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        done.set()
        writer.join()


@pytest.fixture
def meanwhile(monkeypatch):
    """Does something, in a thread, once a tick has found nothing new and watches."""
    watched, threads = Landing.differs_from, []

    def start(work):
        def and_watch(landing, folders, seconds):
            if not threads:
                threads.append(threading.Thread(target=work))
                threads[0].start()
            return watched(landing, folders, seconds)

        monkeypatch.setattr(Landing, "differs_from", and_watch)

    yield start
    assert threads, "no tick watched"
    threads[0].join()


def test_what_lands_while_a_tick_watches_is_requested_by_it(plant, monkeypatch, meanwhile):
    monkeypatch.setattr(MODULE, "QUIET_S", 0.0)
    plant.telemetry(JANUARY)
    assert plant.tick() == [("2015-01-01..2015-01-10", "new")]
    plant.watched_s = 60.0

    def land():
        (plant.root / "landing" / "telemetry" / ".new.landing").write_text("not there yet")  # is looked at, and watched on
        time.sleep(1)
        plant.telemetry(["2015-01-11"])

    meanwhile(land)
    began = time.monotonic()
    assert plant.tick() == [("2015-01-11", "new")]
    assert time.monotonic() - began < 30


def test_a_tick_that_watches_does_not_take_half_of_what_lands(plant, meanwhile):
    plant.telemetry(JANUARY)
    assert plant.tick() == [("2015-01-01..2015-01-10", "new")]
    # files were still landing half a minute ago, and no look has been at them since
    plant.cursor = json.dumps({**json.loads(plant.cursor), "waiting_since": time.time() - 29})
    plant.watched_s = 60.0

    def land():
        with growing(plant.telemetry(["2015-01-11"])):
            time.sleep(5)

    meanwhile(land)
    assert plant.tick() == "files are still landing"


def test_a_tick_ends_although_hidden_files_come_and_go(plant, monkeypatch, meanwhile):
    monkeypatch.setattr(MODULE, "QUIET_S", 0.0)
    plant.telemetry(JANUARY)
    assert plant.tick() == [("2015-01-01..2015-01-10", "new")]
    plant.watched_s = 1.0
    lock, ended = plant.root / "landing" / "telemetry" / ".lock-of-a-client", threading.Event()

    def come_and_go():
        until = time.monotonic() + 20
        while time.monotonic() < until and not ended.wait(0.001):
            lock.write_text("mine")
            lock.unlink()

    meanwhile(come_and_go)
    began = time.monotonic()
    assert plant.tick() == NOTHING
    assert time.monotonic() - began < 10
    ended.set()


def test_a_tick_ends_before_the_next_is_due_and_none_is_too_soon():
    assert MODULE.WATCHED_S < landing_sensor.minimum_interval_seconds + 1 == MIN_INTERVAL_LOOP_TIME


def test_an_object_store_is_not_watched(plant):
    """Not even where the look itself has changed a folder, as that of an object does that can't be copied."""
    watched = plant.resources["landing"].model_copy(update={"address": "s3://plant/landing"})
    began = time.monotonic()
    assert not watched.differs_from(watched.folders(), 60.0)
    assert not watched.differs_from((), 60.0)
    assert time.monotonic() - began < 30


def test_a_file_that_is_still_growing_is_waited_for(plant):
    with growing(plant.telemetry(JANUARY)):
        assert plant.tick() == "files are still landing"
    assert plant.tick() == [("2015-01-01..2015-01-10", "new")]  # the tick waits until it has been still for long enough


def test_a_stream_of_files_is_not_waited_for_for_ever(plant, monkeypatch):
    plant.telemetry(JANUARY)
    with growing(plant.telemetry(["2015-01-11"], name=".telemetry.landing")):
        assert plant.tick() == "files are still landing"
        monkeypatch.setattr(MODULE, "PATIENCE_S", 0.0)
        assert plant.tick() == [("2015-01-01..2015-01-10", "new")]


def test_a_hundred_hourly_files_are_one_run(plant):
    header = "datetime,machineID,volt,rotate,pressure,vibration\n"
    for n in range(100):
        day, hour = JANUARY[n // 24], n % 24
        plant.land("telemetry", f"{day}T{hour:02d}.csv", f"{header}{day} {hour:02d}:00:00,1,100,400,100,40\n")
    assert plant.tick() == [("2015-01-01..2015-01-05", "new")]
    assert plant.tick() == NOTHING


@pytest.mark.parametrize("cursor", ["{", "null", "[]", '{"version": 0, "seen": 3}', json.dumps({"version": 1, "seen": "gone"})])
def test_a_cursor_that_can_not_be_read_only_means_doing_it_again(plant, cursor):
    plant.telemetry(JANUARY)
    plant.cursor = cursor
    assert plant.tick() == [("2015-01-01..2015-01-10", "new")]
    assert plant.tick() == NOTHING


def test_what_lands_during_a_run_goes_into_the_next(plant):
    plant.telemetry(JANUARY)
    plant.tick()
    run = plant.instance.create_run_for_job(
        defs.resolve_job_def("process_days"), tags={"dagster/sensor_name": "landing_sensor"}, status=dg.DagsterRunStatus.STARTED
    )
    plant.telemetry(["2015-01-11"], age=30)
    assert "is under way" in plant.tick()
    plant.instance.report_run_canceled(run)
    assert plant.tick() == [("2015-01-11", "new")]


def test_without_a_model_or_history_for_one_the_run_ends_before_the_scores(plant):
    plant.telemetry(JANUARY)
    (request,) = plant.evaluate().run_requests
    wanted = {key.to_user_string() for key in request.asset_selection}
    assert "models/failure_model" in wanted
    assert "scores/component_risk" not in wanted


def test_history_begins_with_telemetry_whatever_older_replacements_came_along(plant):
    # with 2014-06-01 as its beginning, 2015-07-05 would be late enough for a first model
    plant.land("maintenance", "maint.csv", "datetime,machineID,comp\n2014-06-01 06:00:00,1,comp1\n")
    plant.telemetry([(dt.date(2015, 1, 1) + dt.timedelta(days=n)).isoformat() for n in range(186)])
    (request,) = plant.evaluate().run_requests
    assert request.tags["landing/days"].startswith("2014-06-01..")
    assert "scores/component_risk" not in {key.to_user_string() for key in request.asset_selection}


def test_a_file_that_is_taken_away_and_put_back_is_taken_each_time(plant):
    plant.telemetry(["2015-01-01"])
    plant.telemetry(["2015-01-05"])
    assert len(plant.tick()) == 1
    plant.tick()
    path = plant.root / "landing" / "telemetry" / "telemetry-2015-01-05.csv"
    aside = plant.root / "aside.csv"
    for source, target in ((path, aside), (aside, path)) * 2:
        source.rename(target)
        os.utime(path.parent, (time.time() - 60,) * 2)  # no news by itself
        assert "2015-01-05" in plant.tick()[0][0]
    assert plant.tick() == NOTHING


@pytest.mark.parametrize("gone", ["landing", "landing/telemetry", "landing/machines"])
def test_what_is_not_mounted_fails_the_tick_and_asks_for_no_day_to_be_emptied(plant, gone):
    plant.telemetry(JANUARY)
    plant.tick()
    cursor, away = plant.cursor, plant.root / "away"
    (plant.root / gone).rename(away)
    for is_empty in (False, True):
        if is_empty:
            (plant.root / gone).mkdir()
            os.utime(plant.root / gone, (time.time() - 60,) * 2)
        with pytest.raises(LandingGone, match="holds none of the 1 files that it had: mount it"):
            plant.tick()
    (plant.root / gone).rmdir()
    away.rename(plant.root / gone)
    assert (plant.tick(), json.loads(plant.cursor)["seen"]) == (NOTHING, json.loads(cursor)["seen"])


def test_the_days_of_the_last_file_are_emptied_once_its_staging_is_deleted_too(plant):
    plant.telemetry(JANUARY)
    plant.tick()
    path = plant.land("failures", "failures.csv", "datetime,machineID,failure\n2015-01-03 06:00:00,1,comp1\n")
    assert plant.tick() == [("2015-01-03..2015-01-10", "late")]
    path.unlink()
    shutil.rmtree(plant.root / "staging" / "failures")
    os.utime(path.parent, (time.time() - 60,) * 2)
    assert plant.tick() == [("2015-01-03..2015-01-10", "redelivered")]


@pytest.mark.parametrize("cursor", ["{", json.dumps({"version": 1, "seen": None, "requests": "many"})])
def test_a_cursor_that_is_damaged_later_means_doing_it_again_under_another_key(plant, cursor):
    plant.telemetry(JANUARY)
    plant.tick()
    plant.cursor = cursor
    assert plant.tick() == [("2015-01-01..2015-01-10", "new")]
    assert plant.tick() == NOTHING


def test_a_refused_file_that_lands_alone_asks_for_a_run_that_says_so(plant):
    path = plant.land("telemetry", "telemetry-2015-01-03.csv", "datetime,machineID,voltage\n2015-01-03 00:00:00,1,100\n")
    assert plant.tick()[0][0].startswith("2015-01-03")
    assert plant.tick() == NOTHING
    path.unlink()
    plant.telemetry(["2015-01-03"], age=30)  # dates the folder back, too
    assert plant.tick()[0][0].startswith("2015-01-03")


@pytest.fixture
def failing(plant):
    """A plant whose history was requested, and how to let that run end."""
    plant.telemetry(JANUARY)
    assert plant.tick() == [("2015-01-01..2015-01-10", "new")]

    def end(status=dg.DagsterRunStatus.FAILURE, parent=None, ago=0.0, **tags):
        kept = {"dagster/sensor_name": "landing_sensor", "landing/days": "2015-01-01..2015-01-10", **tags}
        root = parent and (parent.root_run_id or parent.run_id)
        run = dg.DagsterRun(
            "process_days",
            status=dg.DagsterRunStatus.STARTED,
            tags=kept,
            root_run_id=root,
            parent_run_id=parent and parent.run_id,
        )
        run = plant.instance.add_run(run)
        ended = {"FAILURE": "PIPELINE_FAILURE", "SUCCESS": "PIPELINE_SUCCESS"}[status.value]
        event = dg.DagsterEvent(ended, "process_days")
        at = dt.datetime.fromtimestamp(time.time() - ago, dt.UTC)
        plant.instance.run_storage.handle_run_event(run.run_id, event, at)
        return run

    plant.end = end
    return plant


OF_AN_ASSET = {"dagster/failure_reason": "STEP_FAILURE"}
OF_A_FAULT = {**OF_AN_ASSET, "dagster/retry_on_asset_or_op_failure": "true"}


def test_days_whose_run_failed_of_their_data_are_not_requested_again(failing):
    failing.end(ago=1000, **OF_AN_ASSET)
    assert failing.tick() == NOTHING


@pytest.mark.parametrize("tags", [OF_A_FAULT, {}], ids=["a fault named by its hook", "its process died"])
def test_days_whose_run_failed_of_a_fault_are_requested_again_after_a_while_and_nothing_before_them(failing, tags):
    failing.end(ago=1, **tags)
    failing.telemetry(["2015-01-11"])
    assert "its days are requested again (at the latest in 5" in failing.tick()
    failing.instance.wipe()
    failing.end(ago=61, **tags)
    assert failing.tick() == [("2015-01-01..2015-01-11", "new")]


def test_a_day_whose_only_file_was_taken_away_is_requested_again_too(failing):
    failing.end(status=dg.DagsterRunStatus.SUCCESS)
    path = failing.telemetry(["2015-01-11"])
    assert failing.tick() == [("2015-01-11", "new")]
    failing.end(status=dg.DagsterRunStatus.SUCCESS)
    path.unlink()
    os.utime(path.parent, (time.time() - 60,) * 2)
    assert failing.tick() == [("2015-01-11", "redelivered")]
    failing.end(ago=61, **{**OF_A_FAULT, "landing/days": "2015-01-11"})
    assert [days for days, _ in failing.tick()] == ["2015-01-11"]


def test_the_wait_doubles_up_to_an_hour_and_ends_after_a_day_of_faults(failing):
    for faults, wait in ((1, 60), (2, 120), (3, 240), (9, 3600)):
        failing.instance.wipe()
        for _ in range(faults):
            failing.end(ago=wait - 30, **OF_A_FAULT)
        left = int(failing.tick().removesuffix(" s)").rsplit(" ", 1)[1])
        assert 15 < left <= 30  # a busy machine takes its time
    for _ in range(24):
        failing.end(ago=4000, **OF_A_FAULT)
    assert failing.tick() == NOTHING


def test_a_try_of_dagsters_own_is_waited_for_and_does_not_count(failing):
    first = failing.end(ago=200, **OF_A_FAULT, **{"dagster/will_retry": "true"})
    assert "is about to be tried again" in failing.tick()
    failing.instance.add_run_tags(first.run_id, {"dagster/auto_retry_run_id": "the next"})
    failing.end(parent=first, ago=61, **OF_A_FAULT)
    assert failing.tick() == [("2015-01-01..2015-01-10", "new")]


def test_once_a_run_has_succeeded_what_failed_before_it_is_over(failing):
    failing.end(ago=300, **OF_A_FAULT)
    failing.end(status=dg.DagsterRunStatus.SUCCESS)
    assert failing.tick() == NOTHING


def test_a_clock_that_was_set_back_delays_nothing_and_nothing_is_requested_twice(failing, monkeypatch):
    real = dt.datetime

    class Earlier(real):
        @classmethod
        def now(cls, tz=None):
            return real.now(tz) - dt.timedelta(days=2)

    # a run that failed "in two days", a file that landed then, and a cursor that has been waiting since
    failing.end(ago=0, **OF_A_FAULT)
    monkeypatch.setattr(MODULE, "dt", SimpleNamespace(**{**vars(dt), "datetime": Earlier}))
    failing.telemetry(["2015-01-11"], age=-2 * 86400)
    assert failing.tick() == [("2015-01-01..2015-01-11", "new")]
    failing.end(status=dg.DagsterRunStatus.SUCCESS)
    assert failing.tick() == NOTHING
    assert failing.tick() == NOTHING
