"""A backfill as the UI does it, on a platform that starts an engine of its own."""

import datetime as dt

import pytest
from deltalake import DeltaTable

from pdm_assets.resources.engine import Engine, Sizing
from pdm_assets_tests.journeys.daemon import platform
from pdm_assets_tests.journeys.history import FIRST, HISTORY_END, SETTINGS, content, fleet, take_in

pytestmark = [pytest.mark.journey, pytest.mark.slow]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("journey")
    yield root
    Engine(root, Sizing(2, 2048, 1)).stop()


@pytest.fixture(scope="module")
def it(data, tmp_path_factory):
    files = fleet(tmp_path_factory.mktemp("fleet") / "history", HISTORY_END)
    with platform(data, **SETTINGS) as it:
        take_in(it, files)
        yield it


def test_a_backfill_of_all_assets_from_the_ui_is_one_run_and_gives_the_same_scores(it, data):
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
