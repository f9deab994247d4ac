"""`pdm-assets dev` as a supervisor runs it, started again when it ends, and the processes in it that may die."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from pdm_assets_tests.journeys.daemon import HERE, UNDER_WAY, Platform
from pdm_assets_tests.ports import free_ports

# What says which part a process of the platform is.
PARTS = {
    "daemon": "dagster._daemon",
    "web server": "dagster_webserver",
    "code server": " api grpc ",
    "code server's proxy": "code-server start",
    "run worker": "spawn_main",
}
VICTIMS = tuple(PARTS)


class Supervised(Platform):
    """A platform on a data root of its own, and the supervisor that starts it again."""

    def __init__(self, data: Path, **settings: str) -> None:
        (self.port,) = free_ports(1)
        super().__init__(data, self.port)
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PDM_", "DAGSTER_"))},
            "PDM_DATA": str(data),
            **settings,
        }
        self.starts = 0
        self._seen: dict[int, psutil.Process] = {}

    def __enter__(self) -> "Supervised":
        self._start()
        return self

    def _start(self) -> None:
        command = [str(Path(sys.executable).parent / "pdm-assets"), "dev", "--port", str(self.port)]
        with (self.data / "dev.log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.data,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.starts += 1

    def watch(self) -> None:
        """What a supervisor does: start again what it started and what has ended."""
        self.processes()
        if self.process.poll() is not None:
            self._start()

    def answers(self) -> bool:
        with suppress(OSError, AssertionError, ValueError):
            self.runs()
            return True
        return False

    def processes(self) -> list[psutil.Process]:
        """All that descends from what was started, those included whose parent has died."""
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self.process.pid)
            for process in [parent, *parent.children(recursive=True)]:
                self._seen.setdefault(process.pid, process)
        for process in list(self._seen.values()):
            with suppress(psutil.NoSuchProcess):
                for child in process.children(recursive=True):
                    self._seen.setdefault(child.pid, child)
        self._seen = {pid: p for pid, p in self._seen.items() if p.is_running() and p.status() != psutil.STATUS_ZOMBIE}
        return list(self._seen.values())

    def find(self, part: str) -> psutil.Process | None:
        """The process of a part, if there is one at present."""
        for process in self.processes():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if PARTS[part] in f" {' '.join(process.cmdline())} ":
                    return process
        return None

    def kill(self, part: str, patience: float = 1800) -> bool:
        """SIGKILL a part, waiting for it to be there; False if it did not come."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            self.watch()
            if (process := self.find(part)) is not None:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGKILL)
                    return True
            time.sleep(0.2)
        return False

    def last_tick(self) -> dict | None:
        """The landing sensor's last tick: status, skipReason, timestamp."""
        query = """query($s: SensorSelector!) { sensorOrError(sensorSelector: $s) { ... on Sensor { sensorState {
            ticks(limit: 1) { status skipReason timestamp } } } } }"""
        ticks = self.graphql(query, s={**HERE, "sensorName": "landing_sensor"})["sensorOrError"]["sensorState"]["ticks"]
        return ticks[0] if ticks else None

    def is_quiet(self, since: float) -> bool:
        """The sensor has found nothing new since a time, and nothing is under way or waiting."""
        with suppress(OSError, AssertionError, KeyError, TypeError, ValueError):
            tick, runs = self.last_tick(), self.runs()
            seen_all = tick and tick["skipReason"] == "nothing new has landed" and tick["timestamp"] > since + 2
            return bool(seen_all) and not any(run["status"] in UNDER_WAY for run in runs)
        return False

    def __exit__(self, *_: object) -> None:
        processes = self.processes()
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(60)
        for process in [*processes, *self.processes()]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()
