"""The mirror on a real MLflow server: what arrives there, what follows later decisions, and what happens without the server."""

import contextlib
import dataclasses
import datetime as dt
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
from click.testing import CliRunner

from pdm_assets import cli
from pdm_assets.assets import training
from pdm_assets.models.evaluation import POOLED
from pdm_assets.models.promotion import Condition, Verdict
from pdm_assets.resources import mlflow_mirror, model_folder
from pdm_assets.resources.mlflow_mirror import MirrorError, mirror
from pdm_assets.settings import Settings
from pdm_assets_tests.models.fleet import CUTOFF
from pdm_assets_tests.plant import Plant, metadata
from pdm_assets_tests.ports import free_ports

pytestmark = pytest.mark.slow  # a real server, and a plant with models

TODAY = dt.date(2015, 3, 10)
TOMORROW = TODAY + dt.timedelta(days=1)
YES = Verdict(True, (Condition("good", True, "for a test"),))
NO = Verdict(False, (Condition("good", False, "it sees ghosts"),))
NOWHERE = "http://127.0.0.1:1"  # nobody listens on port 1


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """An MLflow server on SQLite."""
    root = tmp_path_factory.mktemp("mlflow")
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{root}/mlflow.db", "--artifacts-destination", str(root / "artifacts")]
    # jobs want a package that only the whole mlflow brings
    environ = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (root / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=root, env=environ, stdout=log, stderr=log, start_new_session=True)
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_for(server, address, root / "log")
        yield address
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)  # the server and its worker
        server.wait()


def _wait_for(server, address, log):
    for _ in range(1800):  # imports take a minute where many run at once
        assert server.poll() is None, log.read_text()
        with contextlib.suppress(requests.ConnectionError):
            if requests.get(f"{address}/health", timeout=30).ok:
                return
        time.sleep(0.1)
    pytest.fail(f"MLflow did not come up: {log.read_text()}")


@pytest.fixture(scope="module")
def two_versions(tmp_path_factory, engine, tree):
    """The root of a plant with two versions of one tree: the first was promoted, the second refused."""
    root = tmp_path_factory.mktemp("two") / "plant"
    plant = Plant(root, engine)
    for version, cutoff, verdict in (("first", CUTOFF, YES), ("second", CUTOFF + dt.timedelta(days=7), NO)):
        register(plant, tree, version, cutoff, verdict)
    return root


@pytest.fixture
def plant(tmp_path, engine, two_versions):
    """A copy of it, for one test."""
    return Plant(Path(shutil.copytree(two_versions, tmp_path / "plant")), engine)


def register(plant, tree, version, cutoff, verdict):
    card = dataclasses.replace(tree.card, version=version, cutoff=cutoff)
    plant.store.save(tree._replace(card=card), {"lead_times": b"png"}, "a-run")
    plant.store.decide(version, verdict, cutoff, "gate, run 1")


@pytest.fixture
def models(plant, uri, request, monkeypatch):
    """The command on the plant's store and the server, under a name that no other test has."""
    monkeypatch.setattr(cli, "_store", lambda: plant.store)
    monkeypatch.setattr(cli, "_today", lambda: TODAY)
    monkeypatch.setenv("PDM_MLFLOW_URI", uri)
    monkeypatch.setenv("PDM_MLFLOW_NAME", request.node.name)

    def run(*arguments):
        result = CliRunner().invoke(cli.main, ["models", *map(str, arguments)])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


@pytest.fixture
def client(uri):
    return mlflow_mirror._client(uri)


def versions(client, name):
    """By version of the platform, the model versions of MLflow."""
    found = client.search_model_versions(f"name = '{name}'")
    by_version = {its.tags["pdm_version"]: its for its in found}
    assert len(by_version) == len(found)
    return by_version


def aliases(client, name):
    """By alias, the version of the platform."""
    numbers = {str(its.version): version for version, its in versions(client, name).items()}
    return {alias: numbers[str(number)] for alias, number in client.get_registered_model(name).aliases.items()}


def test_every_version_arrives_with_parameters_data_versions_metrics_decision_and_its_whole_folder(
    plant, uri, client, tmp_path, monkeypatch, request
):
    import mlflow

    name = request.node.name
    done = mirror(plant.store, uri, name, TODAY)
    assert (done.added, done.left_out) == (("first", "second"), {})
    there = versions(client, name)
    assert sorted(there) == ["first", "second"]
    second = there["second"]
    assert second.tags == {
        "pdm_version": "second",
        "decision": "refused",
        "in_force_from": "2015-02-21",
        "decided_by": "gate, run 1",
        "reason": "good: it sees ghosts",
    }

    run = client.get_run(second.run_id)
    assert run.info.status == "FINISHED"
    assert done.runs["second"] == f"{uri}/#/experiments/{run.info.experiment_id}/runs/{second.run_id}"
    card = plant.store.card("second")
    classifier = {key: value for key, value in run.data.params.items() if key.startswith("classifier/")}
    assert classifier == {f"classifier/{key}": str(value) for key, value in card.parameters.items()}
    assert {key: value for key, value in run.data.params.items() if key not in classifier} == {
        "model_type": "decision_tree",
        "horizon_hours": "48",
        "cutoff": "2015-02-21",
        "window/train": "[2015-01-03, 2015-01-23)",
        "window/calibration": "[2015-01-25, 2015-02-02)",
        "window/test": "[2015-02-04, 2015-02-12)",
        "rows_fitted": str(card.rows_fitted),
        "one_healthy_in": "1",
        "one_failing_in": "1",
        "seed": "7",
        "data/features/observations": "3",
        "code_version": "test",
    }
    sent = run.data.metrics
    assert sent["pooled/rows"] == 6 * 8 * 2 * 4  # machines, days of the test window, observations a day, components
    assert sent["comp1/rows"] == 6 * 8 * 2
    for component in ("comp1", "comp2", "comp3", "comp4", POOLED):
        assert sent[f"{component}/average_precision"] == card.metrics["test"][component].average_precision
        assert sent[f"{component}/false_episodes"] == card.events[component].observed.false_episodes
    failing, before = card.windows["test"].positives, card.windows["calibration"].positives
    assert {component: sent[f"{component}/positives"] for component in failing} == failing
    assert failing != before  # else another window's metrics would pass
    assert sent["comp3/threshold"] == card.thresholds["comp3"]
    assert "pooled/event_recall" not in sent  # no failure is on record on the toy fleet: there is nothing to tell it by

    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)  # as who loads it would
    loaded = tmp_path / "loaded"
    mlflow.artifacts.download_artifacts(f"models:/{name}@challenger", dst_path=str(loaded))
    model_folder.check(loaded)
    assert _files(loaded) == _files(plant.store.folder("second"))


def _files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_second_call_changes_nothing_and_a_later_version_is_added_alone(plant, uri, client, tree, request):
    name = request.node.name

    def state():
        experiment = client.get_experiment_by_name(name).experiment_id
        runs = [run.to_dictionary() for run in client.search_runs([experiment])]
        return runs, {version: dict(its) for version, its in versions(client, name).items()}, aliases(client, name)

    mirror(plant.store, uri, name, TODAY)
    before = state()
    assert mirror(plant.store, uri, name, TODAY).added == ()
    assert state() == before
    register(plant, tree, "third", CUTOFF + dt.timedelta(days=14), YES)
    done = mirror(plant.store, uri, name, TODAY)
    assert done.added == ("third",)
    assert sorted(done.runs) == ["first", "second", "third"]
    assert [run for run in state()[0] if run in before[0]] == before[0]


def test_the_aliases_follow_promotions_rollbacks_and_the_day(plant, models, uri, client, request):
    name = request.node.name
    said = models("mirror").output.splitlines()
    assert [line.split(":")[0] for line in said[:2]] == ["added first", "added second"]
    assert said[2] == f"{name} at {uri}: 2 versions, champion is first, challenger is second"
    assert aliases(client, name) == {"champion": "first", "challenger": "second"}

    assert models("promote", "second", "--from", TODAY).stderr == ""
    assert aliases(client, name) == {"champion": "second"}
    assert versions(client, name)["second"].tags["reason"] == "asked for: promoted by hand"
    assert versions(client, name)["second"].tags["decision"] == "promoted"

    assert models("rollback").exit_code == 0
    assert aliases(client, name) == {"champion": "second"}  # the rollback is from tomorrow on
    assert mirror(plant.store, uri, name, TOMORROW).aliases == {"champion": "first", "challenger": "second"}
    assert aliases(client, name) == {"champion": "first", "challenger": "second"}
    assert mirror(plant.store, uri, name, CUTOFF - dt.timedelta(days=1)).aliases == {}
    assert aliases(client, name) == {}


def test_an_imported_version_is_shown_as_not_decided_on(plant, models, client, tmp_path, engine, monkeypatch, request):
    assert models("export", "second", tmp_path / "second.zip").exit_code == 0
    other = Plant(tmp_path / "other", engine)
    monkeypatch.setattr(cli, "_store", lambda: other.store)
    assert models("import", tmp_path / "second.zip").stderr == ""
    assert versions(client, request.node.name)["second"].tags == {"pdm_version": "second", "decision": "none"}
    assert aliases(client, request.node.name) == {"challenger": "second"}


def test_a_server_that_is_down_holds_up_no_decision_and_is_caught_up_later(plant, models, uri, client, monkeypatch, request):
    monkeypatch.setenv("PDM_MLFLOW_URI", NOWHERE)
    promoted = models("promote", "second")
    assert promoted.exit_code == 0
    assert promoted.stdout == f"second is in force from {TOMORROW} on\n"
    assert promoted.stderr.startswith(f"warning: MLflow at {NOWHERE} is not up to date: ")
    assert "`pdm-assets models mirror`" in promoted.stderr
    assert plant.store.decisions()[-1].version == "second"
    refused = models("mirror")
    assert refused.exit_code == 1
    assert "is not up to date" in refused.stderr

    monkeypatch.setenv("PDM_MLFLOW_URI", uri)
    assert models("mirror").exit_code == 0
    assert versions(client, request.node.name)["second"].tags["decision"] == "promoted"


def test_a_training_goes_on_without_the_server_and_a_later_run_catches_up(plant, tree, uri, client, monkeypatch, request):
    name = request.node.name

    def train(context, config, lake, store, reports, fitter, on):
        register(plant, tree, f"of-{on}", on, YES)
        return training.TrainedFor(f"of-{on}", YES, on)

    def run(on, address):
        monkeypatch.setattr(training, "SETTINGS", Settings(mlflow_uri=address, mlflow_name=name))
        result = plant.run(on.isoformat(), tables="failure_model")
        assert result.success
        warnings = [entry.user_message for entry in plant.instance.all_logs(result.run_id) if entry.level == 30]
        return metadata(result, "models/failure_model")[on.isoformat()], warnings

    monkeypatch.setattr(training, "_train", train)
    monkeypatch.setattr(training, "_what_is_missing", lambda *_: None)  # the plant has no features: they are not asked for
    due = CUTOFF + dt.timedelta(days=7 + 28)
    said, (warning,) = run(due, NOWHERE)
    assert said["model_version"] == f"of-{due}"
    assert "mlflow_run" not in said
    assert f"MLflow at {NOWHERE} is not up to date: " in warning

    said, warnings = run(due + dt.timedelta(days=1), uri)  # nothing is trained on the day after
    assert "mlflow_run" not in said
    assert warnings == []
    assert sorted(versions(client, name)) == ["first", f"of-{due}", "second"]
    assert aliases(client, name) == {"champion": f"of-{due}"}

    again = due + dt.timedelta(days=28)
    said, warnings = run(again, uri)
    assert warnings == []
    its = versions(client, name)[f"of-{again}"]
    assert said["mlflow_run"].endswith(f"/runs/{its.run_id}")
    assert said["model_version"] == f"of-{again}"


def test_a_version_that_was_broken_off_is_finished_in_the_run_that_it_had(plant, uri, client, monkeypatch, request):
    from mlflow import MlflowClient

    name = request.node.name

    def break_off(*_):
        raise OSError("the line went dead")

    with monkeypatch.context() as broken:
        broken.setattr(MlflowClient, "log_artifacts", break_off)
        with pytest.raises(MirrorError, match="the line went dead"):
            mirror(plant.store, uri, name, TODAY)
    assert versions(client, name) == {}
    assert mirror(plant.store, uri, name, TODAY).added == ("first", "second")
    runs = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    assert sorted((run.data.tags["pdm_version"], run.info.status) for run in runs) == [
        ("first", "FINISHED"),
        ("second", "FINISHED"),
    ]
    assert [len(client.get_metric_history(run.info.run_id, "pooled/rows")) for run in runs] == [1, 1]


def test_a_damaged_version_is_left_out_and_named_and_the_others_arrive(plant, models, client, request):
    (plant.store.folder("first") / "card.json").write_text("{}")
    result = models("mirror")
    assert result.exit_code == 0
    assert "warning: first is not in MLflow: model first is registered, but" in result.stderr
    assert list(versions(client, request.node.name)) == ["second"]
    assert aliases(client, request.node.name) == {"challenger": "second"}


def test_a_server_that_does_not_answer_is_given_up(plant, monkeypatch):
    monkeypatch.setattr(mlflow_mirror, "MLFLOW_DEFAULTS", {**mlflow_mirror.MLFLOW_DEFAULTS, "MLFLOW_HTTP_REQUEST_TIMEOUT": "1"})
    for variable in mlflow_mirror.MLFLOW_DEFAULTS:
        monkeypatch.delenv(variable, raising=False)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()  # the system takes the connection; nobody reads it
        with pytest.raises(MirrorError, match="timeout"):
            mirror(plant.store, f"http://127.0.0.1:{silent.getsockname()[1]}", "any", TODAY)


def test_two_at_a_time_do_not_both_add(plant, uri, request):
    with mlflow_mirror._alone(Path(plant.store.root)), pytest.raises(MirrorError, match="another process"):
        mirror(plant.store, uri, request.node.name, TODAY)


def test_without_the_extra_it_says_what_to_install_and_without_an_address_what_to_set(models, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    promoted = models("promote", "second")
    assert promoted.exit_code == 0
    assert "uv pip install -e '.[mlflow]'" in promoted.stderr
    monkeypatch.delenv("PDM_MLFLOW_URI")
    assert models("promote", "second").stderr == ""
    nowhere = models("mirror")
    assert nowhere.exit_code == 1
    assert "PDM_MLFLOW_URI is not set" in nowhere.stderr
