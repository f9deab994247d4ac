"""`make bench`: times of the platform's stages on one fleet, as a table in benchmarks/results.md.

Loads 400 simulated days (a first model, of the default windows, leaves sixty to score) through the real assets, with
Dagster's bookkeeping, in this process: raw, features, labels and models are each a range run of their own, as the time of a
stage is wanted. Scores are made twice: the second time the days are there and are replaced. Raw to labels is made once more by
Dagster's command line, as a user would. Then new days, each in a process of its own as Dagster runs them: their time has the
start of Python and the imports in it. Then days that land under a real Dagster, daemon and sensor included: from the file that
lands to the scores in the lake.
"""

import argparse
import datetime as dt
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import growth
import psutil
from peers.common import measured_on, peak

RESULTS = Path(__file__).parent / "results.md"
END = dt.date(2026, 1, 1)
SCORED_DAYS = 60
NEW_DAYS = 5
LANDED_DAYS = 5  # that the sensor finds
LEAST_SHOWN = 0.1  # seconds of a step
PORT = 3799
PATIENCE_S = 1200
UP_TO_LABELS = ("raw", "quarantine", "features", "labels")
EVERYTHING = ("raw", "quarantine", "features", "labels", "models", "scores", "worklist", "monitoring")


def main() -> None:
    """Run it and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machines", type=int, default=100)
    parser.add_argument("--days", type=int, default=400)
    parser.add_argument("--day", type=dt.date.fromisoformat, help="only materialize this day of the fleet of the environment")
    options = parser.parse_args()
    if options.day:
        steps = materialize(EVERYTHING, options.day, options.day)
        print(f"{steps}; memory {peak(os.getpid()) / 2**20:,.0f} MiB")
        return
    root = Path(tempfile.mkdtemp(prefix="pdm-bench-"))
    try:
        rows = _measure(root, options.machines, options.days)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    head = f"## {options.machines} machines x {options.days} days\n\n"
    head += f"{measured_on('pyspark', 'duckdb', 'deltalake', 'dagster')}: `make bench MACHINES={options.machines}`\n\n"
    head += "| work | time | of which, in seconds | written |\n| --- | --- | --- | --- |\n"
    table = head + "".join(f"| {' | '.join(row)} |\n" for row in rows)
    print(table)
    before = RESULTS.read_text() if RESULTS.exists() else "# Measured\n"
    kept = [part for part in before.split("\n## ") if not part.startswith(f"{options.machines} machines x ")]
    RESULTS.write_text("\n## ".join(kept).rstrip() + "\n\n" + table)
    growth.write(RESULTS)


def materialize(prefixes: tuple[str, ...], start: dt.date, last: dt.date) -> str:
    """Make the assets of some groups for a range of days, as one run; the seconds of each step."""
    import dagster as dg

    from pdm_assets.definitions import defs

    job = defs.resolve_job_def("process_days")
    keys = [key for key in job.asset_layer.executable_asset_keys if key.path[0] in prefixes]
    tags = {"dagster/asset_partition_range_start": start.isoformat(), "dagster/asset_partition_range_end": last.isoformat()}
    quiet = {"loggers": {"console": {"config": {"log_level": "WARNING"}}}}
    result = job.execute_in_process(run_config=quiet, instance=dg.DagsterInstance.get(), asset_selection=keys, tags=tags)
    assert result.success
    done = [event for event in result.all_events if event.is_step_success]
    steps = [(event.step_success_data.duration_ms / 1000, str(event.step_key)) for event in done]
    shown = [(seconds, step.split("__")[-1]) for seconds, step in sorted(steps, reverse=True) if seconds > LEAST_SHOWN]
    return ", ".join(f"{step} {seconds:.1f}" for seconds, step in shown)


def train(start: dt.date, last: dt.date) -> str:
    """Make the models of a range; beside the steps, the memory of the processes that fit: Python and the JVM."""
    most, done = 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.1):
            with suppress(psutil.NoSuchProcess):
                most = max(most, sum(child.memory_info().rss for child in psutil.Process().children(recursive=True)))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        steps = materialize(("models",), start, last)
    finally:
        done.set()
        watching.join()
    return f"{steps}; memory of the processes that fit {most / 2**20:,.0f} MiB"


def by_command(groups: tuple[str, ...], start: dt.date, last: dt.date) -> str:
    """Materialize a range of days as a user does, with `dagster asset materialize`; the memory that its process took."""
    selection = " or ".join(f'key:"{group}/*"' for group in groups)
    command = [str(Path(sys.executable).parent / "dagster"), "asset", "materialize", "-m", "pdm_assets.definitions"]
    command += ["--select", selection, "--partition-range", f"{start}...{last}"]
    process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    most = 0
    while process.poll() is None:
        with suppress(psutil.NoSuchProcess, OSError, ValueError):  # of a process that has just ended there is no figure
            most = max(most, peak(process.pid))
        time.sleep(0.1)
    assert process.returncode == 0
    return f"memory {most / 2**20:,.0f} MiB"


def in_a_process(day: dt.date) -> str:
    """The same of all groups for a day, as Dagster starts a run."""
    command = [sys.executable, __file__, "--day", day.isoformat()]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip().splitlines()[-1]


def stored(lake: Path) -> tuple[int, int]:
    """Parquet files of the lake, and their bytes."""
    sizes = [path.stat().st_size for path in lake.rglob("*.parquet")]
    return len(sizes), sum(sizes)


def _measure(root: Path, machines: int, days: int) -> list[tuple[str, str, str, str]]:
    first = END - dt.timedelta(days=days)
    later = NEW_DAYS + LANDED_DAYS + 1
    os.environ.update(
        PDM_DATA=str(root / "data"),
        PDM_FIRST_DAY=first.isoformat(),
        PDM_LAST_DAY=(END + dt.timedelta(days=later - 1)).isoformat(),
        PDM_RETRAIN_EVERY_DAYS="90",  # so that no training falls due on one of the new days
    )
    rows: list[tuple[str, str, str, str]] = []
    folder = root / "data" / "lake"

    def timed(what: str, work: Callable[[], object]) -> None:
        files, size = stored(folder)
        began = time.monotonic()
        steps = work()
        took = time.monotonic() - began
        files, size = (now - before for now, before in zip(stored(folder), (files, size), strict=True))
        wrote = f"{files:,} files, {size / 2**20:,.1f} MiB" if files else ""
        rows.append((what, f"{took:.1f} s", steps if isinstance(steps, str) else "", wrote))
        print(*rows[-1], flush=True)

    probe = [sys.executable, "-c", "import pdm_assets.definitions"]
    timed("import of pdm_assets.definitions", lambda: subprocess.run(probe, check=True))

    from pdm_assets.demo import make_home
    from pdm_assets.resources.landing import land
    from pdm_assets.simulator.replay import Replayer
    from pdm_assets.simulator.writer import simulate

    os.environ["DAGSTER_HOME"] = str(make_home(root / "data"))
    end_at = dt.datetime.combine(END, dt.time(), dt.UTC)
    timed("simulate", lambda: simulate(root / "fleet", machines=machines, days=days, end=end_at, seed=1))
    simulate(root / "later", machines=machines, days=days + later, end=end_at + dt.timedelta(days=later), seed=1)
    timed("land", lambda: land(root / "fleet", root / "data" / "landing"))
    time.sleep(1.5)  # a file is taken once it has been still for a second
    last = END - dt.timedelta(days=1)
    timed("landing to raw, the range", lambda: materialize(("raw", "quarantine"), first, last))
    timed("raw to features, the range", lambda: materialize(("features",), first, last))
    timed("labels, the range", lambda: materialize(("labels",), first, last))
    timed("models, the range (training included)", lambda: train(first, last))
    for group in ("scores", "worklist", "monitoring"):
        some = last - dt.timedelta(days=SCORED_DAYS - 1)
        timed(f"{group}, the last {SCORED_DAYS} days", lambda group=group, some=some: materialize((group,), some, last))
    timed(f"once more: scores, the last {SCORED_DAYS} days", lambda: materialize(("scores",), some, last))
    timed("all of it once more, as one range run (nothing to train)", lambda: materialize(EVERYTHING, first, last))
    rows.append(("memory of that process (resident, at most)", f"{peak(os.getpid()) / 2**30:.1f} GiB", "", ""))
    timed("raw to labels, the range, by `dagster asset materialize`", lambda: by_command(UP_TO_LABELS, first, last))
    replayer = Replayer(root / "later", root / "data" / "landing", END)
    for n in range(NEW_DAYS):
        day = END + dt.timedelta(days=n)
        replayer.land_day(day)
        time.sleep(1.5)
        timed(f"new day {n + 1} from file to worklist", lambda day=day: in_a_process(day))
    files, size = stored(folder)
    rows.append(("files in the lake", f"{files:,}, {size / 2**20:,.0f} MiB", "", ""))
    with _dagster(root / "data"):
        for n in range(LANDED_DAYS):
            day = END + dt.timedelta(days=NEW_DAYS + n)
            _wait_for_no_run()
            timed(f"landed to scored {n + 1}, by sensor and daemon", lambda day=day: _land_and_wait(replayer, day))
        _wait_for_no_run()
        assert not [p for p in psutil.Process().children(recursive=True) if p.name() == "java"], "a JVM stands by"
    return rows


@contextmanager
def _dagster(data: Path) -> Iterator[None]:
    """A real Dagster, whose sensor takes what has landed so far for done."""
    import dagster as dg

    from pdm_assets.definitions import defs, resources
    from pdm_assets.demo import CHECKOUT, end_dagster, start_dagster

    home = data / "dagster"
    sensor, cursor, said = defs.resolve_sensor_def("landing_sensor"), "", ""
    context_of = {
        "resources": {name: resources[name] for name in sensor.required_resource_keys},
        "sensor_name": sensor.name,
        "repository_def": defs.get_repository_def(),
    }
    with dg.DagsterInstance.get() as instance:
        while not said.startswith("nothing new"):
            with dg.build_sensor_context(instance=instance, cursor=cursor, **context_of) as context:
                tick = sensor.evaluate_tick(context)
            cursor, said = tick.cursor or cursor, tick.skip_message or ""
            time.sleep(0.5)
    # Then started: setting the cursor of a sensor that has no state yet leaves it stopped.
    for asked in (("cursor", "landing_sensor", "--set", cursor), ("start", "landing_sensor")):
        command = [str(Path(sys.executable).parent / "dagster"), "sensor", *asked, "-w", str(CHECKOUT / "workspace.yaml")]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with (home / "dagster.log").open("wb") as log:
        process = start_dagster(home, PORT, log.fileno())
        try:
            deadline = time.monotonic() + PATIENCE_S
            while not _has_ticked():
                assert time.monotonic() < deadline, "the sensor does not tick"
                time.sleep(1)
            yield
        finally:
            end_dagster(process)


def _has_ticked() -> bool:
    import dagster as dg

    with dg.DagsterInstance.get() as instance:
        states = [state for state in instance.all_instigator_state() if state.instigator_name == "landing_sensor"]
        return any(instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1) for state in states)


def _wait_for_no_run() -> None:
    """The day before may have its scores while the rest of its run goes on: the sensor waits for that."""
    import dagster as dg

    from pdm_assets.automation.landing_sensor import UNDER_WAY

    with dg.DagsterInstance.get() as instance:
        while instance.get_runs(dg.RunsFilter(statuses=UNDER_WAY), limit=1):
            time.sleep(1)


def _land_and_wait(replayer: Any, day: dt.date) -> None:
    """Until the scores of the day are in the lake."""
    from pdm_assets.definitions import lake
    from pdm_assets.schemas.features import COMPONENT_RISK

    replayer.land_day(day)
    began = time.monotonic()
    while not lake.rows_by_day(COMPONENT_RISK, day, day + dt.timedelta(days=1))[day]:
        assert time.monotonic() - began < PATIENCE_S, f"no scores of {day}"
        time.sleep(0.2)


if __name__ == "__main__":
    main()
