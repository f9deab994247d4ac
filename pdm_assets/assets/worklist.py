"""The worklist of a day: what the crew should see to, and why."""

import dataclasses

import dagster as dg
from pyspark.sql import DataFrame

from pdm_assets.partitions import DAILY, ONE_RUN, SETTINGS
from pdm_assets.resources.delta_io import span
from pdm_assets.resources.lake import Lake
from pdm_assets.resources.model_store import ModelStore
from pdm_assets.resources.reports import Reports
from pdm_assets.schemas.features import COMPONENT_RISK, OBSERVATIONS, WORKLIST
from pdm_assets.schemas.raw import ERRORS, FAILURES, MAINTENANCE

LINES_SHOWN = 20
READ = (COMPONENT_RISK, OBSERVATIONS, MAINTENANCE, FAILURES, ERRORS)


@dg.asset(
    key_prefix="worklist",
    group_name="worklist",
    kinds={"spark", "delta"},
    owners=["team:reliability"],
    code_version="1",
    partitions_def=DAILY,
    backfill_policy=ONE_RUN,
    deps=[table.key.split("/") for table in READ],
    pool="spark",
)
def maintenance(
    context: dg.AssetExecutionContext, lake: Lake, model_store: dg.ResourceParam[ModelStore], reports: Reports
) -> DataFrame:
    """One row per open alarm of a machine's component at the day's latest observation, ranked by what a visit should save.

    An alarm is open until the component is replaced or fails, or a horizon has passed since its last alert. Its reasons are
    found by asking the model again without each sign. As a page and as CSV in data/reports/worklist.
    """
    from pdm_assets.models.worklist import ranked
    from pdm_assets.models.worklist_page import as_csv, page, table
    from pdm_assets.resources.open_alarms import OpenAlarms, lines_by_day

    (start, end), capacity = span(context.partition_keys), SETTINGS.crew_visits_a_day
    alarms = OpenAlarms(lake, start, end)
    found = lines_by_day(alarms, model_store)
    rows = []
    for day in alarms.by_day:
        lines = ranked(found.get(day, []))
        rows += [(n, n <= capacity, *dataclasses.astuple(line), day) for n, line in enumerate(lines, start=1)]
        html = page(
            day,
            lines,
            {line.episode_id: alarms.history(line.machine_id, line.component, day) for line in lines},
            capacity=capacity,
            horizon_hours=SETTINGS.horizon_hours,
        )
        context.add_asset_metadata(
            {
                "worklist": dg.MetadataValue.md(table(lines, LINES_SHOWN, capacity)),
                "page": dg.MetadataValue.path(reports.write(f"worklist/{day}.html", html)),
                "csv": dg.MetadataValue.path(reports.write(f"worklist/{day}.csv", as_csv(lines, capacity))),
                "open_alarms": len(lines),
                "expected_saving": sum(line.expected_saving for line in lines[:capacity]),
            },
            asset_key=context.asset_key,
            partition_key=day.isoformat(),
        )
    return lake.spark.spark_session.createDataFrame(rows, WORKLIST.struct)
