"""Assets that a job of Databricks makes: it gets the days and the settings through Dagster Pipes, and says what it wrote.

What runs there is `databricks_task`, from the same wheel as here.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError, DagsterPipesExecutionError
from dagster._core.pipes.client import PipesClientCompletedInvocation
from dagster_databricks.pipes import (
    BasePipesDatabricksClient,
    PipesDatabricksClient,
    PipesDatabricksServerlessClient,
    PipesUnityCatalogVolumesContextInjector,
    PipesUnityCatalogVolumesMessageReader,
)
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import BadRequest, DatabricksError, NotFound, OperationFailed, PermissionDenied, Unauthenticated
from databricks.sdk.service import jobs
from databricks.sdk.service.compute import Environment
from requests import RequestException

from pdm_assets.resources.faults import JobFault
from pdm_assets.resources.lake import Lake
from pdm_assets.settings import SettingError, Settings

# Raw tables are made here, where files land, and the worklist, which reads few rows.
HEAVY = frozenset(
    dg.AssetKey(key.split("/"))
    for key in (
        "features/observations",
        "labels/component_failures",
        "models/failure_model",
        "models/backtest",
        "scores/component_risk",
    )
)
PACKAGE, ENTRY_POINT = "pdm-assets", "pdm-assets-databricks-task"
COMPUTE = ("new_cluster", "existing_cluster_id", "environment")
# What the job is not told, beside secrets: it has its own Spark, starts no jobs and has no credentials for MLflow.
NOT_THERE = ("databricks_compute", "databricks_volume", "mlflow_uri")
POLL_S = 5.0
# What the SDK raises after five minutes without an answer, and where a token is not given (ValueError).
UNANSWERED = (TimeoutError, OperationFailed, RequestException, ValueError)


class DatabricksJobs(dg.ConfigurableResource):
    """Where heavy assets are made: `compute` is what a job runs on, `volume` where it is told what to do and answers.

    The workspace and who asks are the SDK's own settings: DATABRICKS_HOST with DATABRICKS_CLIENT_ID and
    DATABRICKS_CLIENT_SECRET, or whatever else it knows.
    """

    lake: dg.ResourceDependency[Lake]
    compute: str
    volume: str
    settings: dict[str, str]
    poll_seconds: float = POLL_S

    @classmethod
    def of(cls, settings: Settings, lake: Lake) -> "DatabricksJobs":
        """The jobs that the settings describe.

        Raises:
            SettingError: if the file of PDM_DATABRICKS_COMPUTE can't be used.
        """
        assert settings.databricks_compute is not None
        assert settings.databricks_volume is not None
        changed: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(settings) if f.name in NOT_THERE or not f.repr}
        changed |= {"data": settings.data.absolute(), "engine": "spark", "spark_remote": None}
        return cls(
            lake=lake,
            compute=json.dumps(compute_in(settings.databricks_compute)),
            volume=settings.databricks_volume,
            settings=dataclasses.replace(settings, **changed).to_environ(),
        )

    def materialize(self, context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """Have a job make the asset for the run's days, in one piece, and take over what it says of each day.

        A job that a run of before left behind, for its process was killed, is cancelled first, whatever it makes: the pool lets
        one run of a Dagster instance use the tables.

        Raises:
            dg.Failure: if the job fails, is cancelled or takes too long; the text says why and where its page is.
            JobFault: if Databricks failed, or the cloud below it.
        """
        self.lake.hold()
        key, days = context.asset_key, sorted(context.partition_keys)
        ours = f" for {self.lake.holder}"
        name = f"{key.to_user_string()} {days[0]}..{days[-1]}"
        compute = json.loads(self.compute)
        task = {
            "task_key": "__".join(key.path),
            "python_wheel_task": {"package_name": PACKAGE, "entry_point": ENTRY_POINT},
            "libraries": compute.get("libraries", []),
            **{part: compute[part] for part in ("new_cluster", "existing_cluster_id") if part in compute},
        }
        arguments: dict[str, Any] = {
            "run_name": name + ours,
            # The SDK asks again where an answer was lost: one job comes of it.
            "idempotency_token": hashlib.sha256(f"{context.run.run_id} {name}".encode()).hexdigest(),
            "timeout_seconds": compute.get("timeout_seconds"),
        }
        if "environment" in compute:
            task["environment_key"] = "default"
            environment = {"environment_key": "default", "spec": compute["environment"]}
            arguments["environments"] = [jobs.JobEnvironment.from_dict(environment)]
        extras = {
            "asset": list(key.path),
            "days": [days[0], days[-1]],
            "config": dict(context.op_execution_context.op_config or {}),
            "settings": self.settings,
            "holder": self.lake.holder,
        }
        try:
            workspace = WorkspaceClient()
        except ValueError as error:  # it found no way to sign in
            raise dg.Failure(f"no workspace of Databricks can be asked: {error}") from error
        try:
            _cancel_left_behind(workspace, ours)
            client = _client(workspace, self.volume, self.poll_seconds, is_serverless="environment" in compute)
            done = client.run(
                context=context.op_execution_context,  # of an asset's context Pipes takes what Dagster calls deprecated
                extras=extras,
                task=jobs.SubmitTask.from_dict(task),
                submit_args=arguments,
            )
        except DatabricksError as error:
            raise _told(error) from error
        except UNANSWERED as error:
            raise JobFault(f"Databricks does not answer: {error}") from error
        if client.was_interrupted:  # the client of Pipes cancels the job, and returns as if it had succeeded
            raise DagsterExecutionInterruptedError
        return self._taken_over(context, done)

    @staticmethod
    def _taken_over(context: dg.AssetExecutionContext, done: PipesClientCompletedInvocation) -> dg.MaterializeResult:
        said = [message["materialized"] for message in done.get_custom_messages() if "materialized" in message]
        if not said:
            raise dg.Failure("the job ended well, but did not say what it wrote: is its wheel of this release?")
        for day, metadata in said[-1]["days"].items():
            context.add_asset_metadata(_metadata(metadata), asset_key=context.asset_key, partition_key=day)
        return dg.MaterializeResult(metadata={**_metadata(said[-1]["all"]), **done.metadata})


def compute_in(file: Path) -> dict[str, Any]:
    """What a file says that jobs run on: a `new_cluster`, an `existing_cluster_id` or an `environment` (serverless).

    Raises:
        SettingError: if it can't be read, or says none of these, or something that Databricks does not know.
    """
    try:
        compute = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise SettingError(f"PDM_DATABRICKS_COMPUTE={file}: {error}") from error
    if not isinstance(compute, dict) or sum(name in compute for name in COMPUTE) != 1:
        raise SettingError(f"PDM_DATABRICKS_COMPUTE={file}: it must have one of {', '.join(COMPUTE)}")
    if unknown := sorted(set(compute) - {*COMPUTE, "libraries", "timeout_seconds"}):
        raise SettingError(f"PDM_DATABRICKS_COMPUTE={file}: unknown: {', '.join(unknown)}")
    try:
        known = jobs.SubmitTask.from_dict(compute).as_dict()
        if "environment" in compute:
            known["environment"] = Environment.from_dict(compute["environment"]).as_dict()
    except (AttributeError, TypeError, ValueError) as error:
        raise SettingError(f"PDM_DATABRICKS_COMPUTE={file}: Databricks' SDK can't read it: {error}") from error
    if lost := sorted(_lost(compute, known)):
        raise SettingError(f"PDM_DATABRICKS_COMPUTE={file}: Databricks has no such thing: {', '.join(lost)}")
    return compute


def _lost(given: Any, known: Any, name: str = "") -> Iterator[str]:
    """Names in a specification that the SDK dropped when it read it."""
    if isinstance(given, dict):
        for part, value in given.items():
            if value and (not isinstance(known, dict) or part not in known):
                yield f"{name}{part}"
            elif value:
                yield from _lost(value, known[part], f"{name}{part}.")
    elif isinstance(given, list) and isinstance(known, list):
        for one, other in zip(given, known, strict=True):
            yield from _lost(one, other, name)


def _metadata(said: Mapping[str, str]) -> dict[str, dg.MetadataValue]:
    return {name: cast(dg.MetadataValue, dg.deserialize_value(text)) for name, text in said.items()}


def _cancel_left_behind(workspace: WorkspaceClient, ours: str) -> None:
    for run in workspace.jobs.list_runs(active_only=True, run_type=jobs.RunType.SUBMIT_RUN):
        if (run.run_name or "").endswith(ours) and run.run_id is not None:
            with suppress(OperationFailed):  # it ended in another way, but it ended
                workspace.jobs.cancel_run(run.run_id).result()


class _Watching(BasePipesDatabricksClient):
    """Says of a job that failed what Databricks knows of it; its own words are `Workload failed, see run output`."""

    was_interrupted = False

    def _poll_til_success(self, context: Any, run_id: int) -> None:
        try:
            super()._poll_til_success(context, run_id)
        except DagsterExecutionInterruptedError:
            self.was_interrupted = True
            raise
        except DagsterPipesExecutionError as error:
            raise _what_happened(self.client, run_id) from error
        except Exception:  # nobody watches it any more, and the next run may use Spark
            with suppress(Exception):
                self.client.jobs.cancel_run(run_id)
            raise


class _OnClusters(_Watching, PipesDatabricksClient):
    pass


class _Serverless(_Watching, PipesDatabricksServerlessClient):
    pass


def _client(workspace: WorkspaceClient, volume: str, poll_seconds: float, *, is_serverless: bool) -> Any:
    told: dict[str, Any] = {
        "client": workspace,
        "context_injector": PipesUnityCatalogVolumesContextInjector(client=workspace, volume_path=volume),
        "message_reader": PipesUnityCatalogVolumesMessageReader(client=workspace, volume_path=volume, interval=poll_seconds),
        "poll_interval_seconds": poll_seconds,
    }
    return _Serverless(volume_path=volume, **told) if is_serverless else _OnClusters(**told)


def _what_happened(workspace: WorkspaceClient, run_id: int) -> Exception:
    run = workspace.jobs.get_run(run_id)
    details = run.status.termination_details if run.status else None
    said = (run.state and run.state.state_message) or ""
    task = run.tasks[0].run_id if run.tasks else None
    if task is not None and details and details.code == jobs.TerminationCodeCode.RUN_EXECUTION_ERROR:
        with suppress(DatabricksError):  # there is none of a task that never began
            output = workspace.jobs.get_run_output(task)
            said = "\n".join(filter(None, [said, output.error, output.error_trace]))
    where = f"Its page: {run.run_page_url}" if run.run_page_url else f"Its run: {run_id}"
    result = run.state.result_state if run.state else None
    ended = ", ".join(each.value for each in (result, details.code if details else None) if each) or "no result"
    text = f"the job of Databricks ended with {ended}: {said or 'it says no more'}. {where}"
    if details and details.type in (jobs.TerminationTypeType.CLOUD_FAILURE, jobs.TerminationTypeType.INTERNAL_ERROR):
        return JobFault(text)
    return dg.Failure(text)


def _told(error: DatabricksError) -> Exception:
    if isinstance(error, Unauthenticated | PermissionDenied):
        return dg.Failure(
            f"Databricks does not let us: {error}. See to DATABRICKS_HOST, to the credentials beside it, and to what they may"
        )
    if isinstance(error, BadRequest | NotFound):
        return dg.Failure(f"Databricks can't do this: {error}. See to PDM_DATABRICKS_VOLUME and PDM_DATABRICKS_COMPUTE")
    return JobFault(f"Databricks did not do this: {error}")
