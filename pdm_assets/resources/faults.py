"""What the machine did to a run, told from what is wrong with the data or the code.

A run that failed of the first is tried again by itself; one that failed of the second would only fail again.
"""

import errno
from collections.abc import Iterator
from typing import NamedTuple

import dagster as dg
from dagster._core.storage.tags import RETRY_ON_ASSET_OR_OP_FAILURE_TAG

from pdm_assets.engine.spark import SparkUnavailable
from pdm_assets.models.fitting import FitProcessError
from pdm_assets.resources.hold import LakeHeld
from pdm_assets.resources.lake import LakeGone
from pdm_assets.resources.landed_columns import LandingGone
from pdm_assets.resources.object_store import StoreError
from pdm_assets.resources.run_launcher import wait_for_code_server, will_be_tried_again

TRIED_AGAIN = RETRY_ON_ASSET_OR_OP_FAILURE_TAG

_marked: set[str] = set()  # runs of this process that met a fault which may pass


class JobFault(RuntimeError):
    """A job ended of Databricks or of the cloud below it, not of its data or code: it may succeed when tried again."""


class Fault(NamedTuple):
    """A cause outside of data and code."""

    words: str
    passes: bool  # whether it may be gone when the run is tried again


FULL = Fault("the disk is full: make room; what was being written is not committed", passes=True)
READ_ONLY = Fault("the disk is mounted read-only: mount it writable, and see in the system's log why it is not", passes=True)
DENIED = Fault(
    "the files belong to another user, or may not be written: give them to the user that Dagster runs as", passes=True
)
DEFECT = Fault("the disk reports errors: see the system's log", passes=True)
NO_MEMORY = Fault(
    "the queries of the run need more memory than they may take: set PDM_MEMORY_MB higher, or materialize fewer days at a time",
    passes=False,
)
ENDING = Fault("the Spark session was being ended while it was in use: it was stopped or killed", passes=True)
LOST = Fault("an executor of the Spark cluster was lost, and with it what it held", passes=True)
AWAY = Fault("the object store did not answer, or lets us not in: see to network, endpoint and credentials", passes=True)
BY_NUMBER = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.EROFS: READ_ONLY,
    errno.EACCES: DENIED,
    errno.EPERM: DENIED,
    errno.EIO: DEFECT,
}
# As the system, DuckDB, delta-rs and the JVM say them, wherever the text of an error has them.
BY_TEXT = {
    "No space left on device": FULL,
    "Disk quota exceeded": FULL,
    "Read-only file system": READ_ONLY,
    "Permission denied": DENIED,
    "Input/output error": DEFECT,
    "Generic S3 error": AWAY,
    "Generic MicrosoftAzure error": AWAY,
    "Generic GCS error": AWAY,
    "Unable to execute HTTP request": AWAY,
    "stopped SparkContext": ENDING,
    "SparkContext was shut down": ENDING,
    "Checkpoint block": LOST,
    "ExecutorLostFailure": LOST,
    "UNABLE_TO_ACQUIRE_MEMORY": NO_MEMORY,
    "Java heap space": NO_MEMORY,
    "[OUT_OF_MEMORY]": NO_MEMORY,
}


def fault_in(error: BaseException | None) -> Fault | None:
    """The fault behind an error; None where the data or the code is to blame."""
    for each in _chain(error):
        if isinstance(each, SparkUnavailable | FitProcessError | LakeGone | LandingGone | LakeHeld | JobFault | StoreError):
            return Fault(str(each), passes=True)
        if isinstance(each, OSError) and each.errno in BY_NUMBER:
            return BY_NUMBER[each.errno]
        text = str(each)
        if found := next((fault for said, fault in BY_TEXT.items() if said in text), None):
            return found
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


@dg.failure_hook
def faults_are_told(context: dg.HookContext) -> None:
    """Name the fault in the run's log, and mark the run to be tried again where the fault may pass, and only there."""
    fault = fault_in(context.op_exception)
    if fault is not None:
        context.log.error(f"{fault.words}{'. The run is tried again' if fault.passes else ''}")
    if fault is not None and fault.passes:
        _marked.add(context.run_id)
        context.instance.add_run_tags(context.run_id, {TRIED_AGAIN: "true"})
        will_be_tried_again(context.instance, context.run_id)
        if (run := context.instance.get_run_by_id(context.run_id)) is not None:
            wait_for_code_server(run)
        return
    run = context.instance.get_run_by_id(context.run_id)
    # A run that another is tried again by has that one's mark, and would be taken for one that failed of a fault too.
    if run is not None and run.parent_run_id and TRIED_AGAIN in run.tags and run.run_id not in _marked:
        context.instance.add_run_tags(run.run_id, {TRIED_AGAIN: "false"})
