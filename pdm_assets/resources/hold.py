"""Who writes a lake: the runs of one Dagster instance at a time.

Within an instance the pool `spark` keeps runs apart. Between two there is no pool: Delta would refuse one of two overlapping
writes, but not a day that one instance computed from what the other was about to replace.
"""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

PATIENCE_S = 3.0  # several that come at once look at each other's locks for a moment


class LakeHeld(RuntimeError):
    """Another Dagster instance, or a command, writes the lake; the text says which."""


@contextmanager
def held(path: Path, who: str) -> Iterator[None]:
    """Hold a lake together with all who go by the same name, until the context ends or the process dies.

    `path` is the lock file; it names the holder.

    Raises:
        LakeHeld: if one of another name holds it.
    """
    deadline = time.monotonic() + PATIENCE_S
    with path.open("a+") as lock:
        while not _take(lock, who):
            if time.monotonic() > deadline:
                lock.seek(0)
                raise LakeHeld(
                    f"the lake is being written by {lock.read()}, and not by {who}: one Dagster instance writes a lake. Wait "
                    "for its run to end, and stop one of the two (a sensor that is on asks again)"
                )
            time.sleep(0.05)
        yield


def _take(lock: IO[str], who: str) -> bool:
    """Share the lock if it has our name on it, else put our name there if nobody has the lock; false: look again."""
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    lock.seek(0)
    if lock.read() == who:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.truncate(0)
        lock.write(who)
        lock.flush()
    except BlockingIOError:
        pass
    fcntl.flock(lock, fcntl.LOCK_UN)  # no lock turns from exclusive to shared in one step: others may have come between
    return False
