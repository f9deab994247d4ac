"""Child processes and files that are their owner's alone."""

import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import IO

LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded here, for a forked process should load nothing


def end_with_parent(by: int = signal.SIGTERM) -> None:
    """Have this process, just forked, end when its parent does. Linux only."""
    if LIBC is not None:
        set_parent_death_signal = 1
        LIBC.prctl(set_parent_death_signal, int(by))


def private_folder(folder: Path) -> None:
    """Make a folder that is its owner's alone, also where it is there already."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)


def private_file(path: Path, mode: str = "wb") -> IO[bytes]:
    """Open a file for writing that only its owner can read, whatever the umask and whoever made it before."""
    out = open(path, mode, opener=lambda name, flags: os.open(name, flags, 0o600))  # noqa: SIM115 - the caller's
    os.fchmod(out.fileno(), 0o600)
    return out
