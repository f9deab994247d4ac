"""Whether the process of a run lives."""

import json
import os
import time

import dagster as dg
import pytest
from dagster._core.events import EngineEventData
from dagster._core.launcher import WorkerStatus

from pdm_assets.resources.run_launcher import worker_health


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def health(instance, pid=None, **tags):
    run = instance.add_run(dg.DagsterRun("a_job", status=dg.DagsterRunStatus.STARTED, tags=tags))
    if pid is not None:
        instance.report_engine_event(f"Started process for run (pid: {pid}).", run, EngineEventData.in_process(pid))
    return worker_health(instance, run).status


def test_a_process_that_is_there_is_running_and_one_that_is_not_is_not(instance):
    assert health(instance, os.getpid()) == WorkerStatus.RUNNING
    gone = os.fork()
    if gone == 0:
        os._exit(0)
    assert health(instance, gone) == WorkerStatus.NOT_FOUND, "it has ended and nobody has asked how"
    os.waitpid(gone, 0)
    assert health(instance, gone) == WorkerStatus.NOT_FOUND


def test_another_process_that_got_the_number_later_is_not_the_runs(instance, monkeypatch):
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 86400)  # as if the run had begun a day ago, and this process just now
    assert health(instance, os.getpid()) == WorkerStatus.NOT_FOUND


def test_a_run_that_has_begun_without_a_process_has_none(instance):
    assert health(instance) == WorkerStatus.NOT_FOUND


def test_of_a_process_on_another_machine_nothing_is_said(instance):
    elsewhere = {".dagster/grpc_info": json.dumps({"host": "elsewhere", "port": 4000})}
    assert health(instance, 2**22 + 1, **elsewhere) == WorkerStatus.RUNNING
