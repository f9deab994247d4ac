"""Raw tables and their quarantines: what has landed, typed and checked, by day."""

import datetime as dt
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pdm_assets.models import markdown
from pdm_assets.partitions import DAILY, ONE_RUN, reads
from pdm_assets.resources.delta_io import span
from pdm_assets.resources.lake import Lake, write_partitions
from pdm_assets.resources.landed_table import LandedTable
from pdm_assets.resources.landing_zone import Landing
from pdm_assets.resources.quarantine import Group, most_first, reasons_by_day, together
from pdm_assets.schemas.raw import (
    ERRORS,
    FAILURES,
    MACHINES,
    MAINTENANCE,
    RAW_TABLES,
    TELEMETRY,
    quarantine_of,
)
from pdm_assets.schemas.table import DATE, Table
from pdm_assets.transforms.ingest import quarantined_rows, raw_rows, sort_landed_rows

EVENT_TABLES = tuple(table.key for table in RAW_TABLES if table is not MACHINES)
BALANCE = "every_landed_row_is_accounted_for"
TAKEN = "every_landed_file_was_taken"
FEW_REJECTED = "few_rows_are_quarantined"
DAYS_NAMED, REASONS_NAMED, FILES_NAMED = 5, 3, 100
REJECTED_SHARE = 0.1  # of a day's landed rows: more is an outage or something new, not an odd row

Events = Iterator[dg.Output[DataFrame | None] | dg.AssetCheckResult]


def _outs(table: Table, doc: str, **raw_options: Any) -> dict[str, dg.AssetOut]:
    common: dict[str, Any] = {"kinds": {"spark", "delta"}, "owners": ["team:data"], "code_version": "1"}
    return {
        table.name: dg.AssetOut(key=table.key.split("/"), group_name="raw", description=doc, **common, **raw_options),
        f"quarantined_{table.name}": dg.AssetOut(
            key=quarantine_of(table).key.split("/"),
            group_name="quarantine",
            description=f"One row per landed row of {table.name} that was not taken: file, line, text and reason.",
            **common,
        ),
    }


def _options(table: Table, doc: str, **raw_options: Any) -> dict[str, Any]:
    key = dg.AssetKey(table.key.split("/"))
    return {
        "name": f"land_{table.name}",
        "outs": _outs(table, doc, **raw_options),
        "check_specs": [
            dg.AssetCheckSpec(
                BALANCE,
                asset=key,
                blocking=True,
                description="landed = raw + quarantined + exact duplicates + superseded, by day",
            ),
            dg.AssetCheckSpec(
                TAKEN,
                asset=key,
                description="no landed file was refused, passed over, or has rows of days to come; else names them",
            ),
            dg.AssetCheckSpec(
                FEW_REJECTED,
                asset=key,
                description=f"up to {REJECTED_SHARE:.0%} of the landed rows of each day; else names the days and what is wrong",
            ),
        ],
        "partitions_def": DAILY,
        "backfill_policy": ONE_RUN,
        "pool": "spark",
    }


@dg.multi_asset(**_options(MACHINES, "One row per machine and day: the fleet list in force that day."))
def land_machines(context: dg.AssetExecutionContext, lake: Lake, landing: Landing) -> Events:
    """The fleet list: an undated file holds from the first day on, until one with a date in its name replaces it."""
    yield from _take(context, lake, landing, MACHINES, None)


@dg.multi_asset(
    **_options(
        TELEMETRY,
        "One row per machine and hour: the readings of its four channels.",
        freshness_policy=dg.FreshnessPolicy.time_window(fail_window=dt.timedelta(hours=36), warn_window=dt.timedelta(hours=26)),
    ),
    ins={"machines": reads("raw/machines")},
)
def land_telemetry(context: dg.AssetExecutionContext, lake: Lake, landing: Landing, machines: DataFrame) -> Events:
    """Hourly readings of the machines in force."""
    yield from _take(context, lake, landing, TELEMETRY, machines)


@dg.multi_asset(
    **_options(ERRORS, "One row per error that a machine reported without stopping."),
    ins={"machines": reads("raw/machines")},
)
def land_errors(context: dg.AssetExecutionContext, lake: Lake, landing: Landing, machines: DataFrame) -> Events:
    """Errors of the machines in force."""
    yield from _take(context, lake, landing, ERRORS, machines)


@dg.multi_asset(
    **_options(
        MAINTENANCE,
        "One row per component replaced, planned or after a failure; the first day also holds what is older.",
    ),
    ins={"machines": reads("raw/machines")},
)
def land_maintenance(context: dg.AssetExecutionContext, lake: Lake, landing: Landing, machines: DataFrame) -> Events:
    """Replacements in the machines in force."""
    yield from _take(context, lake, landing, MAINTENANCE, machines)


@dg.multi_asset(
    **_options(FAILURES, "One row per component that failed and stopped its machine."),
    ins={"machines": reads("raw/machines")},
)
def land_failures(context: dg.AssetExecutionContext, lake: Lake, landing: Landing, machines: DataFrame) -> Events:
    """Failures of the machines in force."""
    yield from _take(context, lake, landing, FAILURES, machines)


ASSETS = [land_machines, land_telemetry, land_errors, land_maintenance, land_failures]


def _take(context: dg.AssetExecutionContext, lake: Lake, landing: Landing, table: Table, machines: DataFrame | None) -> Events:
    """Write what is acceptable to raw, the rest to quarantine, and say where each landed row went."""
    start, end = span(context.partition_keys)
    look = landing.zone.look(table.key)  # one look: a file that lands from here on belongs to the next run
    landed = look.rows(start, end)
    fate: Counter[tuple[dt.date, str]] = Counter()
    rejected: DataFrame | None = None
    if not any(landed.values()):
        yield dg.Output(None, output_name=table.name)
    else:
        if machines is not None:
            _check_machines(lake, landing, [day for day, rows in landed.items() if rows])
        spark = lake.spark.spark_session
        known = None if machines is None else machines.select(DATE, "machine_id")
        rows = sort_landed_rows(
            look.scan(spark, start, end),
            table,
            known,
            partitions=write_partitions(start, end),
            repeating=look.repeating_days(start, end),
        )
        yield dg.Output(raw_rows(rows, table), output_name=table.name, metadata={"landed_rows": sum(landed.values())})
        # Stored by now. Only days on which not every landed row became a raw row are looked at a second time.
        taken = lake.rows_by_day(table, start, end)
        fate.update({(day, "raw"): count for day, count in taken.items()})
        odd = [day for day, count in landed.items() if count != taken[day]]
        if odd:
            others = rows.where(F.col(DATE).isin(odd)).where(F.col("verdict") != "raw")
            verdicts = others.groupBy(DATE, "verdict").count().collect()
            fate.update({(day, verdict): count for day, verdict, count in verdicts})
            if any(verdict == "quarantined" for _, verdict, _ in verdicts):
                rejected = quarantined_rows(others.where(F.col("verdict") == "quarantined"))
    yield dg.Output(rejected, output_name=f"quarantined_{table.name}", metadata=_counts(fate))
    # What the check weighs is what the two tables hold, not what was meant for them.
    stored = lake.rows_by_day(quarantine_of(table), start, end)
    for day, count in stored.items():
        fate[day, "quarantined"] = count
    yield _balance(landed, fate, table)
    yield _taken(landing, look, table)
    yield _few_rejected(lake, table, landed, stored)


def _taken(landing: Landing, look: LandedTable, table: Table) -> dg.AssetCheckResult:
    """Files that were refused are an error; what is no file of ours, or of days to come, is perhaps meant so."""
    over = landing.zone.passed_over(table.key)
    ahead = look.of_days_to_come(dt.datetime.now(dt.UTC).date())
    said = [
        *(str(file.refusal) for file in look.refused),
        *(f"{name}: passed over, it is {why}" for name, why in over.items()),
        *(f"{name}: {rows} rows are of days to come, up to {last}, and wait for them" for name, (rows, last) in ahead.items()),
    ]
    more = f"; and {len(said) - FILES_NAMED} files more" if len(said) > FILES_NAMED else ""
    return dg.AssetCheckResult(
        check_name=TAKEN,
        asset_key=table.key.split("/"),
        passed=not said,
        severity=dg.AssetCheckSeverity.ERROR if look.refused else dg.AssetCheckSeverity.WARN,
        description="; ".join(map(markdown.text, said[:FILES_NAMED])) + more or None,
        metadata={
            "refused_files": len(look.refused),
            "passed_over": len(over),
            "rows_of_days_to_come": sum(rows for rows, _ in ahead.values()),
        },
    )


def _few_rejected(
    lake: Lake, table: Table, landed: Mapping[dt.date, int], stored: Mapping[dt.date, int]
) -> dg.AssetCheckResult:
    """A channel that is silent, a code or a machine that nobody told us of: each row says so, but who looks at rows?"""
    many = [day for day, count in sorted(stored.items()) if count > REJECTED_SHARE * landed.get(day, 0) > 0]
    named = many[:DAYS_NAMED]  # the first days stand for the rest: a year of refused rows is not read
    reasons: list[Group] = []
    if named:
        found = reasons_by_day(lake, quarantine_of(table), named[0], named[-1] + dt.timedelta(days=1))
        reasons = most_first(together({day: found[day] for day in named}).values())
    said = ", ".join(f"{day}: {stored[day]} of {landed[day]}" for day in named)
    more = f" (and {len(many) - DAYS_NAMED} days more)" if len(many) > DAYS_NAMED else ""
    # of a reason that differs from row to row the first one
    why = "; ".join(
        f"{markdown.text(group.first[2])} ({group.rows}{'' if group.rule == group.first[2] else ' of this kind'})"
        for group in reasons[:REASONS_NAMED]
    )
    return dg.AssetCheckResult(
        check_name=FEW_REJECTED,
        asset_key=table.key.split("/"),
        passed=not many,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{said}{more} rows are in {quarantine_of(table).key}, most of them because: {why}" if many else None,
        metadata={"days_with_many": len(many), "quarantined_rows": sum(stored.values())},
    )


def _check_machines(lake: Lake, landing: Landing, days: list[dt.date]) -> None:
    """Without the fleet of a day every row of it would be one of an unknown machine, and the day emptied."""
    lists = landing.zone.machine_lists()
    if not lists:
        raise dg.Failure(
            "no machine list has landed, so no row can be told from one of an unknown machine: "
            "put machines.csv (machineID, model, age) into landing/machines"
        )
    known = lake.rows_by_day(MACHINES, min(days), max(days) + dt.timedelta(days=1))
    if missing := [str(day) for day in days if day >= min(lists) and not known[day]]:
        raise dg.Failure(
            f"raw/machines has no rows for {', '.join(missing[:10])}{' ...' if len(missing) > 10 else ''}, so every row would "
            "be one of an unknown machine: materialize raw/machines for these days first, or together with this"
        )


def _counts(fate: Mapping[tuple[dt.date, str], int]) -> dict[str, int]:
    totals: Counter[str] = Counter()
    for (_, verdict), count in fate.items():
        totals[verdict] += count
    return {
        "raw_rows": totals["raw"],
        "quarantined_rows": totals["quarantined"],
        "exact_duplicates": totals["duplicate"],
        "superseded_rows": totals["superseded"],
    }


def _balance(landed: Mapping[dt.date, int], fate: Mapping[tuple[dt.date, str], int], table: Table) -> dg.AssetCheckResult:
    accounted: Counter[dt.date] = Counter()
    for (day, _), count in fate.items():
        accounted[day] += count
    wrong = {
        day: (landed.get(day, 0), accounted[day])
        for day in landed.keys() | accounted.keys()
        if landed.get(day, 0) != accounted[day]
    }
    return dg.AssetCheckResult(
        check_name=BALANCE,
        asset_key=table.key.split("/"),
        passed=not wrong,
        description="; ".join(f"{day}: {rows} landed, {found} accounted for" for day, (rows, found) in sorted(wrong.items()))
        or None,
        metadata={"landed_rows": sum(landed.values()), **_counts(fate), "days_out_of_balance": len(wrong)},
    )
