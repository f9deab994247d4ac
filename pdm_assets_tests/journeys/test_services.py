"""Production: PostgreSQL, and the services of deploy/systemd, started by the commands of their units."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import dagster as dg
import psutil
import pytest

from pdm_assets.demo import CHECKOUT
from pdm_assets.resources.run_history import forget_runs
from pdm_assets_tests.builders import day, utc
from pdm_assets_tests.journeys.daemon import HERE, Platform
from pdm_assets_tests.journeys.history import FIRST, HISTORY_END, SETTINGS, content, fleet, take_in
from pdm_assets_tests.journeys.postgres import PASSWORD, postgres, programs
from pdm_assets_tests.ports import free_ports

pytestmark = [pytest.mark.journey, pytest.mark.long]  # nine minutes: CI has no room for them
UNITS = CHECKOUT / "deploy" / "systemd"
SERVICES = ("pdm-code", "pdm-daemon", "pdm-web", "pdm-view")


class Services:
    """What systemd does with the units: commands, environment, a new start when one ends, the end of all that it left."""

    def __init__(self, root: Path, database: str) -> None:
        self.root, self.data = root, root / "data"
        code, web, view = free_ports(3)
        self.ports = {"4000": str(code), "3000": str(web), "3001": str(view)}
        workspace = root / "workspace.yaml"
        workspace.write_text(self.here((CHECKOUT / "deploy" / "workspace.yaml").read_text()))
        self.paths = {
            "/opt/pdm-assets/.venv/bin": str(Path(sys.executable).parent),
            "/opt/pdm-assets/deploy/workspace.yaml": str(workspace),
            "/var/lib/pdm-assets": str(root),
        }
        given = (CHECKOUT / "deploy" / "pdm.env.example").read_text().splitlines()
        example = dict(line.split("=", 1) for line in given if line and not line.startswith("#"))
        outside = {name: value for name, value in os.environ.items() if not name.startswith(("PDM_", "DAGSTER_"))}
        self.environ = {**outside, **{name: self.here(value) for name, value in example.items()}, **SETTINGS}
        self.environ["PDM_DAGSTER_DB"] = database
        self.running: dict[str, subprocess.Popen] = {}
        self.web, self.view = Platform(self.data, web), Platform(self.data, view)

    def here(self, text: str) -> str:
        """A text of deploy/ with this machine's paths and ports."""
        for theirs, ours in getattr(self, "paths", {}).items():
            text = text.replace(theirs, ours)
        return re.sub(r"\b(4000|3000|3001)\b", lambda found: self.ports[found[0]], text)

    def start(self, service: str) -> None:
        unit = (UNITS / f"{service}.service").read_text()
        environ = dict(line.split("=", 1) for line in re.findall(r"^Environment=(.*)$", unit, re.MULTILINE))
        environ = {**self.environ, **environ}
        for before in re.findall(r"^ExecStartPre=(.*)$", unit, re.MULTILINE):
            subprocess.run(self.here(before).split(), env=environ, cwd=self.root, check=True, stdout=subprocess.DEVNULL)
        (command,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
        with (self.root / f"{service}.log").open("ab") as log:
            self.running[service] = subprocess.Popen(
                self.here(command).split(), env=environ, cwd=self.root, stdout=log, stderr=log, start_new_session=True
            )

    def tree(self, service: str) -> list[psutil.Process]:
        main = psutil.Process(self.running[service].pid)
        return [main, *main.children(recursive=True)]

    def crash(self, service: str) -> None:
        """SIGKILL, after which systemd ends what the service left, and starts it again."""
        for process in self.tree(service):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        self.running[service].wait()
        self.start(service)

    def stop(self) -> None:
        for service in reversed(self.running):
            left = self.tree(service) if self.running[service].poll() is None else []
            self.running[service].terminate()
            with suppress(subprocess.TimeoutExpired):
                self.running[service].wait(60)
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            self.running[service].wait()

    def log(self) -> str:
        return "".join((self.root / f"{service}.log").read_text() for service in self.running)


@pytest.fixture(scope="module")
def database():
    where = programs()
    if where is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with postgres(where) as server:
        server.run("createdb", "-w", "--maintenance-db", server.url(), "pdm")
        yield server


@pytest.fixture(scope="module")
def services(tmp_path_factory, database):
    it = Services(tmp_path_factory.mktemp("services"), database.url("pdm"))
    try:
        for service in SERVICES:
            it.start(service)
        for server in (it.web, it.view):
            answers(it, server)
        take_in(it.web, fleet(tmp_path_factory.mktemp("files"), HISTORY_END))
        yield it
    finally:
        it.stop()


def answers(it: Services, server: Platform) -> None:
    """Wait for a web server and the code location behind it."""
    deadline = time.monotonic() + 360
    while True:
        with suppress(OSError, KeyError, TypeError):
            located = server.graphql("{ workspaceOrError { ... on Workspace { locationEntries { name loadStatus } } } }")
            if located["workspaceOrError"]["locationEntries"] == [{"name": "pdm_assets", "loadStatus": "LOADED"}]:
                server.runs()
                return
        ended = [service for service, process in it.running.items() if process.poll() is not None]
        assert not ended, f"{ended}: {it.log()[-3000:]}"
        assert time.monotonic() < deadline, it.log()[-3000:]
        time.sleep(0.5)


@pytest.fixture
def instance(services, monkeypatch):
    monkeypatch.setenv("PDM_DAGSTER_DB", services.environ["PDM_DAGSTER_DB"])
    with dg.DagsterInstance.from_config(services.environ["DAGSTER_HOME"]) as instance:
        yield instance


def test_what_landed_was_scored_and_its_runs_are_in_the_database_alone(services, instance):
    (run,) = services.web.runs()
    assert instance.get_run_by_id(run["runId"]).status == dg.DagsterRunStatus.SUCCESS
    scored = instance.get_materialized_partitions(dg.AssetKey(["scores", "component_risk"]))
    assert len(scored) == (HISTORY_END - FIRST).days
    assert [path for path in Path(services.environ["DAGSTER_HOME"]).rglob("*.db") if path.stat().st_size] == []


def test_who_looks_sees_the_runs_and_can_ask_for_none(services):
    assert services.view.runs() == services.web.runs()
    before = len(services.web.runs())
    launch = """mutation($p: ExecutionParams!) { launchPipelineExecution(executionParams: $p) { __typename } }"""
    selector = {**HERE, "pipelineName": "watch_scores"}
    answered = services.view.graphql(launch, p={"selector": selector, "runConfigData": "{}", "mode": "default"})
    assert answered["launchPipelineExecution"]["__typename"] == "UnauthorizedError"
    assert len(services.web.runs()) == before
    for count in (1, 2):
        services.web.launch("watch_scores")
        services.web.wait_for("the check", lambda count=count: services.web.all_done(before + count))


def test_the_code_server_dies_with_a_run_and_the_run_is_tried_again(services):
    before = content(services.data, "scores/component_risk")
    backfill = services.web.backfill(day("2015-01-20"), day("2015-01-28"), ["raw", "quarantine", "features", "scores"])

    def wait(what, condition, seconds=900):
        deadline = time.monotonic() + seconds
        while True:
            with suppress(OSError):  # while its code server is away the web server may answer with its own error
                if condition():
                    return
            assert time.monotonic() < deadline, f"{what}. {services.log()[-3000:]}"
            time.sleep(0.5)

    def of_it(status):
        runs = services.web.runs()
        return [run["runId"] for run in runs if run["tags"].get("dagster/backfill") == backfill and run["status"] == status]

    wait("no run began", lambda: of_it("STARTED"))
    (killed,) = of_it("STARTED")
    services.crash("pdm-code")
    wait("the backfill did not end", lambda: services.web.backfill_status(backfill).startswith("COMPLETED"))
    assert services.web.backfill_status(backfill) == "COMPLETED_SUCCESS"
    assert of_it("FAILURE") == [killed]
    assert killed in [run["tags"].get("dagster/parent_run_id") for run in services.web.runs()]
    assert content(services.data, "scores/component_risk").equals(before)


def test_old_runs_are_deleted_from_the_database_and_no_partition_looks_unmade(services, instance):
    materialized = {key: instance.get_materialized_partitions(key) for key in instance.all_asset_keys()}
    before = instance.get_runs_count()
    forgotten = forget_runs(instance, utc("2100-01-01"))
    assert forgotten.failed == {}
    assert forgotten.runs == 1, "the first of the two checks"
    assert instance.get_runs_count() == before - forgotten.runs
    assert {key: instance.get_materialized_partitions(key) for key in materialized} == materialized


def test_the_history_comes_back_from_a_dump(services, instance, database, tmp_path):
    runs = {run.run_id for run in instance.get_runs()}
    database.run("pg_dump", "-w", "--format=custom", f"--file={tmp_path / 'pdm.dump'}", database.url("pdm"))
    database.run("createdb", "-w", "--maintenance-db", database.url(), "again")
    database.run("pg_restore", "-w", f"--dbname={database.url('again')}", str(tmp_path / "pdm.dump"))
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text(f'storage: {{postgres: {{postgres_url: "{database.url("again")}"}}}}')
    with dg.DagsterInstance.from_config(str(home)) as again:
        assert {run.run_id for run in again.get_runs()} == runs


def test_the_password_is_told_nowhere(services):
    told = services.log() + (Path(services.environ["DAGSTER_HOME"]) / "dagster.yaml").read_text()
    assert len(told) > 1000
    assert PASSWORD not in told
    commands = [" ".join(process.cmdline()) for service in SERVICES for process in services.tree(service)]
    assert commands
    assert not [command for command in commands if PASSWORD in command]
