"""From a landed file to a score through the real daemon and web server, with no click."""

import os
import time

import psutil
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable

from pdm_assets.simulator.replay import Replayer
from pdm_assets_tests.builders import day, utc
from pdm_assets_tests.journeys.history import HISTORY_END, content, days_with_rows
from pdm_assets_tests.ports import listening

pytestmark = [pytest.mark.journey, pytest.mark.slow]


def versions(data):
    tables = ("raw/telemetry", "features/observations", "labels/component_failures", "scores/component_risk")
    return {table: DeltaTable(str(data / "lake" / table)).version() for table in tables}


def days_of_last_write(data, table):
    predicate = DeltaTable(str(data / "lake" / table)).history(1)[0]["operationParameters"]["predicate"]
    return predicate.split("'")[1], predicate.split("'")[3]


def readings_heard(data):
    observations = DeltaTable(str(data / "lake" / "features" / "observations"))
    return observations.to_pyarrow_table(columns=["readings_36h"])["readings_36h"].to_pylist()


def test_files_become_scores_with_no_click_and_a_redelivery_changes_only_its_days(it, data, files):
    replayer = Replayer(files / "whole", data / "landing", HISTORY_END)
    # A history has landed as five files: one range run made everything from raw to scores.
    assert len(it.runs()) == 1
    assert it.runs()[0]["tags"]["dagster/asset_partition_range_start"] == "2015-01-01"
    assert max(days_with_rows(data, "scores/component_risk")) == day("2015-01-28")

    # Hours that land together are gathered into one run.
    replayer.land_hours(HISTORY_END, 0, 23)
    it.wait_for("the next day", lambda: it.all_done(2) and day("2015-01-29") in days_with_rows(data, "scores/component_risk"))
    assert len(it.runs()) == 2

    # Nothing new: nothing happens.
    before = versions(data)
    time.sleep(12)
    assert len(it.runs()) == 2
    assert versions(data) == before

    # A file that lands again with other content rewrites its days and those that look back on it, and no others.
    scores, heard = content(data, "scores/component_risk"), readings_heard(data)
    landed = data / "landing" / "telemetry" / "telemetry-2015-01-29T05.csv"
    landed.write_text(landed.read_text().replace(",1,", ",1,9"))
    it.wait_for("the redelivery", lambda: it.all_done(3))
    assert len(it.runs()) == 3
    assert it.runs()[0]["tags"]["landing/reason"] == "redelivered"
    assert days_of_last_write(data, "features/observations")[0] == "2015-01-29"
    changed = content(data, "scores/component_risk")
    earlier = pc.field("observed_at") < utc("2015-01-29 00:00")
    assert changed.filter(earlier).equals(scores.filter(earlier))
    # the reading that is out of range now is heard no more
    assert sum(readings_heard(data)) < sum(heard)


def test_web_server_daemon_and_code_server_listen_on_this_machine_only(it):
    addresses = listening(os.getpid())
    assert ("127.0.0.1", int(it.url.rsplit(":", 1)[1])) in addresses
    assert {ip for ip, _ in addresses} <= {"127.0.0.1", "::1"}


def test_no_jvm_stands_by_after_the_training(it):
    assert [p.name() for p in psutil.Process().children(recursive=True) if p.name() == "java"] == []
