"""Dagster keeps every run for ever; these are the runs that nobody needs any more.

Its own retention settings reach ticks only. A run may go once it is old and everything that it made was made again since: what
the UI shows of a partition is its latest materialization, and that goes with its run.
"""

import datetime as dt
from collections.abc import Iterator

import dagster as dg
from dagster import DagsterEventType

ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
AT_ONCE = 500


def forget_runs(instance: dg.DagsterInstance, before: dt.datetime) -> int:
    """Delete the runs that ended before a time, with their events and logs; how many those were.

    Left alone are those that the latest materialization of some partition is of, and the newest of each job.
    """
    old = instance.get_run_records(dg.RunsFilter(statuses=ENDED, updated_before=before))
    if not old:
        return 0
    kept = set(_runs_with_latest(instance)) | {_newest(instance, job) for job in {each.dagster_run.job_name for each in old}}
    forgotten = [each.dagster_run.run_id for each in old if each.dagster_run.run_id not in kept]
    for run_id in forgotten:
        instance.delete_run(run_id)
        instance.compute_log_manager.delete_logs(prefix=[run_id])
    return len(forgotten)


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
