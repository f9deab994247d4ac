"""Assets made by jobs, against a stand-in of the workspace: SDK and Pipes are the real ones, the task is a small one."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile

import dagster as dg
import pytest
from dagster._core.pipes import utils as pipes_utils

from pdm_assets.assets import backtest, features, scoring, training
from pdm_assets.assets.by_job import by_job
from pdm_assets.resources.databricks_jobs import HEAVY, DatabricksJobs, compute_in
from pdm_assets.resources.faults import fault_in
from pdm_assets.resources.lake import Lake
from pdm_assets.resources.spark import SparkEngine
from pdm_assets.settings import SettingError, Settings
from pdm_assets_tests.databricks.stand_in import Workspace
from pdm_assets_tests.plant import failure, metadata

pytestmark = pytest.mark.slow  # a process a job, four seconds a test

# What the real task does with Pipes, and as it is told nothing or something else.
TASK = """
import json, os, time
from dagster_pipes import *

PipesBlobStoreMessageWriter.INCLUDE_STDIO_IN_MESSAGES_KEY = "not here"  # it takes seconds to end

def main():
    by_arguments = PipesCliArgsParamsLoader()
    asked = by_arguments if by_arguments.is_dagster_pipes_process() else PipesEnvVarParamsLoader()
    ways = PipesUnityCatalogVolumesContextLoader(), PipesUnityCatalogVolumesMessageWriter(interval=0.1)
    with open_dagster_pipes(context_loader=ways[0], message_writer=ways[1], params_loader=asked) as pipes:
        with open("told.json", "w") as told:
            json.dump({"extras": pipes.extras, "run_id": pipes.run_id}, told)
        how = os.environ.get("HOW", "well")
        if how == "badly":
            raise ValueError("the rows are of another day")
        if how.startswith("long"):
            time.sleep(float(how.removeprefix("long ")))
        if how != "silent":
            pipes.report_custom_message({"materialized": json.loads(os.environ["SAID"])})
"""
SAID = {
    "all": {
        "delta_version": dg.serialize_value(dg.IntMetadataValue(7)),
        "preview": dg.serialize_value(dg.MarkdownMetadataValue("|")),
    },
    "days": {
        "2015-01-01": {"dagster/partition_row_count": dg.serialize_value(dg.IntMetadataValue(10))},
        "2015-01-02": {"dagster/partition_row_count": dg.serialize_value(dg.IntMetadataValue(20))},
    },
}


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    volume = tmp_path / "Volumes" / "main" / "pdm" / "jobs"
    volume.mkdir(parents=True)
    with zipfile.ZipFile(volume / "pdm_assets-0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("small_task.py", TASK)
        wheel.writestr(
            "pdm_assets-0.dist-info/entry_points.txt", "[console_scripts]\npdm-assets-databricks-task = small_task:main\n"
        )
    # Of a job that ended badly, Pipes waits for what may still come.
    monkeypatch.setattr(pipes_utils, "WAIT_FOR_LOGS_AFTER_EXECUTION_INTERVAL", 0)
    with Workspace(volume, {"SAID": json.dumps(SAID)}) as there:
        for name, value in there.client_environ.items():
            monkeypatch.setenv(name, value)
        yield there


def compute_of(workspace, how="well", **more):
    wheel = str(workspace.volumes / "pdm_assets-0-py3-none-any.whl")
    cluster = {"spark_version": "17.3.x-scala2.13", "num_workers": 1, "spark_env_vars": {"HOW": how}}
    return {"new_cluster": cluster, "libraries": [{"whl": wheel}], **more}


def jobs_of(workspace, tmp_path, compute):
    file = tmp_path / "compute.json"
    file.write_text(json.dumps(compute))
    settings = Settings(
        data=tmp_path / "data",
        databricks_compute=file,
        databricks_volume=str(workspace.volumes),
        engine="spark",
        spark_remote="sc://there:443/;token=SECRET",
        dagster_db="postgresql://me:SECRET@there/x",
    )
    lake = Lake(spark=SparkEngine.of(Settings(data=tmp_path / "data")), root=str(tmp_path / "data" / "lake"))
    return DatabricksJobs(**{**dict(DatabricksJobs.of(settings, lake)), "poll_seconds": 0.1})


def run(jobs, first="2015-01-01", last="2015-01-02", asset=features.observations, **more):
    return dg.materialize(
        [by_job(asset)],
        tags={"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last},
        resources={"databricks": jobs, "io_manager": dg.InMemoryIOManager(), "model_store": dg.InMemoryIOManager()},
        raise_on_error=False,
        **more,
    )


def test_what_the_job_says_of_each_day_is_the_days_metadata(workspace, tmp_path):
    result = run(jobs_of(workspace, tmp_path, compute_of(workspace)))
    assert result.success
    found = metadata(result, "features/observations")
    assert {day: said["dagster/partition_row_count"] for day, said in found.items()} == {"2015-01-01": 10, "2015-01-02": 20}
    assert {(said["delta_version"], said["preview"], said["Databricks Job Run ID"]) for said in found.values()} == {
        (7, "|", "1000")
    }
    assert found["2015-01-01"]["Databricks Job Run URL"] == f"{workspace.url}/#job/runs/1000"
    assert [path.name for path in (workspace.volumes / "tmp").iterdir()] == []  # nothing stays in the volume


def test_the_job_is_told_days_settings_and_holder_and_no_secret(workspace, tmp_path):
    result = run(jobs_of(workspace, tmp_path, compute_of(workspace, timeout_seconds=600)))
    (submitted,) = workspace.runs.values()
    text = (submitted.folder / "told.json").read_text()
    told = json.loads(text)
    assert "SECRET" not in text + json.dumps(submitted.request)
    assert told["run_id"] == result.dagster_run.run_id
    assert (told["extras"]["asset"], told["extras"]["days"]) == (["features", "observations"], ["2015-01-01", "2015-01-02"])
    given = Settings.from_environ(told["extras"]["settings"])
    assert given == Settings(data=tmp_path / "data", engine="spark")
    assert told["extras"]["holder"].startswith(f"process {os.getpid()} on ")
    assert submitted.request["timeout_seconds"] == 600
    assert submitted.name == f"features/observations 2015-01-01..2015-01-02 for {told['extras']['holder']}"


def test_run_config_goes_along(workspace, tmp_path):
    config = {"ops": {"models__failure_model": {"config": {"force": True, "model_type": "decision_tree"}}}}
    jobs = jobs_of(workspace, tmp_path, compute_of(workspace))
    assert run(jobs, asset=training.failure_model, run_config=config).success
    (submitted,) = workspace.runs.values()
    told = json.loads((submitted.folder / "told.json").read_text())["extras"]["config"]
    assert told == {"force": True, "model_type": "decision_tree"}


def test_serverless(workspace, tmp_path):
    compute = compute_of(workspace)
    environment = {"environment_version": "4", "dependencies": [compute["libraries"][0]["whl"]]}
    result = run(jobs_of(workspace, tmp_path, {"environment": environment}))
    assert result.success
    (submitted,) = workspace.runs.values()
    assert submitted.request["environments"] == [{"environment_key": "default", "spec": environment}]
    assert submitted.task["environment_key"] == "default"
    assert "new_cluster" not in submitted.task


def error_of(jobs):
    """What a run of one day raises, as the hook that tells faults sees it."""
    with pytest.raises(Exception, match=r".") as raised:
        dg.materialize([by_job(features.observations)], partition_key="2015-01-01", resources={"databricks": jobs})
    return raised.value


def when_it_runs(workspace, then):
    def wait():
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if running := [run for run in workspace.runs.values() if run.state == "RUNNING"]:
                time.sleep(0.3)
                then(running[0])
                break
            time.sleep(0.02)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_a_cluster_that_is_there(workspace, tmp_path):
    compute = compute_of(workspace)
    result = run(jobs_of(workspace, tmp_path, {"existing_cluster_id": "0101-abc", "libraries": compute["libraries"]}))
    assert result.success
    (submitted,) = workspace.runs.values()
    assert submitted.task["existing_cluster_id"] == "0101-abc"


def test_a_file_that_says_nothing_of_libraries_is_fine(tmp_path):
    file = tmp_path / "compute.json"
    file.write_text('{"existing_cluster_id": "1", "libraries": []}')
    assert compute_in(file) == {"existing_cluster_id": "1", "libraries": []}


def test_the_definitions_load_with_jobs(tmp_path):
    file = tmp_path / "compute.json"
    file.write_text('{"existing_cluster_id": "1"}')
    code = """
from pdm_assets.definitions import defs
graph = defs.resolve_asset_graph()
made = {key: graph.get(key).assets_def.op.compute_fn.decorated_fn.__name__ for key in graph.materializable_asset_keys}
print(sorted(key.to_user_string() for key, name in made.items() if name == "made_elsewhere"))
for name in ("process_days", "train_model", "backtest", "score_range"):
    defs.resolve_job_def(name)
"""
    environ = {**os.environ, "PDM_DATABRICKS_COMPUTE": str(file), "PDM_DATABRICKS_VOLUME": "/Volumes/main/pdm/jobs"}
    done = subprocess.run([sys.executable, "-c", code], env=environ, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(sorted(key.to_user_string() for key in HEAVY))


def test_a_job_that_fails_says_why_and_is_not_tried_again(workspace, tmp_path):
    error = error_of(jobs_of(workspace, tmp_path, compute_of(workspace, "badly")))
    assert "FAILED, RUN_EXECUTION_ERROR: Workload failed" in error.description
    assert "\nValueError: the rows are of another day" in error.description
    assert f"Its page: {workspace.url}/#job/runs/1000" in error.description
    assert fault_in(error) is None


def test_a_job_that_says_nothing_has_not_made_the_asset(workspace, tmp_path):
    result = run(jobs_of(workspace, tmp_path, compute_of(workspace, "silent")))
    assert "did not say what it wrote" in failure(result)


def test_a_job_that_takes_too_long(workspace, tmp_path):
    error = error_of(jobs_of(workspace, tmp_path, compute_of(workspace, "long 60", timeout_seconds=1)))
    assert "TIMEDOUT" in error.description
    assert fault_in(error) is None


def test_a_job_that_is_cancelled_there(workspace, tmp_path):
    waiting = when_it_runs(workspace, workspace.end)
    error = error_of(jobs_of(workspace, tmp_path, compute_of(workspace, "long 60")))
    waiting.join()
    assert "CANCELED, USER_CANCELED: Run cancelled." in error.description
    assert fault_in(error) is None


def test_a_cluster_that_is_lost_is_a_fault_that_may_pass(workspace, tmp_path):
    lost = ("FAILED", ("CLOUD_FAILURE", "CLOUD_FAILURE"), "the spot instance was taken away", "INTERNAL_ERROR")
    waiting = when_it_runs(workspace, lambda there: workspace.end(there, *lost))
    error = error_of(jobs_of(workspace, tmp_path, compute_of(workspace, "long 60")))
    waiting.join()
    assert "the spot instance was taken away" in str(error)
    assert fault_in(error).passes


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the thread of Pipes dies of it too
def test_a_token_that_is_not_given_is_a_fault_that_may_pass(workspace, tmp_path):
    workspace.token_seconds, workspace.token_says_seconds = 60.0, 41  # renewed after a second

    def no_more_tokens(_):
        workspace.gives_tokens = False

    waiting = when_it_runs(workspace, no_more_tokens)
    error = error_of(jobs_of(workspace, tmp_path, compute_of(workspace, "long 60")))
    waiting.join()
    assert "Databricks does not answer" in str(error)
    assert fault_in(error).passes


def test_a_job_that_nobody_can_watch_any_more_is_cancelled(workspace, tmp_path, monkeypatch):
    def breaks_off(run_id):
        raise TimeoutError("Timed out after 0:05:00")

    jobs = jobs_of(workspace, tmp_path, compute_of(workspace, "long 60"))
    monkeypatch.setattr("databricks.sdk.mixins.jobs.JobsExt.get_run", lambda self, run_id: breaks_off(run_id))
    error = error_of(jobs)
    (submitted,) = workspace.runs.values()
    assert (str(error), submitted.result) == ("Databricks does not answer: Timed out after 0:05:00", "CANCELED")


def test_a_cluster_that_can_not_be_is_no_fault_that_passes(workspace, tmp_path):
    workspace.refuses = "Node type m9.huge is not supported"
    error = error_of(jobs_of(workspace, tmp_path, compute_of(workspace)))
    assert "m9.huge" in error.description
    assert "See to PDM_DATABRICKS_VOLUME and PDM_DATABRICKS_COMPUTE" in error.description
    assert fault_in(error) is None


# The signal goes to a process of its own, as it does to a run's: one that comes a moment late would end the tests.
A_RUN = """
import sys
from pathlib import Path
from types import SimpleNamespace
from pdm_assets_tests.databricks.test_jobs import compute_of, jobs_of, run

volumes, tmp_path = map(Path, sys.argv[1:])
workspace = SimpleNamespace(volumes=volumes)
result = run(jobs_of(workspace, tmp_path, compute_of(workspace, "long 600")))
print([event.message for event in result.all_events if event.is_failure])
"""


def test_a_run_that_is_ended_ends_its_job(workspace, tmp_path):
    us = subprocess.Popen(
        [sys.executable, "-c", A_RUN, str(workspace.volumes), str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    waiting = when_it_runs(workspace, lambda _: us.send_signal(signal.SIGINT))
    said, _ = us.communicate(timeout=180)
    waiting.join()
    assert "Execution was interrupted" in said
    (submitted,) = workspace.runs.values()
    assert submitted.result == "CANCELED"


def test_a_job_that_a_killed_run_left_behind_is_cancelled_first(workspace, tmp_path):
    jobs = jobs_of(workspace, tmp_path, compute_of(workspace))
    assert run(jobs).success
    (before,) = workspace.runs.values()
    us = before.name.split(" for ")[1]
    left = workspace.submit({"run_name": f"labels/component_failures 2014-01-01..2014-01-01 for {us}", "tasks": [before.task]})
    other = workspace.submit({"run_name": "features/observations 2015-01-01..2015-01-02 for another", "tasks": [before.task]})
    assert run(jobs).success
    assert (left.result, other.state, before.result) == ("CANCELED", "PENDING", "SUCCESS")


def test_a_submission_whose_answer_is_lost_starts_one_job(workspace, tmp_path):
    workspace.lost_answers = 1
    assert run(jobs_of(workspace, tmp_path, compute_of(workspace))).success
    assert (len(workspace.runs), workspace.calls["POST /api/2.2/jobs/runs/submit"]) == (1, 2)


def test_tokens_are_renewed_while_a_job_runs(workspace, tmp_path):
    workspace.token_seconds, workspace.token_says_seconds = 3.0, 41  # the SDK renews one 40 s before its end
    result = run(jobs_of(workspace, tmp_path, compute_of(workspace, "long 5")))
    assert result.success
    assert len(workspace.tokens) > 2
    assert workspace.calls["refused tokens"] == 0


def test_credentials_that_are_not_taken(workspace, tmp_path, monkeypatch):
    monkeypatch.delenv("DATABRICKS_CLIENT_ID")
    monkeypatch.delenv("DATABRICKS_CLIENT_SECRET")
    monkeypatch.setenv("DATABRICKS_TOKEN", "WRONG-SECRET")
    said = failure(run(jobs_of(workspace, tmp_path, compute_of(workspace))))
    assert "See to DATABRICKS_HOST" in said
    assert "Databricks does not let us: the token is not valid" in said
    assert "WRONG-SECRET" not in said


def test_no_credentials(workspace, tmp_path, monkeypatch):
    for name in workspace.client_environ:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "no workspace of Databricks can be asked" in failure(run(jobs_of(workspace, tmp_path, compute_of(workspace))))


def test_throttling_is_waited_for(workspace, tmp_path):
    workspace.throttled = 3
    assert run(jobs_of(workspace, tmp_path, compute_of(workspace))).success
    assert workspace.throttled == 0


def test_a_volume_that_is_not_there(workspace, tmp_path):
    jobs = jobs_of(workspace, tmp_path, compute_of(workspace))
    jobs = DatabricksJobs(**{**dict(jobs), "volume": "/Volumes/main/pdm/nowhere"})
    assert "See to PDM_DATABRICKS_VOLUME" in failure(run(jobs))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        ("{", "Expecting property name"),
        ("[]", "it must have one of new_cluster, existing_cluster_id, environment"),
        ('{"new_cluster": {}, "existing_cluster_id": "1"}', "it must have one of"),
        ('{"existing_cluster_id": "1", "retries": 3}', "unknown: retries"),
        ('{"new_cluster": {"worker_count": 3}}', "no such thing: new_cluster.worker_count"),
        ('{"new_cluster": {"autoscale": {"min": 1}}}', "no such thing: new_cluster.autoscale.min"),
        ('{"existing_cluster_id": "1", "libraries": [{"wheel": "x"}]}', "no such thing: libraries.wheel"),
        ('{"environment": {"version": "4"}}', "no such thing: environment.version"),
        ('{"new_cluster": "big"}', "SDK can't read it"),
    ],
)
def test_a_file_of_compute_that_can_not_be_used_is_refused(tmp_path, text, said):
    file = tmp_path / "compute.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SettingError, match=f"PDM_DATABRICKS_COMPUTE=.*{said}"):
        compute_in(file)


@pytest.mark.parametrize(
    "asset",
    [features.observations, features.component_failures, training.failure_model, backtest.backtest, scoring.component_risk],
    ids=lambda asset: asset.key.to_user_string(),
)
def test_the_graph_is_the_same(asset):
    elsewhere = by_job(asset)
    assert asset.keys <= HEAVY
    (ours,), (theirs,) = asset.specs, elsewhere.specs
    for name in ("key", "description", "tags", "owners", "group_name", "code_version", "partitions_def", "freshness_policy"):
        assert getattr(theirs, name) == getattr(ours, name), name
    assert {dep.asset_key for dep in theirs.deps} == {dep.asset_key for dep in ours.deps}
    assert (elsewhere.op.name, elsewhere.op.pool, elsewhere.backfill_policy) == (
        asset.op.name,
        asset.op.pool,
        asset.backfill_policy,
    )
