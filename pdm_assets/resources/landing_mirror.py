"""An object store that files land in: what lies there is copied to the landing zone as it comes, and goes when it goes.

The platform then treats a copy as any landed file: what it takes and refuses, counts, quarantines and releases is the same.
Nothing is ever written to the store.
"""

import datetime as dt
import json
import os
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pdm_assets.resources.landed_columns import FORMATS, UNFINISHED, format_of, shown
from pdm_assets.resources.object_store import StoreError, changed_at, file_system
from pdm_assets.resources.staging import LandedFile, folder_of, locked, sync
from pdm_assets.schemas.table import Table

OBJECTS = ".objects.json"  # in the folder of a table: the copies that lie there
LONGEST_NAME = 200  # bytes; a file system takes 255, and a copy that is not whole yet has some more
TAGS = ("ETag", "etag", "md5Hash", "content_md5")
LISTED_FOR_S = 3.0  # a tick of the sensor asks thrice, and comes every five seconds
NOTED_EVERY = 100  # copies


@dataclass(frozen=True)
class StoredFile:
    """An object that is a file to land. Its time to the second, its tag without quotes: listings and heads differ in both."""

    size: int
    changed_at: str
    tag: str

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> "StoredFile":
        """The object of a listing's entry.

        Raises:
            StoreError: if the store does not say when it was changed.
        """
        tag = next((str(info[name]) for name in TAGS if info.get(name)), "")
        at = changed_at(info).astimezone(dt.UTC).replace(microsecond=0)
        return cls(int(info["size"]), at.isoformat(), tag.strip('"'))

    @property
    def mtime(self) -> float:
        """The time of its copy, in seconds since 1970."""
        return dt.datetime.fromisoformat(self.changed_at).timestamp()

    def is_copied_as(self, path: Path) -> bool:
        """Whether a file is a whole copy, by size and time."""
        try:
            found = path.lstat()
        except FileNotFoundError:
            return False
        return stat.S_ISREG(found.st_mode) and (found.st_size, found.st_mtime) == (self.size, self.mtime)


class LandingMirror:
    """The copies of `address/<table name>/` in `landing_root/<table name>/`."""

    def __init__(self, address: str, landing_root: Path) -> None:
        self.address = address.rstrip("/")
        self.landing_root = landing_root
        self._listings: dict[str, tuple[float, list[tuple[str, StoredFile | str]]]] = {}

    def bring(self, table: Table) -> dict[LandedFile, str]:
        """Copy what is new or has changed, whole and with the object's time, and remove copies whose object is gone.

        Files that landed here otherwise, released rows among them, stay; of an object with such a file's name there is no copy
        (see `passed_over`).

        Returns: the objects that can't be read, as the files that they would be, with why. Nothing else waits for them.

        Raises:
            StoreError: if the store can't be asked, or has none of the objects that it had: then the address is wrong or what
                it held was lost, and the copies stay.
        """
        folder = folder_of(table, self.landing_root)
        if self._is_settled(folder, self._objects(table)):
            return {}
        with locked(folder):
            there, known = self._objects(table, afresh=True), self._known(folder)
            if known and there.keys().isdisjoint(known):
                raise StoreError(
                    f"{self.address}/{table.name} has none of the {len(known)} files that it had: see whether PDM_LANDING is "
                    f"right and they are still there. If they are to go, delete {folder / OBJECTS} and the copies beside it"
                )
            for name in known.keys() - there.keys():
                (folder / name).unlink(missing_ok=True)
            copies = {name: stored for name, stored in known.items() if name in there}
            unread = {}
            for name, stored in sorted(there.items(), key=lambda entry: (entry[1].changed_at, entry[0])):
                if self._is_anothers(folder, name, stored, known):
                    continue
                try:
                    # A copy without a record was made by a process that died before it wrote it down.
                    if stored.is_copied_as(folder / name) and copies.get(name, stored) == stored:
                        copies[name] = stored
                    elif self._copy(table, folder, name, stored):
                        copies[name] = stored
                        if len(copies) % NOTED_EVERY == 0:
                            self._write(folder, copies)
                except StoreError as error:
                    unread[LandedFile(folder / name, stored.size, int(stored.mtime * 1e9))] = str(error)
            if copies != known:
                self._write(folder, copies)
            return unread

    def passed_over(self, table: Table) -> dict[str, str]:
        """Objects that are never copied, by name, with why. Hidden names and those of unfinished files are left out."""
        folder = folder_of(table, self.landing_root)
        known, found = self._known(folder), {}
        for name, stored in self._entries(table):
            if isinstance(stored, str):
                found[shown(Path(name))] = stored
            elif self._is_anothers(folder, name, stored, known):
                found[shown(Path(name))] = "a file of that name has landed here: give the object another"
        return found

    def _is_anothers(self, folder: Path, name: str, stored: StoredFile, known: Mapping[str, StoredFile]) -> bool:
        return name not in known and os.path.lexists(folder / name) and not stored.is_copied_as(folder / name)

    def _is_settled(self, folder: Path, there: Mapping[str, StoredFile]) -> bool:
        known = self._known(folder)
        wanted = {name: it for name, it in there.items() if not self._is_anothers(folder, name, it, known)}
        return known == wanted and all((folder / name).exists() for name in wanted)

    def _objects(self, table: Table, *, afresh: bool = False) -> dict[str, StoredFile]:
        return {name: stored for name, stored in self._entries(table, afresh=afresh) if isinstance(stored, StoredFile)}

    def _entries(self, table: Table, *, afresh: bool = False) -> list[tuple[str, StoredFile | str]]:
        """What lies in the store by name: files to copy, or why something else is none. As it was some seconds ago at most."""
        at, entries = self._listings.get(table.key, (0.0, []))
        if afresh or not 0 <= time.monotonic() - at < LISTED_FOR_S or table.key not in self._listings:
            entries = list(self._listed(table))
            self._listings[table.key] = time.monotonic(), entries
        return entries

    def _listed(self, table: Table) -> Iterator[tuple[str, StoredFile | str]]:
        try:
            files, folder = file_system(f"{self.address}/{table.name}")
            entries = files.ls(folder, detail=True)
        except StoreError:
            raise
        except Exception as error:  # whatever the clients of many stores raise: it can't be listed
            if isinstance(error, FileNotFoundError) and error.__cause__ is None:
                return  # a folder of a store is there with its first file; a bucket that is not is an error of the store's
            raise StoreError(f"PDM_LANDING: {self.address}/{table.name} can't be listed: {error}") from error
        for info in entries:
            name = info["name"].rstrip("/").rsplit("/", 1)[-1]
            if info["name"].rstrip("/") == folder or name.startswith((".", "_")) or name.lower().endswith(UNFINISHED):
                continue
            if info["type"] != "file":
                yield name, "a folder: put its files beside it"
            elif not format_of(name):
                yield name, f"none of {', '.join(FORMATS)}"
            elif len(os.fsencode(name)) > LONGEST_NAME:
                yield name, f"its name is longer than {LONGEST_NAME} bytes"
            else:
                yield name, StoredFile.of(info)

    def _copy(self, table: Table, folder: Path, name: str, stored: StoredFile) -> bool:
        """Bring one object; False if it went or changed meanwhile: the next look sees it as it is then."""
        partial = folder / f".{name}.copy"
        partial.unlink(missing_ok=True)
        try:
            files, there = file_system(f"{self.address}/{table.name}")
            try:
                files.get_file(f"{there}/{name}", str(partial))
                after = StoredFile.of(files.info(f"{there}/{name}"))
            except FileNotFoundError:
                return False
            except Exception as error:  # as above; what is wrong with the disk here names its file
                if isinstance(error, OSError) and error.filename is not None:
                    raise
                raise StoreError(f"can't be read in {self.address}/{table.name}: {error}") from error
            if after != stored or partial.stat().st_size != stored.size:
                return False
            os.utime(partial, (stored.mtime, stored.mtime))
            sync(partial)
            os.replace(partial, folder / name)
            return True
        finally:
            partial.unlink(missing_ok=True)

    def _known(self, folder: Path) -> dict[str, StoredFile]:
        try:
            return {name: StoredFile(**stored) for name, stored in json.loads((folder / OBJECTS).read_bytes()).items()}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, AttributeError) as error:  # a crash of the machine left it cut or empty
            raise StoreError(
                f"{folder / OBJECTS} can't be read: {error}. Delete it: a file that is as its object in {self.address}/"
                f"{folder.name} counts as its copy again. What was a copy of an object that changed or went since stays: "
                "delete such files beside it, too"
            ) from error

    def _write(self, folder: Path, copies: Mapping[str, StoredFile]) -> None:
        partial = folder / f"{OBJECTS}.part"
        partial.write_text(json.dumps({name: asdict(stored) for name, stored in sorted(copies.items())}, indent=1))
        sync(partial)
        os.replace(partial, folder / OBJECTS)
