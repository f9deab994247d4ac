"""Dagster's default run launcher, and whether the process of a run lives.

Dagster's own does not say: the code server that started a process notices its end, but where that died too, a run would count
as under way until `max_runtime_seconds` and keep the sensor and the Spark pool waiting. Run monitoring asks this one every
`poll_interval_seconds` of dagster.yaml.
"""

import json

import psutil
from dagster import DagsterEventType, DagsterInstance, DagsterRun
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG

HERE = ("localhost", "127.0.0.1")
CLOCK_STEPS_S = 60  # the system tells the age of a process by a clock that may be set meanwhile


class WatchedRunLauncher(DefaultRunLauncher):
    """DefaultRunLauncher that supports run monitoring, for runs on its own machine."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Yes."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """See `worker_health`."""
        return worker_health(self._instance, run)


def worker_health(instance: DagsterInstance, run: DagsterRun) -> CheckRunHealthResult:
    """Whether the process that a run wrote down is there still, and not another that got its number."""
    server = json.loads(run.tags.get(GRPC_INFO_TAG, "{}"))
    if server.get("host", "localhost") not in HERE:
        return CheckRunHealthResult(WorkerStatus.RUNNING, "its process is on another machine")
    for record in instance.get_records_for_run(run.run_id, of_type=DagsterEventType.ENGINE_EVENT).records:
        event = record.event_log_entry.dagster_event
        if event is not None and (pid := event.engine_event_data.metadata.get("pid")) is not None:
            return _health(int(str(pid.value)), record.event_log_entry.timestamp)
    return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "it has no process yet")


def _health(pid: int, written_at: float) -> CheckRunHealthResult:
    try:
        process = psutil.Process(pid)
        if process.status() != psutil.STATUS_ZOMBIE and process.create_time() < written_at + CLOCK_STEPS_S:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
    except psutil.NoSuchProcess:
        pass
    return CheckRunHealthResult(WorkerStatus.NOT_FOUND, f"its process (pid {pid}) has died")
