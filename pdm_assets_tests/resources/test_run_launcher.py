"""Whether the process of a run lives."""

import json
import os
import time
from types import SimpleNamespace

import dagster as dg
import pytest
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.events import EngineEventData
from dagster._core.launcher import LaunchRunContext, WorkerStatus
from dagster._grpc.types import GetCurrentRunsResult
from dagster._serdes import serialize_value

from pdm_assets.demo import make_home
from pdm_assets.resources import run_launcher
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
    os.waitid(os.P_PID, gone, os.WEXITED | os.WNOWAIT)  # it has ended, and stays a zombie
    assert health(instance, gone) == WorkerStatus.NOT_FOUND, "it has ended and nobody has asked how"
    os.waitpid(gone, 0)
    assert health(instance, gone) == WorkerStatus.NOT_FOUND


def test_another_process_that_got_the_number_later_is_not_the_runs(instance, monkeypatch):
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 86400)  # as if the run had begun a day ago, and this process just now
    assert health(instance, os.getpid()) == WorkerStatus.NOT_FOUND


def test_a_run_that_has_begun_without_a_process_has_none(instance):
    assert health(instance) == WorkerStatus.NOT_FOUND


def test_a_run_that_was_asked_for_twice_lives_while_either_process_does(instance):
    """The first found that the run had gone back into the queue, and ended."""
    ended = os.fork()
    if ended == 0:
        os._exit(0)
    os.waitpid(ended, 0)
    for numbers in ([ended, os.getpid()], [os.getpid(), ended]):
        run = instance.add_run(dg.DagsterRun("a_job", status=dg.DagsterRunStatus.STARTED))
        for number in numbers:
            instance.report_engine_event(f"Started process for run (pid: {number}).", run, EngineEventData.in_process(number))
        assert worker_health(instance, run).status == WorkerStatus.RUNNING


def test_of_a_run_on_another_machine_its_code_server_is_asked(instance, monkeypatch):
    elsewhere = {".dagster/grpc_info": json.dumps({"host": "elsewhere", "port": 4000})}
    assert health(instance, os.getpid(), **elsewhere) == WorkerStatus.RUNNING, "it does not answer: nothing is known"
    known: list[str] = []
    answer = lambda _: serialize_value(GetCurrentRunsResult(current_runs=known, serializable_error_info=None))  # noqa: E731
    monkeypatch.setattr(run_launcher.DagsterGrpcClient, "get_current_runs", answer)
    assert health(instance, os.getpid(), **elsewhere) == WorkerStatus.NOT_FOUND
    run = instance.add_run(dg.DagsterRun("a_job", status=dg.DagsterRunStatus.STARTED, tags=elsewhere))
    known.append(run.run_id)
    assert worker_health(instance, run).status == WorkerStatus.RUNNING


@pytest.fixture
def clock(monkeypatch):
    """A code server that answers or not, and time that passes when one waits."""
    clock = SimpleNamespace(now=1000.0, answers=True, back_at=float("inf"))

    def sleep(seconds):
        clock.now += seconds

    monkeypatch.setattr(run_launcher, "time", SimpleNamespace(monotonic=lambda: clock.now, sleep=sleep))
    monkeypatch.setattr(run_launcher, "_answers", lambda _: clock.answers or clock.now >= clock.back_at)
    return clock


def test_a_run_fails_at_once_where_its_code_server_answers_and_else_only_once_that_is_back(clock):
    run = dg.DagsterRun("a_job")
    run_launcher.wait_for_code_server(run)
    assert clock.now == 1000
    clock.answers, clock.back_at = False, 1100
    run_launcher.wait_for_code_server(run)
    assert 1100 + run_launcher.SERVER_IS_BACK_S - 4 <= clock.now <= 1100 + run_launcher.SERVER_IS_BACK_S + 4


def test_a_code_server_that_never_comes_back_is_not_waited_for_for_ever(clock):
    clock.answers = False
    run = dg.DagsterRun("a_job")
    run_launcher.wait_for_code_server(run)
    assert 0 <= clock.now - 1000 - run_launcher.SERVER_IS_GONE_S < 4
    waited = clock.now
    run_launcher.wait_for_code_server(run)
    assert clock.now == waited, "each of its steps would wait as long"


def test_a_code_server_that_goes_away_again_long_after_is_waited_for_again(clock):
    away, run = run_launcher.ServerAway(), dg.DagsterRun("a_job")
    for now in (1000.0, 5000.0):
        clock.now, clock.answers = now, False
        assert away.is_worth_waiting(run)
        clock.now, clock.answers = now + run_launcher.SERVER_IS_BACK_S, True
        assert not away.is_worth_waiting(run)


def test_the_daemon_says_of_a_dead_run_that_it_runs_while_its_code_server_is_away(instance, clock):
    launcher = run_launcher.WatchedRunLauncher()
    launcher.register_instance(instance)
    run = instance.add_run(dg.DagsterRun("a_job", status=dg.DagsterRunStatus.STARTED))
    clock.answers = False
    assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
    clock.answers = True
    clock.now += 10
    assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING, "the daemon may not know it yet"
    clock.now += 30
    assert launcher.check_run_worker_health(run).status == WorkerStatus.NOT_FOUND


def test_a_run_is_marked_to_be_tried_again_before_it_fails(clock, tmp_path):
    """Between its failure and the mark, which Dagster sets after it, its backfill would give itself up."""
    with dg.DagsterInstance.from_config(str(make_home(tmp_path))) as instance:
        launcher = run_launcher.WatchedRunLauncher()
        launcher.register_instance(instance)
        dead = instance.add_run(dg.DagsterRun("a_job", status=dg.DagsterRunStatus.STARTED))
        assert launcher.check_run_worker_health(dead).status == WorkerStatus.NOT_FOUND
        assert instance.get_run_by_id(dead.run_id).tags["dagster/will_retry"] == "true"


def test_where_nothing_is_tried_again_no_run_is_marked(instance):
    run = instance.add_run(dg.DagsterRun("a_job"))
    run_launcher.will_be_tried_again(instance, run.run_id)
    assert instance.get_run_by_id(run.run_id).tags == {}, "a backfill would wait for it for ever"


def test_a_server_that_is_not_there_does_not_answer(tmp_path):
    nobody = {".dagster/grpc_info": json.dumps({"host": "localhost", "socket": str(tmp_path / "nobody")})}
    assert not run_launcher._answers(dg.DagsterRun("a_job", tags=nobody))
    assert run_launcher._answers(dg.DagsterRun("a_job")), "a run without a code server needs none"


@pytest.fixture
def lost(instance, monkeypatch):
    """A launcher that loses its code server in the middle of each request, and a run whose turn has come."""

    def launch_run(*_):
        raise DagsterUserCodeUnreachableError("lost")

    monkeypatch.setattr(run_launcher.DefaultRunLauncher, "launch_run", launch_run)
    launcher = run_launcher.WatchedRunLauncher()
    launcher.register_instance(instance)
    run = instance.add_run(dg.DagsterRun("a_job", status=dg.DagsterRunStatus.STARTING))
    return SimpleNamespace(launch=lambda: launcher.launch_run(LaunchRunContext(run, None)), run=run)


def test_a_run_whose_request_got_through_is_launched_although_the_answer_was_lost(instance, clock, monkeypatch, lost):
    def begins(seconds):
        clock.now += seconds
        if clock.now == 1005:
            event = EngineEventData.in_process(os.getpid())
            instance.report_engine_event(f"Started process for run (pid: {os.getpid()}).", lost.run, event)

    run_launcher.time.sleep = begins
    lost.launch()
    assert clock.now == 1005


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.CANCELED])
def test_so_is_one_that_is_further_on(instance, clock, lost, status):
    instance.run_storage.delete_run(lost.run.run_id)
    instance.add_run(lost.run.with_status(status))
    lost.launch()
    assert clock.now == 1000


def test_a_run_elsewhere_has_begun_once_its_code_server_knows_it_and_not_while_that_is_away(instance, clock, monkeypatch, lost):
    elsewhere = {".dagster/grpc_info": json.dumps({"host": "elsewhere", "port": 4000})}
    instance.add_run_tags(lost.run.run_id, elsewhere)
    with pytest.raises(DagsterUserCodeUnreachableError):
        lost.launch()
    assert clock.now > 1000 + run_launcher.REQUEST_ARRIVES_S

    def answer(_):
        known = [lost.run.run_id] if clock.now >= 2005 else []
        return serialize_value(GetCurrentRunsResult(current_runs=known, serializable_error_info=None))

    monkeypatch.setattr(run_launcher.DagsterGrpcClient, "get_current_runs", answer)
    clock.now = 2000
    lost.launch()
    assert clock.now == 2005


def test_a_run_whose_request_was_lost_is_not_launched(clock, lost):
    with pytest.raises(DagsterUserCodeUnreachableError):
        lost.launch()
    assert 0 < clock.now - 1000 - run_launcher.REQUEST_ARRIVES_S < 2
