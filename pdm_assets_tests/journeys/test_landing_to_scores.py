"""From a landed file to a score through the real daemon and web server, with no click; then a backfill as the UI does it."""

import datetime as dt
import time

import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable

from pdm_assets.resources.engine import Engine, Sizing
from pdm_assets.resources.landing import land
from pdm_assets.simulator.replay import Replayer
from pdm_assets.simulator.writer import simulate
from pdm_assets_tests.builders import day, utc
from pdm_assets_tests.journeys.daemon import platform

pytestmark = pytest.mark.journey

FIRST, HISTORY_END, END = day("2015-01-01"), day("2015-01-29"), day("2015-02-03")
SETTINGS = {
    "PDM_FIRST_DAY": "2015-01-01",
    "PDM_LAST_DAY": "2015-02-02",
    "PDM_TRAIN_DAYS": "12",
    "PDM_CALIBRATION_DAYS": "4",
    "PDM_TEST_DAYS": "3",
    "PDM_MODEL_TYPE": "logistic_regression",
    "PDM_SPARK_MEMORY_MB": "2048",
}


def days_with_rows(data, table):
    files = DeltaTable(str(data / "lake" / table)).get_add_actions(flatten=True)
    days, rows = files.column("partition.date").to_pylist(), files.column("num_records").to_pylist()
    return {d for d, n in zip(days, rows, strict=True) if n}


def content(data, table):
    rows = DeltaTable(str(data / "lake" / table)).to_pyarrow_table().drop_columns(["scored_at", "features_version"])
    return rows.sort_by([("machine_id", "ascending"), ("observed_at", "ascending"), ("component", "ascending")])


def versions(data):
    tables = ("raw/telemetry", "features/observations", "labels/component_failures", "scores/component_risk")
    return {table: DeltaTable(str(data / "lake" / table)).version() for table in tables}


def days_of_last_write(data, table):
    predicate = DeltaTable(str(data / "lake" / table)).history(1)[0]["operationParameters"]["predicate"]
    return predicate.split("'")[1], predicate.split("'")[3]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("journey")
    yield root
    Engine(root, Sizing(2, 2048, 1)).stop()


@pytest.fixture(scope="module")
def it(data):
    with platform(data, **SETTINGS) as it:
        yield it


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fleet")
    for name, end in (("history", HISTORY_END), ("whole", END)):
        end_at = dt.datetime.combine(end, dt.time(), dt.UTC)
        simulate(folder / name, machines=12, days=(end - FIRST).days, end=end_at, seed=3)
    return folder


@pytest.fixture(scope="module")
def history(it, data, fleet):
    """A history that landed as five files and was taken in."""
    land(fleet / "history", data / "landing")
    it.wait_for("the history", lambda: it.all_done(1))


def test_files_become_scores_with_no_click_and_a_redelivery_changes_only_its_days(it, data, fleet, history):
    # One range run made everything from raw to scores.
    replayer = Replayer(fleet / "whole", data / "landing", HISTORY_END)
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
    scores = content(data, "scores/component_risk")
    landed = data / "landing" / "telemetry" / "telemetry-2015-01-29T05.csv"
    landed.write_text(landed.read_text().replace(",1,", ",1,9"))
    it.wait_for("the redelivery", lambda: it.all_done(3))
    assert len(it.runs()) == 3
    assert it.runs()[0]["tags"]["landing/reason"] == "redelivered"
    assert days_of_last_write(data, "features/observations")[0] == "2015-01-29"
    changed = content(data, "scores/component_risk")
    earlier = pc.field("observed_at") < utc("2015-01-29 00:00")
    assert changed.filter(earlier).equals(scores.filter(earlier))
    assert not changed.equals(scores)


@pytest.mark.slow
def test_a_backfill_of_all_assets_from_the_ui_is_one_run_and_gives_the_same_scores(it, data, history):
    before, runs_before = content(data, "scores/component_risk"), len(it.runs())
    models = DeltaTable(str(data / "lake" / "models" / "registry")).to_pyarrow_table().num_rows
    assets = it.graphql("{ assetNodes { assetKey { path } isPartitioned isMaterializable } }")["assetNodes"]
    keys = [{"path": a["assetKey"]["path"]} for a in assets if a["isPartitioned"] and a["isMaterializable"]]
    days = [(FIRST + dt.timedelta(days=n)).isoformat() for n in range((HISTORY_END - FIRST).days + 1)]
    launched = it.graphql(
        """mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
            __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }""",
        params={"assetSelection": keys, "partitionNames": days},
    )["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    query = "query($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } } }"
    it.wait_for(
        "the backfill",
        lambda: it.graphql(query, id=launched["backfillId"])["partitionBackfillOrError"]["status"].startswith("COMPLETED"),
        timeout=360,
    )
    assert len(it.runs()) - runs_before == 1
    # Nothing was due: a backfill trains no model that is there already.
    assert DeltaTable(str(data / "lake" / "models" / "registry")).to_pyarrow_table().num_rows == models
    assert content(data, "scores/component_risk").equals(before)
