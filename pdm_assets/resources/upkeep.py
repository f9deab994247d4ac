"""What keeps the tables small and their needed versions readable: few files, no dead ones, a retention that reaches far enough.

VACUUM deletes the files that no version younger than `delta.deletedFileRetentionDuration` refers to, whichever older version
did, and Delta refuses to read versions older than that. So the property must reach back to the oldest version that a model
names, and with it to all that came after: the features that scores say they were made from among them.
"""

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pdm_assets.resources.lake import KEEP_FILES, Lake, LakeError, keeping
from pdm_assets.resources.versions import files_of, lying_there, times
from pdm_assets.schemas.table import DATE, Table

MOST_FILES = 4  # of a day, which is written as one, or of a table without days; above it they are made one
STEP_DAYS = 30  # the retention grows by so much: each change of it is a commit


@dataclass(frozen=True)
class Tidied:
    """What upkeep did to a table. Bytes and files are of what lies in its folder, dead or not."""

    table: Table
    days_kept: int
    oldest_version: int
    oldest_at: dt.datetime
    files_before: int
    files_after: int
    bytes_freed: int
    compacted: int


def tidy(lake: Lake, table: Table, named: Sequence[int], now: dt.datetime) -> Tidied:
    """Set the retention, compact what has many files, delete dead files; each only where there is something to do.

    Raises:
        LakeError: if the tables are in a catalog, which looks after its own.
    """
    if lake.catalog:
        raise LakeError(f"{table.key} is in a catalog: use its OPTIMIZE and VACUUM")
    written = times(lake, table)
    days = _days_to_keep(lake.keep_days, [at for version, at in written.items() if version in named], now)
    if lake.properties(table).get(KEEP_FILES) != keeping(days)[KEEP_FILES]:
        lake.set_properties(table, keeping(days))
    before = lying_there(lake, table)
    compacted = _compact(lake, table)
    _delete_dead_files(lake, table, now - dt.timedelta(days=days))
    after = lying_there(lake, table)
    cutoff = now - dt.timedelta(days=days)
    oldest = max((version for version, at in written.items() if at <= cutoff), default=min(written))
    return Tidied(
        table=table,
        days_kept=days,
        oldest_version=oldest,
        oldest_at=written[oldest],
        files_before=len(before),
        files_after=len(after),
        bytes_freed=sum(size for name, (size, _) in before.items() if name not in after),
        compacted=compacted,
    )


def _days_to_keep(least: int, named_at: Sequence[dt.datetime], now: dt.datetime) -> int:
    """The retention: as asked for, or back to the oldest named version, with a week and more until upkeep comes again."""
    if not named_at:
        return least
    age = (now - min(named_at)).days + 1
    return max(least, -(-(age + 8) // STEP_DAYS) * STEP_DAYS)


def _compact(lake: Lake, table: Table) -> int:
    """Make the files of each crowded day one; how many days were (of a table without days, 1 for all of it)."""
    actions = lake.delta(table).get_add_actions(flatten=True)
    days = actions.column(f"partition.{DATE}").to_pylist() if table.daily else [None] * actions.num_rows
    crowded = [day for day, files in Counter(days).items() if files > MOST_FILES]
    if crowded:
        lake.spark.tables.compact(lake.table_name(table), [day for day in crowded if day], DATE if table.daily else None)
    return len(crowded)


def _delete_dead_files(lake: Lake, table: Table, cutoff: dt.datetime) -> None:
    """VACUUM, if a file is there that may go: each time it is two commits and a listing."""
    alive = files_of(lake.delta(table))
    lying = lying_there(lake, table)
    if any(name not in alive and written < cutoff.timestamp() for name, (_, written) in lying.items()):
        lake.spark.tables.vacuum(lake.table_name(table))
