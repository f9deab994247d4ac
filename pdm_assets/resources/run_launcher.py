"""Dagster's default run launcher, and whether the process of a run lives, here or where its code server is.

Dagster's own does not say: the code server that started a process notices its end, but where that died too, a run would count
as under way until `max_runtime_seconds` and keep the sensor and the pool `spark` waiting. Run monitoring asks this one every
`poll_interval_seconds` of dagster.yaml.
"""

import json
import time
from collections.abc import Sequence
from typing import Any

import psutil
from dagster import DagsterEventType, DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, LaunchRunContext, WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG, WILL_RETRY_TAG
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.types import GetCurrentRunsResult
from dagster._serdes import deserialize_value

HERE = ("localhost", "127.0.0.1")
# A run that fails while its code server is away is not tried again: Dagster asks that server for the job, once.
SERVER_IS_BACK_S = 30  # after its first answer: by then the daemon has noticed too
SERVER_IS_GONE_S = 300  # another has taken its place, or none will
REQUEST_ARRIVES_S = 20  # a process that a request starts has been started by then
CLOCK_STEPS_S = 60  # the system tells the age of a process by a clock that may be set meanwhile

_not_waited_for: set[str] = set()  # runs of this process whose code server did not come back


class ServerAway:
    """How long the code server of a run has been away, from one question to the next."""

    def __init__(self) -> None:
        self.first: float | None = None
        self.last: float | None = None

    def is_worth_waiting(self, run: DagsterRun) -> bool:
        """Whether it was away at the last question or shortly before."""
        now = time.monotonic()
        if not _answers(run):
            if self.first is None or self.last is None or now - self.last > SERVER_IS_BACK_S:
                self.first = now
            self.last = now
        if self.first is None or self.last is None or now - self.first > SERVER_IS_GONE_S:
            return False
        return now - self.last < SERVER_IS_BACK_S


def wait_for_code_server(run: DagsterRun) -> None:
    """Wait until a run may fail: what fails while its code server is away is not tried again."""
    if run.run_id in _not_waited_for:
        return
    away = ServerAway()
    while away.is_worth_waiting(run):
        time.sleep(2)
    if not _answers(run):
        _not_waited_for.add(run.run_id)  # its other steps may fail too, and would wait as long each


def _answers(run: DagsterRun) -> bool:
    server = json.loads(run.tags.get(GRPC_INFO_TAG, "{}"))
    if not server:
        return True
    try:
        DagsterGrpcClient(**server).ping("")
    except DagsterUserCodeUnreachableError:
        return False
    return True


class WatchedRunLauncher(DefaultRunLauncher):
    """DefaultRunLauncher that supports run monitoring."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._away: dict[str, ServerAway] = {}  # by run

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start the run's process; where the code server is lost meanwhile, see first whether it got as far as that.

        What stands between the daemon and the server may die with the request on its way. Dagster would put the run back into
        the queue, where the process that begins all the same takes itself for a second one and ends: that counts as a failure.
        """
        try:
            super().launch_run(context)
        except DagsterUserCodeUnreachableError:
            deadline = time.monotonic() + REQUEST_ARRIVES_S
            while not _has_begun(self._instance, context.dagster_run.run_id):
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Yes."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """See `worker_health`; of a process that has died nothing is said before its code server is back."""
        health = worker_health(self._instance, run)
        if health.status == WorkerStatus.RUNNING:
            return health
        if self._away.setdefault(run.run_id, ServerAway()).is_worth_waiting(run):
            return CheckRunHealthResult(WorkerStatus.RUNNING, f"{health.msg}, and so has its code server: it is waited for")
        del self._away[run.run_id]
        will_be_tried_again(self._instance, run.run_id)
        return health


def will_be_tried_again(instance: DagsterInstance, run_id: str) -> None:
    """Say so before the run fails. Dagster says it a moment after, and a backfill that looks in between gives itself up."""
    if instance.run_retries_enabled:
        instance.add_run_tags(run_id, {WILL_RETRY_TAG: "true"})


def _has_begun(instance: DagsterInstance, run_id: str) -> bool:
    run = instance.get_run_by_id(run_id)
    if run is None or run.status != DagsterRunStatus.STARTING:
        return True
    server = json.loads(run.tags.get(GRPC_INFO_TAG, "{}"))
    if _is_elsewhere(server):
        return run_id in (_runs_at(server) or ())  # where it does not answer, nobody knows that it began
    return worker_health(instance, run).status == WorkerStatus.RUNNING


def worker_health(instance: DagsterInstance, run: DagsterRun) -> CheckRunHealthResult:
    """Whether a process that a run wrote down is there still, and not another that got its number.

    There may be several: one of an earlier request, which found that it was not its turn and ended. Of a run on another machine
    its code server is asked; where that does not answer, nothing is said.
    """
    server = json.loads(run.tags.get(GRPC_INFO_TAG, "{}"))
    if _is_elsewhere(server):
        return _elsewhere(run, server)
    health = CheckRunHealthResult(WorkerStatus.NOT_FOUND, "it has no process yet")
    for record in instance.get_records_for_run(run.run_id, of_type=DagsterEventType.ENGINE_EVENT).records:
        event = record.event_log_entry.dagster_event
        if event is not None and (pid := event.engine_event_data.metadata.get("pid")) is not None:
            health = _health(int(str(pid.value)), record.event_log_entry.timestamp)
            if health.status == WorkerStatus.RUNNING:
                break
    return health


def _is_elsewhere(server: dict[str, Any]) -> bool:
    return server.get("host", "localhost") not in HERE


def _runs_at(server: dict[str, Any]) -> Sequence[str] | None:
    """The runs that a code server knows processes of; None where it does not answer."""
    try:
        return deserialize_value(DagsterGrpcClient(**server).get_current_runs(), GetCurrentRunsResult).current_runs
    except DagsterUserCodeUnreachableError:
        return None


def _elsewhere(run: DagsterRun, server: dict[str, Any]) -> CheckRunHealthResult:
    known = _runs_at(server)
    if known is None:
        return CheckRunHealthResult(WorkerStatus.RUNNING, "its code server, on another machine, does not answer")
    if run.run_id in known:
        return CheckRunHealthResult(WorkerStatus.RUNNING)
    return CheckRunHealthResult(WorkerStatus.NOT_FOUND, f"the code server at {server['host']} knows no process of it")


def _health(pid: int, written_at: float) -> CheckRunHealthResult:
    try:
        process = psutil.Process(pid)
        if process.status() != psutil.STATUS_ZOMBIE and process.create_time() < written_at + CLOCK_STEPS_S:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
    except psutil.NoSuchProcess:
        pass
    return CheckRunHealthResult(WorkerStatus.NOT_FOUND, f"its process (pid {pid}) has died")
