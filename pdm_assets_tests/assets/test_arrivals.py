"""Whatever the order in which files come, are corrected and taken back, the tables end as if the last files had come alone.

Each example lands a small plant's files in some order and lets the landing sensor's plan ask for the runs. In between it
must rewrite the affected days only; at the end each table must hold, row for row, what a load into an empty lake gives.
"""

import datetime as dt
import itertools
import os
import random
import shutil
import time
from pathlib import Path

import pytest

from pdm_assets.automation.plan import mark_days, next_request
from pdm_assets.schemas.raw import QUARANTINE_TABLES, RAW_TABLES, TELEMETRY
from pdm_assets.schemas.tables import TABLES
from pdm_assets_tests.builders import utc
from pdm_assets_tests.plant import HEADERS, Plant, failure

DAYS = [dt.date(2015, 1, 1) + dt.timedelta(days=n) for n in range(6)]
NOW = utc("2015-01-08 12:00")  # after the horizon of them all
EVENTS = [table.key for table in RAW_TABLES if table.name != "machines"]
KEYS = [table.key for table in (*RAW_TABLES, *QUARANTINE_TABLES)] + ["features/observations", "labels/component_failures"]
CLOCK = itertools.count(int(time.time()) - 100_000)


def hours(on, first, last, volt=170, machines=(1, 2)):
    return [f"{on} {hour:02d}:00:00,{machine},{volt + hour},400,100,40" for machine in machines for hour in range(first, last)]


# name -> days of its rows and the rows
PARTS = {
    f"telemetry/{on}-{first:02d}.csv": ([on], hours(on, first, first + 12, machines=(1, 2, 3) if on >= DAYS[3] else (1, 2)))
    for on in DAYS
    for first in (0, 12)
}
LAST_FILES = {
    "machines/machines.csv": (DAYS[:3], ["1,model3,18", "2,model3,18"]),
    f"machines/machines-{DAYS[3]}.csv": (DAYS[3:], ["1,model3,18", "2,model3,18", "3,model1,2", "4,model1,-1"]),
    **PARTS,
    "telemetry/bad.csv": (
        [DAYS[1]],
        [f"{DAYS[1]} 30:00:00,1,1,1,1,1", *hours(DAYS[1], 6, 7, volt=-500), f"{DAYS[1]},9,1,1,1,1"],
    ),
    "telemetry/other.csv": ([DAYS[2], DAYS[3]], [*hours(DAYS[2], 20, 24, volt=200), *hours(DAYS[3], 0, 4, volt=200)]),
    "errors/errors.csv": ([DAYS[1], DAYS[4]], [f"{on} 05:00:00,1,error1" for on in (DAYS[1], DAYS[4])]),
    "errors/bad.csv": ([DAYS[2]], [f"{DAYS[2]} 05:00:00,2,error9", f"{DAYS[2]} 06:00:00,2,error2"]),
    "maintenance/maint.csv": ([DAYS[0], DAYS[2]], ["2014-11-30 06:00:00,1,comp1", f"{DAYS[2]} 06:00:00,2,comp2"]),
    "failures/failures.csv": ([DAYS[3]], [f"{DAYS[3]} 06:00:00,2,comp2"]),
}
# what was said first of some files, and put right later under the same name
DRAFTS = {
    next(iter(PARTS)): ([DAYS[0], DAYS[4]], [*hours(DAYS[0], 0, 12, volt=150), *hours(DAYS[4], 3, 5, volt=150)]),
    f"telemetry/{DAYS[3]}-12.csv": ([DAYS[3]], hours(DAYS[3], 12, 15, volt=-900)),
    "failures/failures.csv": ([DAYS[1]], [f"{DAYS[1]} 06:00:00,1,comp1"]),
    "errors/errors.csv": ([DAYS[0]], [f"{DAYS[0]} 05:00:00,1,error3"]),
}
# what was taken back
STRAYS = {
    "telemetry/stray.csv": ([DAYS[1], DAYS[5]], [*hours(DAYS[1], 0, 3, volt=300), *hours(DAYS[5], 23, 24, volt=300)]),
    "failures/stray.csv": ([DAYS[2]], [f"{DAYS[2]} 20:00:00,1,comp4"]),
    "maintenance/stray.csv": ([DAYS[4]], [f"{DAYS[4]} 20:00:00,1,comp4", f"{DAYS[4]} 20:00:00,1,comp7"]),
    "machines/machines-2015-01-02.csv": (DAYS[1:3], ["1,model4,18"]),
}


def arrivals(rng, batches):
    """Batches of (file, its days and rows or None where it is taken away), in a random order that ends with the last files."""
    files = dict(LAST_FILES)
    if rng.random() < 0.3:
        del files["machines/machines.csv"]  # rows of the days before the list are then rows of unknown machines
    order = [[(name, content)] for name, content in files.items()]
    order += [[(name, content), (name, None)] for name, content in STRAYS.items()]
    for events in order:
        name = events[0][0]
        if name in DRAFTS:
            events.insert(0, (name, DRAFTS[name]))
        if rng.random() < 0.1:
            events.append(events[-1])  # delivered again, or taken back twice
    # one event of one file after the other, the events of a file in their order
    mixed = [events for events in order for _ in events]
    rng.shuffle(mixed)
    left = {id(events): iter(events) for events in order}
    sequence = [next(left[id(events)]) for events in mixed]
    cuts = sorted(rng.sample(range(1, len(sequence)), batches - 1))
    return [sequence[first:last] for first, last in itertools.pairwise([0, *cuts, len(sequence)])]


@pytest.fixture(scope="module")
def empty(tmp_path_factory, engine, spark):
    """The tables without rows: to copy them is quicker than to make them."""
    plant = Plant(tmp_path_factory.mktemp("empty"), engine)
    for key in KEYS:
        plant.lake.ensure(TABLES[key])
    return Path(plant.lake.root)


class Sensor:
    """The landing sensor's plan for a plant, run as it asks."""

    def __init__(self, root, engine, empty):
        shutil.copytree(empty, root / "lake")
        self.plant, self.seen, self.asked = Plant(root, engine), {}, set()
        self.zone = self.plant.resources["landing"].zone

    def put(self, name, content):
        path = self.plant.landing / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.unlink(missing_ok=True)
            if not any(path.parent.iterdir()):  # the last of a table: that it is meant must be said
                shutil.rmtree(self.plant.landing.parent / "staging" / path.parent.name, ignore_errors=True)
            return
        path.write_text("\n".join([HEADERS[path.parent.name], *content[1]]) + "\n")
        os.utime(path, (next(CLOCK),) * 2)

    def run(self):
        """What is asked for until nothing is new; the days of it."""
        days = set()
        while True:
            touched = {key: self.zone.days_touched(key) for key in EVENTS}
            marks = mark_days(touched, self.zone.machine_lists(), NOW, lambda on: DAYS[0] <= on <= NOW.date())
            found = next_request(marks, self.seen, lookback_days=2, horizon_days=2)
            if found is None:
                return days
            request, self.seen = found
            result = self.plant.run(request.first.isoformat(), request.last.isoformat())
            assert result.success or "no machine list has landed" in failure(result)
            self.asked.add((request.first, request.last + dt.timedelta(days=1)))
            days |= {request.first + dt.timedelta(days=n) for n in range(request.days)}

    def files(self):
        """By table and day, the data files of the lake."""
        found = {}
        for key in KEYS:
            its = self.plant.lake.delta(TABLES[key]).get_add_actions(flatten=True)
            for path, on in zip(its["path"].to_pylist(), its["partition.date"].to_pylist(), strict=True):
                found.setdefault((key, on), set()).add(path)
        return found

    def content(self):
        return {key: sorted(map(str, self.plant.lake.rows(TABLES[key]))) for key in KEYS}

    def heard(self):
        """First day with rows, and last with telemetry."""
        days = [on for key in EVENTS for on in self.zone.days_touched(key)]
        return min(days, default=DAYS[-1]), max(self.zone.days_touched(TELEMETRY.key), default=DAYS[0])


def affected(batch, before, after):
    """The days that may be made again: those of what came and went, and those that see them or hear of them."""
    days = set()
    for name, touched in batch:
        # two days of look-back, then two on which an alert of these may be open; the others reach to the end
        reach = 4 if name.startswith(("telemetry", "errors")) else 10
        days |= {on + dt.timedelta(days=n) for on in touched for n in range(reach + 1)}
    # that nothing happened on a day is known from the first day with rows to the last with telemetry
    (first, last), (first_then, last_then) = before, after
    span = (DAYS[0] + dt.timedelta(days=n) for n in range(10))
    days |= {on for on in span if min(first, first_then) <= on <= max(first, first_then) or on > min(last, last_then)}
    return days


def written(plant, key):
    """The ranges of days that a table's versions replaced, by its history."""
    ranges = set()
    for version in plant.lake.delta(TABLES[key]).history():
        if version["operation"] == "WRITE":
            first, end = version["operationParameters"]["predicate"].split("'")[1::2]  # date >= '...' AND date < '...'
            ranges.add((dt.date.fromisoformat(first), dt.date.fromisoformat(end)))
    return ranges


@pytest.mark.parametrize(
    ("seed", "batches"),
    [pytest.param(2, 2, marks=pytest.mark.slow), *(pytest.param(seed, seed, marks=pytest.mark.long) for seed in range(4, 14))],
)
def test_files_in_any_order_end_in_the_same_tables_and_rewrite_the_affected_days_only(tmp_path, engine, empty, seed, batches):
    sensor, known, lying = Sensor(tmp_path / "plant", engine, empty), set(), {}
    for batch in arrivals(random.Random(seed), batches):
        before, files = sensor.heard(), sensor.files()
        touched = []
        for name, content in batch:
            sensor.put(name, content)
            days = content[0] if content else []
            touched.append((name, [*lying.get(name, []), *days]))
            lying[name] = days
        asked = sensor.run()
        assert asked <= affected(touched, before, sensor.heard())
        now = sensor.files()
        assert {place for place in files.keys() | now.keys() if files.get(place) != now.get(place)} <= {
            (key, on) for key in KEYS for on in asked
        }
        known |= asked
    assert known >= set(DAYS)
    assert sensor.run() == set()
    for key in KEYS:
        assert written(sensor.plant, key) <= sensor.asked

    clean = Sensor(tmp_path / "clean", engine, empty)
    shutil.copytree(sensor.plant.landing, clean.plant.landing)
    clean.run()
    assert len(clean.asked) == 1
    content = sensor.content()
    assert all(content[key] for key in ("raw/telemetry", "quarantine/telemetry", *KEYS[-2:]))
    assert clean.content() == content


def test_telemetry_that_came_before_any_list_is_taken_when_the_first_list_comes_though_it_is_of_a_later_day(
    tmp_path, engine, empty
):
    sensor = Sensor(tmp_path, engine, empty)
    sensor.put("telemetry/early.csv", (None, hours(DAYS[0], 0, 2, machines=(1,))))
    assert sensor.run() == {DAYS[0]}
    assert sensor.plant.lake.rows(TABLES["quarantine/telemetry"]) == []
    sensor.put(f"machines/machines-{DAYS[3]}.csv", LAST_FILES[f"machines/machines-{DAYS[3]}.csv"])
    assert sensor.run() == {DAYS[0]}
    reasons = [row["reason"] for row in sensor.plant.lake.rows(TABLES["quarantine/telemetry"])]
    assert reasons == ["machine 1 is not in the fleet that day"] * 2
