"""Kill -9 trials: sixty days of a small plant land in pieces while backfills run, and parts of the platform are killed.

`make chaos` runs the long form and writes docs/reliability-trials.md; test_kill_trials.py is the short one.
"""

import argparse
import datetime as dt
import itertools
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from pdm_assets.resources.landing import land
from pdm_assets.schemas.tables import TABLES
from pdm_assets.simulator.replay import Replayer
from pdm_assets_tests.chaos.supervised import VICTIMS, Supervised
from pdm_assets_tests.journeys.daemon import UNDER_WAY
from pdm_assets_tests.journeys.history import FIRST, SETTINGS, fleet

HISTORY_DAYS, DAYS = 28, 60
KILLS_A_PIECE = 2
PATIENCE_S = 3600.0  # of one load: a machine that others use too may take minutes for what takes seconds alone
SECONDS_BEFORE_A_KILL = 15.0
SECONDS_OF_A_RUN = 2.0
LOAD = {
    **SETTINGS,
    "PDM_LAST_DAY": (FIRST + dt.timedelta(days=DAYS - 1)).isoformat(),
    # What the retraining sensor finds depends on when it looks: models are trained when they are due, and by nothing else.
    "PDM_RETRAIN_COOLDOWN_DAYS": "1000",
}
# What each writing makes anew, and names that hold the run that trained.
MADE_ANEW = {"scored_at", "features_version", "trained_at", "decided_at", "decided_by", "model_version", "card", "detail"}
SAME = 1e-9
OF_A_RUN = r"\b[0-9a-f]{8}\b"  # how a model's name ends
BACKFILLED = ("raw", "quarantine", "features", "labels", "scores")


@dataclass(frozen=True)
class Trial:
    """What was killed when, and what became of it."""

    victim: str
    days: str
    after_s: float
    while_: str
    recovered_s: float
    failed_runs: int


@contextmanager
def plant(data: Path) -> Iterator[Supervised]:
    """A platform that answers."""
    data.mkdir(parents=True, exist_ok=True)
    with Supervised(data, **LOAD) as it:
        until(it, it.answers, PATIENCE_S, "the platform to answer")
        yield it


def until(it: Supervised, condition, timeout: float, what: str) -> float:
    """Wait for a condition, supervising; the seconds that it took."""
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        assert waited < timeout, f"{what}: not within {timeout:.0f} s. {state(it)}"
        it.watch()
        time.sleep(0.5)
    return time.monotonic() - began


def state(it: Supervised) -> str:
    """What a person would look at first."""
    with suppress(Exception):
        runs = [(r["runId"][:8], r["status"], r["tags"].get("landing/days")) for r in it.runs()[:8]]
        return f"Runs: {runs}. Last tick: {it.last_tick()}. Log: {(it.data / 'dev.log').read_text()[-1500:]}"
    return f"It does not answer. Log: {(it.data / 'dev.log').read_text()[-3000:]}"


def pieces(days: int, count: int) -> list[tuple[dt.date, dt.date]]:
    """The days after the history, cut into pieces [start, end)."""
    edges = [HISTORY_DAYS + round((days - HISTORY_DAYS) * n / count) for n in range(count + 1)]
    return [(FIRST + dt.timedelta(days=a), FIRST + dt.timedelta(days=b)) for a, b in itertools.pairwise(edges)]


class Load:
    """The days landing, piece by piece, each with a backfill of days that landed before it."""

    def __init__(self, it: Supervised, files: Path, count: int) -> None:
        self.it, self.files = it, files
        self.replayer = Replayer(files / "whole", it.data / "landing", FIRST + dt.timedelta(days=HISTORY_DAYS))
        self.pieces = [(FIRST, FIRST + dt.timedelta(days=HISTORY_DAYS)), *pieces(DAYS, count - 1)]
        self.backfills: list[str] = []
        self.landed_at = 0.0

    def bring(self, number: int) -> str:
        """Land a piece and launch a backfill of the days before; the days of the piece."""
        start, end = self.pieces[number]
        self.landed_at = time.time()
        if number == 0:
            land(self.files / "history", self.it.data / "landing")
            unscored = [group for group in BACKFILLED if group != "scores"]  # there is no model before the sensor's run
            self.backfills.append(self.it.backfill(start, end - dt.timedelta(days=1), unscored))
        else:
            self.backfills.append(self.it.backfill(start - dt.timedelta(days=6), start - dt.timedelta(days=1), BACKFILLED))
            day = start
            while day < end:
                self.replayer.land_day(day)
                day += dt.timedelta(days=1)
        self.landed_at = time.time()
        return f"{start}..{end - dt.timedelta(days=1)}"

    def is_done(self) -> bool:
        """The platform is quiet and every backfill is through. One that failed ends the load at once: it stays failed."""
        statuses: list[str] = []
        with suppress(OSError, AssertionError, KeyError, TypeError, ValueError):
            statuses = [self.it.backfill_status(each) for each in self.backfills]
        assert not {"COMPLETED_FAILED", "FAILING", "FAILED"} & set(statuses), f"a backfill failed. {state(self.it)}"
        is_through = len(statuses) == len(self.backfills) and all(status.startswith("COMPLETED") for status in statuses)
        return is_through and self.it.is_quiet(self.landed_at)

    def finish(self) -> float:
        """Wait until all is done."""
        return until(self.it, self.is_done, PATIENCE_S, "the platform to finish by itself")

    def is_busy(self) -> bool:
        with suppress(OSError, AssertionError):
            return any(run["status"] == "STARTED" for run in self.it.runs())
        return False


def trial(load: Load, number: int, victims: Sequence[str], dice: random.Random) -> list[Trial]:
    """Land a piece, kill victims at some moments of its load, and wait until all is done without a hand laid on it."""
    before = {run["runId"] for run in load.it.runs() if run["status"] == "FAILURE"}
    days = load.bring(number)
    kills = [kill(load, victim, dice) for victim in victims]
    recovered = load.finish()
    failed = {run["runId"] for run in load.it.runs() if run["status"] == "FAILURE"} - before
    check_logs(load.it.data)
    return [Trial(victim, days, *each, recovered, len(failed)) for victim, each in zip(victims, kills, strict=True)]


def kill(load: Load, victim: str, dice: random.Random) -> tuple[float, str]:
    """Kill a victim at some moment; how long after the landing that was, and what was under way."""
    # The daemon and the servers may die before a run has begun; a run's process is there for seconds only.
    if victim not in ("daemon", "web server", "code server", "code server's proxy"):
        until(load.it, load.is_busy, PATIENCE_S, "a run")
    waits = dice.uniform(0, SECONDS_OF_A_RUN if victim == "run worker" else SECONDS_BEFORE_A_KILL)
    began = time.monotonic()
    while time.monotonic() - began < waits:
        load.it.watch()
        time.sleep(0.2)
    what = under_way(load.it)
    assert load.it.kill(victim), f"no {victim} to kill. {state(load.it)}"
    return time.time() - load.landed_at, what


def under_way(it: Supervised) -> str:
    """The runs under way and the asset that each is at."""
    with suppress(OSError, AssertionError, KeyError, TypeError):
        names = []
        for run in it.runs():
            if run["status"] in UNDER_WAY:
                steps = it.graphql(
                    "query($id: ID!) { runOrError(runId: $id) { ... on Run { stepStats { stepKey status } } } }",
                    id=run["runId"],
                )["runOrError"]["stepStats"]
                at = [s["stepKey"].replace("__", "/") for s in steps if s["status"] == "IN_PROGRESS"]
                kind = "backfill" if "dagster/backfill" in run["tags"] else "sensor"
                names.append(f"{kind}: {at[0] if at else run['status'].lower()}")
        return ", ".join(names) or "no run"
    return "?"


def content(data: Path) -> dict[str, pa.Table]:
    """Every table without what each writing makes anew, rows in one order."""
    tables = {}
    for folder in sorted(path.parent for path in (data / "lake").rglob("_delta_log")):
        key = folder.relative_to(data / "lake").as_posix()
        rows = DeltaTable(str(folder)).to_pyarrow_table()
        if key == "models/registry":  # a version that nobody decided on is none
            decided = DeltaTable(str(data / "lake" / "models" / "decisions")).to_pyarrow_table()["model_version"]
            rows = rows.filter(pc.is_in(rows["model_version"], decided.combine_chunks()))
        if key == "models/decisions":  # the texts name the incumbent
            for name in ("reason", "conditions"):
                nameless = pc.replace_substring_regex(rows[name], OF_A_RUN, "")
                rows = rows.set_column(rows.column_names.index(name), name, nameless)
        rows = rows.select([name for name in rows.column_names if name not in MADE_ANEW])
        exact, inexact = [], []
        for field in rows.schema:
            (inexact if pa.types.is_floating(field.type) else exact).append((field.name, "ascending"))
        tables[key] = rows.sort_by(exact + inexact)
    return tables


def differences(found: dict[str, pa.Table], expected: dict[str, pa.Table]) -> list[str]:
    """Tables that are not the same, in words."""
    told = [f"{key} is missing" for key in expected.keys() - found.keys()]
    told += [f"{key} is there" for key in found.keys() - expected.keys()]
    for key in expected.keys() & found.keys():
        if found[key].num_rows != expected[key].num_rows:
            told.append(f"{key}: {found[key].num_rows} rows instead of {expected[key].num_rows}")
        elif columns := [n for n in expected[key].column_names if not is_same(found[key][n], expected[key][n])]:
            told.append(f"{key}: other values in {columns}")
    return sorted(told)


def is_same(found: pa.ChunkedArray, expected: pa.ChunkedArray) -> bool:
    """Equal, but for the last digits of floating point numbers: a sum depends on the range that a run takes."""
    if not pa.types.is_floating(expected.type) or found.type != expected.type or found.is_null() != expected.is_null():
        return found.equals(expected)
    return np.allclose(found.to_numpy(), expected.to_numpy(), rtol=SAME, atol=SAME, equal_nan=True)


def check_logs(data: Path) -> None:
    """Each table's log has every version from 0 on, once, and can be read; no day has more than one file."""
    for log in sorted((data / "lake").rglob("_delta_log")):
        versions = sorted(int(path.stem) for path in log.glob("*.json"))
        assert versions == list(range(len(versions))), f"{log}: versions {versions}"
        key = log.parent.relative_to(data / "lake").as_posix()
        if key in TABLES and TABLES[key].daily:
            days = DeltaTable(str(log.parent)).get_add_actions(flatten=True).column("partition.date").to_pylist()
            assert len(days) == len(set(days)), f"{key} has two files of one day"


def undisturbed(root: Path, files: Path, count: int) -> dict[str, pa.Table]:
    """What the tables hold when nothing is killed."""
    with plant(root) as it:
        load = Load(it, files, count)
        for number in range(count):
            load.bring(number)
            load.finish()
        check_logs(it.data)
        assert not [run for run in it.runs() if run["status"] == "FAILURE"], state(it)
    return content(root)


def simulate_files(root: Path) -> Path:
    fleet(root / "history", FIRST + dt.timedelta(days=HISTORY_DAYS))
    fleet(root / "whole", FIRST + dt.timedelta(days=DAYS))
    return root


def disturbed(root: Path, files: Path, victims: Sequence[str], dice: random.Random) -> Iterator[Trial]:
    """One load, two killed in each of its pieces."""
    turns = [victims[n : n + KILLS_A_PIECE] for n in range(0, len(victims), KILLS_A_PIECE)]
    with plant(root) as it:
        load = Load(it, files, len(turns))
        for number, turn in enumerate(turns):
            yield from trial(load, number, turn, dice)


def main() -> None:
    """Run trials, print each as it ends, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=28)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--victims", nargs="*", default=None, help="parts to kill, in this order, instead of all")
    parser.add_argument("--data", type=Path, default=None, help="folder to work in, kept; by default a temporary one")
    parser.add_argument("--out", type=Path, default=None, help="file for the table")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was started is ended
    with tempfile.TemporaryDirectory(prefix="pdm-chaos-") as temporary:
        run_trials(options, options.data or Path(temporary))


def run_trials(options: argparse.Namespace, root: Path) -> None:
    dice = random.Random(options.seed)
    files = simulate_files(root / "fleet")
    began = time.monotonic()
    kept = root / "undisturbed.done"  # a folder that is kept need not load it again
    # In as many pieces: the last digits of sums depend on the range that a run takes.
    count = -(-len(options.victims or VICTIMS) // KILLS_A_PIECE)
    expected = content(root / "undisturbed") if kept.exists() else undisturbed(root / "undisturbed", files, count)
    kept.touch()
    print(f"undisturbed: {time.monotonic() - began:.0f} s, {sum(t.num_rows for t in expected.values())} rows", flush=True)
    done: list[Trial] = []
    lost: list[str] = []
    for number in range(-(-options.trials // len(VICTIMS))):
        victims = options.victims or dice.sample(VICTIMS, len(VICTIMS))
        folder = root / f"load-{number + 1}"
        shutil.rmtree(folder, ignore_errors=True)
        try:
            for each in disturbed(folder, files, victims, dice):
                done.append(each)
                print(line(len(done), each), flush=True)
            told = differences(content(folder), expected)
        except AssertionError as error:  # this load is lost; the next ones are trials too
            print(error, flush=True)
            told = [f"load {number + 1} did not get through trial {len(done) + 1}: {str(error)[:200]}"]
        print(f"load {number + 1}: {told or 'as undisturbed'}", flush=True)
        lost += told
    if options.out:
        options.out.write_text(report(done, lost, expected, options.seed))
    assert not lost, lost


def line(number: int, it: Trial) -> str:
    return (
        f"| {number} | {it.victim} | {it.days} | {it.after_s:.1f} s | {it.while_} | {it.recovered_s:.0f} s | {it.failed_runs} |"
    )


def report(done: list[Trial], lost: list[str], expected: dict[str, pa.Table], seed: int) -> str:
    head = [
        f"{len(done)} trials, seed {seed}. Tables that differ from the undisturbed load's {len(expected)} tables and "
        f"{sum(t.num_rows for t in expected.values()):,} rows: {'; '.join(lost) or 'none'}.",
        "",
        "| trial | killed | days landing | after they landed | while | all done after | runs that failed |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    return "\n".join([*head, *(line(n, each) for n, each in enumerate(done, 1))]) + "\n"


if __name__ == "__main__":
    main()
