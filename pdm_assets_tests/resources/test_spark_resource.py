"""The session resource: one session a process, what it leaves behind, how much memory it takes, which engine it is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pdm_assets.resources import spark as resource
from pdm_assets.resources.spark import SparkEngine, quarter_of_memory_mb
from pdm_assets.settings import Settings

GIB = 2**30
DEAD_PID = 2**22 + 1  # above what the kernel gives


def test_copies_of_the_resource_share_a_session_which_ends_with_the_last_of_them(tmp_path):
    one = SparkEngine(data=str(tmp_path), memory_mb=300)
    other = SparkEngine(**one.model_dump())
    assert one.spark_session is other.spark_session
    (spill,) = (tmp_path / "engine" / "spill").iterdir()
    one.close()
    assert other.spark_session.range(3).count() == 3
    assert spill.is_dir()
    other.close()
    assert not spill.exists()
    assert one.spark_session.range(2).count() == 2  # a new one
    one.close()


def test_what_a_killed_process_spilled_goes_and_what_a_living_one_spills_stays(tmp_path):
    spill = tmp_path / "engine" / "spill"
    for pid in (DEAD_PID, 1):
        (spill / str(pid)).mkdir(parents=True)
        (spill / str(pid) / "duckdb_temp_block-0.block").write_bytes(b"rows")
    it = SparkEngine(data=str(tmp_path), memory_mb=300)
    assert it.spark_session.range(1).count() == 1
    assert sorted(int(folder.name) for folder in spill.iterdir()) == sorted([1, os.getpid()])
    it.close()


@pytest.mark.parametrize(
    ("machine", "limits", "expected"),
    [
        pytest.param(24 * GIB, {}, 4096, id="a large machine: 4 GiB"),
        pytest.param(8 * GIB, {}, 2048, id="a quarter of a small one"),
        pytest.param(2 * GIB, {}, 1024, id="1 GiB at least"),
        pytest.param(64 * GIB, {"": str(6 * GIB)}, 1536, id="a container's limit counts"),
        pytest.param(64 * GIB, {"system.slice/pdm.service": str(6 * GIB)}, 1536, id="a unit's limit counts"),
        pytest.param(64 * GIB, {"system.slice": str(5 * GIB), "": str(6 * GIB)}, 1280, id="the least of those above counts"),
        pytest.param(8 * GIB, {"": "max", "system.slice/pdm.service": "max"}, 2048, id="no limit"),
    ],
)
def test_memory_is_a_quarter_of_the_machine_container_or_unit(monkeypatch, tmp_path, machine, limits, expected):
    (tmp_path / "own").write_text("0::/system.slice/pdm.service\n")
    for group, limit in limits.items():
        (tmp_path / "groups" / group).mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / group / "memory.max").write_text(limit)
    monkeypatch.setattr(resource, "CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(resource, "OWN_CGROUP", tmp_path / "own")
    monkeypatch.setattr(resource.psutil, "virtual_memory", lambda: type("Memory", (), {"total": machine}))
    assert quarter_of_memory_mb() == expected
    assert SparkEngine.of(Settings(memory_mb=700)).memory_mb == 700


def test_a_run_of_the_default_engine_starts_no_other_process_and_opens_no_port(tmp_path):
    code = f"""
import psutil
from pdm_assets.resources.spark import SparkEngine
it = SparkEngine(data={str(tmp_path)!r}, memory_mb=300)
assert it.spark_session.range(5).count() == 5
me = psutil.Process()
print(len(me.children(recursive=True)), len([c for c in me.net_connections() if c.status == "LISTEN"]))
it.close()
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["0", "0"]


@pytest.mark.slow  # a JVM that fetches Delta's jars
def test_without_an_address_the_engine_spark_is_a_local_session_with_delta(tmp_path):
    code = f"""
from pdm_assets.resources.lake import Lake
from pdm_assets.resources.spark import SparkEngine
from pdm_assets.schemas.raw import ERRORS
from pdm_assets_tests.builders import day, errors
it = SparkEngine(engine="spark", data={str(tmp_path)!r}, memory_mb=1024)
lake = Lake(spark=it, root={str(tmp_path / "lake")!r})
rows = errors(it.spark_session, [(1, "2015-01-01 05:00", "error1")])
lake.replace_days(ERRORS, rows, day("2015-01-01"), day("2015-01-02"), {{}})
print(lake.rows(ERRORS), "SparkSession" in type(it.spark_session).__name__)
it.close()
"""
    environ = {name: value for name, value in os.environ.items() if name != "SPARK_CONNECT_MODE_ENABLED"}
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environ, cwd=Path(__file__).parents[2]
    )
    assert found.returncode == 0, found.stderr[-2000:]
    assert "'error_code': 'error1'" in found.stdout
