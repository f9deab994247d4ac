"""Who writes a lake: the runs of one Dagster instance at a time.

Within an instance the pool `spark` keeps runs apart. Between two there is no pool: Delta would refuse one of two overlapping
writes, but not a day that one instance computed from what the other was about to replace.
"""

import fcntl
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

PATIENCE_S = 3.0  # several that come at once look at each other's locks for a moment
BACKUP = "pdm-assets backup"  # how the name of one begins: it ends by itself, so all others wait for it


class LakeHeld(RuntimeError):
    """Another Dagster instance, or a command, writes the lake; the text says which."""


@contextmanager
def held(path: Path, who: str, where: str = "") -> Iterator[None]:
    """Hold a lake together with all who go by the same name, until the context ends or the process dies.

    `path` is the lock file; it names the holder, and says where that is.

    Raises:
        LakeHeld: if one of another name holds it, but for a backup, whose end is waited for.
    """
    deadline = time.monotonic() + PATIENCE_S
    with path.open("a+") as lock:
        while not _take(lock, who, where):
            if time.monotonic() > deadline and not _read(lock)[0].startswith(BACKUP):
                them, us = " ".join(_read(lock)).strip(), f"{who} {where}".strip()
                raise LakeHeld(
                    f"the lake is being written by {them}, and not by {us}: one Dagster instance writes a lake. Wait "
                    "for its run to end, and stop one of the two (a sensor that is on asks again)"
                )
            time.sleep(random.uniform(0.02, 0.1))  # two that always looked at once would keep each other out
        yield


def _take(lock: IO[str], who: str, where: str) -> bool:
    """Share the lock if it has our name on it, else put our name there if nobody has the lock; false: look again."""
    with suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        if _read(lock)[0] == who:
            return True
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.truncate(0)
        lock.write(f"{who}\n{where}")
        lock.flush()
        # No lock turns from exclusive to shared in one step: another may come between, and write its own name.
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        if _read(lock)[0] == who:
            return True
    fcntl.flock(lock, fcntl.LOCK_UN)
    return False


def _read(lock: IO[str]) -> list[str]:
    lock.seek(0)
    return lock.read().split("\n", 1)
