"""`make bytes`: what a new day adds on disk, by folder, as a table in benchmarks/bytes.md.

Apart from `make bench`, for bytes do not depend on how busy the machine is, nor on how long the history is: forty days
with a model of short windows do. New days are then landed one by one, and folders compared before and after each.
"""

import argparse
import datetime as dt
import gzip
import os
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path

from run import EVERYTHING, in_a_process, materialize

RESULTS = Path(__file__).parent / "bytes.md"
END = dt.date(2026, 1, 1)
DAYS = 40
NEW_DAYS = 2
WINDOWS = {"PDM_TRAIN_DAYS": "14", "PDM_CALIBRATION_DAYS": "5", "PDM_TEST_DAYS": "5"}  # a first model on day 33
BESIDE_THE_LAKE = ("landing", "staging", "reports", "dagster")
COMPRESSED = "landing, if it were .csv.gz"


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machines", type=int, default=100)
    machines = parser.parse_args().machines
    root = Path(tempfile.mkdtemp(prefix="pdm-bytes-"))
    try:
        rows = _measure(root, machines)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    head = f"## {machines} machines\n\n{DAYS} days, then {NEW_DAYS} new ones, one file a table and day, "
    head += (
        f"{dt.datetime.now(dt.UTC):%Y-%m-%d}: `make bytes MACHINES={machines}`\n\n| a new day adds | bytes |\n| --- | --- |\n"
    )
    table = head + "".join(f"| {what} | {size:,} |\n" for what, size in rows.items())
    print(table)
    before = RESULTS.read_text() if RESULTS.exists() else "# Bytes on disk\n"
    kept = [part for part in before.split("\n## ") if not part.startswith(f"{machines} machines\n")]
    RESULTS.write_text("\n## ".join(kept).rstrip() + "\n\n" + table)


def on_disk(data: Path) -> Counter[str]:
    """Bytes below a data root: of the lake by group, its logs apart, and of the folders beside it."""
    found: Counter[str] = Counter()
    for folder in BESIDE_THE_LAKE:
        found[folder] = _size(data / folder)
    for path in (data / "lake").rglob("*"):
        if path.is_file():
            inside = path.relative_to(data / "lake").parts
            found["Delta logs" if "_delta_log" in inside else f"lake/{inside[0]}"] += path.stat().st_size
    return found


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _measure(root: Path, machines: int) -> dict[str, int]:
    first, data = END - dt.timedelta(days=DAYS), root / "data"
    os.environ.update(
        WINDOWS,
        PDM_DATA=str(data),
        PDM_FIRST_DAY=first.isoformat(),
        PDM_LAST_DAY=(END + dt.timedelta(days=NEW_DAYS)).isoformat(),
        PDM_RETRAIN_EVERY_DAYS="90",  # no training falls due on a new day
    )
    from pdm_assets.demo import make_home
    from pdm_assets.resources.landing import land
    from pdm_assets.simulator.writer import simulate

    os.environ["DAGSTER_HOME"] = str(make_home(data))
    end_at = dt.datetime.combine(END, dt.time(), dt.UTC)
    simulate(root / "fleet", machines=machines, days=DAYS, end=end_at, seed=1)
    simulate(root / "later", machines=machines, days=DAYS + NEW_DAYS, end=end_at + dt.timedelta(days=NEW_DAYS), seed=1)
    land(root / "fleet", data / "landing")
    time.sleep(1.5)  # a file is taken once it has been still for a second
    return _new_days(root, data, first)


def _new_days(root: Path, data: Path, first: dt.date) -> dict[str, int]:
    from pdm_assets.simulator.replay import Replayer

    print(materialize(EVERYTHING, first, END - dt.timedelta(days=1)), flush=True)
    models = [folder for folder in (data / "models").iterdir() if (folder / "card.json").exists()]
    replayer = Replayer(root / "later", data / "landing", END)
    before, compressed = on_disk(data), 0
    for n in range(NEW_DAYS):
        landed = replayer.land_day(END + dt.timedelta(days=n))
        compressed += sum(len(gzip.compress(path.read_bytes())) for path in landed)
        time.sleep(1.5)
        print(in_a_process(END + dt.timedelta(days=n)), flush=True)
    after = on_disk(data)
    assert after["lake/scores"] > before["lake/scores"], "no model was in force: nothing was scored"
    rows = {what: round((after[what] - before[what]) / NEW_DAYS) for what in sorted(after)}
    return {**rows, COMPRESSED: compressed // NEW_DAYS, "a model's folder, by training": sum(map(_size, models)) // len(models)}


if __name__ == "__main__":
    main()
