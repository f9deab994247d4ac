"""The weekly job that looks after the tables and the history of runs."""

import datetime as dt

import dagster as dg

from pdm_assets.partitions import SETTINGS
from pdm_assets.resources.faults import faults_are_told
from pdm_assets.resources.lake import Lake
from pdm_assets.resources.model_store import ModelStore
from pdm_assets.resources.run_history import forget_runs
from pdm_assets.resources.upkeep import Tidied, tidy
from pdm_assets.resources.versions import named_versions


@dg.op(pool="spark")
def tidy_tables(context: dg.OpExecutionContext, lake: Lake, model_store: dg.ResourceParam[ModelStore]) -> None:
    """Few files, no dead ones, every version readable that is young or that a model names: table by table, in the pool."""
    if lake.catalog:
        said = f"left to the catalog {lake.catalog}, which looks after its own"
        context.log.info(f"the tables are {said}")
        context.add_output_metadata({"tables": said})
        return
    lake.hold()
    now = dt.datetime.now(dt.UTC)
    named = named_versions(model_store, SETTINGS.keep_model_data_days, now)
    done = []
    for table in lake.tables():
        done.append(tidied := tidy(lake, table, list(named.get(table.key, ())), now))
        # An observation: nothing of the table's content changed.
        context.log_event(dg.AssetObservation(asset_key=table.key.split("/"), metadata=_said(tidied)))
    context.add_output_metadata(
        {
            "tables": dg.MetadataValue.md(_table(done)),
            "bytes_freed": sum(each.bytes_freed for each in done),
            "files_removed": sum(each.files_before - each.files_after for each in done),
        }
    )


@dg.op
def forget_old_runs(context: dg.OpExecutionContext) -> None:
    """Delete the runs older than PDM_KEEP_DAYS of which everything was made again since; Dagster keeps them for ever."""
    before = dt.datetime.now(dt.UTC) - dt.timedelta(days=SETTINGS.keep_days)
    forgotten = forget_runs(context.instance, before)
    context.add_output_metadata({"runs_forgotten": forgotten.runs, "ended_before": str(before)})
    if forgotten.failed:
        raise dg.Failure(f"{len(forgotten.failed)} runs could not be deleted and are tried again next time: {forgotten.failed}")


@dg.job(
    description="Compacts crowded tables, deletes the files that no version to keep refers to, sets how far back that is, and "
    "deletes old runs of which nothing is the latest.",
    hooks={faults_are_told},
)
def upkeep() -> None:
    """The tables in the pool `spark`, so that no run writes meanwhile; then Dagster's own history."""
    tidy_tables()
    forget_old_runs()


@dg.schedule(
    job=upkeep,
    cron_schedule="0 2 * * 0",
    execution_timezone="UTC",
    # On: an hourly plant leaves 24 dead files a day and table, and nobody would think of it before the disk is full.
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Upkeep of the tables each Sunday at 02:00 UTC.",
)
def weekly_upkeep() -> dg.RunRequest:
    """Ask for it, whatever landed."""
    return dg.RunRequest()


def _said(tidied: Tidied) -> dict[str, int | str]:
    return {
        "files_before": tidied.files_before,
        "files_after": tidied.files_after,
        "bytes_freed": tidied.bytes_freed,
        "days_compacted": tidied.compacted,
        "days_kept": tidied.days_kept,
        "oldest_version_kept": f"{tidied.oldest_version} of {tidied.oldest_at:%Y-%m-%d}",
    }


def _table(done: list[Tidied]) -> str:
    names = list(_said(done[0])) if done else []
    head = [["table", *names], ["---"] * (len(names) + 1)]
    rows = [[each.table.key, *map(str, _said(each).values())] for each in done]
    return "\n".join(f"| {' | '.join(line)} |" for line in [*head, *rows])
