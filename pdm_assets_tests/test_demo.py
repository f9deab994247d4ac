"""What `make demo` and `make dev` do before Dagster is up."""

import os
import socket
import stat
import subprocess
import sys
import threading
import time

import dagster as dg
import psutil
import pytest
from click.testing import CliRunner
from dagster._core.events import EngineEventData

from pdm_assets import cli, demo
from pdm_assets.settings import Settings

HOLD = """
import sys, pathlib
from pdm_assets.demo import claim
claim(pathlib.Path(sys.argv[1]))
print("held", flush=True)
input()
"""


@pytest.fixture
def home(tmp_path):
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    return tmp_path


def test_the_home_is_its_owners_alone_also_where_it_was_not(tmp_path):
    (tmp_path / "dagster").mkdir()
    (tmp_path / "dagster").chmod(0o755)
    assert stat.S_IMODE(demo.make_home(tmp_path).stat().st_mode) == 0o700


@pytest.mark.parametrize("command", ["dev", "home"])
def test_no_home_but_that_of_the_data_root_is_served_or_written(tmp_path, monkeypatch, command):
    """Another has no dagster.yaml: no pool, no retries, no monitoring."""
    served = []
    monkeypatch.setattr(demo, "serve", lambda home, port: served.append(home) or 0)
    for asked, is_right in ((tmp_path / "elsewhere", False), (tmp_path / "data" / "dagster", True), ("", True)):
        environ = {"PDM_DATA": str(tmp_path / "data"), "DAGSTER_HOME": str(asked)}
        result = CliRunner(env=environ).invoke(cli.main, [command])
        assert (result.exit_code == 0) == is_right
        assert ("Dagster would run on its defaults" in result.output) != is_right
    assert served == [tmp_path / "data" / "dagster"] * (2 if command == "dev" else 0)


def test_runs_that_died_with_the_dagster_before_are_ended_and_others_are_not(home):
    statuses = {
        dg.DagsterRunStatus.STARTED: dg.DagsterRunStatus.FAILURE,
        dg.DagsterRunStatus.STARTING: dg.DagsterRunStatus.FAILURE,
        dg.DagsterRunStatus.CANCELING: dg.DagsterRunStatus.CANCELED,
        dg.DagsterRunStatus.NOT_STARTED: dg.DagsterRunStatus.NOT_STARTED,
        dg.DagsterRunStatus.SUCCESS: dg.DagsterRunStatus.SUCCESS,
    }
    with dg.DagsterInstance.from_config(str(home)) as instance:
        runs = {status: instance.add_run(dg.DagsterRun(job_name="a_job", status=status)) for status in statuses}
        outlived = instance.add_run(dg.DagsterRun(job_name="a_job", status=dg.DagsterRunStatus.STARTED))
        instance.report_engine_event("Started process for run", outlived, EngineEventData.in_process(os.getpid()))
        held = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert held.stdout
        assert held.stdout.readline() == "held\n"
        found = {status: instance.get_run_by_id(run.run_id).status for status, run in runs.items()}
        assert instance.get_run_by_id(outlived.run_id).status == dg.DagsterRunStatus.STARTED
    assert found == statuses

    with pytest.raises(SystemExit, match="Dagster is running on"):
        demo.claim(home)
    held.communicate("\n", timeout=30)


# A proxy starts the process that has the code, and does not notice its end.
PROXY = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'input()', 'grpc'], stdin=-1); time.sleep(600)"
DAGSTER = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {PROXY!r}, 'code-server'])"


def test_a_proxy_whose_code_server_has_died_is_made_to_end_and_one_that_has_it_is_left_alone():
    dagster = subprocess.Popen([sys.executable, "-c", DAGSTER])
    serving = threading.Thread(target=demo.keep_serving, args=(dagster,), daemon=True)
    serving.start()
    parent = psutil.Process(dagster.pid)
    deadline = time.monotonic() + 60
    while not (codes := [p for p in parent.children(recursive=True) if "grpc" in p.cmdline()]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(5)
    assert dagster.poll() is None
    codes[0].kill()
    serving.join(30)
    assert dagster.poll() is not None


def test_a_port_that_is_taken_is_said_at_once():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit, match=f"port {port} is taken"):
            demo._port_is_free(port)
    demo._port_is_free(port)


def test_a_demo_does_not_mix_with_a_plants_files(tmp_path):
    folder = tmp_path / "landing" / "telemetry"
    folder.mkdir(parents=True)
    (folder / "telemetry.csv").write_text("")
    with pytest.raises(SystemExit, match="holds files that are not of a demo"):
        demo._Fleet.of(tmp_path, 100)


@pytest.mark.parametrize("elsewhere", [{"lake": "s3a://plant/lake"}, {"landing": "s3://plant/landing"}])
def test_a_demo_writes_into_no_plants_store(tmp_path, elsewhere):
    with pytest.raises(SystemExit, match=f"PDM_{next(iter(elsewhere)).upper()}: a demo's simulated fleet stays"):
        demo.run(100, 3000, Settings(data=tmp_path / "data", **elsewhere))
    assert not (tmp_path / "data").exists()


def test_the_services_and_the_image_have_the_environment_of_make_dev():
    for path in ("deploy/pdm.env.example", "deploy/container/Dockerfile"):
        text = (demo.CHECKOUT / path).read_text()
        assert [f"{name}={value}" in text for name, value in demo.DAGSTER_ENVIRON.items()] == [True, True], path
