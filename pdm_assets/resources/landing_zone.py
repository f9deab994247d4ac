"""The landing zone as a Dagster resource, with what the sensor needs: a look that never takes long."""

import contextlib
import datetime as dt
import functools
import math
import os
import threading
import time
from pathlib import Path

import dagster as dg

from pdm_assets.resources.landing import LandingError, LandingZone
from pdm_assets.resources.landing_mirror import LandingMirror
from pdm_assets.resources.object_store import StoreError
from pdm_assets.schemas.raw import RAW_TABLES
from pdm_assets.settings import Settings

PATIENCE_S = 20.0  # of a sensor's tick, which is ended after 60 s
WATCHED_EVERY_S = 0.25


class Landing(dg.ConfigurableResource):
    """The files below landing/ and their rows by day."""

    root: str
    staging: str
    first_day: str
    address: str | None = None

    @classmethod
    def of(cls, settings: Settings) -> "Landing":
        """The landing zone that the settings describe."""
        return cls(
            root=str(settings.landing_root.absolute()),
            staging=str((settings.data / "staging").absolute()),
            first_day=settings.first_day.isoformat(),
            address=settings.landing,
        )

    @property
    def zone(self) -> LandingZone:
        """The zone; one a process, for it remembers what it has read."""
        return _zone(self.root, self.staging, self.first_day, self.address)

    def stage_in_background(self) -> str | None:
        """Stage what is new, for at most 20 s; what it is busy with if that takes longer, to be asked again.

        Raises:
            StoreError: if files land in an object store that could not be asked when it last was.
        """
        worker = _stager(self.zone)
        worker.join(PATIENCE_S)
        if (trouble := _troubles.get(self.zone)) is not None:
            raise StoreError(trouble)
        if worker.is_alive():
            return "large files that have landed (once; their rows are then known by day)"
        return None

    def folders(self) -> tuple[int, ...]:
        """When a file last came to each folder below landing/, or went: another answer after that."""
        found = []
        for folder in (Path(self.root), *(Path(self.root) / table.name for table in RAW_TABLES)):
            with contextlib.suppress(OSError):  # a look says what is wrong
                found.append(folder.stat().st_mtime_ns)
        return tuple(found)

    def differs_from(self, folders: tuple[int, ...], seconds: float) -> bool:
        """Whether `folders` gives another answer within so many seconds. An object store is not asked: answers have a price."""
        if self.address is not None:
            return False
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.folders() != folders:
                return True
            time.sleep(WATCHED_EVERY_S)
        return False

    def seconds_since_last_change(self) -> float:
        """Age of the newest file or folder change below landing/, unfinished files included."""
        now, youngest = time.time(), math.inf
        for table in RAW_TABLES:
            folder = Path(self.root) / table.name
            if folder.is_dir():
                youngest = min(youngest, abs(now - folder.stat().st_mtime))
                with os.scandir(folder) as entries:
                    for entry in entries:
                        with contextlib.suppress(FileNotFoundError):  # renamed meanwhile
                            youngest = min(youngest, abs(now - entry.stat(follow_symlinks=False).st_mtime))
        return youngest


@functools.lru_cache(maxsize=4)
def _zone(root: str, staging: str, first_day: str, address: str | None) -> LandingZone:
    mirror = None if address is None else LandingMirror(address, Path(root))
    return LandingZone(Path(root), Path(staging), dt.date.fromisoformat(first_day), mirror)


def _stage_all(zone: LandingZone) -> None:
    try:
        for table in RAW_TABLES:
            with contextlib.suppress(LandingError):  # the tick that waits for this one asks too, and says it
                zone.staged(table.key)
        _troubles.pop(zone, None)
    except StoreError as error:  # said by this tick and the next, which may not wait long enough to hear it again
        _troubles[zone] = str(error)


_troubles: dict[LandingZone, str] = {}
_workers: dict[LandingZone, threading.Thread] = {}
_workers_lock = threading.Lock()


def _stager(zone: LandingZone) -> threading.Thread:
    """The thread that stages, one at a time: a tick that comes while it runs waits for the same one."""
    with _workers_lock:
        worker = _workers.get(zone)
        if worker is None or not worker.is_alive():
            worker = threading.Thread(target=_stage_all, args=(zone,), daemon=True)
            _workers[zone] = worker
            worker.start()
        return worker
