"""A year of days replayed at speed through the landing sensor, on one engine; `make soak` writes docs/reliability-soak.md.

Memory and open files of every process that lives on are read as the days go by: a line through the second half of them must not
rise by more than GROWTH of what they are. At the end the job `upkeep` deletes what is older than its retention.
"""

import argparse
import datetime as dt
import signal
import statistics
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from dagster import DagsterInstance

from pdm_assets.resources.landing import land
from pdm_assets.resources.run_history import forget_runs
from pdm_assets.simulator.replay import Replayer
from pdm_assets_tests.chaos.supervised import ENGINE_PARTS, PARTS, Supervised
from pdm_assets_tests.chaos.trials import PATIENCE_S, check_logs, until
from pdm_assets_tests.journeys.history import FIRST, SETTINGS, days_with_rows, fleet

HISTORY_DAYS, DAYS = 28, 365
GROWTH = 0.10
LIVING = [part for part in (*PARTS, *ENGINE_PARTS) if part != "run worker"]


@dataclass(frozen=True)
class Reading:
    """What a process held at some time."""

    days: int
    megabytes: float
    files: int


def read(it: Supervised, days: int, readings: dict[str, list[Reading]]) -> None:
    """Look at every process that is to live on; a process that died meanwhile is told by the count of starts."""
    for part in LIVING:
        with suppress(psutil.NoSuchProcess, AttributeError):
            process = it.find(part)
            readings.setdefault(f"{part} (pid {process.pid})", []).append(
                Reading(days, process.memory_info().rss / 2**20, process.num_fds())
            )


def rise(values: list[float]) -> float:
    """By which share of their mean a straight line through values rises from the first to the last."""
    slope = statistics.linear_regression(range(len(values)), values).slope
    return slope * (len(values) - 1) / max(statistics.fmean(values), 1e-9)


def soak(root: Path, days: int, seconds_a_day: float) -> tuple[dict[str, list[Reading]], list[str]]:
    """Replay the days; the readings, and lines about what was run."""
    end = FIRST + dt.timedelta(days=HISTORY_DAYS + days)
    fleet(root / "history", FIRST + dt.timedelta(days=HISTORY_DAYS))
    fleet(root / "whole", end)
    settings = {**SETTINGS, "PDM_LAST_DAY": (end - dt.timedelta(days=1)).isoformat()}
    data, readings = root / "data", {}
    data.mkdir()
    with Supervised(data, **settings) as it:
        until(it, it.answers, PATIENCE_S, "the platform to answer")
        land(root / "history", data / "landing")
        landed_at = time.time()
        until(it, lambda: it.is_quiet(landed_at), PATIENCE_S, "the history")
        replayer = Replayer(root / "whole", data / "landing", FIRST + dt.timedelta(days=HISTORY_DAYS))
        began = time.monotonic()
        for number in range(days):
            replayer.land_day(FIRST + dt.timedelta(days=HISTORY_DAYS + number))
            while time.monotonic() < began + (number + 1) * seconds_a_day:
                it.watch()
                time.sleep(0.2)
            if number % 5 == 4:
                read(it, number + 1, readings)
                print(
                    f"{number + 1} days: " + ", ".join(f"{p}: {r[-1].megabytes:.0f} MB" for p, r in readings.items()),
                    flush=True,
                )
        landed_at = time.time()
        until(it, lambda: it.is_quiet(landed_at), PATIENCE_S, "the last day")
        read(it, days, readings)
        took = time.monotonic() - began
        runs = it.runs()
        check_logs(data)
        scored = days_with_rows(data, "scores/component_risk")
        missing = [n for n in range(days) if FIRST + dt.timedelta(days=HISTORY_DAYS + n) not in scored]
        told = [
            f"{days} days of 12 machines, one landed every {seconds_a_day:g} s, took {took:.0f} s and {len(runs)} runs, "
            f"{sum(run['status'] == 'FAILURE' for run in runs)} of which failed; {it.starts} start of the platform; "
            f"{len(missing)} days without scores.",
        ]
    told.append(forgotten(data / "dagster"))
    return readings, told


def forgotten(home: Path) -> str:
    """What upkeep deletes of the history of runs, as if they were all old."""
    with DagsterInstance.from_config(str(home)) as instance:
        before, runs = size(home), instance.get_runs_count()
        materialized = {key: instance.get_materialized_partitions(key) for key in instance.all_asset_keys()}
        count = forget_runs(instance, dt.datetime.now(dt.UTC) + dt.timedelta(days=1)).runs
        assert {key: instance.get_materialized_partitions(key) for key in materialized} == materialized
        after = size(home)
    return f"Were they older than the retention, upkeep would delete {count} of {runs} runs: {before:.0f} MB to {after:.0f} MB."


def size(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def table(readings: dict[str, list[Reading]]) -> tuple[list[str], list[str]]:
    """The lines of the report, and what grew."""
    lines = [
        "| process | MB after half the days | at the end | rise | open files after half | at the end | rise |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    grew = []
    for part, all_of_it in readings.items():
        its = all_of_it[len(all_of_it) // 2 :]
        if len(its) < 3:
            grew.append(f"{part}: it was there for {len(all_of_it)} readings only")
            continue
        memory, files = rise([r.megabytes for r in its]), rise([float(r.files) for r in its])
        lines.append(
            f"| {part.split(' (')[0]} | {its[0].megabytes:.0f} | {its[-1].megabytes:.0f} | {memory:+.1%} "
            f"| {its[0].files} | {its[-1].files} | {files:+.1%} |"
        )
        grew += [f"{part}: {what} {by:+.1%}" for what, by in (("memory", memory), ("open files", files)) if by > GROWTH]
    return lines, grew


def main() -> None:
    """Soak, print the readings, write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=DAYS)
    parser.add_argument("--seconds-a-day", type=float, default=5.0)
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was started is ended
    with tempfile.TemporaryDirectory(prefix="pdm-soak-") as root:
        readings, told = soak(Path(root), options.days, options.seconds_a_day)
    lines, grew = table(readings)
    text = "\n".join([*told, "", *lines, "", f"Grew by more than {GROWTH:.0%}: {'; '.join(grew) or 'nothing'}."]) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text)
    assert not grew, grew


if __name__ == "__main__":
    main()
