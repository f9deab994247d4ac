"""What the peers do, whatever they do it with: the tables, their columns and rules."""

import datetime as dt
import os
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psutil

from pdm_assets.engine.java import ask, java_home
from pdm_assets.schemas.raw import CHANNELS, COMPONENTS, ERROR_CODES

HOURS = (12, 24, 36)
CHANNEL_NAMES = [channel.name for channel in CHANNELS]
EVENTS = {  # file -> (table, time, value column in the file, in the table, the values it may have)
    "errors.csv": ("raw/errors", "occurred_at", "errorID", "error_code", list(ERROR_CODES)),
    "maint.csv": ("raw/maintenance", "performed_at", "comp", "component", list(COMPONENTS)),
    "failures.csv": ("raw/failures", "failed_at", "failure", "component", list(COMPONENTS)),
}


@dataclass(frozen=True)
class Work:
    """Where the files are, where the Delta tables go, and which days [first, end) they are of."""

    files: Path
    lake: Path
    first: dt.date
    end: dt.date

    @property
    def days(self) -> list[dt.date]:
        """Each of the days."""
        return [self.first + dt.timedelta(days=n) for n in range((self.end - self.first).days)]


Stage = Callable[[Work], None]


def measured_on(*packages: str) -> str:
    """The machine, what ran on it, and the day."""
    processor = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    java = ask(java_home() / "bin" / "java")
    said = [
        f"{os.cpu_count()} cores",
        f"{psutil.virtual_memory().total // 2**30} GiB",
        *([processor[1]] if processor else []),
        f"Python {platform.python_version()}",
        f"Java {java}",
        *(f"{package} {version(package)}" for package in packages),
        f"{dt.datetime.now(dt.UTC):%Y-%m-%d}",
    ]
    return ", ".join(said)


def peak(pid: int) -> float:
    """The most memory that a process had resident so far, in bytes."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return float(line.split()[1]) * 1024
