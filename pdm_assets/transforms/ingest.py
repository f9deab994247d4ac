"""The verdict on every landed row: raw, quarantined, duplicate or superseded."""

import datetime as dt
from collections.abc import Collection
from functools import reduce
from operator import or_

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from pdm_assets.schemas.raw import FILE_COLUMNS
from pdm_assets.schemas.table import DATE, Table

RAW, QUARANTINED, DUPLICATE, SUPERSEDED = "raw", "quarantined", "duplicate", "superseded"
VERDICTS = (RAW, QUARANTINED, DUPLICATE, SUPERSEDED)
CONFLICT = "one key twice with different values in the same file"


def sort_landed_rows(
    landed: DataFrame,
    table: Table,
    known_machines: DataFrame | None = None,
    *,
    partitions: int | None = None,
    repeating: Collection[dt.date] | None = None,
) -> DataFrame:
    """Every landed row with its `verdict` and, if quarantined, the `reason` and `text`.

    In this order, by day and key:

    1. A row with a problem, a missing value, a value outside of its column's rule or a machine that is not in the fleet
       that day is quarantined. It has no say in what follows.
    2. Where one file has several values for a key, all its rows of that key are quarantined, and have no say either.
    3. Of the rows left, the file landed last has the value. One row with it is raw (the last line of that file), rows
       with the same value are duplicates, in whatever file, and rows with other values are superseded.

    So each row has one verdict and a key at most one raw row, whatever the order of the rows. The text of a row that
    could be read, but is not acceptable, was not kept: it is the CSV of its values, in the reference's order of columns.

    Args:
        landed: rows as `LandingZone.scan` gives them.
        table: the raw table that they are for.
        known_machines: (date, machine_id) of the fleet in force, unique; without it any machine is taken.
        partitions: number of shuffle partitions, by day; a writer that clusters by `date` into the same number finds
            its rows in place. None leaves the number to the engine.
        repeating: the days on which two rows without a problem may have the same key; None: perhaps any. On other days only
            the first of the rules above can apply, and rows need not be brought together by key.
    """
    unacceptable = _first_reason(table, known_machines is not None)
    if known_machines is not None:
        known = known_machines.select(DATE, "machine_id", F.lit(True).alias("is_known"))
        landed = landed.join(F.broadcast(known), on=[DATE, "machine_id"], how="left")
    judged = landed.withColumn("reason", unacceptable)
    if repeating is None:
        return _decided(judged, table, partitions)
    alone = judged if not repeating else judged.where(~F.col(DATE).isin(sorted(repeating)))
    told = _told(alone, table, F.when(F.col("reason").isNotNull(), QUARANTINED).otherwise(RAW))
    if not repeating:
        return told
    return told.unionByName(_decided(judged.where(F.col(DATE).isin(sorted(repeating))), table, partitions))


def _decided(judged: DataFrame, table: Table, partitions: int | None) -> DataFrame:
    """The same by all of the rules: rows of a key are brought together."""
    by_day = judged.repartition(DATE) if partitions is None else judged.repartition(partitions, DATE)
    # Both windows are met by one split (by day) and one sort (key, file, line).
    key = [DATE, *(name for name in table.unique if name != DATE)]
    in_file = Window.partitionBy(*key, "landed_rank").orderBy("line").rowsBetween(*_WHOLE)
    of_key = Window.partitionBy(*key).orderBy("landed_rank", "line").rowsBetween(*_WHOLE)

    values = [name.name for name in table.columns if name.name not in table.unique]
    if values:
        # Not the least and the greatest value: DuckDB takes thirty times as long for these, struct by struct, in a window.
        acceptable = F.when(F.col("reason").isNull(), F.struct(*values))
        by_day = by_day.withColumn("first", F.first(acceptable, ignorenulls=True).over(in_file))
        differs = reduce(or_, (F.col(name) != F.col(f"first.{name}") for name in values))
        conflicts = F.max(F.when(F.col("reason").isNull(), differs)).over(in_file)
        conflict = F.when(F.col("reason").isNull() & conflicts, F.lit(CONFLICT))
        by_day = by_day.withColumn("reason", F.coalesce("reason", conflict)).drop("first")
    contender = F.when(F.col("reason").isNull(), F.struct("landed_rank", "line", *values))
    decided = by_day.withColumn("winner", F.last(contender, ignorenulls=True).over(of_key))
    same_row = (F.col("landed_rank") == F.col("winner.landed_rank")) & (F.col("line") == F.col("winner.line"))
    same_values = F.lit(True)
    for name in values:
        same_values &= F.col(name) == F.col(f"winner.{name}")
    verdict = (
        F.when(F.col("reason").isNotNull(), QUARANTINED).when(same_row, RAW).when(same_values, DUPLICATE).otherwise(SUPERSEDED)
    )
    return _told(decided, table, verdict).drop("winner")


def _told(rows: DataFrame, table: Table, verdict: Column) -> DataFrame:
    text = F.coalesce("text", F.when(F.col("reason").isNotNull(), _as_csv(table)))
    return rows.withColumn("verdict", verdict).withColumn("text", text).drop("is_known")


_WHOLE = (Window.unboundedPreceding, Window.unboundedFollowing)


def _first_reason(table: Table, fleet_is_known: bool) -> Column:
    """Why a row can't be taken on its own account, or null. A constraint begins with its column."""
    required = [F.when(F.col(f.name).isNull(), F.lit(f"{f.name} is missing")) for f in table.columns if not f.nullable]
    rules = []
    for rule in table.constraints.values():
        name = rule.split()[0]
        said = F.concat(F.lit(f"{name} is "), F.col(name).cast("string"), F.lit(f", valid: {rule}"))
        rules.append(F.when(~F.expr(rule), said))
    if fleet_is_known:
        unknown = F.concat(F.lit("machine "), F.col("machine_id").cast("string"), F.lit(" is not in the fleet that day"))
        rules.append(F.when(F.col("is_known").isNull(), unknown))
    return F.coalesce("problem", *required, *rules)


def _as_csv(table: Table) -> Column:
    values = [F.col(name).cast("string") for name in FILE_COLUMNS[table.key].values()]
    return F.array_join(F.array(*values), ",", "")


def raw_rows(sorted_rows: DataFrame, table: Table) -> DataFrame:
    """The rows of the raw table, from sorted landed rows."""
    return sorted_rows.where(F.col("verdict") == RAW).select(*table.column_names)


def quarantined_rows(sorted_rows: DataFrame) -> DataFrame:
    """The rows of the quarantine, from sorted landed rows: file, line, reason, text, date."""
    return sorted_rows.where(F.col("verdict") == QUARANTINED).select("file", "line", "reason", "text", DATE)
