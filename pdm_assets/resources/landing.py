"""The landing zone: files put into `landing/<table>/`, and their rows by day, read from staged Parquet.

A day re-materialized from a bulk file reads the one staged part that holds it, about eight days of rows, not
the file.
"""

import contextlib
import datetime as dt
import filecmp
import hashlib
import os
import shutil
import time
from collections import defaultdict
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession

from pdm_assets.resources.landed_columns import (
    FORMATS,
    UNFINISHED,
    LandingError,
    LandingGone,
    columns_of,
    format_of,
    open_file,
    shown,
    table_of,
)
from pdm_assets.resources.landed_table import LandedTable
from pdm_assets.resources.landing_mirror import LandingMirror
from pdm_assets.resources.staging import LandedFile, StagedFile, Staging, folder_of, locked, sync
from pdm_assets.schemas.raw import FILE_STEMS, MACHINES, RAW_TABLES

__all__ = ["LandingError", "LandingGone", "LandingZone", "StagedFile", "folder_of", "land"]

SETTLED_SECONDS = 1.0
COPY_BYTES = 1 << 20
TABLES = {table.key: table for table in RAW_TABLES}


def land(source: Path, landing_root: Path) -> list[Path]:
    """Copy the files of a folder that have a usual name to `landing_root/<table>/`; the new files there.

    All are looked at first, and none is taken if one is refused. Each appears under its final name at once,
    with the present time: of two files that disagree the one landed last wins. A file whose bytes are those of
    the latest of its name there is left as it is; beside one of other bytes the new file gets a numbered name.
    Files with other names are none of ours.

    Raises:
        LandingError: if there is no file to take, or one has the wrong columns, can't be read, or is a link
        or folder.
    """
    if not source.is_dir():
        raise LandingError(f"{source}: no such folder. Name the folder that holds the files")
    tables = {path: table for path in sorted(source.iterdir()) if (table := table_of(path.name))}
    if not tables:
        names = ", ".join(stems[0] + FORMATS[0] for stems in FILE_STEMS.values())
        raise LandingError(f"{source}: no file to land. Usual names: {names}, also with PdM_ in front, .csv.gz or .parquet")
    for path, table in tables.items():
        if path.is_symlink() or not path.is_file():
            raise LandingError(f"{path}: a link or folder, not a file. Put the file itself there")
        try:
            columns_of(path, table)
        except OSError as error:
            raise LandingError(f"{path}: can't be opened: {error.strerror}") from error
    landed = []
    with locked(landing_root), contextlib.ExitStack() as leftovers:
        copies = []
        for path, table in tables.items():
            folder = folder_of(table, landing_root)
            folder.mkdir(exist_ok=True)
            copy = folder / f".{path.name}.landing"
            copy.unlink(missing_ok=True)  # left by a process that died, or a link that somebody put there
            leftovers.callback(copy.unlink, missing_ok=True)
            with open_file(path) as source_file, copy.open("xb") as target:
                shutil.copyfileobj(source_file, target, COPY_BYTES)
            copies.append((path.name, copy))
        for name, copy in copies:
            final, is_there = place_of(copy, name)
            if not is_there:
                appear(copy, final)
                landed.append(final)
    return landed


def appear(copy: Path, final: Path) -> None:
    """Land a copy that lies hidden in the folder: whole, on the disk before it is seen, and with the present time."""
    os.utime(copy)
    sync(copy)
    os.replace(copy, final)
    sync(final.parent)  # a rename is on the disk once its folder is


def place_of(copy: Path, name: str) -> tuple[Path, bool]:
    """Where a copy can go without replacing other bytes, and whether the latest file of its name has these bytes already."""
    suffix = format_of(name) or Path(name).suffix
    number, latest, final = 1, None, copy.with_name(name)
    while final.exists():
        number += 1
        latest, final = final, copy.with_name(f"{name.removesuffix(suffix)}-{number}{suffix}")
    is_there = latest is not None and latest.is_file() and not latest.is_symlink() and filecmp.cmp(copy, latest, shallow=False)
    return (latest, True) if latest is not None and is_there else (final, False)


class LandingZone:
    """The landed files of all raw tables, below `landing_root/<table name>/`, and their rows.

    With a mirror, what lies in its object store is copied there before each look.

    Rows of days before the first day partition belong to it: history of maintenance that the plant brings
    along, and of the other tables rows with a problem. Rows of days that are no partition yet are there once
    one asks for these days.
    """

    def __init__(self, landing_root: Path, staging_root: Path, first_day: dt.date, mirror: LandingMirror | None = None) -> None:
        self.mirror = mirror
        self.landing_root = landing_root
        self.staging_root = staging_root
        self.first_day = first_day
        self._staging = {key: Staging(staging_root / table.name, table) for key, table in TABLES.items()}

    def files(self, table_key: str) -> list[LandedFile]:
        """Settled files of a table, in the order they landed (time of last change, then name).

        A file is settled when it did not change within the last second. One that grows again later counts as
        a new file then. Hidden and temporary names, links, folders and other formats are passed over.
        """
        landed, now = self._landed(table_key), time.time()
        settled = [file for file in landed if abs(now - file.mtime_ns / 1e9) >= SETTLED_SECONDS]
        return sorted(settled, key=lambda file: (file.mtime_ns, file.path.name))

    def _landed(self, table_key: str) -> list[LandedFile]:
        folder = folder_of(TABLES[table_key], self.landing_root)
        if not folder.is_dir():
            return []
        landed = []
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith((".", "_")) or name.lower().endswith(UNFINISHED) or not format_of(name):
                    continue
                try:
                    if entry.is_file(follow_symlinks=False):
                        landed.append(LandedFile.at(folder / name))
                except FileNotFoundError:
                    continue
        return landed

    def must_be_there(self, table_key: str) -> None:
        """See to it that the files of a table have not all gone: taken for deleted, every row of them would leave the tables.

        Raises:
            LandingGone: if they have.
        """
        had = 0 if self._landed(table_key) else self._staging[table_key].files_with_rows()
        if had:
            folder, staged = folder_of(TABLES[table_key], self.landing_root), self._staging[table_key].root
            raise LandingGone(
                f"{folder} holds none of the {had} files that it had: mount it, or put them back. If their rows are to leave "
                f"the tables, delete {staged}"
            )

    def passed_over(self, table_key: str) -> dict[str, str]:
        """What lies in the folder of a table and is never taken, by name, with what it is.

        Hidden names and those of unfinished files are left out.
        """
        folder = folder_of(TABLES[table_key], self.landing_root)
        found = {} if self.mirror is None else self.mirror.passed_over(TABLES[table_key])
        if not folder.is_dir():
            return found
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith((".", "_")) or name.lower().endswith(UNFINISHED):
                    continue
                if entry.is_symlink():
                    found[shown(Path(name))] = "a link: put the file itself there"
                elif entry.is_dir(follow_symlinks=False):
                    found[shown(Path(name))] = "a folder: put its files beside it"
                elif not entry.is_file(follow_symlinks=False):
                    found[shown(Path(name))] = "no file"
                elif not format_of(name):
                    found[shown(Path(name))] = f"none of {', '.join(FORMATS)}"
        return dict(sorted(found.items()))

    def staged(self, table_key: str) -> list[StagedFile]:
        """What is in the settled files, refused ones too, in the order they landed. New ones are staged.

        Raises:
            StoreError: if files land in an object store that can't be asked.
            LandingGone: if the table had files, and none is there any more.
        """
        unread = {} if self.mirror is None else self.mirror.bring(TABLES[table_key])
        files, staging = self.files(table_key), self._staging[table_key]
        if not files:
            self.must_be_there(table_key)
        return [*staging.of(files), *(staging.out_of_reach(file, why) for file, why in unread.items())]

    def known(self, table_key: str) -> tuple[list[StagedFile], list[LandedFile]]:
        """The settled files that were staged, refused ones too, and those that wait for it; the look itself stages none."""
        files = self.files(table_key)
        staged = self._staging[table_key].known(files)
        waiting = [file for file, known in zip(files, staged, strict=True) if known is None]
        return [file for file in staged if file is not None], waiting

    def look(self, table_key: str, *more: StagedFile) -> LandedTable:
        """The table as it is now: one look counts and scans the same rows, even if a file lands meanwhile.

        With more files: as if these had landed last.
        """
        return LandedTable(TABLES[table_key], (*self.staged(table_key), *more), self.first_day)

    def landed_rows(self, table_key: str, start: dt.date, end: dt.date) -> dict[dt.date, int]:
        """See `LandedTable.rows`."""
        return self.look(table_key).rows(start, end)

    def scan(self, spark: SparkSession, table_key: str, start: dt.date, end: dt.date) -> DataFrame:
        """See `LandedTable.scan`."""
        return self.look(table_key).scan(spark, start, end)

    def days_touched(self, table_key: str) -> dict[dt.date, str]:
        """For each day, a hash over the names, sizes and times of the table's files with rows on it."""
        days: dict[dt.date, set[str]] = defaultdict(set)
        for file in self.staged(table_key):
            # a refused file asks for a run too, whose check says what is wrong with it
            for day in [file.home_day] if file.refusal else file.rows_by_day or ():
                days[max(day, self.first_day)].add(_label(file))
        return _hashes(days)

    def machine_lists(self) -> dict[dt.date, str]:
        """The same for the fleet lists, by the day from which a list holds, up to the next of these days."""
        look = self.look(MACHINES.key)
        lists = {day: {_label(look.files[place]) for place in places} for day, places in look.machine_lists().items()}
        for replaced in sorted(day for day in lists if day <= self.first_day)[:-1]:
            del lists[replaced]
        return {max(day, self.first_day): each for day, each in _hashes(lists).items()}


def _label(file: StagedFile) -> str:
    return f"{file.name}:{file.size}:{file.mtime_ns}{':refused' if file.refusal else ''}"


def _hashes(labels: dict[dt.date, set[str]]) -> dict[dt.date, str]:
    return {day: hashlib.sha256("\n".join(sorted(each)).encode()).hexdigest()[:16] for day, each in sorted(labels.items())}
