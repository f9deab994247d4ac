"""An object store that files land in: what lies there is copied to the landing zone as it comes, and goes when it goes.

The platform then treats a copy as any landed file: what it takes and refuses, counts, quarantines and releases is the same.
Nothing is ever written to the store.
"""

import datetime as dt
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pdm_assets.resources.landed_columns import FORMATS, UNFINISHED, format_of, shown
from pdm_assets.resources.object_store import StoreError, changed_at, file_system
from pdm_assets.resources.staging import folder_of, locked
from pdm_assets.schemas.table import Table

OBJECTS = ".objects.json"  # in the folder of a table: the copies that lie there
LONGEST_NAME = 200  # bytes; a file system takes 255, and a copy that is not whole yet has some more
TAGS = ("ETag", "etag", "md5Hash", "content_md5")


@dataclass(frozen=True)
class StoredFile:
    """An object that is a file to land, as the store lists it."""

    size: int
    changed_at: str
    tag: str

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> "StoredFile":
        """The object of a listing's entry."""
        tag = next((str(info[name]) for name in TAGS if info.get(name)), "")
        return cls(int(info["size"]), changed_at(info).astimezone(dt.UTC).isoformat(), tag)


class LandingMirror:
    """The copies of `address/<table name>/` in `landing_root/<table name>/`."""

    def __init__(self, address: str, landing_root: Path) -> None:
        self.address = address.rstrip("/")
        self.landing_root = landing_root

    def bring(self, table: Table) -> None:
        """Copy what is new or has changed, whole and with the object's time, and remove copies whose object is gone.

        Files that landed here otherwise, released rows among them, stay; of an object with such a file's name there is no copy
        (see `passed_over`).

        Raises:
            StoreError: if the store can't be asked, or has none of the objects that it had: then the address is wrong or what
                it held was lost, and the copies stay.
        """
        there = {name: stored for name, stored in self._entries(table) if isinstance(stored, StoredFile)}
        folder = folder_of(table, self.landing_root)
        if self._known(folder) == there and all((folder / name).exists() for name in there):
            return
        with locked(folder):
            known = self._known(folder)
            if known and there.keys().isdisjoint(known):
                raise StoreError(
                    f"{self.address}/{table.name} has none of the {len(known)} files that it had: see whether PDM_LANDING is "
                    f"right and they are still there. If they are to go, delete {folder / OBJECTS} and the copies beside it"
                )
            for name in known.keys() - there.keys():
                (folder / name).unlink(missing_ok=True)
            copies = {name: known[name] for name in known.keys() & there.keys()}
            self._write(folder, copies)
            for name, stored in sorted(there.items(), key=lambda entry: (entry[1].changed_at, entry[0])):
                is_copied = copies.get(name) == stored and (folder / name).exists()
                is_anothers = name not in copies and os.path.lexists(folder / name)
                if not is_copied and not is_anothers and self._copy(table, folder, name, stored):
                    copies[name] = stored
                    self._write(folder, copies)

    def passed_over(self, table: Table) -> dict[str, str]:
        """Objects that are never copied, by name, with why. Hidden names and those of unfinished files are left out."""
        folder = folder_of(table, self.landing_root)
        known, found = self._known(folder), {}
        for name, stored in self._entries(table):
            if isinstance(stored, str):
                found[shown(Path(name))] = stored
            elif name not in known and os.path.lexists(folder / name):
                found[shown(Path(name))] = "a file of that name has landed here: give the object another"
        return found

    def _entries(self, table: Table) -> Iterator[tuple[str, StoredFile | str]]:
        """What lies in the store by name: files to copy, or why something else is none."""
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
        files, there = file_system(f"{self.address}/{table.name}")
        partial = folder / f".{name}.copy"
        partial.unlink(missing_ok=True)
        try:
            files.get_file(f"{there}/{name}", str(partial))
            if StoredFile.of(files.info(f"{there}/{name}")) != stored or partial.stat().st_size != stored.size:
                return False
            at = dt.datetime.fromisoformat(stored.changed_at).timestamp()
            os.utime(partial, (at, at))
            os.replace(partial, folder / name)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno is not None:
                raise  # the disk's trouble
            raise StoreError(f"PDM_LANDING: {self.address}/{table.name}/{name} can't be read: {error}") from error
        finally:
            partial.unlink(missing_ok=True)
        return True

    def _known(self, folder: Path) -> dict[str, StoredFile]:
        try:
            return {name: StoredFile(**stored) for name, stored in json.loads((folder / OBJECTS).read_text()).items()}
        except FileNotFoundError:
            return {}

    def _write(self, folder: Path, copies: Mapping[str, StoredFile]) -> None:
        partial = folder / f"{OBJECTS}.part"
        partial.write_text(json.dumps({name: asdict(stored) for name, stored in sorted(copies.items())}, indent=1))
        os.replace(partial, folder / OBJECTS)
