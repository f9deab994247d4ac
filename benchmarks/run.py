"""`make bench`: times of the platform's stages on one fleet, as a table in benchmarks/results.md.

Loads a simulated year through the real assets, with Dagster's bookkeeping, in this process: raw, features, labels and
models are each a range run of their own, as the time of a stage is wanted. Then new days, each in a process of its own as
Dagster runs them, engine warm and cold: their time has the start of Python and the imports in it.
"""

import argparse
import datetime as dt
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

RESULTS = Path(__file__).parent / "results.md"
END = dt.date(2026, 1, 1)
NEW_DAYS = 4  # the engine gets warmer with each
EVERYTHING = ("raw", "quarantine", "features", "labels", "models", "scores", "worklist", "monitoring")


def main() -> None:
    """Run it and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machines", type=int, default=100)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--day", type=dt.date.fromisoformat, help="only materialize this day of the fleet of the environment")
    options = parser.parse_args()
    if options.day:
        print(materialize(EVERYTHING, options.day, options.day))
        return
    root = Path(tempfile.mkdtemp(prefix="pdm-bench-"))
    try:
        rows = _measure(root, options.machines, options.days)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    head = f"## {options.machines} machines x {options.days} days\n\n"
    head += f"{os.cpu_count()} cores, {psutil.virtual_memory().total // 2**30} GiB, Python {platform.python_version()}, "
    head += f"{dt.datetime.now(dt.UTC):%Y-%m-%d}: `make bench MACHINES={options.machines}`\n\n"
    head += "| work | time | of which, in seconds |\n| --- | --- | --- |\n"
    table = head + "".join(f"| {what} | {value} | {steps} |\n" for what, value, steps in rows)
    print(table)
    before = RESULTS.read_text() if RESULTS.exists() else "# Measured\n"
    kept = [part for part in before.split("\n## ") if not part.startswith(f"{options.machines} machines x {options.days} days")]
    RESULTS.write_text("\n## ".join([*kept[:1], *kept[1:]]).rstrip() + "\n\n" + table)


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
    return ", ".join(f"{step.split('__')[-1]} {seconds:.1f}" for seconds, step in sorted(steps, reverse=True))


def in_a_process(day: dt.date) -> str:
    """The same of all groups for a day, as Dagster starts a run."""
    command = [sys.executable, __file__, "--day", day.isoformat()]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip().splitlines()[-1]


def _measure(root: Path, machines: int, days: int) -> list[tuple[str, str, str]]:
    first = END - dt.timedelta(days=days)
    os.environ.update(
        PDM_DATA=str(root / "data"),
        PDM_FIRST_DAY=first.isoformat(),
        PDM_LAST_DAY=(END + dt.timedelta(days=NEW_DAYS)).isoformat(),
        PDM_RETRAIN_EVERY_DAYS="90",  # so that no training falls due on one of the new days
    )
    rows: list[tuple[str, str, str]] = []

    def timed(what: str, work: Callable[[], object]) -> None:
        began = time.monotonic()
        steps = work()
        rows.append((what, f"{time.monotonic() - began:.1f} s", steps if isinstance(steps, str) else ""))
        print(*rows[-1], flush=True)

    probe = [sys.executable, "-c", "import pdm_assets.definitions"]
    timed("import of pdm_assets.definitions", lambda: subprocess.run(probe, check=True))

    from pdm_assets.definitions import lake, spark
    from pdm_assets.demo import make_home
    from pdm_assets.resources.landing import land
    from pdm_assets.simulator.replay import Replayer
    from pdm_assets.simulator.writer import simulate

    os.environ["DAGSTER_HOME"] = str(make_home(root / "data"))
    end_at = dt.datetime.combine(END, dt.time(), dt.UTC)
    timed("simulate", lambda: simulate(root / "fleet", machines=machines, days=days, end=end_at, seed=1))
    simulate(root / "later", machines=machines, days=days + NEW_DAYS + 1, end=end_at + dt.timedelta(days=NEW_DAYS + 1), seed=1)
    timed("land", lambda: land(root / "fleet", root / "data" / "landing"))
    time.sleep(1.5)  # a file is taken once it has been still for a second
    timed("engine start", lambda: spark.spark_session.range(1).count())
    last = END - dt.timedelta(days=1)
    timed("landing to raw, the range", lambda: materialize(("raw", "quarantine"), first, last))
    timed("raw to features, the range", lambda: materialize(("features",), first, last))
    timed("labels, the range", lambda: materialize(("labels",), first, last))
    timed("models, the range (training included)", lambda: materialize(("models",), first, last))
    for group in ("scores", "worklist", "monitoring"):
        timed(f"{group}, the last three weeks", lambda group=group: materialize((group,), last - dt.timedelta(days=20), last))
    timed("all of it once more, as one range run (nothing to train)", lambda: materialize(EVERYTHING, first, last))
    replayer = Replayer(root / "later", root / "data" / "landing", END)
    for n in range(NEW_DAYS):
        day = END + dt.timedelta(days=n)
        replayer.land_day(day)
        time.sleep(1.5)
        timed(f"new day {n + 1} from file to worklist, engine warm", lambda day=day: in_a_process(day))
    info = spark.engine.info()
    assert info is not None
    heap = psutil.Process(info.jvm_pid).memory_info().rss / 2**30
    rows.append(("memory of the engine (resident)", f"{heap:.1f} GiB", ""))
    files = [path for path in Path(lake.root).rglob("*.parquet")]
    rows.append(("files in the lake", f"{len(files):,}, {sum(p.stat().st_size for p in files) / 2**20:,.0f} MiB", ""))
    spark.close()
    spark.engine.stop()
    day = END + dt.timedelta(days=NEW_DAYS)
    replayer.land_day(day)
    time.sleep(1.5)
    timed("a new day from file to worklist, engine cold", lambda: in_a_process(day))
    spark.engine.stop()
    return rows


if __name__ == "__main__":
    main()
