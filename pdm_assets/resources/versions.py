"""Versions of tables: which ones models name, which can still be read, and the return to one."""

import datetime as dt
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from pyspark.errors import PySparkException

from pdm_assets.resources.lake import Lake, LakeError
from pdm_assets.resources.model_store import ModelStore
from pdm_assets.resources.object_store import changed_at, deltalake_options
from pdm_assets.schemas.features import REGISTRY
from pdm_assets.schemas.table import DATE, Table

NamedVersions = Mapping[str, Mapping[int, list[str]]]  # table key -> version -> the models that name it


@dataclass(frozen=True)
class Restored:
    """What a return to an earlier version changed."""

    version: int
    before: int
    after: int
    days: list[dt.date]


def named_versions(store: ModelStore, keep_model_data_days: int | None, now: dt.datetime) -> NamedVersions:
    """The versions of tables that registered models were made from.

    Left out are models of another lake, whose versions are that lake's, and those trained before what is let go.
    """
    named: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    if not store.lake.exists(REGISTRY):
        return named
    for row in store.lake.rows(REGISTRY, columns=["model_version", "trained_at", "card"]):
        card = json.loads(row["card"])
        is_let_go = keep_model_data_days is not None and (now - row["trained_at"]).days >= keep_model_data_days
        if is_let_go or "taken_from" in card:
            continue
        for key, version in card["data_versions"].items():
            named[key][version].append(row["model_version"])
    return named


def files_of(table: DeltaTable) -> set[str]:
    """The files of a table as it was loaded, by their names below its folder."""
    return {unquote(name) for name in table.get_add_actions(flatten=True).column("path").to_pylist()}


def lying_there(lake: Lake, table: Table) -> dict[str, tuple[int, float]]:
    """Size and time of every data file in the table's folder, dead or not, by its name below that."""
    files, folder = lake.files(table)
    found = files.find(folder, detail=True)
    names = {path: path.removeprefix(f"{folder}/") for path in found if path.endswith(".parquet")}
    return {
        name: (found[path]["size"], changed_at(found[path]).timestamp())
        for path, name in names.items()
        if not name.startswith("_delta_log/")
    }


def unreadable(lake: Lake, table: Table, version: int) -> str | None:
    """Why a version can't be read any more; None if it can."""
    try:
        at_version = DeltaTable(lake.location(table), version=version, storage_options=deltalake_options())
        gone = sorted(files_of(at_version) - lying_there(lake, table).keys())
    except (DeltaError, OSError) as error:
        return f"its log can't be read: {str(error).splitlines()[0]}"
    return f"{len(gone)} of its files are gone, such as {gone[0].rsplit('/', 1)[-1]}" if gone else None


def times(lake: Lake, table: Table) -> dict[int, dt.datetime]:
    """When each version that the log still knows was written, the newest first."""
    found: dict[int, dt.datetime] = lake.spark.tables.history(lake.table_name(table))
    return found


def version_at(lake: Lake, table: Table, at: dt.datetime) -> int:
    """The version that was the newest at a time.

    Raises:
        LakeError: if the table's log begins later.
    """
    known = times(lake, table)
    older = [version for version, written in known.items() if written <= at]
    if not older:
        begins = min(known.values())
        raise LakeError(f"{table.key} has no version of {at:%Y-%m-%d %H:%M:%S} UTC: its log begins {begins:%Y-%m-%d %H:%M:%S}")
    return max(older)


def restore(lake: Lake, table: Table, version: int, note: Mapping[str, Any]) -> Restored:
    """Make a table what it was at a version, as a new version: nothing is lost, it can be undone.

    Raises:
        LakeError: if the version does not exist or its files are gone.
    """
    newest = lake.delta(table)
    if not 0 <= version <= newest.version():
        raise LakeError(f"{table.key} has no version {version}: the newest is {newest.version()}")
    if why := unreadable(lake, table, version):
        raise LakeError(
            f"version {version} of {table.key} can't be restored: {why}. Versions older than PDM_KEEP_DAYS go with upkeep, "
            "but those that models name stay"
        )
    if version == newest.version():
        return Restored(version, version, version, [])
    before = _days_of_files(newest) if table.daily else {}
    version_before = newest.version()
    try:
        lake.spark.tables.restore(lake.table_name(table), version, json.dumps(note))
    except (PySparkException, DeltaError) as error:
        raise LakeError(f"version {version} of {table.key} can't be restored: {str(error).splitlines()[0]}") from error
    restored = lake.delta(table)
    after = _days_of_files(restored) if table.daily else {}
    days = {day for _, day in before.items() ^ after.items()}
    return Restored(version, version_before, restored.version(), sorted(days))


def _days_of_files(table: DeltaTable) -> dict[str, dt.date]:
    actions = table.get_add_actions(flatten=True)
    days = actions.column(f"partition.{DATE}").to_pylist()
    return dict(zip(actions.column("path").to_pylist(), days, strict=True))
