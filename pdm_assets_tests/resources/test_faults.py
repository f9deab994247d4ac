"""Which runs are marked to be tried again: those that met a fault themselves, not those that are tries after one."""

import errno

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run

from pdm_assets.resources.faults import TRIED_AGAIN, faults_are_told

FULL, DATA, TOO_LARGE = OSError(errno.ENOSPC, "full"), ValueError("a row of another day"), RuntimeError("Java heap space")


def mark_of(*errors, tags=None, retry=False):
    """What a run is marked with whose ops fail of these errors, one after the other."""

    def failing(n, error):
        @dg.op(name=f"op_{n}")
        def op():
            raise error

        return op

    ops = [failing(n, error) for n, error in enumerate(errors)]

    @dg.job(hooks={faults_are_told}, executor_def=dg.in_process_executor)
    def a_job():
        for op in ops:
            op()

    with dg.DagsterInstance.ephemeral() as instance:
        parent = instance.create_run_for_job(a_job).run_id if retry else None
        run = instance.create_run_for_job(a_job, tags=tags, parent_run_id=parent, root_run_id=parent)
        assert not execute_run(InMemoryJob(a_job), run, instance).success
        return instance.get_run_by_id(run.run_id).tags.get(TRIED_AGAIN)


def test_a_run_is_marked_where_what_it_failed_of_may_pass():
    assert [mark_of(error) for error in (FULL, DATA, TOO_LARGE)] == ["true", None, None]


@pytest.mark.parametrize(
    ("errors", "mark"),
    [([DATA], "false"), ([TOO_LARGE], "false"), ([FULL], "true"), ([FULL, DATA], "true"), ([DATA, FULL], "true")],
)
def test_a_try_after_a_fault_inherits_its_mark_and_keeps_it_only_for_a_fault_of_its_own(errors, mark):
    assert mark_of(*errors, tags={TRIED_AGAIN: "true"}, retry=True) == mark


def test_a_run_that_a_user_marked_is_left_as_it_is():
    assert mark_of(DATA, tags={TRIED_AGAIN: "true"}) == "true"
