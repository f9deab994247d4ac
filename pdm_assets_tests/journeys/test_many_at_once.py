"""A backfill as the UI does it, and whoever asks for the same days at once."""

import datetime as dt
import json
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

import psutil
import pyarrow.compute as pc
import pytest
import yaml
from deltalake import DeltaTable

from pdm_assets.resources.lake import Lake
from pdm_assets.resources.spark import SparkEngine
from pdm_assets.schemas.raw import TELEMETRY
from pdm_assets.simulator.replay import Replayer
from pdm_assets_tests import builders
from pdm_assets_tests.chaos.supervised import PARTS
from pdm_assets_tests.chaos.trials import check_logs
from pdm_assets_tests.journeys.daemon import HERE, UNDER_WAY, Platform
from pdm_assets_tests.journeys.history import FIRST, HISTORY_END, content, days_with_rows

pytestmark = [pytest.mark.journey, pytest.mark.slow]

LOOKED_AT = ["raw/telemetry", "quarantine/telemetry", "features/observations"]


def of_schedule(it: Platform, name: str, at: dt.datetime) -> dict[str, str]:
    """The tags of the run that a schedule asks for at a time, as its daemon would."""
    query = """mutation($s: ScheduleSelector!, $t: Float) { scheduleDryRun(selectorData: $s, timestamp: $t) {
        __typename ... on DryRunInstigationTick { evaluationResult { runRequests { tags { key value } } } } } }"""
    dry = it.graphql(query, s={**HERE, "scheduleName": name}, t=at.timestamp())["scheduleDryRun"]
    (request,) = dry["evaluationResult"]["runRequests"]
    return {tag["key"]: tag["value"] for tag in request["tags"]}


def test_a_backfill_of_all_assets_from_the_ui_is_one_run_and_gives_the_same_scores(it, data):
    before, runs_before = content(data, "scores/component_risk"), len(it.runs())
    models = DeltaTable(str(data / "lake" / "models" / "registry")).to_pyarrow_table().num_rows
    launched = it.backfill(FIRST, HISTORY_END)
    it.wait_for("the backfill", lambda: it.backfill_status(launched).startswith("COMPLETED"), timeout=360)
    assert len(it.runs()) - runs_before == 1
    # Nothing was due: a backfill trains no model that is there already.
    assert DeltaTable(str(data / "lake" / "models" / "registry")).to_pyarrow_table().num_rows == models
    assert content(data, "scores/component_risk").equals(before)


def test_whoever_asks_at_once_runs_one_after_the_other_and_no_commit_is_lost(it, data, files):
    before, known = content(data, "scores/component_risk"), {run["runId"] for run in it.runs()}
    last = HISTORY_END - dt.timedelta(days=1)
    new_day = max(days_with_rows(data, "scores/component_risk")) + dt.timedelta(days=1)
    ten_days = [(last - dt.timedelta(days=n)).isoformat() for n in range(10)]
    replayer = Replayer(files / "whole", data / "landing", new_day)
    asked = {
        "ops": {
            "score_days": {
                "config": {
                    "start_date": last.isoformat(),
                    "to_date": last.isoformat(),
                    "model": "decision_tree",
                    "results_table": "storm",
                }
            }
        }
    }
    scheduled = of_schedule(it, "daily_scoring", dt.datetime.combine(HISTORY_END, dt.time(0, 30), dt.UTC))
    assert scheduled["dagster/partition"] == last.isoformat()
    with ThreadPoolExecutor(16) as at_once:
        pending = [at_once.submit(it.launch, "process_days", assets=LOOKED_AT, **{"dagster/partition": on}) for on in ten_days]
        pending.append(at_once.submit(it.launch, "score_range", yaml.safe_dump(asked)))
        pending.append(at_once.submit(it.launch, "process_days", **scheduled))
        pending.append(at_once.submit(replayer.land_day, new_day))
        filled = at_once.submit(it.backfill, FIRST + dt.timedelta(days=20), new_day)
        for each in pending:
            each.result()
    most = 0

    def all_done() -> bool:
        nonlocal most
        runs = it.runs()
        most = max(most, sum(run["status"] == "STARTED" for run in runs))
        status = it.backfill_status(filled.result())
        by_sensor = any("landing/reason" in run["tags"] for run in runs if run["runId"] not in known)
        return by_sensor and status.startswith("COMPLETED") and not any(run["status"] in UNDER_WAY for run in runs)

    it.wait_for("all that was asked for", all_done, timeout=900)
    assert most == 1, "two runs were in the pool at once"
    assert len(it.runs()) - len(known) >= 14  # the ten days, score_range, the schedule's, the sensor's and the backfill's
    assert {run["status"] for run in it.runs()} == {"SUCCESS"}
    check_logs(data)
    after = content(data, "scores/component_risk")
    days = after["date"].to_pylist()
    assert set(days) - set(before["date"].to_pylist()) == {new_day}
    assert after.filter([found < new_day for found in days]).equals(before)
    of_last = before.filter(pc.field("date") == last).drop_columns(["model_version"])
    assert of_last.num_rows
    assert content(data, "results/storm").drop_columns(["model_version"]).equals(of_last)


def test_after_a_run_that_was_cancelled_the_next_one_gets_the_pool(it):
    run = it.launch("process_days", **{"dagster/partition": "2015-01-28"})
    waiting = it.launch("process_days", assets=LOOKED_AT, **{"dagster/partition": "2015-01-28"})
    status = lambda of: next(one["status"] for one in it.runs() if one["runId"] == of)  # noqa: E731
    it.wait_for("the run to begin", lambda: status(run) == "STARTED")
    query = "mutation($id: String!) { terminateRun(runId: $id) { __typename } }"
    assert it.graphql(query, id=run)["terminateRun"]["__typename"] == "TerminateRunSuccess"
    it.wait_for("the cancelled run to end", lambda: status(run) == "CANCELED", timeout=120)
    it.wait_for("the run that waited", lambda: status(waiting) == "SUCCESS", timeout=300)


def write_rounds(root: Path, number: int, rounds: int, begin: float) -> None:
    """A process of its own: one day of telemetry, written anew in each round."""
    engine = SparkEngine(data=str(root / "data"), memory_mb=256)
    lake, on = Lake(spark=engine, root=str(root / "lake")), dt.date(2015, 1, 1) + dt.timedelta(days=number)
    for turn in range(rounds):
        rows = builders.telemetry(engine.spark_session, [(1, f"{on} {hour:02d}:00", 170.0 + turn) for hour in range(3)])
        time.sleep(max(0.0, begin - time.time()))
        lake.replace_days(TELEMETRY, rows, on, on + dt.timedelta(days=1), {"writer": number, "turn": turn})
    engine.close()


def test_eight_processes_that_write_one_table_without_a_pool_lose_no_commit(tmp_path):
    """Not what the platform does: what it rests on. Processes write days of one table at the same time."""
    rounds, writers, begin = 3, 8, time.time() + 12
    with ProcessPoolExecutor(writers, mp_context=get_context("spawn")) as processes:
        written = [processes.submit(write_rounds, tmp_path, number, rounds, begin) for number in range(writers)]
        for one in written:
            one.result(timeout=300)
    check_logs(tmp_path)
    folder = tmp_path / "lake" / TELEMETRY.key
    history = DeltaTable(str(folder)).history()
    notes = [(one["writer"], one["turn"]) for one in map(note_of, history) if one]
    assert sorted(notes) == [(number, turn) for number in range(writers) for turn in range(rounds)]
    rows = DeltaTable(str(folder)).to_pyarrow_table(columns=["date", "volt"]).to_pylist()
    assert len(rows) == 3 * writers
    assert {row["volt"] for row in rows} == {170.0 + rounds - 1}


def note_of(commit: dict) -> dict:
    return json.loads(commit.get("userMetadata") or "{}")


def test_a_backfill_whose_process_is_killed_twice_gets_through_by_itself(it, data):
    """The short form of the kill trials (`make chaos`). The last of these tests: the others take a failed run for a defect."""
    before, known = content(data, "scores/component_risk"), {run["runId"] for run in it.runs()}
    launched = it.backfill(HISTORY_END - dt.timedelta(days=6), HISTORY_END, ("features", "labels", "scores"))
    ours = lambda: [run for run in it.runs() if run["runId"] not in known]  # noqa: E731
    killed: set[int] = set()

    def lost_a_worker() -> bool:
        for worker in workers_of(data):
            if worker.pid not in killed:
                killed.add(worker.pid)
                worker.kill()
                return True
        return False

    for kill in ("first", "second"):
        it.wait_for(f"the {kill} worker to kill", lost_a_worker, timeout=300, may_fail=True)
    it.wait_for("the backfill", lambda: it.backfill_status(launched).startswith("COMPLETED"), timeout=600, may_fail=True)
    assert it.backfill_status(launched) == "COMPLETED_SUCCESS"
    ended = sorted(run["status"] for run in ours())
    assert ended == ["FAILURE", "FAILURE", "SUCCESS"]
    check_logs(data)
    assert content(data, "scores/component_risk").equals(before)


def workers_of(data: Path) -> list[psutil.Process]:
    """The processes of the platform's runs, the one that began last first."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if PARTS["run worker"] in " ".join(process.cmdline()) and process.environ().get("PDM_DATA") == str(data):
                found.append(process)
    return sorted(found, key=psutil.Process.create_time, reverse=True)
