"""Landed files turned into Parquet, each once: a folder a file, whose manifest says what is in it.

A folder appears by one rename with its manifest inside, so it is whole or not there. A lock for each table
keeps two processes from doing the same work; without it they would still not harm each other.
"""

import contextlib
import datetime as dt
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pdm_assets.resources.landed_columns import LandingError, columns_of, date_in_name, open_file, shown
from pdm_assets.schemas.table import Table

STAGING_VERSION = 1  # a change of what is staged, or how, stages every file again
WITHDRAWN_KEPT_SECONDS = 3600  # a run may still be reading the rows of a file that was just replaced
MANIFEST = "manifest.json"
WITHDRAWN = "withdrawn"


@dataclass(frozen=True)
class LandedFile:
    """A file as it lies in the landing folder of its table."""

    path: Path
    size: int
    mtime_ns: int

    @classmethod
    def at(cls, path: Path) -> "LandedFile":
        """The file with its present size and time.

        Raises:
            FileNotFoundError: if it is gone.
        """
        stat = path.stat()
        return cls(path, stat.st_size, stat.st_mtime_ns)

    def fingerprint(self, table: Table) -> str:
        """Changes with the file, with the table's columns and with STAGING_VERSION."""
        columns = [(field.name, field.dataType.simpleString()) for field in table.columns]
        text = json.dumps([STAGING_VERSION, self.path.name, self.size, self.mtime_ns, columns])
        return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class StagedPart:
    """One Parquet file of a staged file, with the first and last day of its rows."""

    path: Path
    first_day: dt.date
    last_day: dt.date


@dataclass(frozen=True)
class StagedFile:
    """What is in a landed file, or why it was refused whole.

    A row counts on the UTC day of its time; rows without a readable time on the home day: the earliest day of
    the file's other rows, else the date in its name, else the UTC day it was last changed.
    """

    name: str
    size: int
    mtime_ns: int
    fingerprint: str
    home_day: dt.date
    columns: tuple[str, ...] = ()
    rows_by_day: Mapping[dt.date, int] | None = None
    parts: tuple[StagedPart, ...] = ()
    refusal: str | None = None
    repeating: frozenset[dt.date] | None = None  # days of which a key may be in more than one row; None: perhaps any

    @property
    def rows(self) -> int:
        """Rows of the file, those with a problem among them."""
        return sum((self.rows_by_day or {}).values())

    def write(self, folder: Path) -> None:
        """Keep it as the manifest of a staging folder."""
        manifest = {
            "name": self.name,
            "size": self.size,
            "mtime_ns": self.mtime_ns,
            "fingerprint": self.fingerprint,
            "home_day": self.home_day.isoformat(),
            "columns": self.columns,
            "rows_by_day": {day.isoformat(): rows for day, rows in sorted((self.rows_by_day or {}).items())},
            "parts": [(part.path.name, part.first_day.isoformat(), part.last_day.isoformat()) for part in self.parts],
            "refusal": self.refusal,
            "repeating": None if self.repeating is None else [day.isoformat() for day in sorted(self.repeating)],
        }
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))

    @classmethod
    def read(cls, folder: Path) -> "StagedFile | None":
        """The manifest of a staging folder; None if there is none, or a crash of the machine left it cut or empty."""
        day = dt.date.fromisoformat
        try:
            manifest = json.loads((folder / MANIFEST).read_bytes())
            repeating = manifest.get("repeating")  # not told by manifests of earlier releases
            return cls(
                name=manifest["name"],
                size=manifest["size"],
                mtime_ns=manifest["mtime_ns"],
                fingerprint=manifest["fingerprint"],
                home_day=day(manifest["home_day"]),
                columns=tuple(manifest["columns"]),
                rows_by_day={day(text): rows for text, rows in manifest["rows_by_day"].items()},
                parts=tuple(StagedPart(folder / name, day(first), day(last)) for name, first, last in manifest["parts"]),
                refusal=manifest["refusal"],
                repeating=None if repeating is None else frozenset(map(day, repeating)),
            )
        except (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError):
            return None


@contextlib.contextmanager
def locked(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a folder against other processes and threads; a process that dies lets go.

    Raises:
        BlockingIOError: without `wait`, if it is held.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # A link there must not make another file of this user's empty.
    with open(os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def sync(path: Path) -> None:
    """See to it that a file, or the names in a folder, are on the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def folder_of(table: Table, landing_root: Path) -> Path:
    """Where the files of a table land.

    Raises:
        LandingError: if it is a link. The root may be one: it is the platform's, its folders may be given to those who land.
    """
    folder = landing_root / table.name
    if folder.is_symlink():
        raise LandingError(f"{folder} is a link: nothing is read or written through it. Make it a folder, or mount one there")
    return folder


class Staging:
    """The staged files of one table, below `root`."""

    def __init__(self, root: Path, table: Table) -> None:
        self.root = root
        self.table = table
        self._manifests: dict[str, StagedFile] = {}

    def of(self, landed: list[LandedFile]) -> list[StagedFile]:
        """What is in the files, staging those that are new; the staging of files that are gone is withdrawn.

        A file that vanishes or changes meanwhile is left out: it is looked at again next time.
        """
        prints = [file.fingerprint(self.table) for file in landed]
        if any(self._known(each) is None for each in prints) or self._unwanted(prints):
            with locked(self.root):
                staged = [self._known(each) or self._stage(file) for each, file in zip(prints, landed, strict=True)]
                self._withdraw(prints)
        else:
            staged = [self._known(each) for each in prints]
        return [file for file in staged if file is not None]

    def known(self, landed: list[LandedFile]) -> list[StagedFile | None]:
        """What is known of the files, None of those that were not staged yet; nothing is staged or withdrawn for the look."""
        return [self._known(file.fingerprint(self.table)) for file in landed]

    def files_with_rows(self) -> int:
        """How many files with rows were staged and not withdrawn, whether they are still there or not."""
        folders = [folder for folder in self.root.glob("[!.]*") if not (folder / WITHDRAWN).exists()]
        return sum(1 for file in map(StagedFile.read, folders) if file is not None and file.rows)

    def _known(self, fingerprint: str) -> StagedFile | None:
        folder = self.root / fingerprint
        if fingerprint not in self._manifests or not folder.exists():
            self._manifests.pop(fingerprint, None)
            if manifest := StagedFile.read(folder):
                self._manifests[fingerprint] = manifest
        return self._manifests.get(fingerprint)

    def out_of_reach(self, landed: LandedFile, why: str) -> StagedFile:
        """A file that can't be opened at present. Not kept: permissions and disks are mended without a change of the file."""
        name, fingerprint = shown(landed.path), landed.fingerprint(self.table)
        refusal = f"{name}: {why}. It is tried again until it can, or is gone"
        return StagedFile(name, landed.size, landed.mtime_ns, fingerprint, _fallback_day(landed), refusal=refusal)

    def _stage(self, landed: LandedFile) -> StagedFile | None:
        from pdm_assets.resources.landed_rows import read_landed
        from pdm_assets.resources.staged_buckets import write_rows

        name, fingerprint = shown(landed.path), landed.fingerprint(self.table)
        final = self.root / fingerprint
        fallback_day = _fallback_day(landed)
        time_column = next((f.name for f in self.table.columns if f.dataType.typeName() == "timestamp"), None)
        if (trouble := _trouble(landed.path)) is not None:
            return self.out_of_reach(landed, trouble)
        folder = Path(tempfile.mkdtemp(prefix=".staging-", dir=self.root))
        try:
            try:
                columns = columns_of(landed.path, self.table)
                rows = write_rows(
                    read_landed(landed.path, self.table), folder, name, time_column, self.table.unique, fallback_day
                )
                staged = StagedFile(
                    name,
                    landed.size,
                    landed.mtime_ns,
                    fingerprint,
                    rows.home_day,
                    columns,
                    rows.rows_by_day,
                    tuple(StagedPart(final / part, first, last) for part, first, last in rows.parts),
                    repeating=rows.repeating,
                )
            except Exception as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise  # the disk's trouble, not the file's
                # Whatever else a file makes a reader raise: one file must not keep the others from being taken.
                refusal = str(error) if isinstance(error, LandingError) else f"{name}: can't be read: {error!r}"
                for part in folder.iterdir():
                    part.unlink()
                staged = StagedFile(name, landed.size, landed.mtime_ns, fingerprint, fallback_day, refusal=refusal)
            if LandedFile.at(landed.path) != landed:
                return None
            staged.write(folder)
            for written in folder.iterdir():
                sync(written)
            shutil.rmtree(final, ignore_errors=True)  # its manifest can't be read
            os.rename(folder, final)
            return staged
        except FileNotFoundError:
            if landed.path.exists():
                raise
            return None
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _unwanted(self, wanted: list[str]) -> list[Path]:
        if not self.root.exists():
            return []
        names = set(wanted)
        return [path for path in self.root.iterdir() if path.name not in names and path.is_dir()]

    def _withdraw(self, wanted: list[str]) -> None:
        """Mark folders whose file is gone and remove those marked long ago; to be called under the lock."""
        for folder in self._unwanted(wanted):
            mark = folder / WITHDRAWN
            if folder.name.startswith(".staging-"):  # left by a process that died
                shutil.rmtree(folder)
            elif not mark.exists():
                mark.touch()
            elif time.time() - mark.stat().st_mtime > WITHDRAWN_KEPT_SECONDS:
                shutil.rmtree(folder)
        for fingerprint in wanted:
            (self.root / fingerprint / WITHDRAWN).unlink(missing_ok=True)


def _fallback_day(landed: LandedFile) -> dt.date:
    return date_in_name(shown(landed.path)) or dt.datetime.fromtimestamp(landed.mtime_ns / 1e9, dt.UTC).date()


def _trouble(path: Path) -> str | None:
    """Why a file can't be opened at present, if it can't."""
    try:
        with open_file(path) as file:
            file.read(1)
    except FileNotFoundError:
        return None  # the caller sees that it is gone
    except OSError as error:
        return f"can't be opened: {error.strerror}"
    return None
