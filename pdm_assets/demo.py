"""`make demo`: a simulated fleet, a year of history, Dagster, and the days of the last week landing one by one."""

import datetime as dt
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.progress import Progress

from pdm_assets.engine.processes import end_with_parent, private_file, private_folder
from pdm_assets.resources.landing import land
from pdm_assets.settings import Settings
from pdm_assets.simulator.replay import Replayer
from pdm_assets.simulator.writer import simulate

HISTORY_DAYS = 365
REPLAYED_DAYS = 7  # the history ends so long before today
SIMULATED_AHEAD_DAYS = 30  # so that a demo that is left running has days to land
SECONDS_A_LANDING = 20.0
WEB_SERVER_STARTS_S = 360  # as long as dagster.yaml gives the code server, without which it does not answer
SEED = 7
# Of Dagster's processes, and in deploy/ too: how events are stored, and that a backfill waits for a code server that is away.
DAGSTER_ENVIRON = {"DAGSTER_EVENT_BATCH_SIZE": "500", "DAGSTER_BACKFILL_RETRY_DEFINITION_CHANGED_ERROR": "1"}
CHECKOUT = Path(__file__).resolve().parents[1]

console = Console()


def _is_of_this_folder(settings: Settings) -> None:
    """See to it that the simulated rows go nowhere but into the data root."""
    if elsewhere := [f"PDM_{name.upper()}" for name in ("landing", "lake", "catalog") if getattr(settings, name)]:
        sys.exit(f"{', '.join(elsewhere)}: a demo's simulated fleet stays in its data root. Unset it for this command")


def run(machines: int, port: int, settings: Settings) -> None:
    """Set up or resume the demo of a data root and stay until Ctrl-C, which ends everything it started."""
    _is_of_this_folder(settings)
    signal.signal(signal.SIGTERM, _interrupt)
    data = settings.data.absolute()
    began = time.monotonic()
    with ExitStack() as running:
        try:
            fleet = _Fleet.of(data, machines)
            _port_is_free(port)
            settings = replace(settings, data=data, first_day=fleet.first_day)
            os.environ.update(settings.to_environ())
            dagster = running.enter_context(_dagster(settings, port))
            fleet.write(until=_today() + dt.timedelta(days=1))
            for path in land(fleet.history, settings.landing_root):
                console.print(f"  landed {path.relative_to(data)} ({path.stat().st_size / 1e6:.0f} MB)")
            _wait_for_dagster(port, dagster)
            console.print(f"Dagster is up: [bold]http://127.0.0.1:{port}[/] (the landing sensor is on)")
            watcher = _Watcher(data)
            watcher.wait_until_scored(fleet.history_end - dt.timedelta(days=1))
            console.print(
                f"[bold green]first scores after {time.monotonic() - began:.0f} s[/]; now the days since land one by one"
            )
            _replay(fleet, settings, watcher)
        except KeyboardInterrupt:
            console.print("\nstopping Dagster and the replayer ...")
    console.print("stopped. `make demo` goes on from here.")


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _today() -> dt.date:
    return dt.datetime.now(dt.UTC).date()


class _Fleet:
    """The simulated fleet of a data root: the same each time the demo is resumed."""

    def __init__(self, folder: Path, machines: int, first_day: dt.date) -> None:
        self.folder, self.machines, self.first_day = folder, machines, first_day
        self.history, self.whole = folder / "history", folder / "whole"
        self.history_end = first_day + dt.timedelta(days=HISTORY_DAYS)

    @classmethod
    def of(cls, data: Path, machines: int) -> "_Fleet":
        folder = data / "demo"
        note = folder / "fleet.json"
        if note.exists():
            known = json.loads(note.read_text())
            if known["machines"] != machines:
                sys.exit(
                    f"{data} holds a demo of {known['machines']} machines: run `make demo MACHINES={known['machines']}`, "
                    "or give another PDM_DATA, or delete the folder to begin anew"
                )
            return cls(folder, machines, dt.date.fromisoformat(known["first_day"]))
        if any((data / "landing").glob("*/*")):
            sys.exit(
                f"{data} holds files that are not of a demo: give another PDM_DATA, for the simulated fleet would mix with them"
            )
        first_day = _today() - dt.timedelta(days=HISTORY_DAYS + REPLAYED_DAYS)
        folder.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps({"machines": machines, "first_day": first_day.isoformat()}))
        return cls(folder, machines, first_day)

    def write(self, until: dt.date) -> None:
        """Simulate what is not there yet: the history, and the whole life up to some days after `until`."""
        if not (self.history / "machines.csv").exists():
            self._simulate(self.history, self.history_end)
        ends = self.folder / "simulated_until"
        if not ends.exists() or dt.date.fromisoformat(ends.read_text()) <= until:
            end = until + dt.timedelta(days=SIMULATED_AHEAD_DAYS)
            self._simulate(self.whole, end)
            ends.write_text(end.isoformat())

    def _simulate(self, out: Path, end: dt.date) -> None:
        days = (end - self.first_day).days
        with Progress(console=console) as progress:
            bar = progress.add_task(f"simulating {self.machines} machines x {days} days", total=self.machines)
            simulate(
                out,
                machines=self.machines,
                days=days,
                end=dt.datetime.combine(end, dt.time(), dt.UTC),
                seed=SEED,
                progress=lambda done: progress.advance(bar, done),
            )


def make_home(data: Path, *, in_postgres: bool = False) -> Path:
    """The DAGSTER_HOME of a data root: the checkout's dagster.yaml, and where runs and events are kept.

    In PostgreSQL those of PDM_DAGSTER_DB, which is not written down; else in files, a year's events in batches.
    """
    home = data / "dagster"
    private_folder(home)  # logs and run config are in it
    storage: dict[str, Any]
    if in_postgres:
        storage = {"storage": {"postgres": {"postgres_url": {"env": "PDM_DAGSTER_DB"}}}}
    else:
        event_log = {"module": "pdm_assets.resources.event_log", "class": "BatchedSqliteEventLog"}
        storage = {"event_log_storage": {**event_log, "config": {"base_dir": str(home / "history")}}}
    partial = home / "dagster.yaml.part"  # another process may be reading it
    partial.write_text(f"{(CHECKOUT / 'dagster.yaml').read_text()}\n{json.dumps(storage)[1:-1]}\n")
    partial.replace(home / "dagster.yaml")
    return home


def start_dagster(home: Path, port: int, log: int | None = None, **settings: str) -> "subprocess.Popen[bytes]":
    """Web server, daemon and code server of a DAGSTER_HOME, on this machine only, in a process group of their own."""
    dagster = str(Path(sys.executable).parent / "dagster")
    return subprocess.Popen(
        [dagster, "dev", "-w", str(CHECKOUT / "workspace.yaml"), "--host", "127.0.0.1", "--port", str(port)],
        cwd=home,
        env={**DAGSTER_ENVIRON, **os.environ, "DAGSTER_HOME": str(home), **settings},
        stdout=log,
        stderr=log,
        start_new_session=True,
        preexec_fn=lambda: end_with_parent(signal.SIGINT),  # noqa: PLW1509 - it takes no lock
    )


def keep_serving(dagster: "subprocess.Popen[bytes]") -> int:
    """Stay until Dagster ends; what it ends with.

    `dagster dev` starts its code server again when that ends, but the server is two processes: a proxy, whose end it sees, and
    behind it the one that has the code. A proxy left without the other answers nothing for ever: it is made to end too.
    """
    served: set[int] = set()
    lonely: set[int] = set()
    while dagster.poll() is None:
        with suppress(psutil.NoSuchProcess):
            proxies = {p.pid: p for p in psutil.Process(dagster.pid).children() if "code-server" in p.cmdline()}
            without = {pid for pid, proxy in proxies.items() if not _has_code(proxy)}
            served |= proxies.keys() - without
            for pid in without & lonely & served:  # twice in a row, and not one that has yet to start the other
                proxies[pid].kill()
            lonely = without
        time.sleep(2)
    return dagster.returncode


def _has_code(proxy: psutil.Process) -> bool:
    return any(child.status() != psutil.STATUS_ZOMBIE and "grpc" in child.cmdline() for child in proxy.children())


def end_dagster(dagster: "subprocess.Popen[bytes]") -> None:
    """Stop it with all that it started."""
    with suppress(ProcessLookupError):
        dagster.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        dagster.wait(20)
    with suppress(ProcessLookupError):
        os.killpg(dagster.pid, signal.SIGKILL)  # what outlives it: a run that was under way
    dagster.wait()


@contextmanager
def _dagster(settings: Settings, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    """Dagster in a process group of its own; its log is data/dagster/dagster.log."""
    home = make_home(settings.data, in_postgres=settings.dagster_db is not None)
    os.environ["DAGSTER_HOME"] = str(home)
    claim(home)
    with private_file(home / "dagster.log", "ab") as log:
        process = start_dagster(home, port, log.fileno())
    threading.Thread(target=keep_serving, args=(process,), daemon=True).start()
    try:
        yield process
    finally:
        end_dagster(process)


def serve(home: Path, port: int) -> int:
    """`make dev`: Dagster on a DAGSTER_HOME until it ends or is told to; what it ended with."""
    signal.signal(signal.SIGTERM, _interrupt)
    claim(home)
    dagster = start_dagster(home, port)
    try:
        return keep_serving(dagster)
    except KeyboardInterrupt:
        return 0
    finally:
        end_dagster(dagster)


def claim(home: Path) -> None:
    """Hold a DAGSTER_HOME while this process lives, and end the runs whose process died with the Dagster before.

    Run monitoring would notice those that had begun, later; one that was about to begin would keep the sensor and the pool
    `spark` waiting for three minutes. Those that are ended are tried again (run_retries in dagster.yaml). A run whose process
    outlived its Dagster goes on.
    """
    from dagster import DagsterInstance, DagsterRunStatus, RunsFilter
    from dagster._core.launcher import WorkerStatus

    from pdm_assets.resources.run_launcher import worker_health

    descriptor = os.open(home / "in_use.lock", os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"Dagster is running on {home} already: stop it first, or give another PDM_DATA")
    with DagsterInstance.from_config(str(home)) as instance:
        under_way = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]
        for run in instance.get_runs(RunsFilter(statuses=under_way)):
            if worker_health(instance, run).status == WorkerStatus.RUNNING:
                continue
            if run.status == DagsterRunStatus.CANCELING:
                instance.report_run_canceled(run, "its process ended with the Dagster that launched it")
            else:
                instance.report_run_failed(run, "its process ended with the Dagster that launched it")


def _port_is_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            sys.exit(f"port {port} is taken: stop what listens there, or run `make demo PORT=3001`")


def _wait_for_dagster(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + WEB_SERVER_STARTS_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=2):
                return
        except OSError:
            time.sleep(0.5)
    sys.exit(
        f"Dagster's web server does not answer on port {port}: is the port taken? See {os.environ['DAGSTER_HOME']}/dagster.log"
    )


class _Watcher:
    """Says what the runs do, from Dagster's event log."""

    def __init__(self, data: Path) -> None:
        from dagster import DagsterInstance

        self.instance = DagsterInstance.from_config(str(data / "dagster"))
        self.cursors: dict[str, str | None] = {}
        self.began = time.time()  # a demo that is resumed does not tell of the runs before

    def wait_until_scored(self, day: dt.date) -> None:
        """Wait for the first run that scores; a failed run ends the demo with its error."""
        from dagster import AssetKey, DagsterRunStatus

        scores = AssetKey(["scores", "component_risk"])
        while day.isoformat() not in self.instance.get_materialized_partitions(scores):
            self.report()
            failed = [
                record.dagster_run
                for record in self.instance.get_run_records(limit=5)
                if record.dagster_run.status == DagsterRunStatus.FAILURE and (record.end_time or 0) >= self.began
            ]
            if failed:
                sys.exit(f"run {failed[0].run_id[:8]} failed: look at it in the UI, or see the data root's dagster/dagster.log")
            time.sleep(1)
        self.report()

    def report(self) -> None:
        """Print what happened since the last call."""
        from dagster import DagsterEventType

        kinds = {
            DagsterEventType.STEP_START,
            DagsterEventType.RUN_SUCCESS,
            DagsterEventType.RUN_FAILURE,
            DagsterEventType.STEP_FAILURE,
        }
        for run in reversed(self.instance.get_runs(limit=5)):
            connection = self.instance.get_records_for_run(run.run_id, self.cursors.get(run.run_id), kinds, limit=200)
            self.cursors[run.run_id] = connection.cursor
            for record in connection.records:
                event = record.event_log_entry.dagster_event
                at = record.event_log_entry.timestamp
                if event is None or at < self.began:
                    continue
                when = dt.datetime.fromtimestamp(at).strftime("%H:%M:%S")  # noqa: DTZ006 - for a person
                ended = {"PIPELINE_SUCCESS": "done"}.get(event.event_type_value, event.event_type_value.lower())
                what = event.step_key.replace("__", "/") if event.step_key else ended
                console.print(f"  {when} {run.tags.get('landing/days', run.job_name)}: {what}", highlight=False, soft_wrap=True)


def _replay(fleet: _Fleet, settings: Settings, watcher: _Watcher) -> None:
    """Land the days up to yesterday, then the running day hour by hour: first those that have passed, then as they pass."""
    replayer = Replayer(fleet.whole, settings.landing_root, fleet.history_end)
    progress = fleet.folder / "landed_until"
    next_hour = (
        dt.datetime.fromisoformat(progress.read_text())
        if progress.exists()
        else dt.datetime.combine(fleet.history_end, dt.time(), dt.UTC)
    )
    while True:
        now = dt.datetime.now(dt.UTC)
        whole_day = next_hour.hour == 0 and next_hour.date() < now.date()
        step = dt.timedelta(days=1) if whole_day else dt.timedelta(hours=1)
        if next_hour + step <= now:
            if whole_day:
                replayer.land_day(next_hour.date())
            else:
                replayer.land_hours(next_hour.date(), next_hour.hour, next_hour.hour)
            console.print(f"landed {next_hour:%Y-%m-%d}{'' if whole_day else f' {next_hour:%H}:00'}", highlight=False)
            next_hour += step
            progress.write_text(next_hour.isoformat())
        for _ in range(int(SECONDS_A_LANDING)):
            watcher.report()
            time.sleep(1)
