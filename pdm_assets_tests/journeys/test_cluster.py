"""The same platform on a Spark standalone cluster, by two settings: master, two workers, Spark Connect in front."""

import sys
import time
from contextlib import suppress

import psutil
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from pdm_assets.demo import CHECKOUT
from pdm_assets.schemas.tables import TABLES
from pdm_assets_tests.builders import day
from pdm_assets_tests.chaos.trials import is_same
from pdm_assets_tests.journeys.daemon import platform
from pdm_assets_tests.journeys.history import HISTORY_END, SETTINGS, content, fleet, take_in

sys.path.insert(0, str(CHECKOUT / "deploy" / "cluster"))
import standalone

pytestmark = [pytest.mark.journey, pytest.mark.long]  # a quarter of an hour: CI has no room for them
COMPARED = ("raw/telemetry", "raw/errors", "features/observations", "labels/component_failures")


def rows(data, table) -> pa.Table:
    found = DeltaTable(str(data / "lake" / table)).to_pyarrow_table()
    return found.sort_by([(name, "ascending") for name in TABLES[table].unique])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return fleet(tmp_path_factory.mktemp("files"), HISTORY_END)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with standalone.cluster(tmp_path_factory.mktemp("cluster"), workers=2, cores=1, memory_mb=1024) as it:
        yield it


def test_the_same_tables_come_of_it_and_a_worker_that_is_killed_loses_nothing(tmp_path, files, cluster):
    ours, theirs = tmp_path / "duckdb", tmp_path / "cluster"
    with platform(ours, **SETTINGS) as it:
        take_in(it, files)
    with platform(theirs, **SETTINGS, **cluster.settings) as it:
        take_in(it, files)
        assert not (theirs / "engine").exists(), "a session was opened here"
        for table in COMPARED:
            assert_same(theirs, ours, table)
        before = content(theirs, "scores/component_risk")

        backfill = it.backfill(day("2015-01-01"), day("2015-01-28"), ["raw", "quarantine", "features", "scores"])
        it.wait_for("the backfill to begin", lambda: any(run["status"] == "STARTED" for run in it.runs()))
        worker = psutil.Process(cluster.processes["worker-1"].pid)
        it.wait_for("an executor of the worker", lambda: busy(worker))
        for process in [*worker.children(recursive=True), worker]:
            process.kill()
        it.wait_for("the backfill", lambda: it.backfill_status(backfill).startswith("COMPLETED"), timeout=900)
        assert it.backfill_status(backfill) == "COMPLETED_SUCCESS"
        assert [run for run in it.runs() if run["status"] == "FAILURE"] == []
        assert content(theirs, "scores/component_risk").equals(before)
        for table in COMPARED:
            assert_same(theirs, ours, table)


def assert_same(theirs, ours, table) -> None:
    """Equal, but for the last digits of sums of doubles, which depend on how rows are split."""
    found, expected = rows(theirs, table), rows(ours, table)
    for name in expected.column_names:
        assert is_same(found[name], expected[name]), (table, name)


def busy(worker: psutil.Process) -> bool:
    """Whether the worker's executor has used the processor since the last look."""
    before = used_by_executors(worker)
    time.sleep(1)
    return used_by_executors(worker) > before + 0.3


def used_by_executors(worker: psutil.Process) -> float:
    seconds = 0.0
    for process in worker.children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it just ended; a zombie is one too
            if "CoarseGrainedExecutorBackend" in " ".join(process.cmdline()):
                seconds += process.cpu_times().user
    return seconds
