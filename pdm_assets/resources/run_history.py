"""Dagster keeps every run for ever; these are the runs that nobody needs any more.

Its own retention settings reach ticks only. A run may go once it is old and everything that it made was made again since: what
the UI shows of a partition is its latest materialization, and that goes with its run.
"""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass

import dagster as dg
from dagster import DagsterEventType

ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
AT_ONCE = 500


@dataclass(frozen=True)
class Forgotten:
    """How many runs were deleted, and why others could not be."""

    runs: int
    failed: dict[str, str]


def forget_runs(instance: dg.DagsterInstance, before: dt.datetime) -> Forgotten:
    """Delete the runs that ended before a time, with their events and logs.

    Left alone are those that the latest materialization of some partition is of, the newest of each job, and those that a run
    that stays was made from: Dagster looks for them when it tries that again. Of a partition that was never made the UI then
    no longer says that it failed.
    """
    old = instance.get_run_records(dg.RunsFilter(statuses=ENDED, updated_before=before))
    if not old:
        return Forgotten(0, {})
    latest = set(_runs_with_latest(instance)) | {_newest(instance, job) for job in {each.dagster_run.job_name for each in old}}
    going = {each.dagster_run.run_id for each in old} - latest
    staying = [run for run in instance.get_runs() if run.run_id not in going]
    while staying:
        made_from = {name for run in staying for name in (run.root_run_id, run.parent_run_id) if name in going}
        going -= made_from
        staying = list(instance.get_runs(dg.RunsFilter(run_ids=list(made_from)))) if made_from else []
    failed = {}
    for run_id in going:
        try:
            # The run itself last: it is what says that there is something left to delete.
            instance.compute_log_manager.delete_logs(prefix=[run_id])
            instance.event_log_storage.delete_events(run_id)
            instance.delete_run(run_id)
        except Exception as error:
            failed[run_id] = repr(error)
    return Forgotten(len(going) - len(failed), failed)


def _newest(instance: dg.DagsterInstance, job: str) -> str:
    return instance.get_run_records(dg.RunsFilter(job_name=job), limit=1)[0].dagster_run.run_id


def _runs_with_latest(instance: dg.DagsterInstance) -> Iterator[str]:
    for key in instance.all_asset_keys():
        if (event := instance.get_latest_materialization_event(key)) is not None:
            yield event.run_id
        latest = instance.event_log_storage.get_latest_storage_id_by_partition(key, DagsterEventType.ASSET_MATERIALIZATION)
        ids = list(latest.values())
        for some in (ids[at : at + AT_ONCE] for at in range(0, len(ids), AT_ONCE)):
            found = instance.fetch_materializations(dg.AssetRecordsFilter(asset_key=key, storage_ids=some), limit=AT_ONCE)
            yield from (record.run_id for record in found.records)
